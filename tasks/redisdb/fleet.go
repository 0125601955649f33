package redisdb

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

const fleetIndex = "reset:fleet"

// Registered returns the fleet entries of those instances that have one.
func (db *DB) Registered(ctx context.Context, instances []string) (map[string]tasks.Instance, error) {
	pipe := db.rdb.Pipeline()
	answers := make([]*redis.SliceCmd, len(instances))
	for i, id := range instances {
		answers[i] = pipe.HMGet(ctx, fleetKey(id), "tenant", "protected")
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read fleet: %w", err)
	}
	fleet := make(map[string]tasks.Instance, len(instances))
	for i, id := range instances {
		if v := answers[i].Val(); len(v) == 2 && v[0] != nil {
			fleet[id] = tasks.Instance{ID: id, Tenant: text(v[0]), Protected: text(v[1]) == "1"}
		}
	}
	return fleet, nil
}

// Locked returns those instances that an item has just now.
func (db *DB) Locked(ctx context.Context, instances []string) (map[string]bool, error) {
	pipe := db.rdb.Pipeline()
	answers := make([]*redis.IntCmd, len(instances))
	for i, id := range instances {
		answers[i] = pipe.Exists(ctx, lockKey(id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read locks: %w", err)
	}
	locked := map[string]bool{}
	for i, id := range instances {
		if answers[i].Val() == 1 {
			locked[id] = true
		}
	}
	return locked, nil
}

// Register adds instances to the fleet, or changes the entries they have. The
// caller has checked them.
func (db *DB) Register(ctx context.Context, instances []tasks.Instance) error {
	pipe := db.rdb.Pipeline()
	for _, in := range instances {
		// Indexed first: an entry that exists is always listed.
		pipe.ZAdd(ctx, fleetIndex, redis.Z{Member: in.ID})
		pipe.HSet(ctx, fleetKey(in.ID), "tenant", in.Tenant, "protected", flag(in.Protected))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("register instances: %w", err)
	}
	return nil
}

// Protect protects a registered instance from every attempt that has not begun, or ends
// that. It reports whether the instance is registered.
func (db *DB) Protect(ctx context.Context, instance string, protected bool) (bool, error) {
	found, err := protectScript.Run(ctx, db.rdb, []string{fleetKey(instance)}, flag(protected)).Int()
	if err != nil {
		return false, fmt.Errorf("protect instance: %w", err)
	}
	return found == 1, nil
}

// Fleet calls visit for each registered instance, by ID.
func (db *DB) Fleet(ctx context.Context, visit func(tasks.Instance) error) error {
	const page = 500
	for from := int64(0); ; from += page {
		ids, err := db.rdb.ZRange(ctx, fleetIndex, from, from+page-1).Result()
		if err != nil {
			return fmt.Errorf("list fleet: %w", err)
		}
		fleet, err := db.Registered(ctx, ids)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if in, ok := fleet[id]; ok {
				if err := visit(in); err != nil {
					return err
				}
			}
		}
		if len(ids) < page {
			return nil
		}
	}
}

// Unregister removes an instance from the fleet and reports whether it was there.
func (db *DB) Unregister(ctx context.Context, instance string) (bool, error) {
	n, err := db.rdb.Del(ctx, fleetKey(instance)).Result()
	if err == nil {
		err = db.rdb.ZRem(ctx, fleetIndex, instance).Err()
	}
	if err != nil {
		return false, fmt.Errorf("unregister instance: %w", err)
	}
	return n > 0, nil
}
