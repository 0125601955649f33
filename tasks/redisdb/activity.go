package redisdb

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

const (
	// activityStep is how often a process writes what it has done, activityKept how long
	// that is kept.
	activityStep = 2 * time.Second
	activityKept = 2 * time.Hour
	// activityPatience is for the last time, when the process ends.
	activityPatience = time.Second
)

// activityKey is a hash of numbers of items, of one minute.
func activityKey(minute int64) string { return fmt.Sprintf("reset:activity:%d", minute) }

// activity is what this process has done to items and has not written yet. It is for
// charts; who needs exact numbers has the records.
type activity struct {
	submitted, succeeded, failed, unknown, cancelled atomic.Int64
}

// end counts an item that has come to a final state.
func (a *activity) end(state tasks.ItemState) {
	switch state {
	case tasks.ItemSucceeded:
		a.succeeded.Add(1)
	case tasks.ItemFailed:
		a.failed.Add(1)
	case tasks.ItemUnknown:
		a.unknown.Add(1)
	case tasks.ItemCancelled:
		a.cancelled.Add(1)
	}
}

// take returns what is not written, by field of the hash, and forgets it.
func (a *activity) take() map[string]int64 {
	done := map[string]int64{}
	for name, n := range map[string]*atomic.Int64{
		"submitted": &a.submitted, "succeeded": &a.succeeded, "failed": &a.failed, "unknown": &a.unknown, "cancelled": &a.cancelled,
	} {
		if n := n.Swap(0); n > 0 {
			done[name] = n
		}
	}
	return done
}

// WriteActivity writes what this process does to items for Overview, until ctx ends; Close
// writes the rest. While nothing happens nothing is sent.
func (db *DB) WriteActivity(ctx context.Context) error {
	ticker := time.NewTicker(activityStep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			db.writeActivity(ctx)
		}
	}
}

// writeActivity adds it to the minute of Redis's clock. What cannot be written is lost.
func (db *DB) writeActivity(ctx context.Context) {
	done := db.activity.take()
	if len(done) == 0 {
		return
	}
	now, err := db.rdb.Time(ctx).Result()
	if err != nil {
		return
	}
	key := activityKey(now.Unix() / 60)
	pipe := db.rdb.Pipeline()
	for name, n := range done {
		pipe.HIncrBy(ctx, key, name, n)
	}
	pipe.Expire(ctx, key, activityKept)
	_, _ = pipe.Exec(ctx)
}

// minutes are the last n, oldest first.
func (db *DB) minutes(ctx context.Context, now time.Time, n int) ([]tasks.Activity, error) {
	pipe := db.rdb.Pipeline()
	hashes := make([]*redis.MapStringStringCmd, n)
	for i := range hashes {
		hashes[i] = pipe.HGetAll(ctx, activityKey(now.Unix()/60-int64(n-1-i)))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	minutes := make([]tasks.Activity, n)
	for i, hash := range hashes {
		count := func(name string) int64 {
			n, _ := strconv.ParseInt(hash.Val()[name], 10, 64) // 0 if it is not there
			return n
		}
		minutes[i] = tasks.Activity{
			Submitted: count("submitted"), Succeeded: count("succeeded"), Failed: count("failed"), Unknown: count("unknown"), Cancelled: count("cancelled"),
		}
	}
	return minutes, nil
}
