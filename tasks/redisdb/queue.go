package redisdb

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
)

// unlimited is for asynq's own timeout: the record decides when an attempt has
// taken too long and when there have been enough.
const unlimited = 10 * 365 * 24 * time.Hour

// enqueue hands the job's open items to the workers. It may be repeated: asynq
// refuses the ID of a task that it still knows, which is as good as enqueued.
func (db *DB) enqueue(ctx context.Context, job tasks.Job) error {
	// The record is committed, so a caller who hangs up must not stop this half-way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	deliveries := job.Deliveries()
	if err := db.enqueueAll(ctx, len(deliveries), func(ctx context.Context, i int) error {
		return db.enqueueOne(ctx, job, deliveries[i], 0)
	}); err != nil {
		return &tasks.UndeliveredError{Job: job.ID, Cause: err}
	}
	return nil
}

func (db *DB) enqueueOne(ctx context.Context, job tasks.Job, d tasks.Delivery, delay time.Duration) error {
	_, err := db.client.EnqueueContext(ctx, asynq.NewTask(tasks.TypeReset, d.Encode()),
		asynq.TaskID(d.TaskID()),
		asynq.Queue(job.Queue),
		asynq.MaxRetry(math.MaxInt32),
		asynq.Timeout(unlimited),
		asynq.Retention(job.TaskRetention),
		asynq.ProcessIn(delay),
	)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}

// Queues returns the names of the queues that workers serve.
func (db *DB) Queues() []string { return []string{queueName} }
