package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

const fleetIndex = "reset:fleet"

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
	return f.read(ctx, instances, func(_ string, err error) error { return err })
}

// read asks spoiled what becomes of an entry that cannot be read: nil leaves it out.
func (f *Fleet) read(ctx context.Context, instances []string, spoiled func(id string, err error) error) (map[string]tasks.Instance, error) {
	pipe := f.redis.Pipeline()
	answers := make([]*redis.SliceCmd, len(instances))
	for i, id := range instances {
		answers[i] = pipe.HMGet(ctx, codec.FleetKey(id), "tenant", "protected", "address", "labels", "driver")
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	fleet := make(map[string]tasks.Instance, len(instances))
	for i, id := range instances {
		v, err := answers[i].Result()
		if err != nil {
			if err := spoiled(id, err); err != nil {
				return nil, fmt.Errorf("read fleet: %w", err)
			}
		} else if len(v) == 5 && v[0] != nil {
			labels, err := codec.Labels(codec.Text(v[3]))
			if err != nil {
				if err := spoiled(id, &codec.Damage{Err: fmt.Errorf("labels: %w", err)}); err != nil {
					return nil, fmt.Errorf("read fleet: %w", err)
				}
				continue
			}
			fleet[id] = tasks.Instance{ID: id, Tenant: codec.Text(v[0]), Protected: codec.Text(v[1]) == "1", Address: codec.Text(v[2]), Labels: labels, Driver: codec.Text(v[4])}
		}
	}
	return fleet, nil
}

// Register adds instances to the fleet, or changes the entries they have, wholly. The
// caller has checked them.
func (f *Fleet) Register(ctx context.Context, instances []tasks.Instance, actor tasks.Actor) error {
	changes := make([]tasks.FleetChange, len(instances))
	for i, in := range instances {
		changes[i] = tasks.FleetChange{ID: in.ID, Tenant: in.Tenant, Protected: &in.Protected, Driver: &in.Driver, Address: &in.Address, Labels: in.Labels}
		if in.Labels == nil {
			changes[i].Labels = map[string]string{}
		}
	}
	_, err := f.Import(ctx, changes, actor)
	return err
}

// Import registers instances, each of them once in the list, or changes their entries in
// what is said of them. The caller has checked them. The trail has entries for protections
// that end and for instances that move to another tenant, besides the one for all.
// What the report says is done, also after an error, which names instances that are new and
// have no tenant, tasks.NotYourInstance, before anything is done. Errors: also
// tasks.StorageFull.
func (f *Fleet) Import(ctx context.Context, changes []tasks.FleetChange, actor tasks.Actor) (report tasks.FleetReport, err error) {
	if err := f.storage.Refuse(ctx); err != nil {
		return report, err
	}
	report, err = f.importAll(ctx, changes, actor)
	return report, OrFull(err)
}

func (f *Fleet) importAll(ctx context.Context, changes []tasks.FleetChange, actor tasks.Actor) (report tasks.FleetReport, err error) {
	for len(changes) > 0 {
		ids := make([]string, len(changes))
		for i, c := range changes {
			ids[i] = c.ID
		}
		seen, err := f.Registered(ctx, ids)
		if err != nil {
			return report, err
		}
		if missing := withoutTenant(changes, seen); missing != nil {
			return report, tasks.Errorf(tasks.NotYourInstance, "not registered, and without a tenant: %s", strings.Join(missing, ", "))
		}
		var again []tasks.FleetChange // whose entry somebody else changed just now
		if err := f.audit.decideAll(ctx, importEntries(changes, seen, actor), func(ctx context.Context) error {
			var done tasks.FleetReport
			again, done, err = f.register(ctx, changes, seen)
			report.Add(done)
			return err
		}); err != nil {
			return report, err
		}
		changes = again
	}
	return report, nil
}

// withoutTenant are the instances that cannot be registered.
func withoutTenant(changes []tasks.FleetChange, seen map[string]tasks.Instance) (missing []string) {
	for _, c := range changes {
		if _, registered := seen[c.ID]; !registered && c.Tenant == "" {
			missing = append(missing, c.ID)
		}
	}
	return missing
}

// effect is what a change makes of an entry that was seen.
func effect(c tasks.FleetChange, seen tasks.Instance) (r tasks.FleetReport) {
	switch {
	case seen.Tenant == "":
		r.New = 1
	case c.Tenant != "" && c.Tenant != seen.Tenant:
		r.Moved = 1
	}
	if seen.Tenant != "" && (c.Address != nil && *c.Address != seen.Address || c.Driver != nil && *c.Driver != seen.Driver) {
		r.Readdressed = 1
	}
	switch {
	case c.Protected == nil || *c.Protected == seen.Protected:
	case *c.Protected:
		r.Protected = 1
	default:
		r.Unprotected = 1
	}
	return r
}

// importEntries are those of the audit trail for changes of entries that were seen.
func importEntries(changes []tasks.FleetChange, seen map[string]tasks.Instance, actor tasks.Actor) []tasks.AuditEntry {
	var all, unprotected, readdressed []string
	protected, said := 0, false
	moved := map[[2]string][]string{}
	tenants := map[string]bool{}
	for _, c := range changes {
		all = append(all, c.ID)
		from := seen[c.ID]
		tenants[cmp.Or(c.Tenant, from.Tenant)] = true
		does := effect(c, from)
		if does.Moved > 0 {
			between := [2]string{from.Tenant, c.Tenant}
			moved[between] = append(moved[between], c.ID)
		}
		if c.Protected != nil {
			said = true
			if *c.Protected {
				protected++
			}
		}
		if does.Unprotected > 0 {
			unprotected = append(unprotected, c.ID)
		}
		if does.Readdressed > 0 {
			readdressed = append(readdressed, c.ID)
		}
	}
	e := actor.Entry(tasks.ActionRegister).About(all)
	if len(tenants) == 1 {
		e.Tenant = slices.Collect(maps.Keys(tenants))[0]
	}
	if said { // else their protection stays what it is
		e.Detail = fmt.Sprintf("%d of them protected", protected)
	}
	entries := []tasks.AuditEntry{e}
	if readdressed != nil {
		e := actor.Entry(tasks.ActionReaddress).About(readdressed)
		e.Detail = "by an import"
		entries = append(entries, e)
	}
	if unprotected != nil {
		e := actor.Entry(tasks.ActionUnprotect).About(unprotected)
		e.Detail = "by an import"
		entries = append(entries, e)
	}
	for _, between := range slices.SortedFunc(maps.Keys(moved), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		e := actor.Entry(tasks.ActionMove).About(moved[between])
		e.Tenant, e.Detail = between[1], "by an import, from "+between[0]
		entries = append(entries, e)
	}
	return entries
}

// register makes changes of entries that were seen. It returns those whose entry is another
// by now, and what the others have come to.
func (f *Fleet) register(ctx context.Context, changes []tasks.FleetChange, seen map[string]tasks.Instance) (again []tasks.FleetChange, done tasks.FleetReport, err error) {
	pipe := f.redis.Pipeline()
	answers := make([]*redis.Cmd, len(changes))
	for i, c := range changes {
		// Indexed first: an entry that exists is always listed.
		pipe.ZAdd(ctx, fleetIndex, redis.Z{Member: c.ID})
		protected := ""
		if c.Protected != nil {
			protected = codec.Flag(*c.Protected)
		}
		address, labels := optional(c.Address), ""
		if c.Labels != nil {
			text, err := codec.EncodeLabels(c.Labels)
			if err != nil {
				return nil, done, fmt.Errorf("register instance %s: %w", c.ID, err)
			}
			labels = optional(&text)
		}
		from := seen[c.ID]
		answers[i] = registerScript.Eval(ctx, pipe, []string{codec.FleetKey(c.ID)},
			c.Tenant, protected, from.Tenant, codec.Flag(from.Protected), address, labels, from.Address, optional(c.Driver), from.Driver)
	}
	_, failed := pipe.Exec(ctx)
	for i, c := range changes {
		switch n, err := answers[i].Int(); {
		case err != nil:
		case n == 0:
			again = append(again, c)
		default:
			done.Add(effect(c, seen[c.ID]))
		}
	}
	if failed != nil {
		return nil, done, fmt.Errorf("register instances: %w", failed)
	}
	return again, done, nil
}

// optional is a text for register.lua, which leaves what it has for nil.
func optional(text *string) string {
	if text == nil {
		return ""
	}
	return "=" + *text
}

// Protect protects registered instances from every attempt that has not begun, or ends
// that. It returns those that are not registered.
func (f *Fleet) Protect(ctx context.Context, instances []string, protected bool, actor tasks.Actor) (missing []string, err error) {
	action := tasks.ActionUnprotect
	if protected {
		action = tasks.ActionProtect
	}
	return f.change(ctx, actor.Entry(action), instances, func(ctx context.Context, instance string) (bool, error) {
		found, err := protectScript.Run(ctx, f.redis, []string{codec.FleetKey(instance)}, codec.Flag(protected)).Int()
		return found == 1, err
	})
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
func (f *Fleet) Unregister(ctx context.Context, instances []string, actor tasks.Actor) (missing []string, err error) {
	return f.change(ctx, actor.Entry(tasks.ActionUnregister), instances, func(ctx context.Context, instance string) (bool, error) {
		n, err := f.redis.Del(ctx, codec.FleetKey(instance)).Result()
		if err == nil {
			err = f.redis.ZRem(ctx, fleetIndex, instance).Err()
		}
		return n > 0, err
	})
}
