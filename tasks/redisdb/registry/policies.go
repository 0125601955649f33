package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// PoliciesKey is a hash with "<tenant> <what>" -> value, and policyRevision -> a number
// that grows with every change. The tenant is everyone for what holds for all.
const (
	PoliciesKey    = "reset:policies"
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
	policyApprove     = "approve_above"
	policyApprovers   = "approvers"
	policyDirect      = "direct_instances_per_hour"
)

func policyField(tenant, what string) string {
	if tenant == "" {
		tenant = everyone
	}
	return tenant + " " + what
}

// Policies are the halts and limits.
type Policies struct {
	redis   *wire.Client
	audit   *Audit
	leftOut *codec.LeftOut
	look    *wire.Look[*policyLook]
}

// NewPolicies makes Policies. The caller closes them.
func NewPolicies(client *wire.Client, audit *Audit, leftOut *codec.LeftOut) *Policies {
	p := &Policies{redis: client, audit: audit, leftOut: leftOut}
	p.look = wire.NewLook(policyFresh, policyPatience, p.read)
	return p
}

// Close waits for what looks at the policies. Nobody may ask any more.
func (p *Policies) Close() { p.look.Wait() }

// Halt halts a tenant's attempts, all tenants' if tenant is empty, with the reason of the
// actor. A tenant's own halt that holds stays as it is.
func (p *Policies) Halt(ctx context.Context, tenant string, whose tasks.Halter, actor tasks.Actor) error {
	there, err := p.halted(ctx, tenant, whose)
	if err != nil {
		return err
	}
	if there && whose == tasks.HaltedByTenant {
		return p.redis.Confirm(ctx, PoliciesKey, policyRevision)
	}
	text, err := json.Marshal(tasks.Halt{Since: tasks.Time{Time: p.redis.Now()}, Reason: actor.Reason})
	if err != nil {
		return err
	}
	return p.setHalt(ctx, tenant, whose, actor.Entry(tasks.ActionHalt), string(text))
}

// Resume ends the halt of one halter; that of the other one stays.
func (p *Policies) Resume(ctx context.Context, tenant string, whose tasks.Halter, actor tasks.Actor) error {
	there, err := p.halted(ctx, tenant, whose)
	if err != nil {
		return err
	}
	if !there {
		return p.redis.Confirm(ctx, PoliciesKey, policyRevision)
	}
	return p.setHalt(ctx, tenant, whose, actor.Entry(tasks.ActionResume), "")
}

// halted looks whether there is a halt of a halter. It asks for nothing else, so that a
// policy that cannot be read does not keep anybody from halting.
func (p *Policies) halted(ctx context.Context, tenant string, whose tasks.Halter) (bool, error) {
	halts, err := p.redis.HMGet(ctx, PoliciesKey, policyField(tenant, policyHalt), policyField(tenant, policyOwnHalt)).Result()
	if err != nil {
		return false, fmt.Errorf("read policies: %w", err)
	}
	halt, own := codec.Text(halts[0]), codec.Text(halts[1])
	var before struct {
		Own bool `json:"own"` // see halt.lua
	}
	_ = json.Unmarshal([]byte(halt), &before) // one that cannot be read is an operator's
	if whose == tasks.HaltedByTenant {
		return own != "" || before.Own, nil
	}
	return halt != "" && !before.Own, nil
}

func (p *Policies) setHalt(ctx context.Context, tenant string, whose tasks.Halter, e tasks.AuditEntry, halt string) error {
	e.Tenant = tenant
	if whose == tasks.HaltedByTenant {
		e.Detail = "the tenant's own halt"
	}
	return p.audit.Decide(ctx, e, func(ctx context.Context) error {
		done, err := p.redis.Commit(ctx, haltScript, []string{PoliciesKey},
			policyField(tenant, policyHalt), policyField(tenant, policyOwnHalt), string(whose), halt).Int()
		if err != nil {
			return fmt.Errorf("%s: %w", e.Action, err)
		}
		p.look.Forget() // whoever changes something sees it at once
		if done == 0 {
			return cmp.Or(p.redis.Confirm(ctx, PoliciesKey, policyRevision), ErrUnchanged)
		}
		return nil
	})
}

// runPolicy is under what name the halt of a run is kept. No tenant has a colon in its name.
const runPolicy = "run:"

// HaltRun keeps attempts of a run's jobs from beginning. Who decides that has an entry in the trail.
func (p *Policies) HaltRun(ctx context.Context, run, reason string) error {
	text, err := json.Marshal(tasks.Halt{Since: tasks.Time{Time: p.redis.Now()}, Reason: reason})
	if err != nil {
		return err
	}
	return p.haltRun(ctx, run, string(text))
}

// ReleaseRun ends that.
func (p *Policies) ReleaseRun(ctx context.Context, run string) error { return p.haltRun(ctx, run, "") }

func (p *Policies) haltRun(ctx context.Context, run, halt string) error {
	err := p.redis.Commit(ctx, haltScript, []string{PoliciesKey},
		policyField(runPolicy+run, policyHalt), policyField(runPolicy+run, policyOwnHalt), string(tasks.HaltedByOperator), halt).Err()
	p.look.Forget()
	if err != nil {
		return fmt.Errorf("halt run: %w", err)
	}
	return nil
}

