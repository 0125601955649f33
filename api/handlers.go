package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// batchReset is KooPhone's POST /v1/instances/batch-reset.
func (s *server) batchReset(c echo.Context) error {
	ctx := c.Request().Context()
	b, err := decodeBatch(c.Request().Body, s.cfg.MaxInstances)
	if err != nil {
		return err
	}
	submission := b.Submission
	submission.Tenant, submission.RequestID, submission.Open = tenant(c), requestID(c), s.cfg.OpenFleet
	if submission.IdempotencyKey, err = idempotencyKey(c.Request().Header.Values("Idempotency-Key")); err != nil {
		return err
	}
	if b.dryRun {
		verdicts, err := s.dryRun(ctx, submission)
		if err != nil {
			return err
		}
		return ok(c, verdicts)
	}
	job, err := s.submit(ctx, submission)
	if err != nil {
		return err
	}
	c.Set(jobKey, job.ID)
	c.Response().Header().Set(echo.HeaderLocation, "/v1/jobs/"+job.ID)
	return ok(c, newAccepted(job))
}

// submit makes a job of the submission, or finds the one that it made before: a
// replay is not checked again, because its answer was given.
func (s *server) submit(ctx context.Context, submission tasks.Submission) (tasks.Job, error) {
	if submission.IdempotencyKey != "" {
		if job, err := s.store.Replay(ctx, submission); !errors.Is(err, tasks.JobGone) {
			return job, err
		}
	}
	if err := checkNotBefore(submission); err != nil {
		return tasks.Job{}, err
	}
	if err := s.checkOwnership(ctx, submission.Tenant, submission.InstanceIDs); err != nil {
		return tasks.Job{}, err
	}
	job, err := s.store.Submit(ctx, submission)
	return job, s.stands(err)
}

// checkNotBefore is no part of reading the request: a replay may come after that time.
func checkNotBefore(submission tasks.Submission) error {
	if submission.NotBefore.IsZero() {
		return nil
	}
	if err := tasks.CheckNotBefore(submission.NotBefore.Time, time.Now()); err != nil {
		return tasks.Errorf(tasks.BadRequest, "not_before %s", err)
	}
	return nil
}

// dryRun says of each instance what a submit would do with it now.
func (s *server) dryRun(ctx context.Context, submission tasks.Submission) (dryRun, error) {
	if err := checkNotBefore(submission); err != nil {
		return dryRun{}, err
	}
	fleet, err := s.store.Registered(ctx, submission.InstanceIDs)
	if err != nil {
		return dryRun{}, err
	}
	busy, err := s.store.Locked(ctx, submission.InstanceIDs)
	if err != nil {
		return dryRun{}, err
	}
	d := dryRun{DryRun: true}
	for _, id := range submission.InstanceIDs {
		in, registered := fleet[id]
		verdict := tasks.VerdictWouldReset
		switch {
		case !registered && !s.cfg.OpenFleet:
			verdict = tasks.VerdictUnknown
		case registered && in.Tenant != submission.Tenant:
			verdict = tasks.VerdictForeign
		case in.Protected:
			verdict = tasks.VerdictProtected
		case busy[id]:
			verdict = tasks.VerdictBusy
		}
		d.Instances = append(d.Instances, dryRunInstance{id, verdict})
	}
	return d, nil
}

// dryRun is the data of a batch-reset with dry_run.
type dryRun struct {
	DryRun    bool             `json:"dry_run"`
	Instances []dryRunInstance `json:"instances"`
}

type dryRunInstance struct {
	InstanceID string        `json:"instance_id"`
	Verdict    tasks.Verdict `json:"verdict"`
}

// stands drops the error of a change that is written but not wholly enqueued: the
// record is the outbox, and the sweeper delivers what is missing.
func (s *server) stands(err error) error {
	if undelivered, ok := errors.AsType[*tasks.UndeliveredError](err); ok {
		s.log.Warn("items wait to be enqueued", "job", undelivered.Job, "error", undelivered.Cause)
		return nil
	}
	return err
}

// checkOwnership refuses the whole batch if one instance is not the tenant's or
// is protected. The worker asks again before each attempt.
func (s *server) checkOwnership(ctx context.Context, tenant string, instances []string) error {
	fleet, err := s.store.Registered(ctx, instances)
	if err != nil {
		return err
	}
	var foreign, protected []string
	for _, id := range instances {
		switch in, registered := fleet[id]; {
		case !registered && s.cfg.OpenFleet:
		case !registered || in.Tenant != tenant:
			foreign = append(foreign, id)
		case in.Protected:
			protected = append(protected, id)
		}
	}
	if foreign != nil {
		return tasks.Errorf(tasks.NotYourInstance, "no permission on instances: %s", strings.Join(foreign, ", "))
	}
	if protected != nil {
		return tasks.Errorf(tasks.Protected, "protected instances: %s", strings.Join(protected, ", "))
	}
	return nil
}

