package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

const (
	// bulkTargets is how many jobs and runs one action is about at the most; the rest needs another one.
	bulkTargets = 500
	// bulkLooked is how many failures a preview goes through at the most.
	bulkLooked = 10_000
	// bulkNamed is how many instances a preview names, bulkAtOnce how many jobs or runs are changed side by side.
	bulkNamed  = 20
	bulkAtOnce = 8
	// maxBulkBody is enough for a form with the IDs of that many.
	maxBulkBody = 64 << 10
	bulkPath    = "/bulk"
)

// bulkAction is what is done to many jobs and runs at a time.
type bulkAction string

const (
	bulkCancel bulkAction = "cancel"
	bulkRetry  bulkAction = "retry"
)

// bulkRoutes are the pages about what is done to many at a time.
func (s *site) bulkRoutes(e *echo.Echo, operator echo.MiddlewareFunc) {
	e.GET(bulkPath, s.bulk, operator)
	e.POST(bulkPath, s.doBulk, operator, s.form("action", "state", "code", "target", "reason"))
}

// bulkPage asks what is to be done, and shows what it would be done to.
type bulkPage struct {
	page
	// Tenant to Until are the filters as they were typed.
	Action                                         bulkAction
	Tenant, Run, Label, Code, Driver, Since, Until string
	Choices                                        []retryChoice // states of a retry; without numbers

	Asked   bool // there is a filter, so a preview
	Targets []bulkTarget
	Total   int      // instances
	Named   []string // the first ones
	More    bool     // there may be more targets
}

// bulkTarget is a job or a run with what would be changed of it.
type bulkTarget struct {
	Kind, ID, Name, Tenant string
	Count                  int
	revision               int64
	named                  []string
}

// Value names the target as it was seen: a retry of what has changed since is refused.
func (t bulkTarget) Value() string { return fmt.Sprintf("%s %s %d", t.Kind, t.ID, t.revision) }

// Verb is the action for people.
func (p bulkPage) Verb() string {
	if p.Action == bulkCancel {
		return "Cancel"
	}
	return "Reset again"
}

// States are those that were chosen.
func (p bulkPage) States() (states []tasks.ItemState) {
	for _, c := range p.Choices {
		if c.Chosen {
			states = append(states, c.State)
		}
	}
	return states
}

// what is what a retry takes.
func (p bulkPage) what() tasks.Again {
	what := tasks.Again{States: p.States()}
	if p.Code != "" {
		what.Codes = []tasks.Code{tasks.Code(p.Code)}
	}
	return what
}

// newBulkPage reads what a request asks for. Errors: tasks.BadRequest.
func (s *site) newBulkPage(c echo.Context) (bulkPage, error) {
	field := func(name string) string { return strings.TrimSpace(c.QueryParam(name)) }
	p := bulkPage{
		page: s.page(c, "Many at a time"), Action: bulkAction(cmp.Or(field("action"), string(bulkRetry))),
		Tenant: field("tenant"), Run: field("run"), Label: field("label"), Code: field("code"), Driver: field("driver"), Since: field("since"), Until: field("until"),
		Asked: field("preview") != "",
	}
	chosen := c.QueryParams()["state"]
	for _, state := range tasks.RetryStates {
		p.Choices = append(p.Choices, retryChoice{State: state, Chosen: slices.Contains(chosen, string(state)) || chosen == nil && state == tasks.ItemFailed})
	}
	switch {
	case p.Run != "" && !tasks.ValidJobID(p.Run):
		return p, tasks.Errorf(tasks.BadRequest, "%.80q is not the ID of a run.", p.Run)
	case p.Action == bulkCancel && (p.Code != "" || p.Driver != ""):
		return p, tasks.Errorf(tasks.BadRequest, "What has not ended has no error code: a cancel is chosen by tenant, run, label and time.")
	case p.Driver != "" && p.Code == "":
		return p, tasks.Errorf(tasks.BadRequest, "A driver is chosen together with an error code.")
	case p.Asked && p.Tenant+p.Run+p.Label+p.Code+p.Since+p.Until == "":
		return p, tasks.Errorf(tasks.BadRequest, "Say of what: a tenant, a run, a label, an error code or a time.")
	}
	return p, nil
}

