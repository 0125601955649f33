package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"batchreset/tasks"
)

const (
	// runnerEvery is how often a runner looks for runs that are due, runnerRest how long it rests between
	// two looks while announcements gather.
	runnerEvery = time.Second
	runnerRest  = 100 * time.Millisecond
	// runsAtOnce is how many runs a runner has for itself at a time, runClaim for how long.
	runsAtOnce = 16
	runClaim   = 30 * time.Second
	// partsAtOnce is how many jobs of a run are made side by side, and takeAtOnce how many parts are
	// taken by one write: what a runner that dies leaves to be made, and what it makes before it looks
	// again whether too many have failed.
	partsAtOnce = 8
	takeAtOnce  = 16
	// runRecheck is when a run with open jobs is looked at if nothing is announced, runIdle one that has none: somebody
	// may have decided something and died before the announcement.
	runRecheck = time.Minute
	runIdle    = 10 * time.Minute
	// runRetry is when a run is looked at again after trouble.
	runRetry = 5 * time.Second
)

// RunnerStore is what the runner needs.
type RunnerStore struct {
	Runs
	RunProgress
	RunNotices
	RunHalts
	RunJobs
	RunFleet
}

// Runs are the records of runs.
type Runs interface {
	Stored(ctx context.Context, id string) (tasks.Run, error)
	OpenJobs(ctx context.Context, run tasks.Run) (map[int]tasks.Job, error)
	Parts(ctx context.Context, run string, from, n int) ([]tasks.Part, error)
	Announced(ctx context.Context, heard func(run string)) error
}

// RunProgress is how runs go on. What is done to a run that was read is not done if its record is another by now.
type RunProgress interface {
	Due(ctx context.Context, n int, token string, lasts time.Duration) ([]tasks.RunClaim, error)
	Put(ctx context.Context, c tasks.RunClaim, next time.Time) error
	Hurry(ctx context.Context, run string) error
	Now() time.Time

	Start(ctx context.Context, run tasks.Run) error
	Expire(ctx context.Context, run tasks.Run) error
	Soak(ctx context.Context, run tasks.Run, until time.Time) error
	Take(ctx context.Context, run tasks.Run, parts []tasks.Part) (taken bool, err error)
	Close(ctx context.Context, run string, part int, job tasks.Job) error
	// Hold says why a run that goes on waits; empty: nothing keeps it.
	Hold(ctx context.Context, id, reason string) error
	PauseItself(ctx context.Context, run tasks.Run, reason string) error
	// Brake has the workers told what the record says.
	Brake(ctx context.Context, id string) error
	Finish(ctx context.Context, run tasks.Run) (ended bool, err error)
	Retire(ctx context.Context, run tasks.Run) error
}

// RunNotices tells the tenant's endpoints of what has happened to a run that Sum has completed.
type RunNotices interface {
	EnqueueRunNotices(ctx context.Context, run tasks.Run) error
}

// RunHalts are what keeps attempts of a run's jobs from beginning.
type RunHalts interface {
	RunHalt(ctx context.Context, run string) (*tasks.Halt, error)
}

// RunJobs makes and cancels the jobs of a run.
type RunJobs interface {
	Submit(ctx context.Context, s tasks.Submission) (tasks.Job, error)
	Cancel(ctx context.Context, id string, actor tasks.Actor) error
}

// RunFleet says which driver an instance has.
type RunFleet interface {
	Registered(ctx context.Context, instances []string) (map[string]tasks.Instance, error)
}

// Runner makes the jobs of runs, as fast as their options allow. Every worker process has one. They
// share the runs; one at a time works on a run, and two at one do no harm.
type Runner struct {
	prometheus.Collector
	waves prometheus.Histogram

	store RunnerStore
	log   *slog.Logger
	token string
	wake  chan struct{} // somebody announced a run

	mu        sync.Mutex
	announced map[string]bool
}

// NewRunner makes a runner.
func NewRunner(store RunnerStore, log *slog.Logger) *Runner {
	waves := newWaveDurations()
	return &Runner{
		Collector: waves, waves: waves,
		store: store, log: log, token: rand.Text(), wake: make(chan struct{}, 1), announced: map[string]bool{},
	}
}

