package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// batchReset is KooPhone's POST /v1/instances/batch-reset.
func (s *server) batchReset(c echo.Context) error {
	ctx := c.Request().Context()
	instances, err := decodeBatch(c.Request().Body, s.cfg.MaxInstances)
	if err != nil {
		return err
	}
	if err := s.checkOwnership(ctx, tenant(c), instances); err != nil {
		return err
	}
	job, err := s.store.Submit(ctx, tasks.Submission{
		Tenant: tenant(c), RequestID: requestID(c), InstanceIDs: instances, Open: s.cfg.OpenFleet,
	})
	if undelivered, ok := errors.AsType[*tasks.UndeliveredError](err); ok {
		// The job is accepted: its record is the outbox.
		s.log.Warn("items wait to be enqueued", "job", job.ID, "error", undelivered.Cause)
	} else if err != nil {
		return err
	}
	c.Set(jobKey, job.ID)
	c.Response().Header().Set(echo.HeaderLocation, "/v1/jobs/"+job.ID)
	return ok(c, newAccepted(job))
}

// decodeBatch reads the body of a batch-reset, whatever its Content-Type says,
// and returns its instances without repeats.
func decodeBatch(body io.Reader, limit int) ([]string, error) {
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	var request struct {
		InstanceIDs json.RawMessage `json:"instance_ids"`
	}
	if err := json.Unmarshal(raw, &request); err != nil {
		if _, wrongType := errors.AsType[*json.UnmarshalTypeError](err); wrongType {
			return nil, tasks.Errorf(tasks.BadRequest, "the body must be a JSON object")
		}
		return nil, tasks.Errorf(tasks.BadRequest, "the body is not JSON: %v", err)
	}
	if request.InstanceIDs == nil {
		return nil, tasks.Errorf(tasks.BadRequest, "instance_ids is missing")
	}
	var elements []any
	if err := json.Unmarshal(request.InstanceIDs, &elements); err != nil || elements == nil {
		return nil, tasks.Errorf(tasks.BadRequest, "instance_ids must be an array of strings")
	}
	instances := make([]string, len(elements))
	for i, element := range elements {
		id, isString := element.(string)
		if !isString {
			return nil, tasks.Errorf(tasks.BadRequest, "instance_ids[%d] must be a string", i)
		}
		instances[i] = id
	}
	return tasks.Batch(instances, limit)
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
	if match := c.Request().Header.Get("If-None-Match"); match != "" {
		job, err := s.find(c, s.store.Version)
		if err != nil {
			return err
		}
		if matches(match, job.Tag()) {
			c.Response().Header().Set("ETag", strconv.Quote(job.Tag()))
			return c.NoContent(http.StatusNotModified)
		}
	}
	job, err := s.find(c, s.store.Job)
	if err != nil {
		return err
	}
	c.Response().Header().Set("ETag", strconv.Quote(job.Tag()))
	if !job.State.Final() {
		c.Response().Header().Set(echo.HeaderRetryAfter, "1")
	}
	return ok(c, job)
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

const (
	defaultJobsLimit = 50
	maxJobsLimit     = 100
)

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

func decodeFilter(c echo.Context) (tasks.JobFilter, error) {
	f := tasks.JobFilter{
		State:      tasks.JobState(c.QueryParam("state")),
		InstanceID: c.QueryParam("instance_id"),
		Limit:      defaultJobsLimit,
		Cursor:     c.QueryParam("cursor"),
	}
	if f.State != "" && !slices.Contains(tasks.JobStates, f.State) {
		return f, tasks.Errorf(tasks.BadRequest, "state must be one of %v", tasks.JobStates)
	}
	if f.InstanceID != "" {
		if err := tasks.CheckInstanceID(f.InstanceID); err != nil {
			return f, tasks.Errorf(tasks.BadRequest, "instance_id %s", err)
		}
	}
	if limit := c.QueryParam("limit"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 || n > maxJobsLimit {
			return f, tasks.Errorf(tasks.BadRequest, "limit must be a number from 1 to %d", maxJobsLimit)
		}
		f.Limit = n
	}
	return f, nil
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
