package views

import (
	"context"
	"errors"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// tally is a census in the making.
type tally struct {
	sources CensusSources
	census  tasks.Census
	now     time.Time

	all *tasks.Halt // operators' halt of all tenants
	censusState
	tenants       map[string]tenantHold
	runs          map[string]*tasks.Holding // nil: it is not halted
	work          map[string]map[string]*tasks.Work
	holdings      map[tasks.Holding]*tasks.Holding // by what tells them apart
	firstSeen     map[tasks.Holding]tasks.Time     // in the census before
	quotaLookedAt map[string]*tasks.Holding
}

// tenantHold is what holds items of a tenant.
type tenantHold struct {
	halt    *tasks.Holding
	perHour int
}

// newTally asks for all that does not depend on a job.
func (v *Census) newTally(ctx context.Context, last tasks.Census, now time.Time) (*tally, error) {
	t := &tally{
		sources: v.sources, now: now, census: tasks.Census{At: tasks.FromMillis(now.UnixMilli())},
		tenants: map[string]tenantHold{}, runs: map[string]*tasks.Holding{}, quotaLookedAt: map[string]*tasks.Holding{},
		holdings: map[tasks.Holding]*tasks.Holding{}, firstSeen: map[tasks.Holding]tasks.Time{},
		work: map[string]map[string]*tasks.Work{tenantWork: {}, runWork: {}, driverWork: {}},
	}
	for _, h := range last.Holdings {
		t.firstSeen[cause(h)] = h.Since
	}
	all, err := v.sources.Policies.Policy(ctx, "")
	if err != nil {
		return nil, err
	}
	t.all = all.OperatorHalt
	t.censusState, err = v.state.Get(ctx)
	return t, err
}

// Of what there are numbers.
const (
	tenantWork = "tenant"
	runWork    = "run"
	driverWork = "driver"
)

// cause is what tells a holding from others.
func cause(h tasks.Holding) tasks.Holding {
	c := tasks.Holding{Reason: h.Reason}
	switch h.Reason {
	case tasks.HoldTenantHalt, tasks.HoldOwnHalt, tasks.HoldQuota:
		c.Tenant = h.Tenant
	case tasks.HoldRunPaused:
		c.Run = h.Run
	case tasks.HoldUnserved, tasks.HoldUnreachable:
		c.Driver = h.Driver
	case tasks.HoldQueuePaused:
		c.Queue = h.Queue
	}
	return c
}

// add counts the items of a job.
func (t *tally) add(ctx context.Context, job codec.Open) error {
	if job.State.Final() {
		return nil // the sweeper has not looked at it since
	}
	t.census.OpenJobs++
	held, err := t.jobHold(ctx, job)
	if err != nil {
		return err
	}
	for _, it := range job.Items {
		driver := it.DriverName()
		works := []*tasks.Work{&t.census.Work, t.of(tenantWork, job.Tenant), t.of(runWork, job.RunID), t.of(driverWork, driver)}
		if it.State == tasks.ItemRunning {
			for _, w := range works {
				w.Running++
			}
			continue
		}
		h := held
		if h == nil {
			if h, err = t.itemHold(ctx, job, it); err != nil {
				return err
			}
		}
		if h != nil {
			t.hold(*h, job, driver)
			for _, w := range works {
				if w.Held == nil {
					w.Held = map[tasks.HoldReason]int{}
				}
				w.Held[h.Reason]++
			}
			continue
		}
		could := job.Since
		if job.NotBefore.After(could.Time) {
			could = job.NotBefore
		}
		if it.NotBefore.After(could.Time) {
			could = it.NotBefore
		}
		for _, w := range works {
			w.Waiting++
			switch {
			case could.After(t.now):
				w.Later++
			case w.Oldest.IsZero() || could.Before(w.Oldest.Time):
				w.Oldest = could
			}
		}
	}
	return nil
}

// of is the work of a tenant, a run or a driver; of one without a name, or beyond tasks.CensusNames, nobody sees it.
func (t *tally) of(what, name string) *tasks.Work {
	known := t.work[what]
	w := known[name]
	if w == nil {
		w = &tasks.Work{}
		if name != "" && len(known) < tasks.CensusNames {
			known[name] = w
		}
	}
	return w
}

// jobHold is what holds all items of a job, or nil.
func (t *tally) jobHold(ctx context.Context, job codec.Open) (*tasks.Holding, error) {
	if t.all != nil {
		return &tasks.Holding{Reason: tasks.HoldHalt, Why: t.all.Reason, Since: t.all.Since}, nil
	}
	tenant, err := t.tenant(ctx, job.Tenant)
	if err != nil || tenant.halt != nil {
		return tenant.halt, err
	}
	if run, err := t.run(ctx, job.RunID); err != nil || run != nil {
		return run, err
	}
	if job.NotBefore.After(t.now) {
		return &tasks.Holding{Reason: tasks.HoldNotBefore, Since: job.Since, Until: job.NotBefore}, nil
	}
	return nil, nil
}

// itemHold is what holds an item that its job lets go, or nil.
func (t *tally) itemHold(ctx context.Context, job codec.Open, it tasks.Item) (*tasks.Holding, error) {
	driver, queue := it.DriverName(), tasks.QueueOf(job.Queue, it.Driver)
	if !t.served[driver] {
		return &tasks.Holding{Reason: tasks.HoldUnserved, Driver: driver, Since: job.Held.Since}, nil
	}
	if t.paused[queue] {
		return &tasks.Holding{Reason: tasks.HoldQueuePaused, Queue: queue, Driver: driver}, nil
	}
	if since, unreachable := t.unreachable[driver]; unreachable {
		return &tasks.Holding{Reason: tasks.HoldUnreachable, Driver: driver, Since: since}, nil
	}
	return t.quota(ctx, job.Tenant)
}

// tenant looks once at what is decided about a tenant. One whose policy cannot be read begins nothing: there may be a halt in it.
func (t *tally) tenant(ctx context.Context, tenant string) (tenantHold, error) {
	if known, ok := t.tenants[tenant]; ok {
		return known, nil
	}
	policy, err := t.sources.Policies.Policy(ctx, tenant)
	var found tenantHold
	switch {
	case isDamage(err):
		found.halt = &tasks.Holding{Reason: tasks.HoldTenantHalt, Tenant: tenant, Why: "what was decided about it cannot be read"}
	case err != nil:
		return found, err
	case policy.OperatorHalt != nil:
		found.halt = &tasks.Holding{Reason: tasks.HoldTenantHalt, Tenant: tenant, Why: policy.OperatorHalt.Reason, Since: policy.OperatorHalt.Since}
	case policy.OwnHalt != nil:
		found.halt = &tasks.Holding{Reason: tasks.HoldOwnHalt, Tenant: tenant, Why: policy.OwnHalt.Reason, Since: policy.OwnHalt.Since}
	}
	if err == nil {
		found.perHour = *policy.InstancesPerHour
	}
	t.tenants[tenant] = found
	return found, nil
}

func isDamage(err error) bool {
	_, damage := errors.AsType[*codec.Damage](err)
	return damage
}

// run looks once at the halt of a run.
func (t *tally) run(ctx context.Context, run string) (*tasks.Holding, error) {
	if run == "" {
		return nil, nil
	}
	if known, ok := t.runs[run]; ok {
		return known, nil
	}
	halt, err := t.sources.Policies.RunHalt(ctx, run)
	var found *tasks.Holding
	switch {
	case isDamage(err):
		found = &tasks.Holding{Reason: tasks.HoldRunPaused, Run: run, Why: "what was decided about it cannot be read"}
	case err != nil:
		return nil, err
	case halt != nil:
		found = &tasks.Holding{Reason: tasks.HoldRunPaused, Run: run, Why: halt.Reason, Since: halt.Since}
	}
	t.runs[run] = found
	return found, nil
}

// quota looks once whether the resets of a tenant are used up.
func (t *tally) quota(ctx context.Context, tenant string) (*tasks.Holding, error) {
	if known, ok := t.quotaLookedAt[tenant]; ok {
		return known, nil
	}
	var found *tasks.Holding
	if perHour := t.tenants[tenant].perHour; perHour > 0 {
		wait, err := t.sources.Quotas.SpendWait(ctx, tenant, perHour)
		if err != nil {
			return nil, err
		}
		if wait > 0 {
			found = &tasks.Holding{Reason: tasks.HoldQuota, Tenant: tenant, Until: tasks.FromMillis(t.now.Add(wait).UnixMilli())}
		}
	}
	t.quotaLookedAt[tenant] = found
	return found, nil
}

// hold counts an item that is held.
func (t *tally) hold(h tasks.Holding, job codec.Open, driver string) {
	key := cause(h)
	known := t.holdings[key]
	if known == nil {
		if len(t.holdings) >= 2*tasks.CensusNames {
			return
		}
		known = &h
		known.Tenant, known.Run, known.Driver, known.Job = job.Tenant, job.RunID, driver, job.ID
		t.holdings[key] = known
	}
	known.Items++
	if !h.Since.IsZero() && (known.Since.IsZero() || h.Since.Before(known.Since.Time)) {
		known.Since = h.Since
	}
	if !h.Until.IsZero() && (known.Until.IsZero() || h.Until.Before(known.Until.Time)) {
		known.Until = h.Until
	}
	for _, about := range []struct {
		all *string
		one string
	}{{&known.Tenant, job.Tenant}, {&known.Run, job.RunID}, {&known.Driver, driver}, {&known.Job, job.ID}} {
		if *about.all != about.one {
			*about.all = ""
		}
	}
}

// addRests adds what is in no job yet, and not held.
func (t *tally) addRests(ctx context.Context, rests []tasks.RunRest) error {
	for _, rest := range rests {
		tenant, err := t.tenant(ctx, rest.Tenant)
		if err != nil {
			return err
		}
		halted, err := t.run(ctx, rest.Run)
		if err != nil {
			return err
		}
		if t.all == nil && tenant.halt == nil && halted == nil {
			for _, w := range []*tasks.Work{&t.census.Work, t.of(tenantWork, rest.Tenant), t.of(runWork, rest.Run)} {
				w.ToCome += rest.Instances
			}
		}
	}
	return nil
}

// done completes the census.
func (t *tally) done() tasks.Census {
	for key, h := range t.holdings {
		if h.Since.IsZero() {
			h.Since = t.census.At
		}
		// What nobody has written down began when it was first seen.
		if before, seen := t.firstSeen[key]; seen && measured(h.Reason) && before.Before(h.Since.Time) {
			h.Since = before
		}
		t.census.Holdings = append(t.census.Holdings, *h)
	}
	t.census.SortHoldings()
	t.census.Tenants, t.census.Runs, t.census.Drivers = flat(t.work[tenantWork]), flat(t.work[runWork]), flat(t.work[driverWork])
	return t.census
}

// measured reports whether nobody writes down since when there is such a holding.
func measured(reason tasks.HoldReason) bool {
	switch reason {
	case tasks.HoldUnserved, tasks.HoldUnreachable, tasks.HoldQueuePaused, tasks.HoldQuota:
		return true
	}
	return false
}

func flat(work map[string]*tasks.Work) map[string]tasks.Work {
	all := make(map[string]tasks.Work, len(work))
	for name, w := range work {
		all[name] = *w
	}
	return all
}
