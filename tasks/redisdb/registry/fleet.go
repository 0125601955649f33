package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

const (
	fleetIndex = "reset:fleet"
	// fleetIndexed is there once the indexes of tenants are complete: entries of older versions are only in
	// fleetIndex.
	fleetIndexed = "reset:fleet:indexed"
)

// tenantIndex has the instances of a tenant by ID, and perhaps some that are no longer its own.
func tenantIndex(tenant string) string { return "reset:fleet:tenant:{" + tenant + "}" }

// Fleet is the register of instances.
type Fleet struct {
	redis   *wire.Client
	audit   *Audit
	storage *Storage
	leftOut *codec.LeftOut
}

// NewFleet makes a Fleet.
func NewFleet(client *wire.Client, audit *Audit, storage *Storage, leftOut *codec.LeftOut) *Fleet {
	return &Fleet{client, audit, storage, leftOut}
}

// Registered returns the fleet entries of those instances that have one.
func (f *Fleet) Registered(ctx context.Context, instances []string) (map[string]tasks.Instance, error) {
	found, err := f.read(ctx, instances, func(_ string, err error) error { return err })
	fleet := make(map[string]tasks.Instance, len(found))
	for id, e := range found {
		fleet[id] = e.Instance
	}
	return fleet, err
}

// entry is an instance as it is stored. The zero entry is that of none.
type entry struct {
	tasks.Instance
	rev string // another one after each change
}

var entryFields = []string{"tenant", "protected", "protected_until", "protection", "driver", "address", "labels", "generation", "rev"}

// protection is what is stored of one, besides whether there is one and its end.
type protection struct {
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	Since  int64  `json:"since,omitempty"` // ms
}

func encodeProtection(p tasks.Protection) (string, error) {
	stored := protection{By: p.By, Reason: p.Reason}
	if !p.Since.IsZero() {
		stored.Since = p.Since.UnixMilli()
	}
	text, err := json.Marshal(stored)
	return string(text), err
}

// until is the end of a protection as it is stored, "" for none.
func until(p tasks.Protection) string {
	if p.Until.IsZero() {
		return ""
	}
	return strconv.FormatInt(p.Until.UnixMilli(), 10)
}

// decodeEntry reads the values of entryFields, which has the time by Redis's clock.
func decodeEntry(id string, v []any, now time.Time) (e entry, err error) {
	e.ID, e.Tenant, e.Driver, e.Address, e.rev = id, codec.Text(v[0]), codec.Text(v[4]), codec.Text(v[5]), codec.Text(v[8])
	if e.Labels, err = codec.Labels(codec.Text(v[6])); err != nil {
		return e, &codec.Damage{Err: fmt.Errorf("labels: %w", err)}
	}
	e.Generation = 1 // of entries of older versions
	if text := codec.Text(v[7]); text != "" {
		if e.Generation, err = strconv.Atoi(text); err != nil {
			return e, &codec.Damage{Err: fmt.Errorf("generation: %w", err)}
		}
	}
	end := codec.Millis(codec.Text(v[2]))
	if codec.Text(v[1]) != "1" || !end.IsZero() && !now.Before(end.Time) {
		return e, nil
	}
	e.Protected, e.Until = true, end
	if text := codec.Text(v[3]); text != "" {
		var p protection
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return e, &codec.Damage{Err: fmt.Errorf("protection: %w", err)}
		}
		e.By, e.Reason, e.Since = p.By, p.Reason, tasks.FromMillis(p.Since)
	}
	return e, nil
}

