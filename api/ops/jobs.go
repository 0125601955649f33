package ops

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// Jobs finds job records.
type Jobs interface {
	// SearchJobs returns jobs, newest first, SearchOpen those of no run that have not ended, and how many more there are.
	SearchJobs(ctx context.Context, s tasks.JobSearch) (jobs []tasks.Job, cursor string, err error)
	SearchOpen(ctx context.Context, s tasks.JobSearch) (jobs []tasks.Job, more int, err error)
	Job(ctx context.Context, id string) (tasks.Job, error)
	InstanceJobs(ctx context.Context, instance string) ([]tasks.Job, error)
	Lock(ctx context.Context, instance string) (item string, err error)
	// Beginning returns the IDs of jobs and runs that begin with a text, among the newest 100,000, up to limit of each.
	Beginning(ctx context.Context, text string, limit int) (jobs, runs []string, err error)
}

// Records changes jobs.
type Records interface {
	Cancel(ctx context.Context, id string, actor tasks.Actor) error
	Retry(ctx context.Context, id string, states []tasks.ItemState, actor tasks.Actor, codes ...tasks.Code) error
}

// rowsOnPage is how many jobs or items a page lists.
const rowsOnPage = 50

// jobsPage is a list of jobs, newest first.
type jobsPage struct {
	page
	// Tenant to Until are the filters as they were typed.
	Tenant, State, Instance, Label, Code, Since, Until string

	Chips   []chip
	Exports exports
	States  []tasks.JobState
	Jobs    []tasks.Job
	Older   query // of the next page, or empty
}

// inputTime is what browsers send for a time, some with seconds; ours are in UTC.
const inputTime = "2006-01-02T15:04"

func (s *site) jobs(c echo.Context) error {
	field := func(name string) string { return strings.TrimSpace(c.QueryParam(name)) }
	p := jobsPage{
		page: s.page(c, "Jobs"), States: tasks.JobStates, Chips: chipsOf(c, jobFilters...), Exports: exportsOf(c),
		Tenant: field("tenant"), State: field("state"), Instance: field("instance"), Label: field("label"),
		Code: field("code"), Since: field("since"), Until: field("until"),
	}
	search, err := p.search(c.QueryParam("cursor"))
	search.Request = tasks.RequestFilter{RequestID: field("request"), TraceID: field("trace")}
	if err == nil && wantsFile(c) {
		return s.exportJobs(c, search)
	}
	cursor := ""
	if err == nil {
		p.Jobs, cursor, err = s.Store.SearchJobs(c.Request().Context(), search)
	}
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		p.Problem = e.Message
		return s.show(c, http.StatusBadRequest, "jobs", p)
	}
	if err != nil {
		return err
	}
	p.Older = olderQuery(c, cursor)
	return s.show(c, http.StatusOK, "jobs", p)
}

// jobFilters are the filters of the list of jobs.
var jobFilters = []filterName{
	{"state", "State"},
	{"tenant", "Tenant"},
	{"instance", "Instance"},
	{"label", "Label"},
	{"code", "Error code"},
	{"since", "Created from"},
	{"until", "Created before"},
	{"request", "Request"},
	{"trace", "Trace"},
}

func (s *site) exportJobs(c echo.Context, search tasks.JobSearch) error {
	return export(s, c, list[tasks.Job]{
		name: "jobs",
		heads: []string{
			"job_id", "run_id", "tenant", "state", "created_at", "started_at", "finished_at", "total", "pending", "running", "retrying",
			"succeeded", "failed", "unknown", "cancelled", "reason", "labels",
		},
		cells: func(j tasks.Job) []string {
			cells := []string{j.ID, j.RunID, j.Tenant, string(j.State), cellOf(j.CreatedAt), cellOf(j.StartedAt), cellOf(j.FinishedAt)}
			return append(append(cells, countCells(j.Counts)...), j.Reason, labelCell(j.Labels))
		},
		record: func(j tasks.Job) any {
			return struct {
				Tenant string `json:"tenant"`
				tasks.Job
			}{j.Tenant, j}
		},
		next: func(cursor string) ([]tasks.Job, string, error) {
			search.Cursor = cursor
			return s.Store.SearchJobs(c.Request().Context(), search)
		},
	})
}

// olderQuery is the query of the page after this one, which has the same filters, or empty.
func olderQuery(c echo.Context, cursor string) query {
	if cursor == "" {
		return ""
	}
	older := c.QueryParams()
	older.Set("cursor", cursor)
	return queryOf(older)
}

// search is what the filters mean. Errors: tasks.BadRequest.
func (p jobsPage) search(cursor string) (tasks.JobSearch, error) {
	s := tasks.JobSearch{Tenant: p.Tenant, Code: tasks.Code(p.Code), JobFilter: tasks.JobFilter{
		State: tasks.JobState(p.State), InstanceID: p.Instance, Limit: rowsOnPage, Cursor: cursor,
	}}
	var err error
	if s.Labels, err = labelFilter(p.Label); err != nil {
		return s, err
	}
	s.Since, s.Until, err = created(p.Since, p.Until)
	return s, err
}

// labelFilter is the filter for a label as it was typed; empty: any. Errors: tasks.BadRequest.
func labelFilter(label string) ([]string, error) {
	if label == "" {
		return nil, nil
	}
	labels := []string{label}
	if err := tasks.CheckLabelFilter(labels); err != nil {
		return nil, tasks.Errorf(tasks.BadRequest, "The label %s.", err)
	}
	return labels, nil
}

