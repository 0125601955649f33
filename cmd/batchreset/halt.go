package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
}

func (f *tenantFlags) check() error {
	switch {
	case f.all && f.tenant != "":
		return errors.New("--tenant and --all do not go together")
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

func newHaltCommand(std *streams) *cobra.Command {
	var (
		redis  redisFlags
		whom   tenantFlags
		db     redisdb.Options
		reason string
	)
	cmd := &cobra.Command{
		Use:   "halt --tenant TENANT|--all",
		Short: "Stop a wipe: let no attempt begin any more",
		Long: `Lets no attempt of a tenant, or of any, begin any more, within a second. What is
running goes on: its reset has been sent. Jobs are still accepted and wait; they
can be cancelled. 'batchreset resume' lets attempts begin again.

The time that a job has (--give-up-after) goes on: what has not ended by then never
starts.`,
		Example: `  batchreset halt --tenant acme --reason 'the wrong list was submitted'
  batchreset halt --all`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := whom.check(); err != nil {
				return err
			}
			if err := tasks.CheckReason(reason); err != nil {
				return fmt.Errorf("--reason %w", err)
			}
			if db.CommitReplicas < 0 {
				return errors.New("--commit-replicas must not be negative")
			}
			return withRedisAnd(cmd, redis, db, func(db *redisdb.DB) error {
				if err := audit(cmd.Context(), db, tasks.AuditEntry{Action: tasks.ActionHalt, Tenant: whom.tenant, Reason: reason}); err != nil {
					return err
				}
				if err := db.SetHalt(cmd.Context(), whom.tenant, &tasks.Halt{Since: tasks.Time{Time: db.Now()}, Reason: reason}); err != nil {
					return err
				}
				fmt.Fprintf(std.err, "halted: %s; 'batchreset resume' ends it\n", &whom)
				return nil
			})
		},
	}
	redis.define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	whom.define(cmd.Flags())
	cmd.Flags().IntVar(&db.CommitReplicas, "commit-replicas", 0, "how many Redis replicas must know of it before it counts, as for api and worker")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look")
	return cmd
}

func newResumeCommand(std *streams) *cobra.Command {
	var (
		redis redisFlags
		whom  tenantFlags
	)
	cmd := &cobra.Command{
		Use:   "resume --tenant TENANT|--all",
		Short: "End a halt",
		Long: `Ends a halt of a tenant, or that of all tenants. They are apart: a tenant that was
halted by name stays so after 'resume --all'. What waits begins within half a minute.`,
		Example: "  batchreset resume --tenant acme",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := whom.check(); err != nil {
				return err
			}
			return withRedis(cmd, redis, func(db *redisdb.DB) error {
				if err := audit(cmd.Context(), db, tasks.AuditEntry{Action: tasks.ActionResume, Tenant: whom.tenant}); err != nil {
					return err
				}
				if err := db.SetHalt(cmd.Context(), whom.tenant, nil); err != nil {
					return err
				}
				policy, err := db.Policy(cmd.Context(), whom.tenant)
				if err != nil {
					return err
				}
				fmt.Fprintf(std.err, "resumed: %s\n", &whom)
				if policy.Halt != nil {
					fmt.Fprintln(std.err, "all tenants are still halted: 'batchreset resume --all' ends that")
				}
				return nil
			})
		},
	}
	redis.define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	whom.define(cmd.Flags())
	return cmd
}
