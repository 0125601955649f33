package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func newTenantCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tenant",
		Short: "Limit what tenants may do, and see what they use",
		Long: `Limits are kept in Redis and hold within a second of their change, for every api and
worker. They are against mistakes, not for billing.`,
	}
	cmd.AddCommand(newTenantLimitCommand(std), newTenantListCommand(std))
	return cmd
}

func newTenantLimitCommand(std *terminal.Streams) *cobra.Command {
	var (
		op    operation
		whom  tenantFlags
		reset bool
	)
	values := make([]int, len(tasks.LimitKinds))
	cmd := &cobra.Command{
		Use:   "limit --tenant TENANT|--all",
		Short: "Set limits of a tenant, or of all that have none of their own",
		Long: `Sets limits. Those that are not named stay as they are; 0 = no limit, also where there
is one for all tenants. --inherit removes the limits that are not named, so that those for
all tenants apply. By default a tenant may send 100 requests per second and have 100,000
instances open: 'batchreset tenant list' shows which limits apply.

A request beyond a limit is refused with 429 and Retry-After. --instances-per-hour also
holds for what was accepted before: more resets than that do not begin in any hour, the
rest waits. --open-instances counts jobs that were accepted while there was such a limit.

--approve-above has larger runs wait until --approvers other people have approved them (see
'batchreset token add --help' for owners). A plain request of up to 32 instances needs no
approval; --direct-instances-per-hour bounds how much can be done with those.`,
		Example: `  batchreset tenant limit --all --instances-per-hour 10000 --max-failures 5
  batchreset tenant limit --tenant acme --instances-per-hour 500 --open-instances 200
  batchreset tenant limit --tenant acme --approve-above 100 --approvers 2
  batchreset tenant limit --tenant acme --inherit`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := whom.check(); err != nil {
				return err
			}
			limits, err := givenLimits(cmd.Flags(), values)
			if err != nil {
				return err
			}
			if limits == (tasks.Limits{}) && !reset {
				return errors.New("no limit is given (see 'batchreset tenant limit --help')")
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				if err := db.Policies.SetLimits(cmd.Context(), whom.tenant, limits, reset, terminal.Actor("")); err != nil {
					return err
				}
				return op.output.Said(std, tasks.Policy{Tenant: whom.tenant, Limits: limits}, "limits set for %s", &whom)
			})
		},
	}
	op.define(cmd)
	whom.define(cmd.Flags())
	cmd.Flags().BoolVar(&reset, "inherit", false, "drop the limits that are not given here")
	for i, kind := range tasks.LimitKinds {
		cmd.Flags().IntVar(&values[i], limitFlag(kind), 0, kind.Help)
	}
	return cmd
}

// limitFlag is the name of the flag that sets a limit. Those that are not given stay as they are.
func limitFlag(kind tasks.LimitKind) string { return strings.ReplaceAll(kind.Name, "_", "-") }

func givenLimits(flags *pflag.FlagSet, values []int) (tasks.Limits, error) {
	var limits tasks.Limits
	for i, kind := range tasks.LimitKinds {
		if !flags.Changed(limitFlag(kind)) {
			continue
		}
		if err := kind.Check(values[i]); err != nil {
			return limits, fmt.Errorf("--%s %w", limitFlag(kind), err)
		}
		*kind.Of(&limits) = &values[i]
	}
	return limits, nil
}

// tenantState is what the list shows of a tenant.
type tenantState struct {
	tasks.Policy
	Usage *tasks.Usage `json:"usage,omitempty"` // not for all tenants
	// Holds is what a tenant is limited to in the end; of all tenants: one without its own.
	Holds tasks.Limits `json:"holds"`
}

func newTenantListCommand(std *terminal.Streams) *cobra.Command {
	return newListCommand(std, list[tenantState]{
		name: "tenants",
		columns: []string{
			"tenant", "halt.since", "halt.reason", "own_halt.since", "own_halt.reason",
			"holds.instances_per_hour", "holds.open_instances", "holds.requests_per_second", "holds.max_failures", "holds.approve_above", "holds.approvers", "holds.direct_instances_per_hour",
			"usage.accepted_last_hour", "usage.direct_last_hour", "usage.begun_last_hour", "usage.open_instances",
		},
		read: tenantStates,
		head: []string{"TENANT", "HALTED", "BY ITSELF", "PER HOUR", "ACCEPTED", "BEGUN", "OPEN LIMIT", "OPEN", "PER SECOND", "MAX FAILURES", "REASON"},
		row:  func(s tenantState, _ time.Time) []string { return s.cells() },
	}, &cobra.Command{
		Use:   "list [TENANT…]",
		Short: "List halts, limits and what is used of them",
		Long: `Lists the halts and limits of all tenants, of each tenant with a halt or limits of its own,
and of those that are named; where nothing is set, the default. Without a limit nothing is
counted.`,
		Example: `  batchreset tenant list
  batchreset tenant list acme --output json`,
		Args: func(_ *cobra.Command, args []string) error {
			for _, name := range args {
				if err := tasks.CheckTenant(name); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// tenantStates are the states of the tenants with a policy of their own, and of the others
// that are named.
func tenantStates(ctx context.Context, db *redisdb.DB, names []string) ([]tenantState, error) {
	policies, err := db.Policies.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !slices.ContainsFunc(policies, func(p tasks.Policy) bool { return p.Tenant == name }) {
			policies = append(policies, tasks.Policy{Tenant: name})
		}
	}
	states := make([]tenantState, len(policies))
	for i, policy := range policies {
		states[i].Policy, states[i].Holds = policy, policy.Under(policies[0]).Limits
		if policy.Tenant == "" {
			continue
		}
		usage, err := db.Quotas.Usage(ctx, policy.Tenant)
		if err != nil {
			return nil, err
		}
		states[i].Usage = &usage
	}
	return states, nil
}

// cells are those of its row in a table.
func (s tenantState) cells() []string {
	name, since, own, reason := "(all)", "", "", ""
	if s.Tenant != "" {
		name = s.Tenant
	}
	if s.OwnHalt != nil {
		own, reason = terminal.Clock(s.OwnHalt.Since.Time), s.OwnHalt.Reason
	}
	if s.OperatorHalt != nil {
		since, reason = terminal.Clock(s.OperatorHalt.Since.Time), cmp.Or(s.OperatorHalt.Reason, reason)
	}
	var accepted, begun, open string
	if s.Usage != nil {
		accepted, begun, open = strconv.Itoa(s.Usage.AcceptedLastHour), strconv.Itoa(s.Usage.BegunLastHour), strconv.Itoa(s.Usage.OpenInstances)
	}
	bound := func(limit func(tasks.Limits) *int) string {
		set := limit(s.Limits)
		if set == nil && s.Tenant == "" { // what holds where nothing was set
			return bound(limit(s.Holds)) + " (default)"
		}
		return bound(set)
	}
	return []string{
		name, since, own,
		bound(func(l tasks.Limits) *int { return l.InstancesPerHour }), accepted, begun,
		bound(func(l tasks.Limits) *int { return l.OpenInstances }), open,
		bound(func(l tasks.Limits) *int { return l.RequestsPerSecond }),
		bound(func(l tasks.Limits) *int { return l.MaxFailures }), reason,
	}
}

func bound(limit *int) string {
	switch {
	case limit == nil:
		return ""
	case *limit == 0:
		return "none"
	}
	return strconv.Itoa(*limit)
}
