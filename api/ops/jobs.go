package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// Jobs is what the pages about jobs ask of the record store.
type Jobs interface {
	Jobs(ctx context.Context, tenant string, f tasks.JobFilter) (jobs []tasks.Job, cursor string, err error)
	Job(ctx context.Context, id string) (tasks.Job, error)
	Cancel(ctx context.Context, id string) error
	Retry(ctx context.Context, id string) error
}

// jobsOnPage is how many jobs a page lists.
const jobsOnPage = 50

// jobsPage is the list of a tenant's jobs.
type jobsPage struct {
	page
	Tenant, State, Instance, Cursor string
	States                          []tasks.JobState
	Jobs                            []tasks.Job
}

func (s *site) jobs(c echo.Context) error {
	p := jobsPage{
		page: s.page(c, "Jobs"), States: tasks.JobStates,
		Tenant: strings.TrimSpace(c.QueryParam("tenant")), State: c.QueryParam("state"), Instance: strings.TrimSpace(c.QueryParam("instance")),
	}
	if p.Tenant == "" {
		return s.show(c, http.StatusOK, "jobs", p)
	}
	var err error
	p.Jobs, p.Cursor, err = s.Jobs.Jobs(c.Request().Context(), p.Tenant, tasks.JobFilter{
		State: tasks.JobState(p.State), InstanceID: p.Instance, Limit: jobsOnPage, Cursor: c.QueryParam("cursor"),
	})
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		p.Problem = e.Message
		return s.show(c, http.StatusBadRequest, "jobs", p)
	}
	if err != nil {
		return err
	}
	return s.show(c, http.StatusOK, "jobs", p)
}

// jobPage is a job's record.
type jobPage struct {
	page
	Job tasks.Job
	// CanCancel and CanRetry are how many instances a button is about.
	CanCancel, CanRetry int
	// Ask is the action that has to be confirmed: cancel or retry.
	Ask string
}

// TaskURL leads to the asynq task of an item.
func (p jobPage) TaskURL(it tasks.Item) string {
	return fmt.Sprintf("%s/queues/%s/tasks/%s-%d", dashboardPath, p.Job.Queue, it.ID, it.Delivery)
}

// find reads the job of the path; without an error there may be none, and that is
// answered.
func (s *site) find(c echo.Context) (p jobPage, found bool, err error) {
	id := strings.TrimSpace(c.Param("job"))
	p = jobPage{page: s.page(c, "Job "+id)}
	if tasks.ValidJobID(id) {
		p.Job, err = s.Jobs.Job(c.Request().Context(), id)
	} else {
		err = tasks.JobGone
	}
	if errors.Is(err, tasks.JobGone) {
		return p, false, s.refuse(c, http.StatusNotFound, "There is no such job, or its record is not kept any more.")
	}
	for _, it := range p.Job.Items {
		switch {
		case it.State == tasks.ItemPending || it.State == tasks.ItemRetrying:
			p.CanCancel++
		case it.State.Final() && it.State != tasks.ItemSucceeded && p.Job.State.Final():
			p.CanRetry++
		}
	}
	return p, err == nil, err
}

func (s *site) job(c echo.Context) error {
	p, found, err := s.find(c)
	if !found {
		return err
	}
	return s.show(c, http.StatusOK, "job", p)
}

// askJob shows what a button will do, and asks once more.
func (s *site) askJob(action string) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, found, err := s.find(c)
		if !found {
			return err
		}
		p.Ask = action
		return s.show(c, http.StatusOK, "askjob", p)
	}
}

func (s *site) cancelJob(c echo.Context) error {
	waiting := func(state tasks.ItemState) bool { return !state.Final() }
	return s.changeJob(c, tasks.ActionCancel, waiting, s.Jobs.Cancel)
}

func (s *site) retryJob(c echo.Context) error {
	lost := func(state tasks.ItemState) bool { return state.Final() && state != tasks.ItemSucceeded }
	return s.changeJob(c, tasks.ActionRetry, lost, s.Jobs.Retry)
}

func (s *site) changeJob(c echo.Context, action tasks.Action, about func(tasks.ItemState) bool, change func(context.Context, string) error) error {
	p, found, err := s.find(c)
	if !found {
		return err
	}
	ctx, job := c.Request().Context(), p.Job
	var instances []string
	for _, it := range job.Items {
		if about(it.State) {
			instances = append(instances, it.InstanceID)
		}
	}
	entry := tasks.AuditEntry{Action: action, Tenant: job.Tenant, Job: job.ID, Reason: c.FormValue("reason")}.About(instances)
	if err := s.audit(c, entry); err != nil {
		return err
	}
	err = change(ctx, job.ID)
	if _, undelivered := errors.AsType[*tasks.UndeliveredError](err); undelivered {
		err = nil // the sweeper delivers what is missing
	}
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return s.refuse(c, http.StatusConflict, e.Message)
	}
	if err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/jobs/"+job.ID)
}
