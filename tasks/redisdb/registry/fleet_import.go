package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// importChunk is how many instances one call to Redis is about.
const importChunk = 500

func refuse(id, format string, args ...any) error {
	return &tasks.EntryError{ID: id, Reason: fmt.Sprintf(format, args...)}
}

// Register adds instances to the fleet, or changes the entries they have, wholly. The
// caller has checked them.
func (f *Fleet) Register(ctx context.Context, instances []tasks.Instance, actor tasks.Actor) error {
	changes := make([]tasks.FleetChange, len(instances))
	for i, in := range instances {
		changes[i] = tasks.FleetChange{ID: in.ID, Tenant: in.Tenant, Protected: &in.Protected, Driver: &in.Driver, Address: &in.Address, Labels: in.Labels}
		if in.Protected {
			changes[i].ProtectedReason, changes[i].ProtectedUntil = &in.Reason, &in.Until
		}
		if in.Labels == nil {
			changes[i].Labels = map[string]string{}
		}
	}
	_, err := f.Import(ctx, changes, false, actor)
	return err
}

// Import registers instances, each of them once in the list, or changes their entries in
// what is said of them. The caller has checked them. Two instances with one driver and address
// are refused, unless such addresses are shared: the driver needs the instance's ID, too. The
// trail has entries for protections that end, for instances that move to another tenant and so
// on, besides the one for all.
//
// What the report says is done, also after an error. Errors: *tasks.EntryError, for the first instance
// that is new and has no tenant, or cannot have its address or generation; after it nothing is
// done, unless somebody else changed the fleet meanwhile. tasks.StorageFull.
func (f *Fleet) Import(ctx context.Context, changes []tasks.FleetChange, shared bool, actor tasks.Actor) (report tasks.FleetReport, err error) {
	if err := f.storage.Refuse(ctx); err != nil {
		return report, err
	}
	return f.newPlan(shared, actor).importAll(ctx, changes)
}

// ImportSeen is Import for somebody who has looked at what Plan said. Errors: those of Import; tasks.JobFinal if the import,
// or an entry that it is about, is another than was seen. Nothing is done then, unless an entry was changed while this
// went on.
func (f *Fleet) ImportSeen(ctx context.Context, changes []tasks.FleetChange, shared bool, seen string, actor tasks.Actor) (report tasks.FleetReport, err error) {
	if err := f.storage.Refuse(ctx); err != nil {
		return report, err
	}
	p := f.newPlan(shared, actor)
	p.seen, p.revisions = seen, map[string]string{}
	return p.importAll(ctx, changes)
}

// Plan says what Import would do now, with up to first instances of each kind. It changes nothing. Errors:
// *tasks.EntryError as of Import.
func (f *Fleet) Plan(ctx context.Context, changes []tasks.FleetChange, shared bool, first int, actor tasks.Actor) (tasks.FleetPlan, error) {
	p := f.newPlan(shared, actor)
	found := map[tasks.FleetEffect]*tasks.FleetPart{}
	p.visit = func(s step) {
		for _, effect := range s.effects() {
			part := found[effect]
			if part == nil {
				part = &tasks.FleetPart{Effect: effect}
				found[effect] = part
			}
			if part.Count++; part.Count <= first {
				part.First = append(part.First, tasks.FleetStep{Before: s.seen, After: s.after})
			}
		}
	}
	sum, err := p.check(ctx, changes)
	if err != nil {
		return tasks.FleetPlan{}, err
	}
	planned := tasks.FleetPlan{Seen: sum}
	for _, effect := range tasks.FleetEffects {
		if part := found[effect]; part != nil {
			planned.Parts = append(planned.Parts, *part)
		}
	}
	return planned, nil
}

func (f *Fleet) newPlan(shared bool, actor tasks.Actor) plan {
	return plan{fleet: f, devices: devices{}, shared: shared, actor: actor}
}

func (p plan) importAll(ctx context.Context, changes []tasks.FleetChange) (report tasks.FleetReport, err error) {
	sum, err := p.check(ctx, changes)
	if err != nil {
		return report, err
	}
	if p.seen != "" && p.seen != sum {
		return report, tasks.Errorf(tasks.JobFinal, "The list, or the fleet, has changed since it was looked at. Nothing was changed: look at it again.")
	}
	for chunk := range slices.Chunk(changes, importChunk) {
		done, err := p.carryOut(ctx, chunk)
		report.Add(done)
		if err != nil {
			return report, OrFull(err)
		}
	}
	return report, nil
}

// plan is an import.
type plan struct {
	fleet   *Fleet
	devices devices // of all instances of the import, as they will be
	shared  bool
	actor   tasks.Actor
	// seen is what somebody has looked at, or empty. revisions are then those of the entries that were seen.
	seen      string
	revisions map[string]string
	// visit is called for each step of a check; nil: nobody looks.
	visit func(step)
}

// step is what a plan makes of an instance.
type step struct {
	change      tasks.FleetChange
	seen, after tasks.Instance
	rev         string // seen
}

