package redisdb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"batchreset/tasks"
)

const (
	// DefaultFullAt is the Options' default. What is left above it is for the brake, for the
	// outcomes of what runs, and for the trail.
	DefaultFullAt = 85
	// memoryFresh is how long a look at the memory of Redis is good for.
	memoryFresh = time.Second
	// memoryPatience bounds a look.
	memoryPatience = 500 * time.Millisecond
	// fullRetryAfter is when it makes sense to ask a Redis again that is nearly full: room
	// comes from records that expire, and from people.
	fullRetryAfter = 30 * time.Second
)

// memory remembers how full Redis was at the last look. Whoever finds that too old looks
// again, for all who ask at that time: nobody looks while nobody asks.
type memory struct {
	last  atomic.Pointer[memoryLook]
	looks singleflight.Group
}

type memoryLook struct {
	at time.Time
	// percent of its maxmemory is used by the server that is fullest; 0 without a bound.
	percent float64
}

// Accepting reports whether new work is accepted: not while a server of Redis has used
// Options.FullAt percent of its maxmemory. As long as Redis does not tell, what it said
// before holds.
func (db *DB) Accepting(ctx context.Context) bool {
	last := db.memory.last.Load()
	if last == nil || time.Since(last.at) >= memoryFresh {
		last = db.lookAtMemory(ctx, last)
	}
	return last == nil || last.percent < float64(db.opts.FullAt)
}

// refuseWhenFull refuses new work while Redis is nearly full.
func (db *DB) refuseWhenFull(ctx context.Context) error {
	if db.Accepting(ctx) {
		return nil
	}
	return storageFull()
}

func storageFull() *tasks.Error {
	return &tasks.Error{
		Code: tasks.StorageFull, RetryAfter: fullRetryAfter,
		Message: "Redis is nearly full: no new work is accepted for now",
	}
}

// orFull turns an error of new work into tasks.StorageFull if Redis refused to write because
// it is full. A job that stands without its tasks was accepted.
func orFull(err error) error {
	if _, stands := errors.AsType[*tasks.UndeliveredError](err); stands || !saysFull(err) {
		return err
	}
	return fmt.Errorf("%w: %w", storageFull(), err)
}

// saysFull reports whether Redis refused a write for want of room. Redis 6.2 wraps that in
// another error when a script made the write.
func saysFull(err error) bool {
	return err != nil && strings.Contains(err.Error(), "OOM command not allowed")
}

func (db *DB) lookAtMemory(ctx context.Context, last *memoryLook) *memoryLook {
	if db.opts.Embedded {
		return nil
	}
	looking := db.memory.looks.DoChan("", func() (any, error) {
		// It is not this caller's alone.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), memoryPatience)
		defer cancel()
		look := &memoryLook{at: time.Now()}
		var err error
		if look.percent, err = db.fullest(ctx); err != nil {
			return nil, err
		}
		db.memory.last.Store(look)
		return look, nil
	})
	select {
	case looked := <-looking:
		if look, ok := looked.Val.(*memoryLook); ok {
			return look
		}
	case <-ctx.Done():
	}
	return last
}

// fullest is how many percent of its maxmemory that server has used which is fullest.
func (db *DB) fullest(ctx context.Context) (percent float64, err error) {
	cluster, ok := db.rdb.(*redis.ClusterClient)
	if !ok {
		return fill(ctx, db.rdb)
	}
	var mu sync.Mutex
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		p, err := fill(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		percent = max(percent, p)
		return err
	})
	return percent, err
}

// fill counts as Redis does when it decides whether to refuse writes.
func fill(ctx context.Context, rdb redis.Cmdable) (percent float64, err error) {
	text, err := rdb.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	info := parseInfo(text)
	var bytes [3]float64
	for i, name := range []string{"used_memory", "mem_not_counted_for_evict", "maxmemory"} {
		bytes[i], _ = strconv.ParseFloat(info[name], 64) // 0 if Redis does not say
	}
	if bytes[2] == 0 {
		return 0, nil
	}
	return 100 * (bytes[0] - bytes[1]) / bytes[2], nil
}
