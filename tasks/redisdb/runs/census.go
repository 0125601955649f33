package runs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

const (
	// censusLimit is how many open runs a census looks at: it bounds what a scrape costs. censusStep is how many it asks for
	// by one call.
	censusLimit = 10_000
	censusStep  = 500
)

// Census are the runs that have not ended.
type Census struct {
	Open map[tasks.RunState]int
	// Paused and Approval say how long the run has waited that has waited longest for people: while it is paused, or for
	// approval. 0: none does.
	Paused, Approval time.Duration
}

// Census counts the open runs, or the first 10,000 of them.
func (r *Runs) Census(ctx context.Context) (Census, error) {
	c := Census{Open: map[tasks.RunState]int{tasks.RunWaiting: 0, tasks.RunRunning: 0, tasks.RunPaused: 0}}
	ids, err := r.redis.ZRange(ctx, codec.OpenRunsKey, 0, censusLimit-1).Result()
	if err != nil {
		return c, fmt.Errorf("list open runs: %w", err)
	}
	now := r.redis.Now()
	for some := range slices.Chunk(ids, censusStep) {
		pipe := r.redis.Pipeline()
		records := make([]*redis.SliceCmd, len(some))
		for i, id := range some {
			records[i] = pipe.HMGet(ctx, codec.RunKey(id), "state", "held", "created", "approvers", "approvals")
		}
		_, _ = pipe.Exec(ctx) // each command carries its own error
		for _, record := range records {
			fields, err := record.Result()
			switch {
			case err == nil:
				c.add(fields, now)
			case !wire.Answered(err):
				return c, fmt.Errorf("count runs: %w", err)
			}
		}
	}
	return c, nil
}

// add counts a run, unless it has ended, is about to be made, or cannot be read.
func (c *Census) add(fields []any, now time.Time) {
	field := func(n int) string { text, _ := fields[n].(string); return text }
	number := func(n int) int64 { value, _ := strconv.ParseInt(field(n), 10, 64); return value }
	state := tasks.RunState(field(0))
	if _, open := c.Open[state]; !open {
		return
	}
	c.Open[state]++
	since := heldOf(field(1)).Since
	switch {
	case state == tasks.RunPaused && !since.IsZero():
		c.Paused = max(c.Paused, now.Sub(since.Time))
	case state == tasks.RunWaiting && number(4) < number(3):
		c.Approval = max(c.Approval, now.Sub(time.UnixMilli(number(2))))
	}
}

// Rests are the instances of running runs that are in no job yet: of the first 10,000 open runs. One that cannot be read is left
// out.
func (r *Runs) Rests(ctx context.Context) (rests []tasks.RunRest, err error) {
	ids, err := r.redis.ZRange(ctx, codec.OpenRunsKey, 0, censusLimit-1).Result()
	if err != nil {
		return nil, fmt.Errorf("list open runs: %w", err)
	}
	for some := range slices.Chunk(ids, censusStep) {
		pipe := r.redis.Pipeline()
		records := make([]*redis.MapStringStringCmd, len(some))
		for i, id := range some {
			records[i] = pipe.HGetAll(ctx, codec.RunKey(id))
		}
		_, _ = pipe.Exec(ctx) // each command carries its own error
		for i, record := range records {
			hash, err := record.Result()
			if err != nil && !wire.Answered(err) {
				return nil, fmt.Errorf("count runs: %w", err)
			}
			run, err := decode(some[i], hash)
			if err != nil || run.State != tasks.RunRunning || run.Cancelled {
				continue
			}
			made := run.Closed.Total()
			for _, size := range run.Open {
				made += size
			}
			if rest := run.Total - made; rest > 0 {
				rests = append(rests, tasks.RunRest{Run: run.ID, Tenant: run.Tenant, Instances: rest})
			}
		}
	}
	return rests, nil
}