// taskQuery is KooPhone's GET /v1/instances/tasks/{task_id}.
func (s *server) taskQuery(c echo.Context) error {
	job, err := s.find(c, s.store.Job)
	if err != nil {
		return err
	}
	return ok(c, newTaskStatus(job))
}

// job answers the job status record, or 304 to a caller who has it already.
func (s *server) job(c echo.Context) error {
	version, err := s.find(c, s.store.Version)
	if err != nil {
		return err
	}
	if match := c.Request().Header.Get("If-None-Match"); match != "" && matches(match, version.Tag()) {
		c.Response().Header().Set("ETag", strconv.Quote(version.Tag()))
		return c.NoContent(http.StatusNotModified)
	}
	record, ready := s.encoded.get(version)
	if !ready {
		job, err := s.find(c, s.store.Job)
		if err != nil {
			return err
		}
		if record, err = s.encoded.put(job); err != nil {
			return err
		}
	}
	c.Response().Header().Set("ETag", strconv.Quote(record.tag))
	if !record.final {
		c.Response().Header().Set(echo.HeaderRetryAfter, "1")
	}
	return c.JSONBlob(http.StatusOK, record.body)
}

// matches reports whether an If-None-Match header names the tag. GET compares
// weakly (RFC 9110, 13.1.2).
func matches(header, tag string) bool {
	return slices.ContainsFunc(strings.Split(header, ","), func(candidate string) bool {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		return candidate == "*" || candidate == strconv.Quote(tag)
	})
}

// find reads the job of the path, if it is the tenant's. Another tenant's job is
// answered like one that does not exist.
func (s *server) find(c echo.Context, read func(context.Context, string) (tasks.Job, error)) (tasks.Job, error) {
	id := c.Param("job")
	missing := tasks.Errorf(tasks.NoJob, "there is no job %.64q", id)
	if !tasks.ValidJobID(id) {
		return tasks.Job{}, missing
	}
	c.Set(jobKey, id)
	job, err := read(c.Request().Context(), id)
	switch {
	case errors.Is(err, tasks.JobGone):
		return tasks.Job{}, missing
	case err != nil:
		return tasks.Job{}, err
	case job.Tenant != tenant(c):
		return tasks.Job{}, missing
	}
	return job, nil
}

// cancel takes back the items of a job that have not begun, and answers the record.
func (s *server) cancel(c echo.Context) error { return s.change(c, s.store.Cancel) }

// retry opens what did not succeed of a final job again, and answers the record.
func (s *server) retry(c echo.Context) error { return s.change(c, s.store.Retry) }

func (s *server) change(c echo.Context, change func(context.Context, string) error) error {
	job, err := s.find(c, s.store.Version)
	if err != nil {
		return err
	}
	// A record that expires just now is answered like one that was never there.
	if err := s.stands(change(c.Request().Context(), job.ID)); err != nil && !errors.Is(err, tasks.JobGone) {
		return err
	}
	if job, err = s.find(c, s.store.Job); err != nil {
		return err
	}
	return ok(c, job)
}

// jobs lists the tenant's jobs, newest first, without their items.
func (s *server) jobs(c echo.Context) error {
	filter, err := decodeFilter(c)
	if err != nil {
		return err
	}
	jobs, cursor, err := s.store.Jobs(c.Request().Context(), tenant(c), filter)
	if err != nil {
		return err
	}
	page := jobsPage{Jobs: []tasks.Job{}, NextCursor: cursor}
	for _, job := range jobs {
		job.Items = nil
		page.Jobs = append(page.Jobs, job)
	}
	return ok(c, page)
}

// healthz says that the process is alive, whatever Redis does.
func (s *server) healthz(c echo.Context) error { return ok(c, nil) }

// readyz says whether Redis answers and can be trusted with jobs.
func (s *server) readyz(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), storeTimeout)
	defer cancel()
	err := s.store.Check(ctx)
	if err == nil {
		return ok(c, nil)
	}
	if _, sayable := errors.AsType[*tasks.Error](err); sayable {
		return err
	}
	return fmt.Errorf("%w: %w", tasks.Errorf(tasks.Internal, "Redis does not answer"), err)
}