// created are the times that were typed between which something was created; empty: any. Errors: tasks.BadRequest.
func created(from, before string) (since, until time.Time, err error) {
	for _, bound := range []struct {
		name, text string
		time       *time.Time
	}{{"from", from, &since}, {"before", before, &until}} {
		if bound.text == "" {
			continue
		}
		at, err := time.Parse(inputTime, bound.text)
		if err != nil {
			at, err = time.Parse(inputTime+":05", bound.text)
		}
		if err != nil {
			return since, until, tasks.Errorf(tasks.BadRequest, "Created %s must be a time like 2006-01-02T15:04, not %.80q.", bound.name, bound.text)
		}
		*bound.time = at
	}
	return since, until, nil
}

// jobPage is a job's record.
type jobPage struct {
	page
	Job tasks.Job
	// CanCancel is how many instances a cancel is about, CanRetry how many a retry can be.
	CanCancel, CanRetry int
	// Choices are what a retry can be asked for.
	Choices []retryChoice
	// Held is what holds instances of the job now.
	Held []holding
	// TraceURL leads to the job's trace; it may be empty.
	TraceURL string
	// Ask is the action that has to be confirmed: cancel or retry.
	Ask string
}

// retryChoice are the instances of a job or a run that ended in one state. Who wants those that are
// unknown or cancelled reset has to say so.
type retryChoice struct {
	State  tasks.ItemState
	Count  int
	Chosen bool
}

// retryWhat is what a retry of a job or a run is about: unknown and cancelled instances are reset only by name.
func retryWhat(counts tasks.Counts) string {
	if n := counts.Failed; n > 0 {
		return number(n) + " that failed"
	}
	return "what is unknown or was cancelled"
}

// findJob reads the job of the path; without an error there may be none, and that is
// answered.
func (s *site) findJob(c echo.Context) (p jobPage, found bool, err error) {
	id := strings.TrimSpace(c.Param("job"))
	p = jobPage{page: s.page(c, "Job "+id)}
	if tasks.ValidJobID(id) {
		p.Job, err = s.Store.Job(c.Request().Context(), id)
	} else {
		err = tasks.JobGone
	}
	if errors.Is(err, tasks.JobGone) {
		return p, false, s.refuse(c, http.StatusNotFound, "There is no such job, or its record is not kept any more.")
	}
	if s.TraceURL != "" {
		p.TraceURL = strings.ReplaceAll(s.TraceURL, "{trace_id}", p.Job.TraceID())
	}
	counts := p.Job.Counts
	p.Count = endedOf(counts, p.Job.Total)
	p.CanCancel = counts.Pending + counts.Retrying
	if p.Job.State.Final() && p.Job.RunID == "" { // else its run is retried
		p.CanRetry = counts.In(tasks.RetryStates)
	}
	p.Choices = choicesOf(counts)
	return p, err == nil, err
}

// choicesOf are what a retry can be asked for, of so many instances.
func choicesOf(counts tasks.Counts) (choices []retryChoice) {
	for _, state := range tasks.RetryStates {
		if n := counts.In([]tasks.ItemState{state}); n > 0 {
			choices = append(choices, retryChoice{state, n, state == tasks.ItemFailed})
		}
	}
	return choices
}

// RetryWhat is what a retry would be about.
func (p jobPage) RetryWhat() string { return retryWhat(p.Job.Counts) }

// Live says that the record still changes.
func (p jobPage) Live() bool { return !p.Job.State.Final() }

func (s *site) job(c echo.Context) error {
	p, found, err := s.findJob(c)
	if !found {
		return err
	}
	if p.Live() {
		if p.Held, err = s.heldIn(c.Request().Context(), p.page, p.Job.ID); err != nil {
			return err
		}
	}
	return s.show(c, http.StatusOK, "job", p)
}

// askJob shows what a button will do, and asks once more.
func (s *site) askJob(action string) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, found, err := s.findJob(c)
		if !found {
			return err
		}
		p.Ask = action
		return s.show(c, http.StatusOK, "askjob", p)
	}
}

func (s *site) cancelJob(c echo.Context) error {
	return s.changeJob(c, s.Store.Cancel)
}

func (s *site) retryJob(c echo.Context) error {
	states, wrong := retryStates(c)
	if wrong != "" {
		return s.refuse(c, http.StatusBadRequest, wrong)
	}
	return s.changeJob(c, func(ctx context.Context, id string, actor tasks.Actor) error {
		return s.Store.Retry(ctx, id, states, actor)
	})
}

// retryStates are what a form asks to be reset again, or what is wrong with it.
func retryStates(c echo.Context) (states []tasks.ItemState, wrong string) {
	for _, state := range c.Request().PostForm["state"] {
		states = append(states, tasks.ItemState(state))
	}
	if len(states) == 0 {
		return nil, "Choose which instances to reset again."
	}
	if err := tasks.CheckRetryStates(states); err != nil {
		return nil, "The list of states " + err.Error() + "."
	}
	return states, ""
}

func (s *site) changeJob(c echo.Context, change func(context.Context, string, tasks.Actor) error) error {
	p, found, err := s.findJob(c)
	if !found {
		return err
	}
	reason := c.FormValue("reason")
	if err := tasks.CheckReason(reason); err != nil {
		return s.refuse(c, http.StatusBadRequest, "The reason "+err.Error()+".")
	}
	err = change(c.Request().Context(), p.Job.ID, login.Actor(c, reason))
	if _, undelivered := errors.AsType[*tasks.UndeliveredError](err); undelivered {
		err = nil // the sweeper delivers what is missing
	}
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return s.refuse(c, http.StatusConflict, e.Message)
	}
	if err != nil {
		return err
	}
	return redirect(c, "/jobs/"+p.Job.ID)
}
