package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// batchReset is KooPhone's POST /v1/instances/batch-reset.
func (s *server) batchReset(c echo.Context) error {
	ctx := c.Request().Context()
	if err := checkHeaders(c.Request().Header); err != nil {
		return err
	}
	b, err := decodeBatch(c.Request().Body, s.cfg.MaxInstances)
	if err != nil {
		return err
	}
	submission := b.Submission
	submission.Tenant, submission.RequestID, submission.AllowUnregistered = tenant(c), requestID(c), s.cfg.AllowUnregistered
	by := actor(c)
	submission.By, submission.From, submission.Traceparent = by.By, by.From, traceparent(ctx)
	if submission.IdempotencyKey, err = idempotencyKey(c.Request().Header.Values("Idempotency-Key")); err != nil {
		return err
	}
	if b.dryRun {
		verdicts, err := s.dryRun(ctx, tokenOf(c), submission)
		if err != nil {
			return err
		}
		return ok(c, verdicts)
	}
	job, replayed, err := s.submit(ctx, tokenOf(c), submission)
	if err != nil {
		return err
	}
	c.Set(jobKey, job.ID)
	if replayed {
		linkTo(ctx, job)
	}
	c.Response().Header().Set(echo.HeaderLocation, s.cfg.BasePath+"/v1/jobs/"+job.ID)
	return ok(c, newAccepted(job))
}

// submit makes a job of the submission, or finds the job of an earlier, equal request. Such a
// replay is not checked again, because it was already answered.
func (s *server) submit(ctx context.Context, token tasks.Token, submission tasks.Submission) (job tasks.Job, replayed bool, err error) {
	if submission.IdempotencyKey != "" {
		if job, err := s.store.Replay(ctx, submission); !errors.Is(err, tasks.JobGone) {
			return job, true, err
		}
	}
	if err := s.checkNotBefore(submission.NotBefore); err != nil {
		return tasks.Job{}, false, err
	}
	if submission.Drivers, err = s.checkOwnership(ctx, token, submission.InstanceIDs); err != nil {
		return tasks.Job{}, false, err
	}
	job, err = s.store.Submit(ctx, submission)
	return job, false, s.stands(err)
}

// checkNotBefore is not done while the request is read, because a replay may come after that time.
func (s *server) checkNotBefore(notBefore tasks.Time) error {
	if notBefore.IsZero() {
		return nil
	}
	if err := tasks.CheckNotBefore(notBefore.Time, s.store.Now()); err != nil {
		return tasks.Errorf(tasks.BadRequest, "not_before %s", err)
	}
	return nil
}