// bulk asks what is to be done, and once that was said, shows what it would be done to.
func (s *site) bulk(c echo.Context) error {
	p, err := s.newBulkPage(c)
	if err == nil && p.Asked {
		err = s.preview(c.Request().Context(), &p)
	}
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		p.Problem, p.Asked = e.Message, false
		return s.show(c, http.StatusBadRequest, "bulk", p)
	}
	if err != nil {
		return err
	}
	return s.show(c, http.StatusOK, "bulk", p)
}

// preview finds what an action would change.
func (s *site) preview(ctx context.Context, p *bulkPage) error {
	jobs, runs, err := s.candidates(ctx, p)
	if err != nil {
		return err
	}
	targets, named := make([]bulkTarget, 0, len(jobs)+len(runs)), 0
	for _, run := range runs {
		target, err := s.runTarget(ctx, p, run, named < bulkNamed)
		named += len(target.named)
		if err != nil {
			return err
		}
		targets = append(targets, target)
	}
	for _, job := range jobs {
		targets = append(targets, jobTarget(p, job))
	}
	for _, t := range targets {
		switch {
		case t.Count == 0:
		case len(p.Targets) == bulkTargets:
			p.More = true
		default:
			p.Targets = append(p.Targets, t)
			p.Total += t.Count
			p.Named = append(p.Named, t.named[:min(len(t.named), bulkNamed-len(p.Named))]...)
		}
	}
	return nil
}

// candidates are jobs and runs that may have something to change. Jobs of runs are changed with their runs.
func (s *site) candidates(ctx context.Context, p *bulkPage) (jobs []tasks.Job, runs []tasks.Run, err error) {
	search := tasks.JobSearch{Tenant: p.Tenant, JobFilter: tasks.JobFilter{Limit: bulkTargets}}
	if search.Labels, err = labelFilter(p.Label); err != nil {
		return nil, nil, err
	}
	if search.Since, search.Until, err = created(p.Since, p.Until); err != nil {
		return nil, nil, err
	}
	if p.Run != "" {
		run, err := s.Store.Runs.Run(ctx, p.Run)
		if errors.Is(err, tasks.RunGone) {
			return nil, nil, tasks.Errorf(tasks.BadRequest, "There is no run %s, or its record is not kept any more.", p.Run)
		}
		if err != nil || !fits(search, run) {
			return nil, nil, err
		}
		return nil, []tasks.Run{run}, nil
	}
	if p.Code != "" {
		return s.failed(ctx, p, search)
	}
	found := tasks.RunSearch{Tenant: p.Tenant, RunFilter: tasks.RunFilter{Labels: search.Labels, Since: search.Since, Until: search.Until, Limit: bulkTargets}}
	if p.Action == bulkCancel {
		jobs, moreJobs, err := s.Store.SearchOpen(ctx, search)
		if err != nil {
			return nil, nil, err
		}
		runs, moreRuns, err := s.Store.Runs.SearchOpen(ctx, found)
		p.More = moreJobs+moreRuns > 0
		return jobs, runs, err
	}
	if slices.Contains(p.States(), tasks.ItemCancelled) {
		jobs, err = s.ended(ctx, p, search)
	} else { // failures are listed by themselves, however much has ended
		jobs, _, err = s.failed(ctx, p, search)
	}
	if err != nil {
		return nil, nil, err
	}
	found.Ended = true
	runs, cursor, err := s.Store.Runs.Search(ctx, found)
	p.More = p.More || cursor != ""
	return jobs, runs, err
}

// ended are the jobs of no run that did not succeed as a whole.
func (s *site) ended(ctx context.Context, p *bulkPage, search tasks.JobSearch) (jobs []tasks.Job, err error) {
	for _, search.State = range []tasks.JobState{tasks.JobFailed, tasks.JobPartial, tasks.JobCancelled} {
		for search.Cursor = ""; ; {
			some, cursor, err := s.Store.SearchJobs(ctx, search)
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, slices.DeleteFunc(some, func(j tasks.Job) bool { return j.RunID != "" })...)
			if search.Cursor = cursor; cursor == "" {
				break
			}
			if len(jobs) > bulkTargets {
				p.More = true
				break
			}
		}
	}
	return jobs, nil
}

// fits reports whether tenant, labels and time of a search, which are those of the form, are a run's, too.
func fits(search tasks.JobSearch, run tasks.Run) bool {
	return search.Match(tasks.Job{Tenant: run.Tenant, Labels: run.Labels, CreatedAt: run.CreatedAt})
}

