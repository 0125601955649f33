package redisdb

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// replicaTimeout is how long a committed write may take to reach its replicas.
const replicaTimeout = time.Second

// commit runs a script that must not be forgotten: with CommitReplicas it waits
// until so many replicas have the write. Too few is an error, after which the
// write stands on the primary and may or may not survive it.
//
// WAIT is about the writes of its own connection, on the node that has the key;
// hence one pipeline. A script that finds itself sent twice writes something all
// the same, or the second WAIT would have nothing to wait for.
func (db *DB) commit(ctx context.Context, script *redis.Script, key string, args ...any) *redis.Cmd {
	if db.opts.CommitReplicas == 0 {
		return script.Run(ctx, db.rdb, []string{key}, args...)
	}
	node := db.rdb
	if cluster, ok := db.rdb.(*redis.ClusterClient); ok {
		primary, err := cluster.MasterForKey(ctx, key)
		if err != nil {
			return failed(ctx, err)
		}
		node = primary
	}
	answer, err := db.commitOn(ctx, node, script, key, args...)
	if redis.HasErrorPrefix(answer.Err(), "NOSCRIPT") {
		if err := script.Load(ctx, node).Err(); err != nil {
			return failed(ctx, err)
		}
		answer, err = db.commitOn(ctx, node, script, key, args...)
	}
	if err != nil && answer.Err() == nil {
		return failed(ctx, err)
	}
	return answer
}

// commitOn sends script and WAIT to one node; its error is about the WAIT.
func (db *DB) commitOn(ctx context.Context, node redis.UniversalClient, script *redis.Script, key string, args ...any) (*redis.Cmd, error) {
	pipe := node.Pipeline()
	answer := script.EvalSha(ctx, pipe, []string{key}, args...)
	reached := pipe.Do(ctx, "WAIT", db.opts.CommitReplicas, replicaTimeout.Milliseconds())
	_, _ = pipe.Exec(ctx) // each command carries its own error
	n, err := reached.Int()
	if err != nil {
		return answer, fmt.Errorf("wait for replicas: %w", err)
	}
	if n < db.opts.CommitReplicas {
		return answer, fmt.Errorf("the write reached %d of %d replicas", n, db.opts.CommitReplicas)
	}
	return answer, nil
}

func failed(ctx context.Context, err error) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(err)
	return cmd
}
