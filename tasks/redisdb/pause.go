package redisdb

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// shortestPause and longestPause bound the pause. It is random, so that the lanes of all
// workers do not return together.
const (
	shortestPause = 100 * time.Millisecond
	longestPause  = 250 * time.Millisecond
)

// pause holds up a caller without a deadline after a call that failed. Such
// callers are asynq's own loops, and the one that takes tasks tries again at once
// after any error: Redis away, full, read-only, loading. A call that can be
// cancelled has somebody waiting and fails as fast as it can.
type pause struct{}

// pausing adds the pause to a client.
func pausing(rdb redis.UniversalClient) redis.UniversalClient {
	rdb.AddHook(pause{})
	return rdb
}

func (pause) DialHook(next redis.DialHook) redis.DialHook { return next }

func (pause) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (pause) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		// Nil is an empty queue. NOSCRIPT is followed by the script itself.
		ordinary := err == nil || errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "NOSCRIPT")
		if !ordinary && ctx.Done() == nil {
			time.Sleep(shortestPause + rand.N(longestPause-shortestPause))
		}
		return err
	}
}
