package wire

import (
	"context"
	"fmt"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// flusher is the client that tasks are enqueued through. asynq sends one script for each
// task and waits for its answer; a flusher collects the scripts of a batch and sends
// them at once.
//
// A command that is collected is told to have succeeded, because its caller waits for
// an answer; the real one is in the batch.
type flusher struct{ redis.UniversalClient }

// flush is a batch of tasks on their way into their queue.
type flush struct {
	pipe redis.Pipeliner
	list *redis.IntCmd // puts the queue into asynq's list of queues
	sent []*redis.Cmd  // one for each task
}

type flushKey struct{}

// EvalSha implements redis.Scripter, which is what asynq enqueues through.
func (f flusher) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	batch, collecting := ctx.Value(flushKey{}).(*flush)
	if !collecting {
		return f.UniversalClient.EvalSha(ctx, sha, keys, args...)
	}
	batch.sent = append(batch.sent, batch.pipe.EvalSha(ctx, sha, keys, args...))
	const done = 1
	answer := redis.NewCmd(ctx)
	answer.SetVal(int64(done))
	return answer
}

// SAdd implements redis.Cmdable, which is what asynq lists a queue through.
func (f flusher) SAdd(ctx context.Context, key string, members ...any) *redis.IntCmd {
	batch, collecting := ctx.Value(flushKey{}).(*flush)
	if !collecting {
		return f.UniversalClient.SAdd(ctx, key, members...)
	}
	batch.list = batch.pipe.SAdd(ctx, key, members...)
	return redis.NewIntCmd(ctx)
}

// Enqueue enqueues n tasks of a queue in one round trip and announces them; add
// enqueues one of them with the context and the client that it is given.
//
// asynq's client lists a queue with the first task that it puts into it, and then never
// again. A queue that somebody deletes while it is empty would not come back: its tasks would
// be run, and nobody would see them. Hence a client for each batch, whose listing travels with
// the tasks.
func (c *Client) Enqueue(ctx context.Context, queue string, n int, add func(ctx context.Context, client *asynq.Client, i int) error) error {
	client := asynq.NewClientFromRedisClient(flusher{c.UniversalClient})
	batch := &flush{pipe: c.Pipeline()}
	collecting := context.WithValue(ctx, flushKey{}, batch)
	for i := range n {
		if err := add(collecting, client, i); err != nil {
			return err
		}
	}
	batch.pipe.Publish(ctx, EnqueuedChannel, queue)
	_, _ = batch.pipe.Exec(ctx) // each script carries its own error
	if batch.list != nil && batch.list.Err() != nil {
		return fmt.Errorf("list queue: %w", batch.list.Err())
	}
	late := false
	for i, sent := range batch.sent {
		err := sent.Err()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			late = true
			err = add(ctx, client, i) // by itself, which makes asynq load the script
		}
		if err != nil {
			return err
		}
	}
	if late { // than its announcement
		_ = c.Publish(ctx, EnqueuedChannel, queue).Err() // a hint
	}
	return nil
}
