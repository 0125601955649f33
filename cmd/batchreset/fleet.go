package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func newFleetCommand(std *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Say which instances there are and whose they are",
		Long: `The fleet is the register of instances. With 'api --fleet registered' only
registered instances can be reset, each by its tenant only. A protected instance
cannot be reset at all. Both are checked at submit and again before each attempt.`,
	}
	cmd.AddCommand(newFleetImportCommand(std), newFleetListCommand(std), newFleetProtectCommand(std),
		newFleetUnprotectCommand(std), newFleetRemoveCommand(std))
	return cmd
}

func newFleetImportCommand(std *streams) *cobra.Command {
	var (
		redis redisFlags
		opts  redisdb.Options
	)
	cmd := &cobra.Command{
		Use:   "import FILE.csv|FILE.json",
		Short: "Register instances from a file, or change their entries",
		Long: `Registers every instance of the file, or changes the entry that it has; other entries
stay. What the file does not say stays, too: without the column protected, or where its
cell is empty, a protected instance is still protected; without the column tenant an
instance stays its tenant's, and a new one is refused. The whole file is checked before
anything is written. Columns and fields that are not known are refused, and so are two
entries of one instance that differ. Protections that end by this, and instances that
move to another tenant, are counted, and in the audit trail.

CSV:   a header line instance_id[,tenant][,protected], then one instance per line
JSON:  [{"instance_id":"phone-1","tenant":"acme","protected":false}, …]`,
		Example:           "  batchreset fleet import fleet.csv --redis redis://localhost:6379/0",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions([]string{"csv", "json"}, cobra.ShellCompDirectiveFilterFileExt),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := readFleet(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := checkFullAt(opts.FullAt); err != nil {
				return err
			}
			return withRedisAnd(cmd, redis, opts, func(db *redisdb.DB) error {
				if err := file.checkTenants(cmd.Context(), db); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				report, err := register(cmd.Context(), db, file.changes)
				if err == nil {
					fmt.Fprintf(std.err, "registered %s\n", plural(len(file.changes), "instance"))
				}
				for _, line := range []struct {
					what string
					n    int
				}{
					{"new", report.New},
					{"protection begun", report.Protected},
					{"protection ended", report.Unprotected},
					{"moved to another tenant", report.Moved},
					{"identical rows left out", file.repeats},
				} {
					if line.n > 0 {
						fmt.Fprintf(std.err, "%s: %d\n", line.what, line.n)
					}
				}
				return err
			})
		},
	}
	redis.define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	defineFullAt(cmd.Flags(), &opts.FullAt)
	return cmd
}

// register is told of what is done even where it stops.
func register(ctx context.Context, db *redisdb.DB, changes []tasks.FleetChange) (report tasks.FleetReport, err error) {
	for chunk := range slices.Chunk(changes, fleetChunk) {
		done, err := db.Import(ctx, chunk, actor(""))
		report.Add(done)
		if err != nil {
			return report, fmt.Errorf("stopped at instance %s, repeat the import: %w", chunk[0].ID, err)
		}
	}
	return report, nil
}

func newFleetListCommand(std *streams) *cobra.Command {
	var (
		redis  redisFlags
		output outputFlag
	)
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the registered instances",
		Long:    "Lists the registered instances by ID; --output json prints one JSON object per line.",
		Example: "  batchreset fleet list --output json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withRedis(cmd, redis, func(db *redisdb.DB) error {
				if output.json() {
					encoder := json.NewEncoder(std.out)
					return db.Fleet(cmd.Context(), func(in tasks.Instance) error { return encoder.Encode(in) })
				}
				table := newTable(std.out, "INSTANCE", "TENANT", "PROTECTED")
				err := db.Fleet(cmd.Context(), func(in tasks.Instance) error {
					table.row(in.ID, in.Tenant, strconv.FormatBool(in.Protected))
					return nil
				})
				return errors.Join(err, table.flush())
			})
		},
	}
	redis.define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	output.define(cmd.Flags())
	return cmd
}

func newFleetRemoveCommand(std *streams) *cobra.Command {
	return newFleetChangeCommand(std, "removed", (*redisdb.DB).Unregister, &cobra.Command{
		Use:   "remove ID…",
		Short: "Take instances out of the fleet",
		Long: `Takes instances out of the fleet. Items of running jobs that have not begun their
next attempt are refused then, if their job was accepted for registered instances.`,
		Example: "  batchreset fleet remove phone-1 phone-2",
	})
}

func newFleetProtectCommand(std *streams) *cobra.Command {
	return newFleetChangeCommand(std, "protected", protect(true), &cobra.Command{
		Use:   "protect ID…",
		Short: "Let nobody reset instances",
		Long: `Protects registered instances: a batch with one of them is refused, and items of
accepted jobs that have not begun their next attempt end as failed (RESET.1006). An
attempt that is running goes on.`,
		Example: "  batchreset fleet protect phone-1 phone-2",
	})
}

func newFleetUnprotectCommand(std *streams) *cobra.Command {
	return newFleetChangeCommand(std, "no longer protected:", protect(false), &cobra.Command{
		Use:     "unprotect ID…",
		Short:   "Let instances be reset again",
		Long:    "Ends the protection of registered instances.",
		Example: "  batchreset fleet unprotect phone-1 phone-2",
	})
}

// fleetChange changes the entries of instances, and returns those that have none.
type fleetChange func(db *redisdb.DB, ctx context.Context, instances []string, actor tasks.Actor) (missing []string, err error)

func protect(protected bool) fleetChange {
	return func(db *redisdb.DB, ctx context.Context, instances []string, actor tasks.Actor) ([]string, error) {
		return db.Protect(ctx, instances, protected, actor)
	}
}

// newFleetChangeCommand makes a command that changes the entry of each instance that it
// is given, and names those that have none.
func newFleetChangeCommand(std *streams, done string, change fleetChange, cmd *cobra.Command) *cobra.Command {
	var redis redisFlags
	cmd.Args = cobra.MinimumNArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withRedis(cmd, redis, func(db *redisdb.DB) error {
			missing, err := change(db, cmd.Context(), args, actor(""))
			if err != nil {
				return err
			}
			fmt.Fprintf(std.err, "%s %d instances\n", done, len(args)-len(missing))
			if missing != nil {
				return fmt.Errorf("not registered: %s", strings.Join(missing, ", "))
			}
			return nil
		})
	}
	redis.define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	return cmd
}
