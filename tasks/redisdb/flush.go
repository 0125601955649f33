package redisdb

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// flusher is the client that tasks are enqueued through. asynq sends one script for each
// task and waits for its answer; a flusher collects the scripts of a batch and sends
// them at once.
//
// A script that is collected is told to have succeeded, because its caller waits for
// an answer; the real one is in the batch.
type flusher struct{ redis.UniversalClient }

// flush is a batch of tasks on their way into their queue.
type flush struct {
	pipe redis.Pipeliner
	sent []*redis.Cmd // one for each task
}

type flushKey struct{}

// EvalSha implements redis.Scripter, which is what asynq enqueues through.
func (f flusher) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	batch, collecting := ctx.Value(flushKey{}).(*flush)
	if !collecting {
		return f.UniversalClient.EvalSha(ctx, sha, keys, args...)
	}
	batch.sent = append(batch.sent, batch.pipe.EvalSha(ctx, sha, keys, args...))
	const enqueued = 1
	answer := redis.NewCmd(ctx)
	answer.SetVal(int64(enqueued))
	return answer
}

// enqueueAll enqueues n tasks of a queue in one round trip and announces them; add
// enqueues one of them with the context that it is given.
func (db *DB) enqueueAll(ctx context.Context, queue string, n int, add func(ctx context.Context, i int) error) error {
	batch := &flush{pipe: db.rdb.Pipeline()}
	collecting := context.WithValue(ctx, flushKey{}, batch)
	for i := range n {
		if err := add(collecting, i); err != nil {
			return err
		}
	}
	batch.pipe.Publish(ctx, channel, queue)
	_, _ = batch.pipe.Exec(ctx) // each script carries its own error
	late := false
	for i, sent := range batch.sent {
		err := sent.Err()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			late = true
			err = add(ctx, i) // by itself, which makes asynq load the script
		}
		if err != nil {
			return err
		}
	}
	if late { // than its announcement
		_ = db.rdb.Publish(ctx, channel, queue).Err() // a hint
	}
	return nil
}
