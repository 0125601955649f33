package wire

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// emptyFor is how long a queue that was found empty is taken to be so, unless its
	// name comes over the channel; unheardFor, if nobody listens to that.
	emptyFor   = 3 * time.Second
	unheardFor = 500 * time.Millisecond
	// asked is how long the other lanes wait for what one lane finds in a queue that was empty before.
	asked = 50 * time.Millisecond
	// rest is how long a lane waits at an idle queue for an announcement, if there is
	// nothing to do in any queue. It waits at each of them in turn before it looks
	// whether it is to stop.
	rest = 25 * time.Millisecond
	// shortestPause and longestPause bound how long a queue is left alone after an
	// error. It is random, so that the lanes of all workers do not return together.
	shortestPause = 100 * time.Millisecond
	longestPause  = 250 * time.Millisecond
	// EnqueuedChannel is the channel where enqueued work is announced, by the name of its queue. It is a
	// hint: what is not heard is found by looking.
	EnqueuedChannel = "reset:enqueued"
)

// taker is the client of an asynq server. asynq asks every queue for a task again and
// again, and at once after any error. A taker answers for the queues that are known to
// be empty, or not to be had: it costs an idle worker nothing to ask often, and no
// round trip to have many queues.
type taker struct {
	redis.UniversalClient
	idle    *idleQueues
	delayed *delayedSets
	held    *heldQueues
	relay   *relay
}

// Subscribe implements redis.UniversalClient, which is how asynq hears what is cancelled.
func (t taker) Subscribe(ctx context.Context, channels ...string) *redis.PubSub {
	return t.relay.client.Subscribe(ctx, channels...)
}

// EvalSha implements redis.Scripter, which is what asynq takes tasks through.
func (t taker) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if queue, forwards := forwardsTo(keys); forwards {
		return t.forward(ctx, queue, sha, keys, args)
	}
	queue, takes := takesFrom(keys)
	if !takes {
		cmd := t.UniversalClient.EvalSha(ctx, sha, keys, args...)
		t.delayed.changed(keys)
		return cmd
	}
	if t.held.wait(ctx, queue) {
		return empty(ctx)
	}
	heard, idle := t.idle.look(queue)
	if idle {
		heard, idle = t.idle.wait(ctx, queue)
	}
	if idle {
		return empty(ctx)
	}
	cmd := t.UniversalClient.EvalSha(ctx, sha, keys, args...)
	switch err := cmd.Err(); {
	case err == nil, redis.HasErrorPrefix(err, "NOSCRIPT"):
		t.idle.found(queue)
	case errors.Is(err, redis.Nil):
		t.idle.note(queue, heard, t.idle.emptyFor())
	default:
		t.idle.note(queue, heard, shortestPause+rand.N(longestPause-shortestPause))
	}
	return cmd
}

// empty is the answer of an empty queue.
func empty(ctx context.Context) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(redis.Nil)
	return cmd
}

// heldQueues are those that this process takes nothing from, whatever is in them.
type heldQueues struct{ prefix atomic.Pointer[string] } // nil: none

