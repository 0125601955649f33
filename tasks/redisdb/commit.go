package redisdb

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// replicaTimeout is how long a committed write may take to reach its replicas.
const replicaTimeout = time.Second

// revField is the field of a job record that every change of it writes.
const revField = "rev"

// commit runs a script that must not be forgotten: with CommitReplicas it waits
// until so many replicas have the write. Too few is an error, after which the
// write stands on the primary and may or may not survive it.
//
// WAIT is about the writes of its own connection, on the node that has the keys;
// hence one pipeline. A script that finds itself sent twice writes something all
// the same, or the second WAIT would have nothing to wait for.
func (db *DB) commit(ctx context.Context, script *redis.Script, keys []string, args ...any) *redis.Cmd {
	if db.opts.CommitReplicas == 0 {
		return script.Run(ctx, db.group, keys, args...)
	}
	node, err := db.primary(ctx, keys[0])
	if err != nil {
		return failed(ctx, err)
	}
	pipe := node.Pipeline()
	answer := script.EvalSha(ctx, pipe, keys, args...)
	err = db.replicate(ctx, pipe)
	if redis.HasErrorPrefix(answer.Err(), "NOSCRIPT") {
		pipe = node.Pipeline()
		answer = script.Eval(ctx, pipe, keys, args...)
		err = db.replicate(ctx, pipe)
	}
	if err != nil && answer.Err() == nil {
		return failed(ctx, err)
	}
	return answer
}

// confirm is for an answer that says that something was done before: whoever did it may
// have been told that too few replicas know. With CommitReplicas it waits until they do. The
// field is one that the hash has.
func (db *DB) confirm(ctx context.Context, hash, field string) error {
	if db.opts.CommitReplicas == 0 {
		return nil
	}
	if err := db.commit(ctx, confirmScript, []string{hash}, field).Err(); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	return nil
}

// primary is the client of the node that has the key.
func (db *DB) primary(ctx context.Context, key string) (redis.UniversalClient, error) {
	if cluster, ok := db.rdb.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return db.rdb, nil
}

// replicate sends what is in the pipe, which is for one node, and waits for
// replicas. Its error is about them; each command carries its own.
func (db *DB) replicate(ctx context.Context, pipe redis.Pipeliner) error {
	reached := pipe.Do(ctx, "WAIT", db.opts.CommitReplicas, replicaTimeout.Milliseconds())
	_, _ = pipe.Exec(ctx)
	n, err := reached.Int()
	if err != nil {
		return fmt.Errorf("wait for replicas: %w", err)
	}
	if n < db.opts.CommitReplicas {
		return fmt.Errorf("the write reached %d of %d replicas", n, db.opts.CommitReplicas)
	}
	return nil
}

func failed(ctx context.Context, err error) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(err)
	return cmd
}
