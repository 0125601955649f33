package operate

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// tenantFlags say for whom a command is: one tenant, or all of them.
type tenantFlags struct {
	tenant string
	all    bool
}

func (f *tenantFlags) define(flags *pflag.FlagSet) {
	flags.StringVar(&f.tenant, "tenant", "", "the tenant")
	flags.BoolVar(&f.all, "all", false, "all tenants")
	terminal.Alternatives(flags, "tenant", "all")
}

func (f *tenantFlags) check() error {
	switch {
	case !f.all && f.tenant == "":
		return errors.New("--tenant is missing, or --all for all tenants")
	case f.all:
		return nil
	}
	if err := tasks.CheckTenant(f.tenant); err != nil {
		return fmt.Errorf("--tenant: %w", err)
	}
	return nil
}

// String names whom the flags mean, in a sentence.
func (f *tenantFlags) String() string {
	if f.all {
		return "all tenants"
	}
	return "tenant " + f.tenant
}

// shown is what was done to whom, for programs.
func (f *tenantFlags) shown(done string) map[string]any {
	if f.all {
		return map[string]any{"all": true, done: true}
	}
	return map[string]any{"tenant": f.tenant, done: true}
}

func newHaltCommand(std *terminal.Streams) *cobra.Command {
	var (
		op     operation
		whom   tenantFlags
		reason string
	)
	cmd := &cobra.Command{
		Use:   "halt --tenant TENANT|--all",
		Short: "Stop resets: no new attempt begins",
		Long: `From a second later on no attempt begins any more, of one tenant or of all. Attempts that are
running go on: their reset has been sent. Jobs are still accepted, and wait; they
can be cancelled. 'batchreset resume' lets attempts begin again.

The time limit of jobs (--give-up-after) goes on: items that have not ended by then never
start.`,
		Example: `  batchreset halt --tenant acme --reason 'the wrong list was submitted'
  batchreset halt --all`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := whom.check(); err != nil {
				return err
			}
			if err := tasks.CheckReason(reason); err != nil {
				return fmt.Errorf("--reason %w", err)
			}
			if op.options.CommitReplicas < 0 {
				return errors.New("--commit-replicas must not be negative")
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				if err := db.Policies.Halt(cmd.Context(), whom.tenant, tasks.HaltedByOperator, terminal.Actor(reason)); err != nil {
					return err
				}
				return op.output.Said(std, whom.shown("halted"), "halted: %s; 'batchreset resume' ends it", &whom)
			})
		},
	}
	op.define(cmd)
	whom.define(cmd.Flags())
	cmd.Flags().IntVar(&op.options.CommitReplicas, "commit-replicas", 0, "how many Redis replicas must know of it before it counts, as for api and worker")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look")
	return cmd
}

func newResumeCommand(std *terminal.Streams) *cobra.Command {
	var (
		op   operation
		whom tenantFlags
		own  bool
	)
	cmd := &cobra.Command{
		Use:   "resume --tenant TENANT|--all",
		Short: "End a halt",
		Long: `Ends the operators' halt of a tenant, or that of all tenants. They are apart: a tenant
that was halted by name stays so after 'resume --all'. What waits begins within half a
minute.

A tenant can also halt itself, with a token that has the scope 'operate'. That halt holds
beside the operators', and the tenant ends it. --own ends it in the tenant's place.`,
		Example: `  batchreset resume --tenant acme
  batchreset resume --tenant acme --own`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := whom.check(); err != nil {
				return err
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				whose := tasks.HaltedByOperator
				if own {
					whose = tasks.HaltedByTenant
				}
				if err := db.Policies.Resume(cmd.Context(), whom.tenant, whose, terminal.Actor("")); err != nil {
					return err
				}
				policies, err := db.Policies.List(cmd.Context())
				if err != nil {
					return err
				}
				err = op.output.Said(std, whom.shown("resumed"), "resumed: %s", &whom)
				sayWhatIsHalted(std.Err, policies, whom.tenant)
				return err
			})
		},
	}
	op.define(cmd)
	whom.define(cmd.Flags())
	cmd.Flags().BoolVar(&own, "own", false, "end the halt that the tenant set itself, not the operators'")
	terminal.Alternatives(cmd.Flags(), "own", "all") // a halt of all tenants is always the operators'
	return cmd
}

// sayWhatIsHalted says which other halts of a tenant, or of all tenants, still hold.
func sayWhatIsHalted(w io.Writer, policies []tasks.Policy, tenant string) {
	for _, p := range policies {
		if p.Tenant == "" && p.OperatorHalt != nil {
			fmt.Fprintln(w, "all tenants are still halted: 'batchreset resume --all' ends that")
		}
		if tenant == "" || p.Tenant != tenant {
			continue
		}
		if p.OperatorHalt != nil {
			fmt.Fprintf(w, "tenant %s is still halted by the operators: 'batchreset resume --tenant %s' ends that\n", tenant, tenant)
		}
		if p.OwnHalt != nil {
			fmt.Fprintf(w, "tenant %s has halted itself: 'batchreset resume --tenant %s --own' ends that\n", tenant, tenant)
		}
	}
}
