package ops

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/errgroup"

	"batchreset/tasks"
)

// found is something that fits what somebody searched for.
type found struct {
	Kind   string // run, job, instance, …
	Name   string
	Detail string
	path   string
}

// Href leads there.
func (f found) Href() string { return strings.TrimPrefix(f.path, "/") }

// findPage is what a search has found, if that is not just one thing.
type findPage struct {
	page
	Query string
	Found []found
}

// maxID is longer than IDs of requests and traces are.
const maxID = 128

// failuresFound is how far back a search looks for an error code.
const failuresFound = 31 * 24 * time.Hour

// find leads to what fits, or lists it if it is more than one thing.
func (s *site) find(c echo.Context) error {
	q := strings.TrimSpace(c.QueryParam("q"))
	if q == "" {
		return redirect(c, "/")
	}
	p := findPage{page: s.page(c, "Search"), Query: q}
	var err error
	if p.Found, err = s.lookFor(c.Request().Context(), q); err != nil {
		return err
	}
	switch len(p.Found) {
	case 0:
		return s.show(c, http.StatusNotFound, "find", p)
	case 1:
		return redirect(c, p.Found[0].path)
	}
	return s.show(c, http.StatusOK, "find", p)
}

// look finds what fits what was typed.
type look func(ctx context.Context, q string) ([]found, error)

// lookFor looks for everything that has a name like this. What takes long comes last, if nothing else fits.
func (s *site) lookFor(ctx context.Context, q string) ([]found, error) {
	all, err := lookAtOnce(ctx, q, s.findRecord, s.findBeginning, s.findInstance, s.findTenant, s.findCaller, s.findCode)
	if err != nil || len(all) > 0 {
		return all, err
	}
	return lookAtOnce(ctx, q, s.findRequest, s.findRunOf, s.findRunNamed)
}

// lookAtOnce looks side by side, and returns what was found in the order of the looks.
func lookAtOnce(ctx context.Context, q string, looks ...look) ([]found, error) {
	g, ctx := errgroup.WithContext(ctx)
	some := make([][]found, len(looks))
	for i, look := range looks {
		g.Go(func() (err error) {
			some[i], err = look(ctx, q)
			return err
		})
	}
	err := g.Wait()
	return slices.Concat(some...), err
}