// failed are the jobs and runs of the newest failures: of those with a code, if there is one.
func (s *site) failed(ctx context.Context, p *bulkPage, search tasks.JobSearch) (jobs []tasks.Job, runs []tasks.Run, err error) {
	kinds, err := s.Store.FailureKinds(ctx, failuresFound, 1)
	if err != nil {
		return nil, nil, err
	}
	seen, looked := map[string]bool{}, 0
	for _, kind := range kinds {
		if p.Code != "" && kind.Code != tasks.Code(p.Code) || p.Driver != "" && kind.Driver != p.Driver {
			continue
		}
		f := tasks.FailureFilter{FailureKind: kind.FailureKind, Since: s.Store.Now().Add(-failuresFound), Limit: bulkTargets}
		for len(seen) <= bulkTargets && looked < bulkLooked {
			failures, cursor, err := s.Store.Failures(ctx, f)
			if err != nil {
				return nil, nil, err
			}
			looked += len(failures)
			for _, failure := range failures {
				id := cmp.Or(failure.Job.RunID, failure.Job.ID)
				if seen[id] || !search.Match(failure.Job) {
					continue
				}
				seen[id] = true
				if failure.Job.RunID == "" {
					jobs = append(jobs, failure.Job)
				} else if run, err := s.Store.Runs.Run(ctx, id); err == nil {
					runs = append(runs, run)
				} else if !errors.Is(err, tasks.RunGone) {
					return nil, nil, err
				}
			}
			if f.Cursor = cursor; cursor == "" {
				break
			}
		}
		p.More = p.More || len(seen) > bulkTargets || looked >= bulkLooked
	}
	return jobs, runs, nil
}

// jobTarget is what an action would change of a job.
func jobTarget(p *bulkPage, job tasks.Job) bulkTarget {
	t := bulkTarget{Kind: "job", ID: job.ID, Name: job.ID[:8] + "…", Tenant: job.Tenant, revision: job.Revision}
	for _, it := range job.Items {
		takes := p.what().Takes(it) && job.State.Final()
		if p.Action == bulkCancel {
			takes = it.State == tasks.ItemPending || it.State == tasks.ItemRetrying
		}
		if takes {
			t.Count++
			t.named = append(t.named, it.InstanceID)
		}
	}
	return t
}

// runTarget is what an action would change of a run, with the first instances if they are to be named: that takes a look
// at its jobs.
func (s *site) runTarget(ctx context.Context, p *bulkPage, run tasks.Run, named bool) (bulkTarget, error) {
	t := bulkTarget{Kind: "run", ID: run.ID, Name: cmp.Or(run.Name, run.ID[:8]+"…"), Tenant: run.Tenant, revision: run.Revision}
	f := tasks.RunInstanceFilter{States: []tasks.ItemState{tasks.ItemPending, tasks.ItemRetrying}, Limit: bulkNamed}
	switch {
	case p.Action == bulkCancel && (run.State.Final() || run.Cancelled), p.Action == bulkRetry && (!run.State.Final() || !run.Approved()):
		return t, nil
	case p.Action == bulkCancel:
		t.Count = run.Counts.Pending + run.Counts.Retrying
	case p.Code == "":
		f.States = p.States()
		t.Count = run.Counts.In(f.States)
	default:
		return s.countCode(ctx, p, run, t)
	}
	if !named || t.Count == 0 {
		return t, nil
	}
	some, _, err := s.Store.Runs.InstancesPage(ctx, run, f)
	for _, in := range some {
		t.named = append(t.named, in.Item.InstanceID)
	}
	return t, err
}

// countCode counts the instances of a run that a retry of a code takes.
func (s *site) countCode(ctx context.Context, p *bulkPage, run tasks.Run, t bulkTarget) (bulkTarget, error) {
	what := p.what()
	f := tasks.RunInstanceFilter{States: what.States, Code: tasks.Code(p.Code), Limit: rowsOnPage}
	for {
		some, cursor, err := s.Store.Runs.InstancesPage(ctx, run, f)
		if err != nil {
			return t, err
		}
		for _, in := range some {
			if t.Count++; len(t.named) < bulkNamed {
				t.named = append(t.named, in.Item.InstanceID)
			}
		}
		if f.Cursor = cursor; cursor == "" {
			return t, nil
		}
	}
}