// steps reads what the changes will make of the entries as they are now.
func (p plan) steps(ctx context.Context, changes []tasks.FleetChange) ([]step, error) {
	ids := make([]string, len(changes))
	for i, c := range changes {
		ids[i] = c.ID
	}
	seen, err := p.fleet.read(ctx, ids, func(_ string, err error) error { return err })
	if err != nil {
		return nil, err
	}
	now := tasks.FromMillis(p.fleet.redis.Now().UnixMilli())
	steps := make([]step, len(changes))
	for i, c := range changes {
		from := seen[c.ID]
		steps[i] = step{change: c, seen: from.Instance, after: c.Of(from.Instance, p.actor, now), rev: from.rev}
		if rev, looked := p.revisions[c.ID]; looked && rev != from.rev {
			return nil, refuse(c.ID, "was changed by somebody else just now")
		}
		switch s := steps[i]; {
		case s.after.Tenant == "":
			return nil, refuse(c.ID, "is not registered yet, and tenant is missing")
		case s.after.Generation < s.seen.Generation:
			return nil, refuse(c.ID, "has the generation %d, which does not go back to %d", s.seen.Generation, s.after.Generation)
		case s.after.Generation > tasks.MaxGeneration:
			return nil, refuse(c.ID, "has had its last generation, %d", tasks.MaxGeneration)
		case s.after.Protected && !s.after.Until.IsZero() && !now.Before(s.after.Until.Time):
			return nil, refuse(c.ID, "would be protected until %s, which is in the past", s.after.Until.Format(time.RFC3339))
		}
	}
	return steps, nil
}

// check refuses a plan that cannot be carried out as a whole. It returns a sum over the changes and the entries as they are.
func (p plan) check(ctx context.Context, changes []tasks.FleetChange) (sum string, err error) {
	all := sha256.New()
	owners := map[tasks.Device]step{}
	for chunk := range slices.Chunk(changes, importChunk) {
		steps, err := p.steps(ctx, chunk)
		if err != nil {
			return "", err
		}
		for _, s := range steps {
			if err := s.addTo(all); err != nil {
				return "", err
			}
			if p.revisions != nil {
				p.revisions[s.after.ID] = s.rev
			}
			if p.visit != nil {
				p.visit(s)
			}
			device := s.after.Device()
			if other, twice := owners[device]; twice && (s.readdressed() || other.readdressed()) && !p.shared {
				return "", oneDevice(s.after.ID, device, other.after.ID)
			}
			owners[device], p.devices[s.after.ID] = s, device
		}
	}
	sum = hex.EncodeToString(all.Sum(nil))
	if p.shared {
		return sum, nil
	}
	for chunk := range slices.Chunk(slices.SortedFunc(maps.Values(owners), func(a, b step) int { return cmp.Compare(a.after.ID, b.after.ID) }), importChunk) {
		if err := p.fleet.claimed(ctx, chunk, p.devices); err != nil {
			return "", err
		}
	}
	return sum, nil
}

// addTo adds what a step is about to a sum.
func (s step) addTo(sum io.Writer) error {
	return json.NewEncoder(sum).Encode(struct {
		Change tasks.FleetChange
		Seen   tasks.Instance
		Rev    string
	}{s.change, s.seen, s.rev})
}

// carryOut makes changes, as the entries are now.
func (p plan) carryOut(ctx context.Context, changes []tasks.FleetChange) (report tasks.FleetReport, err error) {
	for len(changes) > 0 {
		steps, err := p.steps(ctx, changes)
		if err != nil {
			return report, err
		}
		if err := p.fleet.claim(ctx, steps, p.devices, p.shared); err != nil {
			return report, err
		}
		var again []tasks.FleetChange // whose entry somebody else changed just now
		if err := p.fleet.audit.decideAll(ctx, importEntries(steps, p.actor), func(ctx context.Context) error {
			var done tasks.FleetReport
			again, done, err = p.fleet.register(ctx, steps)
			report.Add(done)
			return err
		}); err != nil {
			return report, err
		}
		changes = again
	}
	return report, nil
}

// readdressed reports whether the instance gets another device.
func (s step) readdressed() bool { return s.seen.Tenant == "" || s.after.Device() != s.seen.Device() }

// effect is what a step does.
func (s step) effect() (r tasks.FleetReport) {
	isNew := s.seen.Tenant == ""
	switch {
	case isNew:
		r.New = 1
	case s.after.Tenant != s.seen.Tenant:
		r.Moved = 1
	}
	if !isNew && (s.after.Address != s.seen.Address || s.after.Driver != s.seen.Driver) {
		r.Readdressed = 1
	}
	if !isNew && r.Moved == 0 && s.after.Generation > s.seen.Generation {
		r.Reassigned = 1
	}
	switch {
	case s.after.Protected && !s.seen.Protected:
		r.Protected = 1
	case s.seen.Protected && (!s.after.Protected || s.seen.Outlasts(s.after.Protection)):
		r.Unprotected = 1
	}
	return r
}

