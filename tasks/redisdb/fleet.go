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
func (db *DB) Register(ctx context.Context, instances []tasks.Instance, actor tasks.Actor) error {
	return db.Decide(ctx, aboutFleet(actor.Entry(tasks.ActionRegister), instances), func(ctx context.Context) error {
		return db.register(ctx, instances)
	})
}

// aboutFleet makes an entry one about instances that are to be registered.
func aboutFleet(e tasks.AuditEntry, instances []tasks.Instance) tasks.AuditEntry {
	ids, protected := make([]string, len(instances)), 0
	e.Tenant = instances[0].Tenant
	for i, in := range instances {
		ids[i] = in.ID
		if in.Protected {
			protected++
		}
		if in.Tenant != e.Tenant {
			e.Tenant = "" // of several
		}
	}
	e.Detail = fmt.Sprintf("%d of them protected", protected)
	return e.About(ids)
}

func (db *DB) register(ctx context.Context, instances []tasks.Instance) error {
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

// Protect protects registered instances from every attempt that has not begun, or ends
// that. It returns those that are not registered.
func (db *DB) Protect(ctx context.Context, instances []string, protected bool, actor tasks.Actor) (missing []string, err error) {
	action := tasks.ActionUnprotect
	if protected {
		action = tasks.ActionProtect
	}
	return db.changeFleet(ctx, actor.Entry(action), instances, func(ctx context.Context, instance string) (bool, error) {
		found, err := protectScript.Run(ctx, db.rdb, []string{fleetKey(instance)}, flag(protected)).Int()
		return found == 1, err
	})
}

// changeFleet changes the entries of those instances that are registered, and returns the
// others.
func (db *DB) changeFleet(ctx context.Context, e tasks.AuditEntry, instances []string, change func(context.Context, string) (found bool, err error)) (missing []string, err error) {
	fleet, err := db.Registered(ctx, instances)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, id := range instances {
		if _, registered := fleet[id]; registered {
			found = append(found, id)
		} else {
			missing = append(missing, id)
		}
	}
	if found == nil {
		return missing, nil
	}
	err = db.Decide(ctx, e.About(found), func(ctx context.Context) error {
		changed := false
		for _, id := range found {
			done, err := change(ctx, id)
			if err != nil {
				return fmt.Errorf("%s: instance %s: %w", e.Action, id, err)
			}
			if !done { // it was removed just now
				missing = append(missing, id)
			}
			changed = changed || done
		}
		if !changed {
			return errUnchanged
		}
		return nil
	})
	return missing, err
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

// Unregister removes instances from the fleet and returns those that were not there.
func (db *DB) Unregister(ctx context.Context, instances []string, actor tasks.Actor) (missing []string, err error) {
	return db.changeFleet(ctx, actor.Entry(tasks.ActionUnregister), instances, func(ctx context.Context, instance string) (bool, error) {
		n, err := db.rdb.Del(ctx, fleetKey(instance)).Result()
		if err == nil {
			err = db.rdb.ZRem(ctx, fleetIndex, instance).Err()
		}
		return n > 0, err
	})
}
