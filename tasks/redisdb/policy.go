package redisdb

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"batchreset/tasks"
)

// policiesKey is a hash with "<tenant> <what>" -> value, and policyRevision -> a number
// that grows with every change. The tenant is everyone for what holds for all.
const (
	policiesKey    = "reset:policies"
	policyRevision = "#"
	everyone       = "*"
)

// What a policy consists of.
const (
	policyHalt        = "halt" // see halt.lua
	policyOwnHalt     = "own_halt"
	policyPerHour     = "instances_per_hour"
	policyOpen        = "open_instances"
	policyRate        = "requests_per_second"
	policyMaxFailures = "max_failures"
)

func policyField(tenant, what string) string {
	if tenant == "" {
		tenant = everyone
	}
	return tenant + " " + what
}

// Halt halts a tenant's attempts, all tenants' if tenant is empty, with the reason of the
// actor. A tenant's own halt that holds stays as it is.
func (db *DB) Halt(ctx context.Context, tenant string, whose tasks.Halter, actor tasks.Actor) error {
	there, err := db.halted(ctx, tenant, whose)
	if err != nil {
		return err
	}
	if there && whose == tasks.HaltedByTenant {
		return db.confirm(ctx, policiesKey, policyRevision)
	}
	text, err := json.Marshal(tasks.Halt{Since: tasks.Time{Time: db.Now()}, Reason: actor.Reason})
	if err != nil {
		return err
	}
	return db.setHalt(ctx, tenant, whose, actor.Entry(tasks.ActionHalt), string(text))
}

// Resume ends the halt of one halter; that of the other one stays.
func (db *DB) Resume(ctx context.Context, tenant string, whose tasks.Halter, actor tasks.Actor) error {
	there, err := db.halted(ctx, tenant, whose)
	if err != nil {
		return err
	}
	if !there {
		return db.confirm(ctx, policiesKey, policyRevision)
	}
	return db.setHalt(ctx, tenant, whose, actor.Entry(tasks.ActionResume), "")
}

// halted looks whether there is a halt of a halter. It asks for nothing else, so that a
// policy that cannot be read does not keep anybody from halting.
func (db *DB) halted(ctx context.Context, tenant string, whose tasks.Halter) (bool, error) {
	halts, err := db.rdb.HMGet(ctx, policiesKey, policyField(tenant, policyHalt), policyField(tenant, policyOwnHalt)).Result()
	if err != nil {
		return false, fmt.Errorf("read policies: %w", err)
	}
	halt, own := text(halts[0]), text(halts[1])
	var before struct {
		Own bool `json:"own"` // see halt.lua
	}
	_ = json.Unmarshal([]byte(halt), &before) // one that cannot be read is an operator's
	if whose == tasks.HaltedByTenant {
		return own != "" || before.Own, nil
	}
	return halt != "" && !before.Own, nil
}

func (db *DB) setHalt(ctx context.Context, tenant string, whose tasks.Halter, e tasks.AuditEntry, halt string) error {
	e.Tenant = tenant
	if whose == tasks.HaltedByTenant {
		e.Detail = "the tenant's own halt"
	}
	return db.Decide(ctx, e, func(ctx context.Context) error {
		done, err := db.commit(ctx, haltScript, []string{policiesKey},
			policyField(tenant, policyHalt), policyField(tenant, policyOwnHalt), string(whose), halt).Int()
		if err != nil {
			return fmt.Errorf("%s: %w", e.Action, err)
		}
		db.policies.last.Store(nil) // whoever changes something sees it at once
		if done == 0 {
			return cmp.Or(db.confirm(ctx, policiesKey, policyRevision), errUnchanged)
		}
		return nil
	})
}

// SetLimits sets those of the limits that are not nil, after it has dropped the ones
// there are if clearFirst is set.
func (db *DB) SetLimits(ctx context.Context, tenant string, limits tasks.Limits, clearFirst bool, actor tasks.Actor) error {
	detail, err := json.Marshal(limits)
	if err != nil {
		return err
	}
	e := actor.Entry(tasks.ActionLimit)
	e.Tenant, e.Detail = tenant, string(detail)
	var changes []any
	for what, limit := range limitsByName(&limits) {
		switch {
		case *limit != nil:
			changes = append(changes, policyField(tenant, what), **limit)
		case clearFirst:
			changes = append(changes, policyField(tenant, what), "")
		}
	}
	return db.Decide(ctx, e, func(ctx context.Context) error { return db.setPolicy(ctx, changes...) })
}

func limitsByName(l *tasks.Limits) map[string]**int {
	return map[string]**int{
		policyPerHour: &l.InstancesPerHour, policyOpen: &l.OpenInstances,
		policyRate: &l.RequestsPerSecond, policyMaxFailures: &l.MaxFailures,
	}
}