// read reads entries. It asks spoiled what becomes of one that cannot be read: nil leaves it out.
func (f *Fleet) read(ctx context.Context, instances []string, spoiled func(id string, err error) error) (map[string]entry, error) {
	pipe := f.redis.Pipeline()
	answers := make([]*redis.SliceCmd, len(instances))
	for i, id := range instances {
		answers[i] = pipe.HMGet(ctx, codec.FleetKey(id), entryFields...)
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	fleet := make(map[string]entry, len(instances))
	for i, id := range instances {
		v, err := answers[i].Result()
		if err == nil && (len(v) != len(entryFields) || v[0] == nil) {
			continue
		}
		var e entry
		if err == nil {
			e, err = decodeEntry(id, v, f.redis.Now())
		}
		if err == nil {
			fleet[id] = e
		} else if err := spoiled(id, err); err != nil {
			return nil, fmt.Errorf("read fleet: %w", err)
		}
	}
	return fleet, nil
}

// Protect protects registered instances from every attempt that has not begun. It returns those that
// are not registered, and those that are protected for longer already, which stay as they are.
func (f *Fleet) Protect(ctx context.Context, instances []string, until tasks.Time, actor tasks.Actor) (missing, kept []string, err error) {
	p := tasks.Protection{By: actor.By, Reason: actor.Reason, Since: tasks.FromMillis(f.redis.Now().UnixMilli()), Until: until}
	e := actor.Entry(tasks.ActionProtect)
	if !until.IsZero() {
		e.Detail = "until " + until.UTC().Format(time.RFC3339)
	}
	missing, err = f.change(ctx, e, instances, func(ctx context.Context, instance string) (bool, error) {
		const longer = 2
		done, err := f.protect(ctx, instance, true, p)
		if done == longer {
			kept = append(kept, instance)
		}
		return done != 0, err
	})
	return missing, kept, err
}

// Unprotect ends the protection of registered instances. It returns those that are not registered.
func (f *Fleet) Unprotect(ctx context.Context, instances []string, actor tasks.Actor) (missing []string, err error) {
	return f.change(ctx, actor.Entry(tasks.ActionUnprotect), instances, func(ctx context.Context, instance string) (bool, error) {
		done, err := f.protect(ctx, instance, false, tasks.Protection{})
		return done != 0, err
	})
}

func (f *Fleet) protect(ctx context.Context, instance string, protected bool, p tasks.Protection) (done int, err error) {
	detail, err := encodeProtection(p)
	if err != nil {
		return 0, err
	}
	return protectScript.Run(ctx, f.redis, []string{codec.FleetKey(instance)}, codec.Flag(protected), until(p), detail).Int()
}

// change changes the entries of those instances that are registered, and returns the
// others.
func (f *Fleet) change(ctx context.Context, e tasks.AuditEntry, instances []string, change func(context.Context, string) (found bool, err error)) (missing []string, err error) {
	fleet, err := f.Registered(ctx, instances)
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
	err = f.audit.Decide(ctx, e.About(found), func(ctx context.Context) error {
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
			return ErrUnchanged
		}
		return nil
	})
	return missing, err
}

// All calls visit for each registered instance, by ID.
func (f *Fleet) All(ctx context.Context, visit func(tasks.Instance) error) error {
	const page = 500
	for from := int64(0); ; from += page {
		ids, err := f.redis.ZRange(ctx, fleetIndex, from, from+page-1).Result()
		if err != nil {
			return fmt.Errorf("list fleet: %w", err)
		}
		fleet, err := f.read(ctx, ids, func(id string, err error) error { return f.leftOut.Note("instance "+id, err) })
		if err != nil {
			return err
		}
		for _, id := range ids {
			if e, ok := fleet[id]; ok {
				if err := visit(e.Instance); err != nil {
					return err
				}
			}
		}
		if len(ids) < page {
			return nil
		}
	}
}

const (
	// fleetPage is how many instances a search reads at once, fleetScan how many for one answer.
	fleetPage = 500
	fleetScan = 10 * fleetPage
)

// Size is how many instances are registered.
func (f *Fleet) Size(ctx context.Context) (int, error) {
	n, err := f.redis.ZCard(ctx, fleetIndex).Result()
	return int(n), wrapped("count the fleet", err)
}