// effects are what a step does, in words.
func (s step) effects() (effects []tasks.FleetEffect) {
	does := s.effect()
	for _, e := range []struct {
		effect tasks.FleetEffect
		is     bool
	}{
		{tasks.EffectNew, does.New > 0},
		{tasks.EffectMoved, does.Moved > 0},
		{tasks.EffectReaddressed, does.Readdressed > 0},
		{tasks.EffectReassigned, does.Reassigned > 0},
		{tasks.EffectProtected, does.Protected > 0},
		{tasks.EffectUnprotected, does.Unprotected > 0},
		{tasks.EffectRelabelled, does.New == 0 && !maps.Equal(s.seen.Labels, s.after.Labels)},
		{tasks.EffectOther, does.Protected+does.Unprotected == 0 && s.seen.Protected && !s.seen.Equal(s.after.Protection)},
	} {
		if e.is {
			effects = append(effects, e.effect)
		}
	}
	if effects == nil {
		effects = []tasks.FleetEffect{tasks.EffectNone}
	}
	return effects
}

// importEntries are those of the audit trail.
func importEntries(steps []step, actor tasks.Actor) []tasks.AuditEntry {
	var all, unprotected, readdressed, reassigned []string
	protected, said := 0, false
	moved := map[[2]string][]string{}
	tenants := map[string]bool{}
	for _, s := range steps {
		all = append(all, s.after.ID)
		tenants[s.after.Tenant] = true
		if s.change.Protected != nil {
			said = true
			if *s.change.Protected {
				protected++
			}
		}
		does := s.effect()
		if does.Moved > 0 {
			between := [2]string{s.seen.Tenant, s.after.Tenant}
			moved[between] = append(moved[between], s.after.ID)
		}
		if does.Unprotected > 0 {
			unprotected = append(unprotected, s.after.ID)
		}
		if does.Readdressed > 0 {
			readdressed = append(readdressed, s.after.ID)
		}
		if does.Reassigned > 0 {
			reassigned = append(reassigned, s.after.ID)
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
	for _, more := range []struct {
		action tasks.Action
		ids    []string
	}{{tasks.ActionReaddress, readdressed}, {tasks.ActionReassign, reassigned}, {tasks.ActionUnprotect, unprotected}} {
		if more.ids != nil {
			e := actor.Entry(more.action).About(more.ids)
			e.Detail = "by an import"
			entries = append(entries, e)
		}
	}
	for _, between := range slices.SortedFunc(maps.Keys(moved), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		e := actor.Entry(tasks.ActionMove).About(moved[between])
		e.Tenant, e.Detail = between[1], "by an import, from "+between[0]
		entries = append(entries, e)
	}
	return entries
}

// register makes entries what they are to be. It returns the changes of those that are others by
// now than they were seen, and what the others have come to.
func (f *Fleet) register(ctx context.Context, steps []step) (again []tasks.FleetChange, done tasks.FleetReport, err error) {
	pipe := f.redis.Pipeline()
	answers := make([]*redis.Cmd, len(steps))
	for i, s := range steps {
		// Indexed first: an entry that exists is always listed.
		pipe.ZAdd(ctx, fleetIndex, redis.Z{Member: s.after.ID})
		pipe.ZAdd(ctx, tenantIndex(s.after.Tenant), redis.Z{Member: s.after.ID})
		args := []any{s.seen.Tenant, s.rev}
		fields, err := encodeEntry(s.after)
		if err != nil {
			return nil, done, fmt.Errorf("register instance %s: %w", s.after.ID, err)
		}
		answers[i] = registerScript.Eval(ctx, pipe, []string{codec.FleetKey(s.after.ID)}, append(args, fields...)...)
	}
	_, failed := pipe.Exec(ctx)
	for i, s := range steps {
		switch n, err := answers[i].Int(); {
		case err != nil:
		case n == 0:
			again = append(again, s.change)
		default:
			done.Add(s.effect())
		}
	}
	if failed != nil {
		return nil, done, fmt.Errorf("register instances: %w", failed)
	}
	return again, done, f.leave(ctx, steps, answers)
}

// leave takes instances that have moved out of the indexes of the tenants that they were with.
func (f *Fleet) leave(ctx context.Context, steps []step, answers []*redis.Cmd) error {
	pipe := f.redis.Pipeline()
	for i, s := range steps {
		if n, err := answers[i].Int(); err == nil && n == 1 && s.seen.Tenant != "" && s.seen.Tenant != s.after.Tenant {
			pipe.ZRem(ctx, tenantIndex(s.seen.Tenant), s.after.ID)
		}
	}
	if pipe.Len() == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("register instances: %w", err)
	}
	return nil
}

// encodeEntry is the inverse of decodeEntry: fields and values, by turns.
func encodeEntry(in tasks.Instance) ([]any, error) {
	labels, err := codec.EncodeLabels(in.Labels)
	if err != nil {
		return nil, err
	}
	detail := ""
	if in.Protected {
		if detail, err = encodeProtection(in.Protection); err != nil {
			return nil, err
		}
	}
	return []any{
		"tenant", in.Tenant, "protected", codec.Flag(in.Protected), "protected_until", until(in.Protection), "protection", detail,
		"driver", in.Driver, "address", in.Address, "labels", labels, "generation", strconv.Itoa(in.Generation),
	}, nil
}
