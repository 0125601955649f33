package redisdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

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

// beatsKey has how often the process has shown life. Number 0 is beside workerKey, each other one somewhere in the Cluster.
func beatsKey(id string, n int) string {
	if n > 0 {
		id += ":" + strconv.Itoa(n)
	}
	return workerKey(id) + ":beats"
}

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
// are nobody else's for the next 20 s. It counts that on each primary of a Cluster, because one of them can go back alone. Errors:
// a *tasks.WentBackError, once, if one of them has an older state than before and all have answered; the sign of life is shown
// all the same.
func (t *Attempts) Beat(ctx context.Context, worker string) error {
	keys, err := t.redis.KeyOnEach(ctx, func(n int) string { return beatsKey(worker, n) })
	if err != nil {
		return fmt.Errorf("show life: %w", err)
	}
	var group errgroup.Group
	for _, key := range keys {
		group.Go(func() error { return t.beat(ctx, worker, key) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("show life: %w", err)
	}
	return t.memories.wentBack()
}

// beat counts a sign of life under a key of beatsKey.
func (t *Attempts) beat(ctx context.Context, worker, key string) error {
	keys := []string{key}
	alive := key == beatsKey(worker, 0)
	if alive {
		keys = append(keys, workerKey(worker))
	}
	start := time.Now()
	beats, err := t.redis.Commit(ctx, beatScript, keys, beatsKept.Milliseconds(), workerLifetime.Milliseconds()).Int64()
	if err != nil {
		return err
	}
	end := time.Now()
	if alive {
		t.touch.note(start, end)
	}
	t.memories.note(key, beats, end)
	return nil
}

// remembered is for how many beats a process knows when it had which number: an hour.
const remembered = 1200

// memories are a memory for each key that a process counts under.
type memories struct {
	mu    sync.Mutex
	byKey map[string]*memory
	back  *tasks.WentBackError // what nobody has been told yet
}

func (m *memories) note(key string, number int64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byKey == nil {
		m.byKey = map[string]*memory{}
	}
	if m.byKey[key] == nil {
		m.byKey[key] = &memory{}
	}
	forgotten, back := m.byKey[key].note(number, now)
	if back && (m.back == nil || forgotten > m.back.By) {
		m.back = &tasks.WentBackError{By: forgotten}
	}
}

// wentBack is a *tasks.WentBackError if one of the keys has shown that since it was asked last.
func (m *memories) wentBack() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.back == nil {
		return nil
	}
	defer func() { m.back = nil }()
	return m.back
}

func (m *memories) keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.byKey))
}

// memory is when this process was answered which number of beats.
type memory struct{ beats []beat } // in order

type beat struct {
	number int64
	at     time.Time
}

// note takes in the number of beats that Redis has answered. back says that this process has been answered as many before,
// forgotten how much Redis has forgotten then, at the least. Only the clock of this process counts, which does not step. If
// Redis knows of no earlier beat that this process knows of, it has forgotten all of them.
func (m *memory) note(number int64, now time.Time) (forgotten time.Duration, back bool) {
	first, _ := slices.BinarySearchFunc(m.beats, number, func(b beat, n int64) int { return cmp.Compare(b.number, n) })
	if back = first < len(m.beats); back {
		forgotten = m.beats[len(m.beats)-1].at.Sub(m.beats[first].at)
		m.beats = m.beats[:first]
	}
	if len(m.beats) == remembered {
		m.beats = slices.Delete(m.beats, 0, 1)
	}
	m.beats = append(m.beats, beat{number, now})
	return forgotten, back
}

// Leave says that the worker process is gone: its attempts may be taken over, and nothing is shown of it any more.
func (t *Attempts) Leave(ctx context.Context, worker string) error {
	for _, key := range t.memories.keys() {
		_ = t.redis.Del(ctx, key).Err() // else it lapses
	}
	if err := forget(ctx, t.redis, worker); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

// Relock locks the instance of an attempt that is under way once more, if Redis has forgotten its lock and nobody else has it.
func (t *Attempts) Relock(ctx context.Context, d tasks.Delivery, token string, ttl time.Duration) error {
	if err := t.redis.SetNX(ctx, codec.LockKey(d.InstanceID), codec.LockValue(d, token), ttl).Err(); err != nil {
		return fmt.Errorf("lock once more: %w", err)
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
