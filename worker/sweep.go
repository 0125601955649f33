package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"batchreset/tasks"
)

const (
	// sweepEvery is the pause between two rounds of the sweeper, leadFor how long a
	// sweeper that died keeps others from taking over, roundTime how long a round
	// goes on taking new jobs.
	sweepEvery = 5 * time.Second
	leadFor    = 20 * time.Second
	roundTime  = 5 * time.Second
	// A job is looked at again after as long as it has been open, within these
	// bounds: a long queue is not read over and over.
	recheckFirst = time.Minute
	recheckLast  = 10 * time.Minute
	// An item whose attempts keep being lost is delivered later each time, so that
	// one that kills its workers does not take all others down with it.
	lossBase = 10 * time.Second
	lossCap  = 30 * time.Minute
)

// What had become of a lost task.
const (
	orphaned     = "orphaned"
	missing      = "missing"
	completed    = "completed"
	archivedTask = "archived"
)

// SweepStore is the index of open jobs, as the sweeper needs it.
type SweepStore interface {
	Lead(ctx context.Context, token string, ttl time.Duration) (bool, error)
	Due(ctx context.Context, n int) (due []tasks.OpenJob, now time.Time, err error)
	Job(ctx context.Context, id string) (tasks.Job, error)
	Tell(ctx context.Context, job tasks.Job) error
	IndexFailures(ctx context.Context, job tasks.Job) error
	Redeliver(ctx context.Context, job tasks.Job, d tasks.Delivery, delay func(lost int) time.Duration) error
	Reschedule(ctx context.Context, j tasks.OpenJob, next time.Time) error
	Unlist(ctx context.Context, j tasks.OpenJob) error
}

// Inspector is the part of [asynq.Inspector] that the sweeper looks through.
type Inspector interface {
	ListActiveTasks(queue string, opts ...asynq.ListOption) ([]*asynq.TaskInfo, error)
	GetTaskInfo(queue, id string) (*asynq.TaskInfo, error)
}

// Sweeper delivers items again whose task is lost: its worker has died, or it was
// never enqueued, or someone removed it. Every worker process has one; a lock in
// Redis lets one at a time work. Two at a time would do no harm, because the record
// accepts each new delivery once.
type Sweeper struct {
	store     SweepStore
	inspector Inspector
	queues    Queues
	log       *slog.Logger
	token     string
	repairs   *prometheus.CounterVec
}

// NewSweeper makes a sweeper over the given queues.
func NewSweeper(store SweepStore, inspector Inspector, queues Queues, log *slog.Logger) *Sweeper {
	s := &Sweeper{
		store: store, inspector: inspector, queues: queues, log: log, token: rand.Text(),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_sweeper_repairs_total",
			Help: "Items delivered again because their task was lost, by what had become of it.",
		}, []string{"task"}),
	}
	for _, lost := range []string{orphaned, missing, completed, archivedTask} {
		s.repairs.WithLabelValues(lost) // so that it is there before it happens
	}
	return s
}

// Describe implements prometheus.Collector.
func (s *Sweeper) Describe(c chan<- *prometheus.Desc) { s.repairs.Describe(c) }

// Collect implements prometheus.Collector.
func (s *Sweeper) Collect(c chan<- prometheus.Metric) { s.repairs.Collect(c) }

