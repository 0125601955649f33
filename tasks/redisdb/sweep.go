package redisdb

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

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

// Due returns open jobs whose sweep is due, the longest waiting first, at most n,
// and the time by Redis's clock.
func (db *DB) Due(ctx context.Context, n int) ([]tasks.OpenJob, time.Time, error) {
	now, err := db.rdb.Time(ctx).Result()
	if err != nil {
		return nil, now, fmt.Errorf("due jobs: %w", err)
	}
	entries, err := db.rdb.ZRangeByScoreWithScores(ctx, openKey, &redis.ZRangeBy{
		Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10), Count: int64(n),
	}).Result()
	if err != nil {
		return nil, now, fmt.Errorf("due jobs: %w", err)
	}
	due := make([]tasks.OpenJob, len(entries))
	for i, e := range entries {
		id, _ := e.Member.(string)
		due[i] = tasks.OpenJob{ID: id, Due: tasks.FromMillis(int64(e.Score))}
	}
	return due, now, nil
}

// Reschedule sets the time of a job's next sweep, unless someone has set another
// one since it was read.
func (db *DB) Reschedule(ctx context.Context, j tasks.OpenJob, next time.Time) error {
	return db.settle(ctx, j, strconv.FormatInt(next.UnixMilli(), 10))
}

// Unlist takes a job that is final, or has no record, out of the open index,
// unless someone has listed it anew since it was read.
func (db *DB) Unlist(ctx context.Context, j tasks.OpenJob) error { return db.settle(ctx, j, "") }

func (db *DB) settle(ctx context.Context, j tasks.OpenJob, score string) error {
	if err := settleScript.Run(ctx, db.rdb, []string{openKey}, j.ID, j.Due.UnixMilli(), score).Err(); err != nil {
		return fmt.Errorf("settle open job: %w", err)
	}
	return nil
}

// Redeliver hands an open item of the job to the workers again, because the task of delivery
// d is lost; delay says how long to wait, given how many attempts were lost
// before. Errors: a tasks.Refusal if the item has moved on.
func (db *DB) Redeliver(ctx context.Context, job tasks.Job, d tasks.Delivery, delay func(lost int) time.Duration) error {
	record, n := recordOf(d)
	a, err := db.answered(ctx, deliverScript, record, n, d.Number, d.InstanceID)
	if err != nil {
		return fmt.Errorf("deliver again: %w", err)
	}
	d.Number = int(number(a[0]))
	when := asynq.ProcessAt(startOf(job))
	if number(a[2]) == 1 {
		when = asynq.ProcessIn(delay(int(number(a[1]))))
	}
	if err := db.enqueueOne(ctx, job, d, when); err != nil {
		return fmt.Errorf("deliver again: %w", err)
	}
	return nil
}

// NewInspector makes an asynq inspector that shares this DB's connections.
func (db *DB) NewInspector() *asynq.Inspector { return asynq.NewInspectorFromRedisClient(db.rdb) }
