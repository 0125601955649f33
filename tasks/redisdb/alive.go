package redisdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	// beatsKept is how long the number of a worker's beats is kept after its death: Redis may be away for
	// days, and a worker that lives on must find its number then.
	beatsKept = 7 * 24 * time.Hour
	// beatGap is the longest pause between two beats of a process that is in touch.
	beatGap = 2 * tasks.BeatEvery
)

func workerKey(id string) string { return "reset:worker:{" + id + "}" }
func beatsKey(id string) string  { return workerKey(id) + ":beats" }

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
// are nobody else's for the next 20 s. Errors: a *tasks.WentBackError, once, if Redis has an older state than
// before; the sign of life is shown all the same.
func (t *Attempts) Beat(ctx context.Context, worker string) error {
	start := time.Now()
	beats, err := t.redis.Commit(ctx, beatScript, []string{workerKey(worker), beatsKey(worker)},
		workerLifetime.Milliseconds(), beatsKept.Milliseconds()).Int64()
	if err != nil {
		return fmt.Errorf("show life: %w", err)
	}
	end := time.Now()
	t.touch.note(start, end)
	if forgotten := t.memory.note(beats, end); forgotten >= goesBackBy {
		return &tasks.WentBackError{By: forgotten}
	}
	return nil
}

const (
	// goesBackBy is what Redis must have forgotten to have gone back: more than a crash with appendfsync everysec
	// or the failover to a replica that was in step loses.
	goesBackBy = 10 * time.Second
	// remembered is for how many beats a process knows when it had which number: an hour.
	remembered = 1200
)

// memory is when this process was answered which number of beats.
type memory struct {
	mu    sync.Mutex
	beats []beat // in order
}

type beat struct {
	number int64
	at     time.Time
}

// note takes in the number of beats that Redis has answered, and returns how much Redis has forgotten at the least: 0 if it
// has all. Only the clock of this process counts, which does not step. If Redis knows of no earlier beat that this process
// knows of, it has forgotten all of them.
func (m *memory) note(number int64, now time.Time) (forgotten time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first, _ := slices.BinarySearchFunc(m.beats, number, func(b beat, n int64) int { return cmp.Compare(b.number, n) })
	if first < len(m.beats) {
		forgotten = m.beats[len(m.beats)-1].at.Sub(m.beats[first].at)
		m.beats = m.beats[:first]
	}
	if len(m.beats) == remembered {
		m.beats = slices.Delete(m.beats, 0, 1)
	}
	m.beats = append(m.beats, beat{number, now})
	return forgotten
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
