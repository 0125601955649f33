package redisdb

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// recorder notes what is sent to Redis, in order.
type recorder struct {
	mu   sync.Mutex
	sent []string
}

func (r *recorder) note(cmd redis.Cmder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	words := make([]string, len(cmd.Args()))
	for i, arg := range cmd.Args() {
		words[i], _ = arg.(string)
	}
	r.sent = append(r.sent, strings.Join(words, " "))
}

func (*recorder) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *recorder) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.note(cmd)
		return next(ctx, cmd)
	}
}

func (r *recorder) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			r.note(cmd)
		}
		return next(ctx, cmds)
	}
}

// first returns where the first command with all of the words stands.
func (r *recorder) first(words ...string) int {
	return slices.IndexFunc(r.sent, func(s string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(s, word) })
	})
}

func TestAJobIsListedThenCreatedThenEnqueued(t *testing.T) {
	db, err := Open(t.Context(), Options{URL: "redis://" + miniredis.RunT(t).Addr(), Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	sent := &recorder{}
	db.Redis.AddHook(sent)
	job, err := db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}})
	if err != nil {
		t.Fatal(err)
	}
	order := func(steps ...int) {
		t.Helper()
		if slices.Contains(steps, -1) || !slices.IsSorted(steps) {
			t.Errorf("the steps are at %v of\n%s", steps, strings.Join(sent.sent, "\n"))
		}
	}
	order(sent.first("zadd", codec.OpenKey), sent.first("eval", codec.JobKey(job.ID)), sent.first("eval", "asynq:"))

	if err := db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	sent.sent = nil
	if err := db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	order(sent.first("zadd", codec.OpenKey), sent.first("eval", codec.JobKey(job.ID)), sent.first("eval", "asynq:"))
}