// Run sweeps until ctx ends.
func (s *Sweeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("sweep failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Sweep does one round, if no other process does.
func (s *Sweeper) Sweep(ctx context.Context) error {
	leads, err := s.store.Lead(ctx, s.token, leadFor)
	if err != nil || !leads {
		return err
	}
	return errors.Join(s.takeOver(ctx), s.walk(ctx))
}

// takeOver delivers the items anew whose worker has died, long before asynq would.
// asynq gives the dead worker's task to someone later; begin refuses it then.
func (s *Sweeper) takeOver(ctx context.Context) error {
	const page = 1000
	queues, err := s.queues(ctx)
	if err != nil {
		return err
	}
	for _, queue := range queues {
		for n := 1; ; n++ {
			active, err := s.inspector.ListActiveTasks(queue, asynq.Page(n), asynq.PageSize(page))
			if errors.Is(err, asynq.ErrQueueNotFound) {
				break
			}
			if err != nil {
				return err
			}
			for _, task := range active {
				if task.IsOrphaned {
					if err := s.takeOverTask(ctx, task); err != nil {
						return err
					}
				}
			}
			if len(active) < page {
				break
			}
		}
	}
	return nil
}

func (s *Sweeper) takeOverTask(ctx context.Context, task *asynq.TaskInfo) error {
	d, err := tasks.DecodeDelivery(task.Payload)
	if err != nil {
		return nil //nolint:nilerr // not ours; whoever runs it will archive it
	}
	id, _, _ := tasks.ParseItemID(d.ItemID)
	job, err := s.store.Job(ctx, id)
	if errors.Is(err, tasks.JobGone) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.redeliver(ctx, job, d, orphaned)
}

// walk looks at the open jobs that are due.
func (s *Sweeper) walk(ctx context.Context) error {
	for start := time.Now(); time.Since(start) < roundTime; {
		due, now, err := s.store.Due(ctx, 100)
		if err != nil || len(due) == 0 {
			return err
		}
		for _, open := range due {
			if err := s.check(ctx, open, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// check looks at one open job: it leaves the index if it is final and told, with its
// failures listed, or never came to be, else its lost tasks are delivered again.
func (s *Sweeper) check(ctx context.Context, open tasks.OpenJob, now time.Time) error {
	job, err := s.store.Job(ctx, open.ID)
	if err == nil {
		err = errors.Join(s.store.Tell(ctx, job), s.store.IndexFailures(ctx, job))
	}
	if errors.Is(err, tasks.JobGone) || err == nil && job.State.Final() {
		return s.store.Unlist(ctx, open)
	}
	if err != nil {
		// One record that cannot be read or told must not keep the others from being swept.
		s.log.Error("open job not swept", "job", open.ID, "error", err)
		return s.store.Reschedule(ctx, open, now.Add(recheckLast))
	}
	next := now.Add(min(max(now.Sub(job.CreatedAt.Time), recheckFirst), recheckLast))
	for _, d := range job.Deliveries() {
		lost, err := s.lost(job.Queue, d)
		if err != nil {
			return err
		}
		if lost == "" {
			continue
		}
		if err := s.redeliver(ctx, job, d, lost); err != nil {
			return err
		}
		next = now.Add(recheckFirst)
	}
	return s.store.Reschedule(ctx, open, next)
}

// lost says what has become of a delivery's task, if nobody will run it any more.
func (s *Sweeper) lost(queue string, d tasks.Delivery) (string, error) {
	task, err := s.inspector.GetTaskInfo(queue, d.TaskID())
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return missing, nil
	case err != nil:
		return "", err
	case task.State == asynq.TaskStateCompleted:
		return completed, nil
	case task.State == asynq.TaskStateArchived:
		return archivedTask, nil
	}
	return "", nil
}

func (s *Sweeper) redeliver(ctx context.Context, job tasks.Job, d tasks.Delivery, lost string) error {
	err := s.store.Redeliver(ctx, job, d, lossDelay)
	if _, moved := errors.AsType[tasks.Refusal](err); moved {
		return nil // it has ended or was delivered again since we looked
	}
	if err != nil {
		return err
	}
	s.repairs.WithLabelValues(lost).Inc()
	attrs := []slog.Attr{
		slog.String("job", job.ID), slog.String("item", d.ItemID), slog.String("instance", d.InstanceID),
		slog.String("tenant", job.Tenant), slog.String("task", lost),
	}
	if id := job.TraceID(); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	s.log.LogAttrs(ctx, slog.LevelWarn, "item delivered again", attrs...)
	return nil
}

// lossDelay is the delay of an item that has lost an attempt, after so many lost
// before: none at first, then 10 s, doubling, at most 30 min.
func lossDelay(before int) time.Duration {
	if before == 0 {
		return 0
	}
	return double(lossBase, lossCap, before)
}
