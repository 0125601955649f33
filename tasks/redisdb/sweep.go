package redisdb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
)

const sweeperKey = "reset:sweeper"

// Lead makes the process with this token the only sweeper until ttl has passed,
// and reports whether it is.
func (db *DB) Lead(ctx context.Context, token string, ttl time.Duration) (bool, error) {
	leads, err := leadScript.Run(ctx, db.rdb, []string{sweeperKey}, token, ttl.Milliseconds()).Int()
	if err != nil {
		return false, fmt.Errorf("lead: %w", err)
	}
	return leads == 1, nil
}

// Claim takes open jobs whose sweep is due, the longest waiting first, at most n. Nobody else
// gets them for as long as the claim lasts. It returns the time by Redis's clock, too.
func (db *DB) Claim(ctx context.Context, n int, lasts time.Duration) ([]tasks.OpenJob, time.Time, error) {
	a, err := claimScript.Run(ctx, db.rdb, []string{openKey}, n, lasts.Milliseconds()).Slice()
	if err != nil || len(a) != 2 {
		return nil, time.Time{}, fmt.Errorf("claim open jobs: %w, answer %v", err, a)
	}
	now := time.UnixMilli(number(a[0]))
	listed, _ := a[1].([]any)
	due := make([]tasks.OpenJob, len(listed))
	for i, id := range listed {
		due[i] = tasks.OpenJob{ID: text(id), Due: tasks.FromMillis(now.Add(lasts).UnixMilli())}
	}
	return due, now, nil
}

// Reschedule sets the time of a job's next sweep, unless someone has set another
// one since it was read.
func (db *DB) Reschedule(ctx context.Context, j tasks.OpenJob, next time.Time) error {
	return db.reschedule(ctx, j, strconv.FormatInt(next.UnixMilli(), 10))
}

// Unlist takes a job that is final, or has no record, out of the open index,
// unless someone has listed it anew since it was read.
func (db *DB) Unlist(ctx context.Context, j tasks.OpenJob) error { return db.reschedule(ctx, j, "") }

func (db *DB) reschedule(ctx context.Context, j tasks.OpenJob, score string) error {
	if err := rescheduleScript.Run(ctx, db.group, []string{openKey}, j.ID, j.Due.UnixMilli(), score).Err(); err != nil {
		return fmt.Errorf("reschedule open job: %w", err)
	}
	return nil
}

// Redeliver hands an open item of the job to the workers again, because the task of delivery
// d is lost; delay says how long to wait if an attempt was lost with it, given how many were
// before. Errors: a tasks.Refusal if the item has moved on, or tasks.AttemptAlive if its
// attempt is still at work.
func (db *DB) Redeliver(ctx context.Context, job tasks.Job, d tasks.Delivery, delay func(lost int) time.Duration) error {
	record, n := recordOf(d)
	wait := time.Duration(0)
	a, err := db.overDead(ctx, d, func(dead string) ([]any, error) {
		a, err := db.answered(ctx, deliverScript, record, n, d.Number, d.InstanceID, dead, wait.Milliseconds())
		if running, ok := errors.AsType[*runningError](err); ok {
			wait = delay(running.lost)
		}
		return a, err
	})
	if err != nil {
		return fmt.Errorf("deliver again: %w", err)
	}
	d.Number, d.Epoch = int(number(a[0])), job.Epoch
	when := asynq.ProcessAt(startOf(job))
	if left := number(a[1]); left > 0 {
		when = asynq.ProcessIn(time.Duration(left) * time.Millisecond)
	}
	if err := db.enqueueAll(ctx, job.Queue, 1, func(ctx context.Context, client *asynq.Client, _ int) error {
		return enqueueOne(ctx, client, job, d, when)
	}); err != nil {
		return fmt.Errorf("deliver again: %w", err)
	}
	return nil
}

// NewInspector makes an asynq inspector that shares this DB's connections.
func (db *DB) NewInspector() *asynq.Inspector { return asynq.NewInspectorFromRedisClient(db.rdb) }
