package redisdb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

const (
	// workerLifetime is how long a worker process that shows nothing counts as alive, by Redis's
	// clock: with asynq's look every few seconds, the attempts of a dead one are taken over
	// within 45 s. It is longer than a worker may stand still and go on (worker.frozenAfter).
	workerLifetime = 20 * time.Second
	// steadyFor is how long a process must have been in touch with Redis before it judges
	// others: when Redis was away, or this process was, nobody could show anything.
	steadyFor = 10 * time.Second
	// beatGap is the longest pause between two beats of a process that is in touch.
	beatGap = 2 * tasks.BeatEvery
)

func workerKey(id string) string { return "reset:worker:{" + id + "}" }

// touch remembers since when this process has been in touch with Redis without a gap.
type touch struct {
	mu          sync.Mutex
	since, last time.Time // zero: it does not beat
}

func (t *touch) note(start, end time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.IsZero() || end.Sub(t.last) > beatGap || end.Sub(start) > tasks.BeatEvery {
		t.since = end
	}
	t.last = end
}

// steady reports whether this process may judge others. One that does not beat, such as a
// command, may.
func (t *touch) steady() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last.IsZero() || time.Since(t.since) >= steadyFor && time.Since(t.last) <= beatGap
}

// Beat shows that the worker process with this ID, of 8 characters, is alive. Its attempts
// are nobody else's for the next 20 s.
func (t *Attempts) Beat(ctx context.Context, worker string) error {
	start := time.Now()
	if err := t.redis.Commit(ctx, beatScript, []string{workerKey(worker)}, workerLifetime.Milliseconds()).Err(); err != nil {
		return fmt.Errorf("show life: %w", err)
	}
	t.touch.note(start, time.Now())
	return nil
}

// Leave says that the worker process is gone: its attempts may be taken over, and nothing is shown of it any more.
func (t *Attempts) Leave(ctx context.Context, worker string) error {
	if err := forget(ctx, t.redis, worker); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

// alive reports whether an attempt at the item may be under way.
func (t *Attempts) alive(ctx context.Context, d tasks.Delivery, token string) (bool, error) {
	if codec.WorkerOf(token) == "" {
		return false, nil
	}
	if !t.touch.steady() {
		return true, nil
	}
	pipe := t.redis.Pipeline()
	sign := lifeSigns{}.ask(ctx, pipe, d, token)
	_, _ = pipe.Exec(ctx) // each carries its own error
	return sign.alive()
}

// lifeSigns are the worker processes that are asked for in a pipeline.
type lifeSigns map[string]*redis.IntCmd

// lifeSign says whether an attempt is under way: its worker process lives, and its instance
// is locked by it. A lock outlives its attempt; so, should a worker have an attempt of which
// it knows nothing, because a begin came late that it had an answer to, it is over with the
// lock.
type lifeSign struct {
	worker *redis.IntCmd
	lock   *redis.StringCmd
	value  string
}

// ask asks in a pipeline for the sign of an attempt whose token names its worker.
func (s lifeSigns) ask(ctx context.Context, pipe redis.Pipeliner, d tasks.Delivery, token string) lifeSign {
	id := codec.WorkerOf(token)
	if s[id] == nil {
		s[id] = pipe.Exists(ctx, workerKey(id))
	}
	return lifeSign{worker: s[id], lock: pipe.Get(ctx, codec.LockKey(d.InstanceID)), value: codec.LockValue(d, token)}
}

// alive reads the answers.
func (s lifeSign) alive() (bool, error) {
	lives, err := s.worker.Result()
	holder, lockErr := s.lock.Result()
	if errors.Is(lockErr, redis.Nil) {
		lockErr = nil
	}
	if err := errors.Join(err, lockErr); err != nil {
		return false, fmt.Errorf("look for a worker: %w", err)
	}
	return lives > 0 && holder == s.value, nil
}

// runningError is the answer of a script that met a running attempt.
type runningError struct {
	token string
	lost  int // attempts lost before it
}

func (*runningError) Error() string { return tasks.AttemptAlive.Error() }

// overDead runs a script that refuses while an attempt runs, and once more, over that
// attempt, if its worker is dead. Errors: tasks.AttemptAlive if it is not.
func (t *Attempts) overDead(ctx context.Context, d tasks.Delivery, run func(dead string) ([]any, error)) ([]any, error) {
	answer, err := run("")
	running, ok := errors.AsType[*runningError](err)
	if !ok {
		return answer, err
	}
	alive, err := t.alive(ctx, d, running.token)
	if err != nil {
		return nil, err
	}
	if alive {
		return nil, tasks.AttemptAlive
	}
	return run(running.token)
}