// PolicyOf is Policy for the jobs of a tenant's run, if there is one: the run may be halted, too.
func (p *Policies) PolicyOf(ctx context.Context, tenant, run string) (tasks.Policy, error) {
	policy, err := p.Policy(ctx, tenant)
	if err != nil || run == "" {
		return policy, err
	}
	halt, err := p.RunHalt(ctx, run)
	policy.OperatorHalt = cmp.Or(policy.OperatorHalt, halt)
	return policy, err
}

// RunHalt is the halt of a run, or nil: what it was at most policyFresh ago.
func (p *Policies) RunHalt(ctx context.Context, run string) (*tasks.Halt, error) {
	look, err := p.look.Get(ctx)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	if err := look.broken[runPolicy+run]; err != nil {
		return nil, fmt.Errorf("read policies: %w", err) // there may be a halt in it
	}
	return look.tenants[runPolicy+run].OperatorHalt, nil
}

// SetLimits sets those of the limits that are not nil, after it has dropped the ones
// there are if clearFirst is set.
func (p *Policies) SetLimits(ctx context.Context, tenant string, limits tasks.Limits, clearFirst bool, actor tasks.Actor) error {
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
	return p.audit.Decide(ctx, e, func(ctx context.Context) error { return p.setPolicy(ctx, changes...) })
}

func limitsByName(l *tasks.Limits) map[string]**int {
	return map[string]**int{
		policyPerHour: &l.InstancesPerHour, policyOpen: &l.OpenInstances,
		policyRate: &l.RequestsPerSecond, policyMaxFailures: &l.MaxFailures,
		policyApprove: &l.ApproveAbove, policyApprovers: &l.Approvers, policyDirect: &l.DirectInstancesPerHour,
	}
}

// setPolicy sets fields to values, or drops those whose value is empty.
func (p *Policies) setPolicy(ctx context.Context, changes ...any) error {
	if err := p.redis.Commit(ctx, policyScript, []string{PoliciesKey}, changes...).Err(); err != nil {
		return fmt.Errorf("set policy: %w", err)
	}
	p.look.Forget() // whoever changes something sees it at once
	return nil
}

// Halts counts the halts that hold: of all tenants ("all"), of tenants by operators ("tenant") and by themselves ("own"), and of
// runs ("run").
func (p *Policies) Halts(ctx context.Context) (map[string]int, error) {
	look, err := p.look.Get(ctx)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	counts := map[string]int{"all": 0, "tenant": 0, "own": 0, "run": 0}
	if look.all.OperatorHalt != nil {
		counts["all"]++
	}
	for tenant, policy := range look.tenants {
		switch {
		case strings.HasPrefix(tenant, runPolicy) && policy.OperatorHalt != nil:
			counts["run"]++
			continue
		case policy.OperatorHalt != nil:
			counts["tenant"]++
		}
		if policy.OwnHalt != nil {
			counts["own"]++
		}
	}
	return counts, nil
}

// List returns every policy that there is and can be read, that of all tenants first.
func (p *Policies) List(ctx context.Context) ([]tasks.Policy, error) {
	look, err := p.read(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	for tenant, err := range look.broken {
		_ = p.leftOut.Note("policy of "+tenant, err) // nil: it is damage
	}
	found := []tasks.Policy{look.all}
	for _, tenant := range slices.Sorted(maps.Keys(look.tenants)) {
		if strings.HasPrefix(tenant, runPolicy) {
			continue
		}
		found = append(found, look.tenants[tenant])
	}
	return found, nil
}

// Policy returns what holds for a tenant: what it was at most policyFresh ago. Its limits
// have a value.
func (p *Policies) Policy(ctx context.Context, tenant string) (tasks.Policy, error) {
	look, err := p.look.Get(ctx)
	if err != nil {
		return tasks.Policy{}, fmt.Errorf("read policies: %w", err)
	}
	if err := cmp.Or(look.broken[everyone], look.broken[tenant]); err != nil {
		return tasks.Policy{}, fmt.Errorf("read policies: %w", err) // there may be a halt in it
	}
	own := look.tenants[tenant]
	own.Tenant = tenant
	return own.Under(look.all), nil
}

// known is Policy for what may go by older limits: a request must not fail because they cannot be
// read now. Who was never known has those of all tenants.
func (p *Policies) known(ctx context.Context, tenant string) tasks.Policy {
	policy, err := p.Policy(ctx, tenant)
	if err == nil {
		return policy
	}
	if last, ok := p.look.Last(); ok {
		return last.tenants[tenant].Under(last.all)
	}
	return tasks.Policy{}.Under(tasks.Policy{})
}

const (
	// policyFresh is how long a look at the policies is good for.
	policyFresh = 250 * time.Millisecond
	// policyPatience bounds a look.
	policyPatience = time.Second
)

// policyLook is what the policies were at a time.
type policyLook struct {
	revision string
	all      tasks.Policy
	tenants  map[string]tasks.Policy
	broken   map[string]error // of tenants, and of everyone, whose policy cannot be read
}

// read reads the policies, unless they are still what they were.
func (p *Policies) read(ctx context.Context, last **policyLook) (*policyLook, error) {
	if last != nil {
		revision, err := p.redis.HMGet(ctx, PoliciesKey, policyRevision).Result()
		if err != nil {
			return nil, err
		}
		if codec.Text(revision[0]) == (*last).revision {
			return *last, nil
		}
	}
	hash, err := p.redis.HGetAll(ctx, PoliciesKey).Result()
	if err != nil {
		return nil, err
	}
	return decodePolicies(hash), nil
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
			look.broken[tenant] = &codec.Damage{Err: fmt.Errorf("%s: %w", field, err)}
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