// setPolicy sets fields to values, or drops those whose value is empty.
func (db *DB) setPolicy(ctx context.Context, changes ...any) error {
	if err := db.commit(ctx, policyScript, []string{policiesKey}, changes...).Err(); err != nil {
		return fmt.Errorf("set policy: %w", err)
	}
	db.policies.last.Store(nil) // whoever changes something sees it at once
	return nil
}

// Policies returns every policy that there is and can be read, that of all tenants first.
func (db *DB) Policies(ctx context.Context) ([]tasks.Policy, error) {
	look, err := db.lookAtPolicies(ctx, nil)
	if err != nil {
		return nil, err
	}
	for tenant, err := range look.broken {
		_ = db.leaveOut("policy of "+tenant, err) // nil: it is damage
	}
	found := []tasks.Policy{look.all}
	for _, tenant := range slices.Sorted(maps.Keys(look.tenants)) {
		found = append(found, look.tenants[tenant])
	}
	return found, nil
}

// Policy returns what holds for a tenant: what it was at most policyFresh ago. Its limits
// have a value.
func (db *DB) Policy(ctx context.Context, tenant string) (tasks.Policy, error) {
	look, err := db.policies.look(ctx)
	if err != nil {
		return tasks.Policy{}, err
	}
	if err := cmp.Or(look.broken[everyone], look.broken[tenant]); err != nil {
		return tasks.Policy{}, fmt.Errorf("read policies: %w", err) // there may be a halt in it
	}
	own := look.tenants[tenant]
	own.Tenant = tenant
	return own.Under(look.all), nil
}

// policyFresh is how long a look at the policies is good for.
const policyFresh = 250 * time.Millisecond

// policies remembers the last look at the policies. Whoever finds it too old looks
// again, for all who ask at that time: nobody looks while nobody asks.
type policies struct {
	read  func(context.Context, *policyLook) (*policyLook, error)
	last  atomic.Pointer[policyLook]
	looks singleflight.Group
}

// policyLook is what the policies were at a time.
type policyLook struct {
	at       time.Time
	revision string
	all      tasks.Policy
	tenants  map[string]tasks.Policy
	broken   map[string]error // of tenants, and of everyone, whose policy cannot be read
}

func (p *policies) look(ctx context.Context) (*policyLook, error) {
	if last := p.last.Load(); last != nil && time.Since(last.at) < policyFresh {
		return last, nil
	}
	looking := p.looks.DoChan("", func() (any, error) {
		// It is not this caller's alone.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		look, err := p.read(ctx, p.last.Load())
		if err != nil {
			return nil, err
		}
		p.last.Store(look)
		return look, nil
	})
	select {
	case looked := <-looking:
		if looked.Err != nil {
			return nil, looked.Err
		}
		return looked.Val.(*policyLook), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("read policies: %w", ctx.Err())
	}
}

// lookAtPolicies reads the policies, unless they are still what they were.
func (db *DB) lookAtPolicies(ctx context.Context, last *policyLook) (*policyLook, error) {
	start := time.Now() // what changes from here on is not certain to be seen
	if last != nil {
		revision, err := db.rdb.HMGet(ctx, policiesKey, policyRevision).Result()
		if err != nil {
			return nil, fmt.Errorf("read policies: %w", err)
		}
		if text(revision[0]) == last.revision {
			same := *last
			same.at = start
			return &same, nil
		}
	}
	hash, err := db.rdb.HGetAll(ctx, policiesKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	look := decodePolicies(hash)
	look.at = start
	return look, nil
}

// decodePolicies reads the policies. One that cannot be read is its tenant's trouble alone.
func decodePolicies(hash map[string]string) *policyLook {
	look := &policyLook{revision: hash[policyRevision], tenants: map[string]tasks.Policy{}, broken: map[string]error{}}
	for field, value := range hash {
		tenant, what, ok := strings.Cut(field, " ")
		if !ok {
			continue
		}
		policy := look.tenants[tenant]
		policy.Tenant = tenant
		if err := decodePolicy(&policy, what, value); err != nil {
			look.broken[tenant] = &damage{fmt.Errorf("%s: %w", field, err)}
		}
		look.tenants[tenant] = policy
	}
	for tenant := range look.broken {
		delete(look.tenants, tenant)
	}
	look.all = look.tenants[everyone]
	look.all.Tenant = ""
	delete(look.tenants, everyone)
	return look
}

// decodePolicy reads one part of a policy. A part of a later version is left out.
func decodePolicy(policy *tasks.Policy, what, value string) error {
	switch what {
	case policyHalt:
		var halt struct {
			tasks.Halt
			Own bool `json:"own"`
		}
		err := json.Unmarshal([]byte(value), &halt)
		if !halt.Own {
			policy.OperatorHalt = &halt.Halt
		}
		return err
	case policyOwnHalt:
		return json.Unmarshal([]byte(value), &policy.OwnHalt)
	}
	limit, ours := limitsByName(&policy.Limits)[what]
	if !ours {
		return nil
	}
	n, err := strconv.Atoi(value)
	*limit = &n
	return err
}