// Run works on runs until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.store.Announced(ctx, r.hear) })
	group.Go(func() error {
		for {
			if err := r.Round(ctx); err != nil && ctx.Err() == nil {
				r.log.Warn("runs cannot be looked at", "error", err)
			}
			if !r.rest(ctx) {
				return nil
			}
		}
	})
	return group.Wait()
}

func (r *Runner) hear(run string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.announced[run] = true
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// heard returns the runs that were announced since.
func (r *Runner) heard() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.announced
	r.announced = map[string]bool{}
	return all
}

// rest waits for an announcement, or a while, and reports whether ctx lasted as long.
func (r *Runner) rest(ctx context.Context) bool {
	begin := time.Now()
	select {
	case <-ctx.Done():
		return false
	case <-time.After(runnerEvery):
	case <-r.wake:
		select {
		case <-ctx.Done():
			return false
		case <-time.After(runnerRest - time.Since(begin)):
		}
	}
	return true
}

// Round works on the runs that are due or were announced, until there are no more than it takes at once. Its error
// means that Redis could not be asked.
func (r *Runner) Round(ctx context.Context) error {
	for {
		for run := range r.heard() {
			if err := r.store.Hurry(ctx, run); err != nil {
				return err
			}
		}
		claims, err := r.store.Due(ctx, runsAtOnce, r.token, runClaim)
		for _, c := range claims {
			next, failed := r.step(ctx, c.Run)
			if failed != nil {
				next = r.store.Now().Add(runRetry)
				r.later(ctx, c.Run, failed)
			}
			err = errors.Join(err, r.store.Put(ctx, c, next))
		}
		if err != nil || len(claims) < runsAtOnce {
			return err
		}
	}
}

// later tells why a run has to wait. Limits of the tenant, and a Redis that is full, are no trouble of ours:
// they are in the record, for those who wait for the run.
func (r *Runner) later(ctx context.Context, run string, err error) {
	level := slog.LevelWarn
	if refused, ok := errors.AsType[*tasks.Error](err); ok && (refused.Code == tasks.TooManyRequests || refused.Code == tasks.StorageFull) {
		level = slog.LevelInfo
		if err := r.store.Hold(ctx, run, refused.Message); err != nil {
			r.log.Debug("why a run waits is not in its record", "run", run, "error", err)
		}
	}
	r.log.Log(ctx, level, "run left for later", "run", run, "error", err)
}

// step takes a run as far as it can go now, and says when it is to be looked at next; the zero time
// means that it has ended.
func (r *Runner) step(ctx context.Context, id string) (next time.Time, err error) {
	for more := true; more && err == nil; {
		next, more, err = r.look(ctx, id)
	}
	return next, err
}

// look is one look at a run, with what is to be done then. more says that there may be more of that.
func (r *Runner) look(ctx context.Context, id string) (next time.Time, more bool, err error) {
	run, err := r.store.Stored(ctx, id)
	switch {
	case errors.Is(err, tasks.RunGone): // it was never made, or nobody can know it any more
		return time.Time{}, false, nil
	case err != nil:
		return next, false, err
	case run.State.Final():
		return time.Time{}, false, errors.Join(r.tell(ctx, run, nil), r.store.Brake(ctx, id), r.store.Retire(ctx, run))
	}
	jobs, err := r.store.OpenJobs(ctx, run)
	if err != nil {
		return next, false, err
	}
	if err := r.brake(ctx, run, jobs); err != nil {
		return next, false, err
	}
	told := r.tell(ctx, run, jobs) // first, because what follows may have to wait
	s := runStep{Runner: r, now: r.store.Now()}
	if s.run, s.jobs, err = r.harvest(ctx, run, jobs); err != nil {
		return next, false, err
	}
	if next, err = s.goOn(ctx); err == nil && run.State == tasks.RunRunning && run.Held.Reason != "" {
		err = r.store.Hold(ctx, id, "") // nothing keeps it any more
	}
	if told != nil {
		r.log.Warn("webhooks not told yet", "run", id, "error", told)
		next = earlier(next, s.now.Add(runRetry))
	}
	return next, s.more, err
}

