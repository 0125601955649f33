package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/wire"
)

const (
	// DefaultFullAt is in percent. What is left above it is for the brake, for the
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

// Storage is the room that Redis has.
type Storage struct {
	redis    *wire.Client
	fullAt   int
	fill     *wire.Look[float64] // percent, see fullest
	embedded bool
}

// NewStorage makes a Storage that takes no new work once fullAt percent of the maxmemory of a
// server of Redis are used; 0 = DefaultFullAt. An embedded Redis has no bound. The caller closes it.
func NewStorage(client *wire.Client, fullAt int, embedded bool) *Storage {
	s := &Storage{redis: client, fullAt: cmp.Or(fullAt, DefaultFullAt), embedded: embedded}
	s.fill = wire.NewLook(memoryFresh, memoryPatience, func(ctx context.Context, _ *float64) (float64, error) { return s.fullest(ctx) })
	return s
}

// FullAt is from how many percent on no new work is accepted.
func (s *Storage) FullAt() int { return s.fullAt }

// Close waits for what looks at the memory. Nobody may ask any more.
func (s *Storage) Close() { s.fill.Wait() }

// Accepting reports whether new work is accepted: not while a server of Redis has used
// that much of its maxmemory. As long as Redis does not tell, what it said
// before holds.
func (s *Storage) Accepting(ctx context.Context) bool {
	if s.embedded {
		return true
	}
	percent, err := s.fill.Get(ctx)
	if err != nil {
		percent, _ = s.fill.Last()
	}
	return percent < float64(s.fullAt)
}

// Refuse refuses new work while Redis is nearly full.
func (s *Storage) Refuse(ctx context.Context) error {
	if s.Accepting(ctx) {
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

// OrFull turns an error of new work into tasks.StorageFull if Redis refused to write because
// it is full. A job that stands without its tasks was accepted.
func OrFull(err error) error {
	if _, stands := errors.AsType[*tasks.UndeliveredError](err); stands || !SaysFull(err) {
		return err
	}
	return fmt.Errorf("%w: %w", storageFull(), err)
}

// SaysFull reports whether Redis refused a write for want of room. Redis 6.2 wraps that in
// another error when a script made the write.
func SaysFull(err error) bool {
	return err != nil && strings.Contains(err.Error(), "OOM command not allowed")
}

// fullest is how many percent of its maxmemory that server has used which is fullest; 0
// without a bound.
func (s *Storage) fullest(ctx context.Context) (percent float64, err error) {
	var mu sync.Mutex
	err = s.redis.ForEachPrimary(ctx, func(ctx context.Context, node redis.Cmdable, _ string) error {
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
	info := wire.ParseInfo(text)
	var bytes [3]float64
	for i, name := range []string{"used_memory", "mem_not_counted_for_evict", "maxmemory"} {
		bytes[i], _ = strconv.ParseFloat(info[name], 64) // 0 if Redis does not say
	}
	if bytes[2] == 0 {
		return 0, nil
	}
	return 100 * (bytes[0] - bytes[1]) / bytes[2], nil
}
