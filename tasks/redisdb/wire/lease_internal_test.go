package wire

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// asynq cancels what it works on when it cannot extend its lease. It is told that it can.
func TestLeasesLastToAsynqWhileRedisIsAway(t *testing.T) {
	away := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialTimeout: 100 * time.Millisecond})
	defer func() { _ = away.Close() }()
	lanes := taker{UniversalClient: away}
	if err := lanes.ZAddXX(t.Context(), "asynq:{reset-0}:lease", redis.Z{Member: "a"}).Err(); err != nil {
		t.Error(err)
	}
	if err := lanes.ZAddXX(t.Context(), "asynq:{reset-0}:retry", redis.Z{Member: "a"}).Err(); err == nil {
		t.Error("anything else is told to have been done, too")
	}
}
