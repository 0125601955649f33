package redisdb

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/views"
	"batchreset/tasks/redisdb/wire"
)

// Check reports whether Redis answers and can be trusted with jobs: version 6.2 or later,
// writable, not allowed to evict keys, and lets this process do what its roles have to. What is
// wrong with a server that answers comes as a tasks.Error that may be shown to anyone.
func (db *DB) Check(ctx context.Context) error {
	if db.opts.Embedded {
		return db.Redis.Ping(ctx).Err()
	}
	err := db.checkServers(ctx)
	if err == nil && len(db.opts.Roles) > 0 {
		// INFO is answered, too, by a Cluster that has lost a part of its slots.
		err = db.Redis.Exists(ctx, registry.PoliciesKey).Err()
	}
	return sayable(err)
}

// answers reports whether Redis does, whatever it answers.
func (db *DB) answers(ctx context.Context) error {
	return sayable(db.Redis.ForEachPrimary(ctx, func(ctx context.Context, node redis.Cmdable, _ string) error {
		return unreached(node.Ping(ctx).Err())
	}))
}

func (db *DB) checkServers(ctx context.Context) error {
	return db.Redis.ForEachPrimary(ctx, func(ctx context.Context, node redis.Cmdable, _ string) error {
		return db.checkServer(ctx, node)
	})
}

func (db *DB) checkServer(ctx context.Context, rdb redis.Cmdable) error {
	text, err := rdb.Info(ctx).Result()
	if err != nil {
		return unreached(err)
	}
	if err := views.CheckInfo(text); err != nil {
		return err
	}
	return db.checkRights(ctx, rdb, db.opts.Roles...)
}

func unreached(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot reach Redis: %w", err)
}

// sayable makes a tasks.Error of what Redis answers in place of what was asked.
func sayable(err error) error {
	if _, ours := errors.AsType[*tasks.Error](err); ours || err == nil {
		return err
	}
	answer, answered := errors.AsType[redis.Error](err)
	switch {
	case errors.Is(err, wire.ErrCrowded):
		return fmt.Errorf("%w: %w", tasks.Errorf(tasks.Internal, "%s", wire.ErrCrowded.Error()), err)
	case answered && strings.Contains(err.Error(), "all sentinels"): // go-redis has no name for it
		return fmt.Errorf("%w: %w", tasks.Errorf(tasks.Internal, "the Sentinels answer: %s; the URL has a password for them as sentinel_password", answer.Error()), err)
	case answered:
		return fmt.Errorf("%w: %w", tasks.Errorf(tasks.Internal, "redis answers: %s", answer.Error()), err)
	}
	return err
}
