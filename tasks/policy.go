package tasks

import (
	"cmp"
	"fmt"
)

// Limits bound what a tenant may do. nil = what holds for all tenants, and if nothing
// does, DefaultLimits; 0 = no bound, whatever holds for all.
type Limits struct {
	// InstancesPerHour bounds both how many instances are accepted and how many resets
	// begin, in any hour.
	InstancesPerHour *int `json:"instances_per_hour,omitempty"`
	// OpenInstances bounds the instances of jobs that have not ended.
	OpenInstances *int `json:"open_instances,omitempty"`
	// RequestsPerSecond bounds the requests to the API.
	RequestsPerSecond *int `json:"requests_per_second,omitempty"`
	// MaxFailures stops the rest of a job once so many of its items failed, besides
	// what the caller said.
	MaxFailures *int `json:"max_failures,omitempty"`
	// ApproveAbove is how many instances a run may have without an approval.
	ApproveAbove *int `json:"approve_above,omitempty"`
	// Approvers is how many principals must approve a run that needs it, 1 at least.
	Approvers *int `json:"approvers,omitempty"`
	// DirectInstancesPerHour bounds how many instances are accepted, in any hour, in jobs that belong to no run.
	DirectInstancesPerHour *int `json:"direct_instances_per_hour,omitempty"`
}

// DefaultLimits hold where nothing was set, neither for a tenant nor for all. They are
// against mistakes: one tenant should not be able to fill Redis or to starve the others, while a
// large tenant in normal use should never meet them. A fleet of 80,000 phones fits as a whole, in
// 2,500 requests of half a minute; a queued instance takes about 1 kB of Redis, and one api
// serves ten times as many requests.
func DefaultLimits() Limits {
	return Limits{
		InstancesPerHour: new(int), OpenInstances: new(100_000), RequestsPerSecond: new(100), MaxFailures: new(int),
		ApproveAbove: new(int), Approvers: new(1), DirectInstancesPerHour: new(int),
	}
}

// MaxLimit is the largest bound that can be set.
const MaxLimit = 1_000_000_000

// CheckLimit returns a sentence that says what is wrong with a bound, or nil.
func CheckLimit(n int) error {
	if n < 0 || n > MaxLimit {
		return fmt.Errorf("must be from 0 (no bound) to %d, not %d", MaxLimit, n)
	}
	return nil
}

// LimitKind is one of the limits, for those who set them by name.
type LimitKind struct {
	Name string // as in JSON
	Help string // what it bounds
	// Of is where Limits have it.
	Of func(*Limits) **int
}

// LimitKinds are all limits, in the order in which people are shown them.
var LimitKinds = []LimitKind{
	{
		"instances_per_hour", "instances that are accepted, and resets that begin, in any hour",
		func(l *Limits) **int { return &l.InstancesPerHour },
	},
	{"open_instances", "instances of jobs that have not ended", func(l *Limits) **int { return &l.OpenInstances }},
	{"requests_per_second", "requests to the API", func(l *Limits) **int { return &l.RequestsPerSecond }},
	{
		"max_failures", "failed items after which the rest of a job is stopped, besides what the caller says",
		func(l *Limits) **int { return &l.MaxFailures },
	},
	{
		"approve_above", "instances that a run may have without an approval by somebody else",
		func(l *Limits) **int { return &l.ApproveAbove },
	},
	{
		approversLimit, fmt.Sprintf("how many must approve a run that needs it, 1 to %d", MaxApprovers),
		func(l *Limits) **int { return &l.Approvers },
	},
	{
		"direct_instances_per_hour", "instances that are accepted in any hour without a run: larger work is then sent as one",
		func(l *Limits) **int { return &l.DirectInstancesPerHour },
	},
}

const approversLimit = "approvers"

// Check returns a sentence that says what is wrong with a bound of this kind, or nil.
func (k LimitKind) Check(n int) error {
	if k.Name == approversLimit && (n < 1 || n > MaxApprovers) {
		return fmt.Errorf("must be from 1 to %d, not %d", MaxApprovers, n)
	}
	return CheckLimit(n)
}

// Halt says that no attempt may begin.
type Halt struct {
	Since  Time   `json:"since"`
	Reason string `json:"reason,omitempty"`
}

// Halter says whose halt it is. Both may halt a tenant at a time, and each ends only its own halt.
type Halter string

// The halters.
const (
	HaltedByOperator Halter = "operator"
	HaltedByTenant   Halter = "tenant" // by a token with ScopeOperate
)

// Policy is what has been decided about a tenant, or about all of them.
type Policy struct {
	Tenant       string `json:"tenant,omitempty"` // empty: all
	OperatorHalt *Halt  `json:"halt,omitempty"`
	OwnHalt      *Halt  `json:"own_halt,omitempty"` // of the tenant itself
	Limits
}

// Halt returns a halt that holds, the operators' before the tenant's own, or nil.
func (p Policy) Halt() *Halt { return cmp.Or(p.OperatorHalt, p.OwnHalt) }

// byDefault is made once: each attempt asks twice for what holds. Nobody writes through its pointers.
var byDefault = DefaultLimits()

// Under returns the policy that holds for a tenant with the policy p, given that of all
// tenants. Its limits have a value, 0 = no bound, which is not to be changed.
func (p Policy) Under(all Policy) Policy {
	return Policy{
		Tenant:       p.Tenant,
		OperatorHalt: cmp.Or(all.OperatorHalt, p.OperatorHalt),
		OwnHalt:      p.OwnHalt,
		Limits: Limits{
			InstancesPerHour:  cmp.Or(p.InstancesPerHour, all.InstancesPerHour, byDefault.InstancesPerHour),
			OpenInstances:     cmp.Or(p.OpenInstances, all.OpenInstances, byDefault.OpenInstances),
			RequestsPerSecond: cmp.Or(p.RequestsPerSecond, all.RequestsPerSecond, byDefault.RequestsPerSecond),
			MaxFailures:       cmp.Or(p.MaxFailures, all.MaxFailures, byDefault.MaxFailures),
			ApproveAbove:      cmp.Or(p.ApproveAbove, all.ApproveAbove, byDefault.ApproveAbove),
			Approvers:         cmp.Or(p.Approvers, all.Approvers, byDefault.Approvers),

			DirectInstancesPerHour: cmp.Or(p.DirectInstancesPerHour, all.DirectInstancesPerHour, byDefault.DirectInstancesPerHour),
		},
	}
}

// Usage is how much of its limits a tenant uses.
type Usage struct {
	AcceptedLastHour int `json:"accepted_last_hour"` // instances
	DirectLastHour   int `json:"direct_last_hour"`   // instances, accepted without a run
	BegunLastHour    int `json:"begun_last_hour"`    // resets
	OpenInstances    int `json:"open_instances"`
}