// Search returns registered instances that the filter selects, by ID, at most limit of them, and the cursor of those
// after them, empty at the end. It looks at 5,000 at the most, so there may be fewer, and even none, before the end.
// Errors: tasks.BadRequest for a cursor that is not one of ours.
func (f *Fleet) Search(ctx context.Context, filter tasks.FleetFilter, cursor string, limit int) (found []tasks.Instance, next string, err error) {
	index := fleetIndex
	if filter.Tenant != "" {
		indexed, err := f.redis.Exists(ctx, fleetIndexed).Result()
		if err != nil {
			return nil, "", fmt.Errorf("search the fleet: %w", err)
		}
		if indexed == 1 {
			index = tenantIndex(filter.Tenant)
		}
	}
	from, to := "-", "+"
	if filter.Prefix != "" {
		from, to = "["+filter.Prefix, "("+filter.Prefix+"\xff"
	}
	if cursor != "" {
		if tasks.CheckInstanceID(cursor) != nil || !strings.HasPrefix(cursor, filter.Prefix) {
			return nil, "", tasks.Errorf(tasks.BadRequest, "cursor is not one that an earlier answer gave")
		}
		from = "(" + cursor
	}
	for looked := 0; looked < fleetScan; looked += fleetPage {
		ids, err := f.redis.ZRangeByLex(ctx, index, &redis.ZRangeBy{Min: from, Max: to, Count: fleetPage}).Result()
		if err != nil {
			return nil, "", fmt.Errorf("search the fleet: %w", err)
		}
		fleet, err := f.read(ctx, ids, func(id string, err error) error { return f.leftOut.Note("instance "+id, err) })
		if err != nil {
			return nil, "", err
		}
		for _, id := range ids {
			if e, ok := fleet[id]; ok && filter.Match(e.Instance) {
				if len(found) == limit { // there is one more
					return found, found[limit-1].ID, nil
				}
				found = append(found, e.Instance)
			}
		}
		if len(ids) < fleetPage {
			return found, "", nil
		}
		next = ids[len(ids)-1]
		from = "(" + next
	}
	return found, next, nil
}

// Unregister removes instances from the fleet and returns those that were not there.
func (f *Fleet) Unregister(ctx context.Context, instances []string, actor tasks.Actor) (missing []string, err error) {
	return f.change(ctx, actor.Entry(tasks.ActionUnregister), instances, func(ctx context.Context, instance string) (bool, error) {
		owner, err := f.redis.HGet(ctx, codec.FleetKey(instance), "tenant").Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return false, err
		}
		n, err := f.redis.Del(ctx, codec.FleetKey(instance)).Result()
		if err == nil && owner != "" {
			err = f.redis.ZRem(ctx, tenantIndex(owner), instance).Err()
		}
		if err == nil {
			err = f.redis.ZRem(ctx, fleetIndex, instance).Err()
		}
		return n > 0, err
	})
}

// InstancesOf returns some of a tenant's instances by ID, from offset on, and how many there are in all.
func (f *Fleet) InstancesOf(ctx context.Context, tenant string, offset, n int) (found []tasks.Instance, total int, err error) {
	indexed, err := f.redis.Exists(ctx, fleetIndexed).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("list instances: %w", err)
	}
	if indexed == 0 {
		return f.searchInstancesOf(ctx, tenant, offset, n)
	}
	pipe := f.redis.Pipeline()
	ids := pipe.ZRange(ctx, tenantIndex(tenant), int64(offset), int64(offset+n-1))
	count := pipe.ZCard(ctx, tenantIndex(tenant))
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, 0, fmt.Errorf("list instances: %w", err)
	}
	fleet, err := f.read(ctx, ids.Val(), func(id string, err error) error { return f.leftOut.Note("instance "+id, err) })
	if err != nil {
		return nil, 0, err
	}
	for _, id := range ids.Val() {
		if e, ok := fleet[id]; ok && e.Tenant == tenant {
			found = append(found, e.Instance)
		}
	}
	return found, int(count.Val()), nil
}

// searchInstancesOf is InstancesOf without an index: it reads the whole fleet.
func (f *Fleet) searchInstancesOf(ctx context.Context, tenant string, offset, n int) (found []tasks.Instance, total int, err error) {
	err = f.All(ctx, func(in tasks.Instance) error {
		if in.Tenant != tenant {
			return nil
		}
		if total >= offset && len(found) < n {
			found = append(found, in)
		}
		total++
		return nil
	})
	return found, total, err
}

// IndexTenants completes the indexes of tenants, unless that was done: entries of older versions are not in
// them.
func (f *Fleet) IndexTenants(ctx context.Context) error {
	done, err := f.redis.Exists(ctx, fleetIndexed).Result()
	if err != nil || done == 1 {
		return wrapped("index the fleet", err)
	}
	err = f.All(ctx, func(in tasks.Instance) error {
		return f.redis.ZAdd(ctx, tenantIndex(in.Tenant), redis.Z{Member: in.ID}).Err()
	})
	if err == nil {
		err = f.redis.Set(ctx, fleetIndexed, 1, 0).Err()
	}
	return wrapped("index the fleet", err)
}
