package wire

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// replicaTimeout is how long a committed write may take to reach its replicas.
const replicaTimeout = time.Second

// Commit runs a script that must not be forgotten: with Options.Replicas it waits
// until so many replicas have the write. Too few is an error, after which the
// write stands on the primary and may or may not survive it.
//
// WAIT is about the writes of its own connection, on the node that has the keys;
// hence one pipeline. A script that finds itself sent twice writes something all
// the same, or the second WAIT would have nothing to wait for.
func (c *Client) Commit(ctx context.Context, script *redis.Script, keys []string, args ...any) *redis.Cmd {
	if c.replicas == 0 {
		return c.Run(ctx, script, keys, args...)
	}
	node, err := c.primary(ctx, keys[0])
	if err != nil {
		return failed(ctx, err)
	}
	pipe := node.Pipeline()
	answer := script.EvalSha(ctx, pipe, keys, args...)
	err = c.replicate(ctx, pipe)
	if redis.HasErrorPrefix(answer.Err(), "NOSCRIPT") {
		pipe = node.Pipeline()
		answer = script.Eval(ctx, pipe, keys, args...)
		err = c.replicate(ctx, pipe)
	}
	if err != nil && answer.Err() == nil {
		return failed(ctx, err)
	}
	return answer
}

// Confirm is for an answer that says that something was done before: whoever did it may
// have been told that too few replicas know. With Options.Replicas it waits until they do. The
// field is one that the hash has.
func (c *Client) Confirm(ctx context.Context, hash, field string) error {
	if c.replicas == 0 {
		return nil
	}
	if err := c.Commit(ctx, confirmScript, []string{hash}, field).Err(); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	return nil
}

var confirmScript = NewScripts(ours, nil).Script("confirm")

// CommitWrites sends what queue puts into a pipe, all of it about the given key, and waits for
// replicas as Commit does. Its error is about them; each command carries its own.
func (c *Client) CommitWrites(ctx context.Context, key string, queue func(redis.Pipeliner)) error {
	node, err := c.primary(ctx, key)
	if err != nil {
		return err
	}
	pipe := node.Pipeline()
	queue(pipe)
	if c.replicas == 0 {
		_, _ = pipe.Exec(ctx)
		return nil
	}
	return c.replicate(ctx, pipe)
}

// primary is the client of the node that has the key.
func (c *Client) primary(ctx context.Context, key string) (redis.UniversalClient, error) {
	if c.cluster != nil {
		return c.cluster.MasterForKey(ctx, key)
	}
	return c.UniversalClient, nil
}

// replicate sends what is in the pipe, which is for one node, and waits for
// replicas. Its error is about them; each command carries its own.
func (c *Client) replicate(ctx context.Context, pipe redis.Pipeliner) error {
	reached := pipe.Do(ctx, "WAIT", c.replicas, replicaTimeout.Milliseconds())
	_, _ = pipe.Exec(ctx)
	n, err := reached.Int()
	if err != nil {
		return fmt.Errorf("wait for replicas: %w", err)
	}
	if n < c.replicas {
		return fmt.Errorf("the write reached %d of %d replicas", n, c.replicas)
	}
	return nil
}

func failed(ctx context.Context, err error) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(err)
	return cmd
}
