package wire

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// lookAgain is how long a set of tasks that are for later is taken to be as it was found, if nothing is heard of it: what this
// process puts in it knows, and what is enqueued is announced. What another one puts in when it tries again, that one takes out
// in time, too, if it lives.
const lookAgain = 10 * time.Second

// delayedSets remembers when the next task of each set is due that asynq keeps for later: it asks for those that are due twice a
// second, for each queue and set.
type delayedSets struct {
	mu   sync.Mutex
	sets map[string]*delayedSet // by key
}

type delayedSet struct {
	puts int // how often something may have been put in
	next time.Time
}

func newDelayedSets() *delayedSets { return &delayedSets{sets: map[string]*delayedSet{}} }

func (d *delayedSets) of(key string) *delayedSet {
	s := d.sets[key]
	if s == nil {
		s = &delayedSet{}
		d.sets[key] = s
	}
	return s
}

// look says whether something of a set may be due, and how often something may have been put in so far.
func (d *delayedSets) look(key string) (puts int, due bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.of(key)
	return s.puts, !time.Now().Before(s.next)
}

// note keeps when the next task of a set is due, unless something may have been put in since it was looked at.
func (d *delayedSets) note(key string, puts int, next time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.of(key); s.puts == puts {
		s.next = next
	}
}

// put has a set be looked at again.
func (d *delayedSets) put(keys ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range keys {
		s := d.of(key)
		s.puts++
		s.next = time.Time{}
	}
}

// changed has those keys of a script be looked at again that are sets of tasks for later.
func (d *delayedSets) changed(keys []string) {
	for _, key := range keys {
		if isDelayed(key) {
			d.put(key)
		}
	}
}

// forward runs asynq's script that makes the tasks of a set ready that are due, if one may be.
func (t taker) forward(ctx context.Context, queue, sha string, keys []string, args []any) *redis.Cmd {
	set := keys[0]
	puts, due := t.delayed.look(set)
	if !due {
		cmd := redis.NewCmd(ctx)
		cmd.SetVal(int64(0))
		return cmd
	}
	cmd := t.UniversalClient.EvalSha(ctx, sha, keys, args...)
	forwarded, err := cmd.Int()
	switch {
	case err != nil:
	case forwarded > 0:
		t.idle.hear(queue)
	default:
		first, err := t.ZRangeWithScores(ctx, set, 0, 0).Result()
		next := time.Now().Add(lookAgain)
		if len(first) > 0 {
			if at := time.Unix(int64(first[0].Score), 0); at.Before(next) {
				next = at
			}
		}
		if err == nil {
			t.delayed.note(set, puts, next)
		}
	}
	return cmd
}

// forwardsTo recognises asynq's script that makes tasks ready by its keys.
func forwardsTo(keys []string) (queue string, ok bool) {
	if len(keys) != 2 || !isDelayed(keys[0]) {
		return "", false
	}
	queue, ok = strings.CutPrefix(keys[1], "asynq:{")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(queue, "}:pending")
}

func isDelayed(key string) bool {
	return strings.HasPrefix(key, "asynq:{") && (strings.HasSuffix(key, "}:scheduled") || strings.HasSuffix(key, "}:retry"))
}