// dryRun says for each instance what a submit would do with it now.
func (s *server) dryRun(ctx context.Context, token tasks.Token, submission tasks.Submission) (dryRun, error) {
	if err := s.checkNotBefore(submission.NotBefore); err != nil {
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
	room, err := s.store.Room(ctx, submission.Tenant)
	if err != nil {
		return dryRun{}, err
	}
	d := dryRun{DryRun: true}
	for _, id := range submission.InstanceIDs {
		in, registered := fleet[id]
		verdict := s.verdict(in, registered, token)
		if g := submission.Generations[id]; verdict == tasks.VerdictWouldReset && g != 0 && g != in.Generation {
			verdict = tasks.VerdictReassigned
		}
		if verdict == tasks.VerdictWouldReset {
			switch {
			case room == 0:
				verdict = tasks.VerdictOverQuota
			case busy[id]:
				verdict = tasks.VerdictBusy
			}
			if room > 0 {
				room--
			}
		}
		d.Instances = append(d.Instances, dryRunInstance{id, verdict})
	}
	return d, nil
}

// verdict says whether an instance may be reset with a token, given its entry in the fleet.
func (s *server) verdict(in tasks.Instance, registered bool, token tasks.Token) tasks.Verdict {
	switch {
	case !registered && !s.cfg.AllowUnregistered, registered && in.Tenant != token.Tenant: // the same answer for both: no tenant learns what others have
		return tasks.VerdictUnknown
	case !token.Reaches(in):
		return tasks.VerdictUnknown
	case in.Protected:
		return tasks.VerdictProtected
	}
	return tasks.VerdictWouldReset
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

// stands drops the error of a change that is in the record, but whose tasks are not all enqueued:
// the sweeper enqueues the missing ones.
func (s *server) stands(err error) error {
	if undelivered, ok := errors.AsType[*tasks.UndeliveredError](err); ok {
		s.log.Warn("items wait to be enqueued", "job", undelivered.Job, "error", undelivered.Cause)
		return nil
	}
	return err
}

// eachVerdict visits instances with their entries in the fleet, and says of each whether it may be reset with a
// token. It looks some up at a time, in a time of their own.
func (s *server) eachVerdict(ctx context.Context, token tasks.Token, instances []string, visit func(in tasks.Instance, id string, v tasks.Verdict)) error {
	for some := range slices.Chunk(instances, runBatch) {
		fleet, err := s.registered(ctx, some)
		if err != nil {
			return err
		}
		for _, id := range some {
			in, registered := fleet[id]
			visit(in, id, s.verdict(in, registered, token))
		}
	}
	return nil
}

// checkOwnership refuses the whole batch if one instance is not the tenant's or
// is protected. The worker asks again before each attempt. It returns the drivers of those
// instances that do not have the default one.
func (s *server) checkOwnership(ctx context.Context, token tasks.Token, instances []string) (drivers map[string]string, err error) {
	drivers = map[string]string{}
	var foreign, protected []string
	err = s.eachVerdict(ctx, token, instances, func(in tasks.Instance, id string, v tasks.Verdict) {
		if in.Driver != "" {
			drivers[id] = in.Driver
		}
		switch v {
		case tasks.VerdictUnknown:
			foreign = append(foreign, id)
		case tasks.VerdictProtected:
			protected = append(protected, id)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case foreign != nil:
		return nil, tasks.Errorf(tasks.NotYourInstance, "no permission on instances: %s", strings.Join(foreign, ", "))
	case protected != nil:
		return nil, tasks.Errorf(tasks.Protected, "protected instances: %s", strings.Join(protected, ", "))
	}
	return drivers, nil
}

// taskQuery is KooPhone's GET /v1/instances/tasks/{task_id}.
func (s *server) taskQuery(c echo.Context) error {
	job, err := s.find(c, s.store.Job)
	if err != nil {
		return err
	}
	return ok(c, newTaskStatus(job))
}

// find reads the job of the path, if it is the tenant's. Another tenant's job is
// answered like one that does not exist.
func (s *server) find(c echo.Context, read func(context.Context, string) (tasks.Job, error)) (tasks.Job, error) {
	id := c.Param("job")
	if !tasks.ValidJobID(id) {
		return tasks.Job{}, noJob(id)
	}
	c.Set(jobKey, id)
	job, err := read(c.Request().Context(), id)
	switch {
	case errors.Is(err, tasks.JobGone):
		return tasks.Job{}, noJob(id)
	case err != nil:
		return tasks.Job{}, err
	case job.Tenant != tenant(c):
		return tasks.Job{}, noJob(id)
	}
	return job, nil
}

func noJob(id string) error { return tasks.Errorf(tasks.NoJob, "there is no job %.64q", id) }

// cancel cancels the items of a job that have not begun, and answers with the record.
func (s *server) cancel(c echo.Context) error {
	return s.change(c, func(ctx context.Context, job tasks.Job, actor tasks.Actor) error {
		return s.store.Cancel(ctx, job.ID, actor)
	})
}

// retry reopens the items of a final job that are in the states asked for, and answers with the
// record.
func (s *server) retry(c echo.Context) error {
	if c.Request().Header.Values("Idempotency-Key") != nil {
		return tasks.Errorf(tasks.BadRequest, "Idempotency-Key is not for a retry: one that is sent twice may reset twice, look at the job first")
	}
	states, err := decodeStates(c.Request().Body)
	if err != nil {
		return err
	}
	return s.change(c, func(ctx context.Context, job tasks.Job, actor tasks.Actor) error {
		if job.RunID != "" { // whose counts are those of its jobs
			return tasks.Errorf(tasks.JobFinal, "the job belongs to run %s: it cannot be retried by itself", job.RunID)
		}
		instances := make([]string, len(job.Items))
		for i, it := range job.Items {
			instances[i] = it.InstanceID
		}
		if err := s.checkReach(ctx, tokenOf(c), instances); err != nil {
			return err
		}
		return s.store.Retry(ctx, job.ID, states, actor)
	})
}

func (s *server) change(c echo.Context, change func(context.Context, tasks.Job, tasks.Actor) error) error {
	job, err := s.find(c, s.store.Job)
	if err != nil {
		return err
	}
	linkTo(c.Request().Context(), job)
	// A record that expires just now is answered like one that was never there.
	if err := s.stands(change(c.Request().Context(), job, actor(c))); err != nil && !errors.Is(err, tasks.JobGone) {
		return err
	}
	if job, err = s.find(c, s.store.Job); err != nil {
		return err
	}
	return ok(c, job)
}

// actor is who sends the request, for the audit trail.
func actor(c echo.Context) tasks.Actor {
	token := tokenOf(c)
	return tasks.Actor{By: token.By(), Principal: token.Principal(), From: c.RealIP(), RequestID: requestID(c)}
}

// jobs lists the tenant's jobs, newest first, without their items; or those that are
// named, in the order in which they are.
func (s *server) jobs(c echo.Context) error {
	if c.QueryParams().Has("ids") {
		return s.namedJobs(c)
	}
	filter, err := decodeFilter(c.QueryParams())
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

func (s *server) namedJobs(c echo.Context) error {
	ids, err := decodeIDs(c.QueryParams())
	if err != nil {
		return err
	}
	jobs, err := s.store.JobsByID(c.Request().Context(), ids)
	if err != nil {
		return err
	}
	page := jobsPage{Jobs: []tasks.Job{}}
	for _, job := range jobs {
		if job.Tenant == tenant(c) {
			job.Items = nil
			page.Jobs = append(page.Jobs, job)
		}
	}
	for _, id := range ids {
		if !slices.ContainsFunc(page.Jobs, func(j tasks.Job) bool { return j.ID == id }) {
			page.Missing = append(page.Missing, id)
		}
	}
	return ok(c, page)
}

// health is the data of healthz.
type health struct {
	Version string `json:"version"`
}

// healthz says that the process is alive, and its version. It does not depend on Redis.
func (s *server) healthz(c echo.Context) error { return ok(c, health{s.cfg.Version}) }

// readiness is the data of readyz.
type readiness struct {
	Accepting     bool `json:"accepting"`      // new work
	SecretsSealed bool `json:"secrets_sealed"` // of access keys and webhooks, in Redis
	// Secrets is unreadable if this process cannot open them. It is ready all the same: tokens work, and so do halts.
	Secrets string `json:"secrets"`
}

// readyz says whether Redis answers and can be trusted with jobs. A Redis that is nearly full is
// ready, because an api that a load balancer has taken out could not halt or cancel anything.
func (s *server) readyz(c echo.Context) error {
	select {
	case <-s.cfg.Stopping:
		c.Set(codeKey, tasks.Internal)
		return c.JSON(http.StatusServiceUnavailable, envelope{Code: tasks.Internal, Message: "this process is stopping; another one takes over"})
	default:
	}
	look := s.readiness.look(s.store)
	if look.err == nil {
		return ok(c, readiness{look.accepting, s.cfg.Sealed, s.secrets()})
	}
	if _, sayable := errors.AsType[*tasks.Error](look.err); sayable {
		return look.err
	}
	return fmt.Errorf("%w: %w", tasks.Errorf(tasks.Internal, "Redis does not answer"), look.err)
}

func (s *server) secrets() string {
	if s.cfg.Secrets == nil {
		return "not known"
	}
	return s.cfg.Secrets()
}

// readyFresh is how long the result of a check of Redis is used.
const readyFresh = 250 * time.Millisecond

// readyLooks shares one check of Redis among requests that come at about the same time: anybody
// may send one, and INFO costs Redis as much as a submit.
type readyLooks struct {
	mu   sync.Mutex
	last readyLook
}

type readyLook struct {
	at        time.Time
	accepting bool
	err       error
}

func (r *readyLooks) look(store Store) readyLook {
	r.mu.Lock() // for as long as the check takes
	defer r.mu.Unlock()
	if r.last.at.IsZero() || time.Since(r.last.at) >= readyFresh {
		ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
		defer cancel()
		r.last = readyLook{err: store.Check(ctx)}
		if r.last.err == nil {
			r.last.accepting = store.Accepting(ctx)
		}
		r.last.at = time.Now()
	}
	return r.last
}