// wait reports whether the queue is held, after a rest if it is: a lane that asks again at once would do nothing else.
func (h *heldQueues) wait(ctx context.Context, queue string) bool {
	prefix := h.prefix.Load()
	if prefix == nil || !strings.HasPrefix(queue, *prefix) {
		return false
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

// Hold has this client's servers take nothing more from the queues whose names begin with prefix, or go on. To them the
// queues look empty; what they have taken before, they work on. A task that is being taken at this moment is still taken.
func (c *Client) Hold(prefix string, hold bool) {
	if hold {
		c.held.prefix.Store(&prefix)
	} else {
		c.held.prefix.Store(nil)
	}
}

// leasePatience is how long an extension of leases may take. asynq has 25 s for all queues.
const leasePatience = time.Second

// ZAddXX implements redis.Cmdable, which is where asynq extends the leases of the tasks that
// it works on. To asynq they are extended even if Redis cannot be asked or is full: it would
// cancel what it works on otherwise, and a reset that goes on would end in doubt. Who may
// have an attempt is for our own sign of life to say.
func (t taker) ZAddXX(ctx context.Context, key string, members ...redis.Z) *redis.IntCmd {
	if !strings.HasSuffix(key, "}:lease") {
		return t.UniversalClient.ZAddXX(ctx, key, members...)
	}
	ctx, cancel := context.WithTimeout(ctx, leasePatience)
	defer cancel()
	cmd := t.UniversalClient.ZAddXX(ctx, key, members...)
	if cmd.Err() != nil {
		return redis.NewIntResult(0, nil)
	}
	return cmd
}

// takesFrom recognises asynq's script that takes a task by its keys.
func takesFrom(keys []string) (queue string, ok bool) {
	if len(keys) < 2 || !strings.HasSuffix(keys[1], "}:paused") {
		return "", false
	}
	queue, ok = strings.CutPrefix(keys[0], "asynq:{")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(queue, "}:pending")
}

// idleQueues remembers which queues need not be asked.
type idleQueues struct {
	mu     sync.Mutex
	queues map[string]*idleQueue
	wake   chan struct{} // closed when work is announced
	ears   int           // that listen for that
}

func newIdleQueues() *idleQueues {
	return &idleQueues{queues: map[string]*idleQueue{}, wake: make(chan struct{})}
}

type idleQueue struct {
	heard int // how often work was announced
	until time.Time
}

func (q *idleQueues) of(queue string) *idleQueue {
	s := q.queues[queue]
	if s == nil {
		s = &idleQueue{}
		q.queues[queue] = s
	}
	return s
}

// look says whether the queue is idle, and how much was heard of it so far. Who finds that one has been idle for long enough
// asks it, and the other lanes wait for what comes of that.
func (q *idleQueues) look(queue string) (heard int, idle bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s, now := q.of(queue), time.Now()
	if now.Before(s.until) {
		return s.heard, true
	}
	if !s.until.IsZero() {
		s.until = now.Add(asked)
	}
	return s.heard, false
}

// found has every lane ask a queue.
func (q *idleQueues) found(queue string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.of(queue); !s.until.IsZero() {
		s.until = time.Time{}
		q.wakeAll()
	}
}

// emptyFor is how long a queue that was found empty is taken to be so.
func (q *idleQueues) emptyFor() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ears == 0 {
		return unheardFor
	}
	return emptyFor
}

// listen counts those who listen for announcements.
func (q *idleQueues) listen(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ears += n
}

// wait is look after a rest, which an announcement ends, if every queue is idle.
func (q *idleQueues) wait(ctx context.Context, queue string) (heard int, idle bool) {
	q.mu.Lock()
	wake, now := q.wake, time.Now()
	for _, s := range q.queues {
		if !now.Before(s.until) {
			q.mu.Unlock()
			return q.look(queue)
		}
	}
	q.mu.Unlock()
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
	}
	return q.look(queue)
}

// note makes a queue idle, unless work was announced since it was asked.
func (q *idleQueues) note(queue string, heard int, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.of(queue); s.heard == heard {
		s.until = time.Now().Add(d)
	}
}

// hear ends the idleness of a queue.
func (q *idleQueues) hear(queue string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.of(queue)
	s.heard++
	s.until = time.Time{}
	q.wakeAll()
}

func (q *idleQueues) wakeAll() {
	close(q.wake)
	q.wake = make(chan struct{})
}

// Listen hears of enqueued work until ctx ends, so that this client's servers take it at
// once. What is not heard is found within three seconds; without it, within half a second.
func (c *Client) Listen(ctx context.Context) error {
	c.idle.listen(1)
	defer c.idle.listen(-1)
	return c.Subscribed(ctx, EnqueuedChannel, func(queue string) {
		c.delayed.put("asynq:{"+queue+"}:scheduled", "asynq:{"+queue+"}:retry")
		c.idle.hear(queue)
	})
}