// findRecord finds a run, a job, or the job of an item.
func (s *site) findRecord(ctx context.Context, q string) ([]found, error) {
	id, detail := q, ""
	of, n, isItem := tasks.ParseItemID(q)
	if isItem {
		id, detail = of, "of item "+q
	}
	if !tasks.ValidJobID(id) {
		return nil, nil
	}
	run, err := s.Store.Runs.Run(ctx, id)
	if err == nil {
		return []found{{"run", id, run.Name + " " + string(run.State), "/runs/" + id}}, nil
	}
	if !errors.Is(err, tasks.RunGone) {
		return nil, err
	}
	job, err := s.Store.Job(ctx, id)
	if errors.Is(err, tasks.JobGone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	path := "/jobs/" + id
	if isItem && n < len(job.Items) {
		path = "/" + timelinePath(q)
	}
	return []found{{"job", id, strings.TrimSpace(string(job.State) + " " + detail), path}}, nil
}

// beginning is enough of the ID of a job or a run to look for it: as much as pages show, and what they put after it.
var beginning = regexp.MustCompile(`^([0-9a-f]{8,31})…?$`)

// beginningFound is how many jobs, and how many runs, a search names whose IDs begin with what was typed.
const beginningFound = 20

// findBeginning finds runs and jobs by the beginning of their IDs.
func (s *site) findBeginning(ctx context.Context, q string) (all []found, err error) {
	match := beginning.FindStringSubmatch(strings.ToLower(q))
	if match == nil {
		return nil, nil
	}
	jobs, runs, err := s.Store.Beginning(ctx, match[1], beginningFound)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Concat(runs, jobs) {
		some, err := s.findRecord(ctx, id)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// findInstance finds an instance that is registered, has been reset, or is in the list of a run that has not ended.
func (s *site) findInstance(ctx context.Context, q string) ([]found, error) {
	if tasks.CheckInstanceID(q) != nil {
		return nil, nil //nolint:nilerr // it is something else
	}
	fleet, err := s.Store.Registered(ctx, []string{q})
	if err != nil {
		return nil, err
	}
	entry, listed := fleet[q]
	detail := "of " + entry.Tenant
	if !listed {
		detail = "not registered"
		jobs, err := s.Store.InstanceJobs(ctx, q)
		if err != nil {
			return nil, err
		}
		toCome := []tasks.Run(nil)
		if len(jobs) == 0 {
			if toCome, _, err = s.Store.Runs.ToCome(ctx, q); err != nil {
				return nil, err
			}
		}
		if len(jobs)+len(toCome) == 0 {
			return s.findPrefix(ctx, q)
		}
	}
	return []found{{"instance", q, detail, "/instances/" + url.PathEscape(q)}}, nil
}

// prefixFound is how many registered instances a search names whose IDs begin with what was typed.
const prefixFound = 20

// findPrefix finds registered instances whose IDs begin like this.
func (s *site) findPrefix(ctx context.Context, q string) (all []found, err error) {
	some, more, err := s.Store.Search(ctx, tasks.FleetFilter{Prefix: q}, "", prefixFound)
	if err != nil {
		return nil, err
	}
	for _, in := range some[:min(len(some), prefixFound)] {
		all = append(all, found{"instance", in.ID, "of " + in.Tenant, "/instances/" + url.PathEscape(in.ID)})
	}
	if more != "" && all != nil {
		all = append(all, found{"instances", q + "…", "all of them", "/fleet?id=" + url.QueryEscape(q)})
	}
	return all, nil
}

// findTenant finds a tenant that has a token, a limit or a halt.
func (s *site) findTenant(ctx context.Context, q string) ([]found, error) {
	if tasks.CheckTenant(q) != nil {
		return nil, nil //nolint:nilerr // it is something else
	}
	known, err := s.Store.Credentials.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	policies, err := s.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(known, q) && !slices.ContainsFunc(policies, func(p tasks.Policy) bool { return p.Tenant == q }) {
		return nil, nil
	}
	return []found{{"tenant", q, "its jobs", "/jobs?tenant=" + url.QueryEscape(q)}}, nil
}

// findCaller finds a token or an access key by its ID, and those of an owner.
func (s *site) findCaller(ctx context.Context, q string) (all []found, err error) {
	callers, err := s.Store.Credentials.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range callers {
		if owned := t.Owner != "" && strings.EqualFold(t.Owner, q); owned || strings.EqualFold(t.ID, q) {
			row, detail := newCallerRow(t, s.Store.Now()), "of "+t.Tenant
			if owned {
				detail += ", owner " + t.Owner
			}
			if row.Ended() {
				detail += ", " + row.State
			}
			all = append(all, found{row.KindName(), t.ID, detail, "/callers?tenant=" + url.QueryEscape(t.Tenant) + "#caller-" + url.PathEscape(t.ID)})
		}
	}
	return all, nil
}

// findCode finds failures with an error code, by driver.
func (s *site) findCode(ctx context.Context, q string) (all []found, err error) {
	kinds, err := s.Store.FailureKinds(ctx, failuresFound, 1)
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		if k.Code != "" && strings.EqualFold(string(k.Code), q) {
			to := url.Values{"driver": {k.Driver}, "code": {string(k.Code)}, "window": {"31d"}}
			all = append(all, found{"error code", string(k.Code), instances(int(k.Total())) + ", driver " + k.Driver, "/failures/items?" + to.Encode()})
		}
	}
	return all, nil
}

// findRequest finds the jobs of no run that a request made, by its ID or that of its trace, among the newest 10,000 jobs.
func (s *site) findRequest(ctx context.Context, q string) (all []found, err error) {
	if len(q) > maxID {
		return nil, nil
	}
	jobs, _, err := s.Store.SearchJobs(ctx, tasks.JobSearch{JobFilter: tasks.JobFilter{Request: tasks.RequestFilter{Either: q}, Limit: rowsOnPage}})
	for _, job := range jobs {
		if job.RunID == "" {
			all = append(all, found{"job", job.ID, "of " + job.Tenant, "/jobs/" + job.ID})
		}
	}
	return all, err
}

// findRunOf finds the runs that a request made, among the newest 2,000.
func (s *site) findRunOf(ctx context.Context, q string) ([]found, error) {
	return s.findRunsBy(ctx, tasks.RunFilter{Request: tasks.RequestFilter{Either: q}})
}

// findRunNamed finds runs by their name, among the newest 2,000.
func (s *site) findRunNamed(ctx context.Context, q string) ([]found, error) {
	return s.findRunsBy(ctx, tasks.RunFilter{Name: q})
}

func (s *site) findRunsBy(ctx context.Context, f tasks.RunFilter) (all []found, err error) {
	if len(f.Request.Either)+len(f.Name) > maxID {
		return nil, nil
	}
	f.Limit = rowsOnPage
	runs, _, err := s.Store.Runs.Search(ctx, tasks.RunSearch{RunFilter: f})
	for _, run := range runs {
		all = append(all, found{"run", cmp.Or(run.Name, run.ID), strings.TrimSpace(string(run.State) + " of " + run.Tenant), "/runs/" + run.ID})
	}
	return all, err
}
