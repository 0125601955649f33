package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/errgroup"

	"batchreset/tasks"
)

const (
	// sweepEvery is the pause between two rounds of the sweeper, leadFor how long one that
	// died keeps others from looking for the tasks of dead workers, roundTime how long a
	// round goes on taking open jobs.
	sweepEvery = 5 * time.Second
	leadFor    = 20 * time.Second
	roundTime  = 5 * time.Second
	// A sweeper claims this many open jobs at once, for this long. If it dies, others may
	// claim them afterwards. Two sweepers at the same job do no harm, because the record
	// accepts each new delivery once.
	sliceSize = 200
	claimTime = 20 * time.Second
	// sweepAtOnce is how many jobs are told, delivered or put off side by side.
	sweepAtOnce = 64
	// A job is looked at again after as long as it has been open, within these
	// bounds: a long queue is not read over and over.
	recheckFirst = time.Minute
	recheckLast  = 10 * time.Minute
	// An item whose attempts keep being lost is delivered later each time, so that
	// one that kills its workers does not take all others down with it.
	lossBase = 10 * time.Second
	lossCap  = 30 * time.Minute
)

// Steps of a sweep in which there can be trouble.
const (
	stepQueues  = "list queues"
	stepActive  = "list active tasks"
	stepHolder  = "look for the worker"
	stepRead    = "read record"
	stepTell    = "tell"
	stepTask    = "look up task"
	stepDeliver = "deliver again"
	stepPutOff  = "put off"
	stepServed  = "list workers"
)

var sweepSteps = []string{stepQueues, stepActive, stepHolder, stepRead, stepTell, stepTask, stepDeliver, stepPutOff, stepServed}

// SweepStore is what the sweeper needs of the open jobs, their tasks, and what follows when they
// have ended. A question about many has an answer, or an error, for each.
type SweepStore struct {
	OpenJobs
	Jobs
	Events
	Failures
	AllHalted
}

// OpenJobs are the jobs that have not ended, or not long ago, and their tasks.
type OpenJobs interface {
	Lead(ctx context.Context, token string, ttl time.Duration) (bool, error)
	Active(ctx context.Context, queue string) ([]tasks.ActiveTask, error)
	InHand(ctx context.Context) (map[string]bool, error)
	Holds(ctx context.Context, deliveries []tasks.Delivery) []tasks.Hold

	Claim(ctx context.Context, n int, lasts time.Duration) (due []tasks.OpenJob, now time.Time, err error)
	LookUp(ctx context.Context, queue string, ids []string) []tasks.TaskLook
	Redeliver(ctx context.Context, job tasks.Job, d tasks.Delivery, delay func(lost int) time.Duration) error
	// Reroute delivers an item to the driver that its instance has now, Hold says why a job waits.
	Reroute(ctx context.Context, d tasks.Delivery) error
	Hold(ctx context.Context, job, reason string) error
	Abandon(ctx context.Context, d tasks.Delivery, code tasks.Code, message string, maxFailures int) (tasks.Ended, error)
	// Served are the drivers that living workers have.
	Served(ctx context.Context) (map[string]bool, error)
	Reschedule(ctx context.Context, j tasks.OpenJob, next time.Time) error
	Unlist(ctx context.Context, j tasks.OpenJob) error
	// Relist lists the open jobs and runs that are not listed, and says how many.
	Relist(ctx context.Context) (int, error)
}

// AllHalted says whether everything is halted.
type AllHalted interface {
	// PolicyOf is what holds for all tenants if tenant and run are empty.
	PolicyOf(ctx context.Context, tenant, run string) (tasks.Policy, error)
}

// Jobs reads job records.
type Jobs interface {
	Records(ctx context.Context, ids []string) []tasks.Read
}

// Events tells the tenant's endpoints what has come of a job.
type Events interface {
	EnqueueNotices(ctx context.Context, job tasks.Job) error
}

// Failures lists what has failed in a job.
type Failures interface {
	IndexFailures(ctx context.Context, job tasks.Job) error
}

// Sweeper delivers items again whose task is lost: its worker has died, or it was
// never enqueued, or someone removed it. Every worker process has one. They share the
// open jobs, slice by slice; a lock in Redis lets one at a time look for dead workers.
//
// Trouble with one record, task or queue does not stop the others: it is logged, counted and
// tried again later.
type Sweeper struct {
	prometheus.Collector
	store    SweepStore
	queues   Queues
	log      *slog.Logger
	token    string
	suspects suspects
	leads    atomic.Bool
	relist   relist
	repairs  *prometheus.CounterVec
	troubles *prometheus.CounterVec
}

// NewSweeper makes a sweeper over the given queues.
func NewSweeper(store SweepStore, queues Queues, log *slog.Logger) *Sweeper {
	registry := prometheus.NewRegistry()
	factory := promauto.With(registry)
	s := &Sweeper{
		Collector: registry,
		store:     store, queues: queues, log: log, token: rand.Text(), suspects: newSuspects(),
		repairs: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_sweeper_repairs_total",
			Help: "Items delivered again because their task was lost, by what had become of it.",
		}, []string{"task"}),
		troubles: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_sweeper_troubles_total",
			Help: "Jobs, tasks and queues that a sweep could do nothing with and left for later, by what it was about to do.",
		}, []string{"step"}),
	}
	for _, fate := range tasks.Fates {
		s.repairs.WithLabelValues(string(fate)) // so that it is there before it happens
	}
	for _, step := range sweepSteps {
		s.troubles.WithLabelValues(step)
	}
	return s
}