// brake has the workers told what the record says: whoever decided it may have died before that.
func (r *Runner) brake(ctx context.Context, run tasks.Run, jobs map[int]tasks.Job) error {
	halt, err := r.store.RunHalt(ctx, run.ID)
	if err != nil {
		return err
	}
	if run.Braked(jobs) == (halt != nil) {
		return nil
	}
	return r.store.Brake(ctx, run.ID)
}

// harvest makes the jobs that are missing, cancels those of a run that was cancelled, and counts those that
// have ended. It returns the run as it is then, with its open jobs.
func (r *Runner) harvest(ctx context.Context, run tasks.Run, jobs map[int]tasks.Job) (tasks.Run, map[int]tasks.Job, error) {
	var missing []int
	closed := false
	for _, part := range slices.Sorted(maps.Keys(run.Open)) {
		job, made := jobs[part]
		if !made {
			missing = append(missing, part)
			continue
		}
		if run.Cancelled && !job.State.Final() {
			if err := r.store.Cancel(ctx, job.ID, actorOf(run)); err != nil && !ended(err) {
				return run, nil, err
			}
		}
		if job.State.Final() {
			if err := r.store.Close(ctx, run.ID, part, job); err != nil {
				return run, nil, err
			}
			closed = true
		}
	}
	if err := r.makeJobs(ctx, run, missing); err != nil {
		return run, nil, err
	}
	if !closed && len(missing) == 0 && !run.Cancelled {
		return run.Sum(jobs, r.store.Now()), jobs, nil
	}
	run, err := r.store.Stored(ctx, run.ID)
	if err != nil {
		return run, nil, err
	}
	if jobs, err = r.store.OpenJobs(ctx, run); err != nil {
		return run, nil, err
	}
	return run.Sum(jobs, r.store.Now()), jobs, nil
}

func ended(err error) bool { return tasks.CodeOf(err) == tasks.JobFinal }

func actorOf(run tasks.Run) tasks.Actor { return tasks.Actor{By: "run " + run.ID} }

// makeJobs makes the jobs of parts that were taken.
func (r *Runner) makeJobs(ctx context.Context, run tasks.Run, parts []int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(partsAtOnce)
	for _, part := range parts {
		group.Go(func() error { return r.makeJob(ctx, run, part) })
	}
	return group.Wait()
}

// makeJob makes the job of a part. Under its ID it is the same job however often it is made.
func (r *Runner) makeJob(ctx context.Context, run tasks.Run, part int) error {
	list, err := r.store.Parts(ctx, run.ID, part, 1)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("run %s has no part %d", run.ID, part)
	}
	s := tasks.Submission{
		Tenant: run.Tenant, RequestID: run.RequestID, InstanceIDs: list[0].InstanceIDs, AllowUnregistered: run.AllowUnregistered,
		Reason: run.Reason, Labels: run.Labels, By: run.By, From: run.From, Traceparent: run.Traceparent, RunID: run.ID, Part: part,
		Generations: list[0].Generations, GiveUpAfter: run.GiveUpAfter, Drivers: map[string]string{},
	}
	fleet, err := r.store.Registered(ctx, s.InstanceIDs)
	if err != nil {
		return err
	}
	for id, in := range fleet {
		if in.Driver != "" {
			s.Drivers[id] = in.Driver
		}
	}
	if run.Cancelled {
		// A runner that has not heard of the cancel may be about to make this job. It finds another
		// one under its ID, of which nothing begins before it is cancelled.
		s.NotBefore = tasks.Time{Time: r.store.Now().Add(tasks.MaxNotBefore).Truncate(time.Millisecond)}
	}
	job, err := r.store.Submit(ctx, s)
	var undelivered *tasks.UndeliveredError
	switch {
	case errors.As(err, &undelivered): // the sweeper enqueues what is missing
	case tasks.CodeOf(err) == tasks.KeyReused: // it was made before, for a run that was not cancelled or was
		return nil
	case err != nil:
		return fmt.Errorf("make job of part %d: %w", part, err)
	}
	if run.Cancelled {
		if err := r.store.Cancel(ctx, job.ID, actorOf(run)); err != nil && !ended(err) {
			return err
		}
	}
	return nil
}