// Run sweeps until ctx ends.
func (s *Sweeper) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, round := range []func(context.Context) error{s.Sweep, s.Relist} { // the latter may take minutes
		group.Go(func() error {
			s.again(ctx, round)
			return nil
		})
	}
	return group.Wait()
}

// again does a round every sweepEvery until ctx ends.
func (s *Sweeper) again(ctx context.Context, round func(context.Context) error) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		if err := round(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("sweep failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Sweep does one round. Its error means that Redis could not be asked at all.
func (s *Sweeper) Sweep(ctx context.Context) error {
	return errors.Join(s.lookForTheDead(ctx), s.walk(ctx))
}

func (s *Sweeper) lookForTheDead(ctx context.Context) error {
	leads, err := s.store.Lead(ctx, s.token, leadFor)
	s.leads.Store(err == nil && leads)
	if err != nil || !leads {
		s.suspects.forget()
		return err
	}
	s.takeOver(ctx)
	return nil
}

// walk sweeps open jobs that are due.
func (s *Sweeper) walk(ctx context.Context) error {
	for start := time.Now(); time.Since(start) < roundTime; {
		due, now, err := s.store.Claim(ctx, sliceSize, claimTime)
		if err != nil || len(due) == 0 {
			return err
		}
		s.sweep(ctx, due, now)
	}
	return nil
}

// openJob is one that is being swept.
type openJob struct {
	tasks.OpenJob
	tasks.Read
	lost []lostTask
	odd  bool // some of its tasks could not be looked up
}

type lostTask struct {
	tasks.Delivery
	fate tasks.Fate
}

// sweep sweeps the jobs of a claim.
func (s *Sweeper) sweep(ctx context.Context, due []tasks.OpenJob, now time.Time) {
	ids := make([]string, len(due))
	for i, open := range due {
		ids[i] = open.ID
	}
	jobs := make([]openJob, len(due))
	for i, read := range s.store.Records(ctx, ids) {
		jobs[i] = openJob{OpenJob: due[i], Read: read}
	}
	s.lookUp(ctx, jobs)
	served, err := s.store.Served(ctx)
	if err != nil {
		s.trouble(ctx, stepServed, err)
	}
	sideBySide(len(jobs), func(i int) {
		if err == nil && jobs[i].Err == nil {
			s.route(ctx, &jobs[i], served, now)
		}
		s.check(ctx, &jobs[i], now)
	})
}

// route looks after the items whose driver no living worker has: it gives them to the driver that
// their instance has now, or else says that the job waits for a worker. Nobody else ends them when
// their time is over.
func (s *Sweeper) route(ctx context.Context, j *openJob, served map[string]bool, now time.Time) {
	var missing []string
	for _, d := range j.Job.Deliveries() {
		if served[d.DriverName()] {
			continue
		}
		switch err := s.store.Reroute(ctx, d); {
		case err == nil:
			j.lost = slices.DeleteFunc(j.lost, func(l lostTask) bool { return l.ItemID == d.ItemID })
		case errors.Is(err, tasks.Moved):
			s.abandon(ctx, j.Job, d, tasks.NoLongerAllowed, movedInDoubt)
		case errors.Is(err, tasks.InPlace) && !j.Job.EndBefore.IsZero() && now.After(j.Job.EndBefore.Time):
			s.abandon(ctx, j.Job, d, tasks.NotInTime, "the item did not start in time: no living worker has its driver")
		case errors.Is(err, tasks.InPlace):
			if !slices.Contains(missing, d.DriverName()) {
				missing = append(missing, d.DriverName())
			}
		default:
			if _, moved := errors.AsType[tasks.Refusal](err); !moved {
				s.trouble(ctx, stepDeliver, err, aboutItem(j.Job, d)...)
			}
		}
	}
	reason := ""
	if missing != nil {
		reason = "no living worker has the driver " + strings.Join(missing, ", nor ")
	}
	if reason != j.Job.Held.Reason {
		if err := s.store.Hold(ctx, j.ID, reason); err != nil {
			s.trouble(ctx, stepDeliver, err, aboutJob(j.Job)...)
		}
	}
}

// abandon ends an item that no worker can.
func (s *Sweeper) abandon(ctx context.Context, job tasks.Job, d tasks.Delivery, code tasks.Code, message string) {
	_, err := s.store.Abandon(ctx, d, code, message, 0)
	if _, moved := errors.AsType[tasks.Refusal](err); err != nil && !moved {
		s.trouble(ctx, stepDeliver, err, aboutItem(job, d)...)
	}
}

// sideBySide calls f for each number below n, sweepAtOnce at a time.
func sideBySide(n int, f func(int)) {
	var all errgroup.Group
	all.SetLimit(sweepAtOnce)
	for i := range n {
		all.Go(func() error {
			f(i)
			return nil
		})
	}
	_ = all.Wait() // there is no error: each call sees to its own
}

// lookUp finds out which tasks of the jobs are lost, queue by queue.
func (s *Sweeper) lookUp(ctx context.Context, jobs []openJob) {
	type wanted struct {
		job *openJob
		tasks.Delivery
	}
	byQueue := map[string][]wanted{}
	for i := range jobs {
		if jobs[i].Err == nil {
			for _, d := range jobs[i].Job.Deliveries() {
				queue := jobs[i].Job.QueueOf(d)
				byQueue[queue] = append(byQueue[queue], wanted{&jobs[i], d})
			}
		}
	}
	for queue, all := range byQueue {
		ids := make([]string, len(all))
		for i, w := range all {
			ids[i] = w.TaskID()
		}
		for i, look := range s.store.LookUp(ctx, queue, ids) {
			switch job := all[i].job; {
			case look.Err != nil && !job.odd: // once for each job
				job.odd = true
				s.trouble(ctx, stepTask, look.Err, aboutItem(job.Job, all[i].Delivery)...)
			case look.Fate != "":
				job.lost = append(job.lost, lostTask{all[i].Delivery, look.Fate})
			}
		}
	}
}

// check looks at one open job. The job leaves the index if it was never created, or if it is
// final, told, and its failures are listed. Otherwise its lost tasks are delivered again.
func (s *Sweeper) check(ctx context.Context, j *openJob, now time.Time) {
	if errors.Is(j.Err, tasks.JobGone) {
		s.noteUnsaved(ctx, j, s.store.Unlist(ctx, j.OpenJob))
		return
	}
	if j.Err != nil {
		s.trouble(ctx, stepRead, j.Err, slog.String("job", j.ID))
		s.noteUnsaved(ctx, j, s.store.Reschedule(ctx, j.OpenJob, now.Add(recheckLast)))
		return
	}
	told := errors.Join(s.store.EnqueueNotices(ctx, j.Job), s.store.IndexFailures(ctx, j.Job))
	if told == nil && j.Job.State.Final() {
		s.noteUnsaved(ctx, j, s.store.Unlist(ctx, j.OpenJob))
		return
	}
	next := now.Add(min(max(now.Sub(j.Job.CreatedAt.Time), recheckFirst), recheckLast))
	if told != nil {
		s.trouble(ctx, stepTell, told, aboutJob(j.Job)...)
	}
	for _, lost := range j.lost {
		if s.redeliver(ctx, j.Job, lost.Delivery, lost.fate) {
			next = now.Add(recheckFirst) // to see whether it helped
		}
	}
	s.noteUnsaved(ctx, j, s.store.Reschedule(ctx, j.OpenJob, next))
}

// noteUnsaved notes that the job could not be rescheduled or unlisted. It is due again when the
// claim is over.
func (s *Sweeper) noteUnsaved(ctx context.Context, j *openJob, err error) {
	if err != nil {
		s.trouble(ctx, stepPutOff, err, slog.String("job", j.ID))
	}
}

// redeliver hands an item to the workers again and reports whether it has.
func (s *Sweeper) redeliver(ctx context.Context, job tasks.Job, d tasks.Delivery, fate tasks.Fate) bool {
	err := s.store.Redeliver(ctx, job, d, lossDelay)
	if _, moved := errors.AsType[tasks.Refusal](err); moved {
		return false // it has ended or was delivered again since we looked, or it is worked on
	}
	attrs := append(aboutItem(job, d), slog.String("task", string(fate)))
	if err != nil {
		s.trouble(ctx, stepDeliver, err, attrs...)
		return false
	}
	s.repairs.WithLabelValues(string(fate)).Inc()
	if id := job.TraceID(); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	s.log.LogAttrs(ctx, slog.LevelWarn, "item delivered again", attrs...)
	return true
}

// trouble logs and counts what a sweep leaves for later.
func (s *Sweeper) trouble(ctx context.Context, step string, err error, attrs ...slog.Attr) {
	if ctx.Err() != nil {
		return // the process stops
	}
	s.troubles.WithLabelValues(step).Inc()
	s.log.LogAttrs(ctx, slog.LevelError, "left for a later sweep", append(attrs, slog.String("step", step), slog.Any("error", err))...)
}

func aboutJob(job tasks.Job) []slog.Attr {
	return []slog.Attr{slog.String("job", job.ID), slog.String("tenant", job.Tenant)}
}

func aboutItem(job tasks.Job, d tasks.Delivery) []slog.Attr {
	return append(aboutJob(job), slog.String("item", d.ItemID), slog.String("instance", d.InstanceID))
}

// lossDelay is the delay of an item that has lost an attempt, after so many lost
// before: none at first, then 10 s, doubling, at most 30 min.
func lossDelay(before int) time.Duration {
	if before == 0 {
		return 0
	}
	return double(lossBase, lossCap, before)
}
