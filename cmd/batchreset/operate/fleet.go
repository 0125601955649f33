package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/registry"
)

func newFleetCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Say which instances there are and whose they are",
		Long: `The fleet is the register of instances. With 'api --fleet registered' only
registered instances can be reset, each by its tenant only. A protected instance
cannot be reset at all. Both are checked at submit and again before each attempt.`,
	}
	cmd.AddCommand(newFleetImportCommand(std), newFleetSetCommand(std), newFleetListCommand(std), newFleetProtectCommand(std),
		newFleetUnprotectCommand(std), newFleetRemoveCommand(std))
	return cmd
}

func newFleetListCommand(std *terminal.Streams) *cobra.Command {
	var op operation
	var only tasks.FleetFilter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the registered instances",
		Long: `Lists the registered instances by ID, or those of them that all the flags fit. What
--output csv prints can be changed and given to 'batchreset fleet import'. The generation
counts the users that an instance had: it grows when the instance gets another tenant,
and by 'batchreset fleet set --reassigned'.`,
		Example: `  batchreset fleet list --output json
  batchreset fleet list --driver lab --label rack=7
  batchreset fleet list --output csv > fleet.csv`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := only.Check(); err != nil {
				return fmt.Errorf("--%w", err)
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				visit := func(show func(tasks.Instance) error) error {
					return db.Fleet.All(cmd.Context(), func(in tasks.Instance) error {
						if !only.Match(in) {
							return nil
						}
						return show(in)
					})
				}
				return op.output.Show(std.Out, terminal.View{
					List: "instances", Columns: tasks.FleetColumns,
					Rows: func(add func(any) error) error {
						return visit(func(in tasks.Instance) error { return add(in) })
					},
					Table: func(w io.Writer) error {
						table := terminal.NewTable(w, "INSTANCE", "TENANT", "PROTECTED", "DRIVER", "ADDRESS", "LABELS", "GENERATION")
						err := visit(func(in tasks.Instance) error {
							table.Row(in.ID, in.Tenant, protectedText(in), in.Driver, in.Address, tasks.LabelText(in.Labels), strconv.Itoa(in.Generation))
							return nil
						})
						return errors.Join(err, table.Flush())
					},
				})
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&only.Tenant, "tenant", "", "only instances of this `tenant`")
	flags.StringVar(&only.Driver, "driver", "", "only instances of the driver with this `name`")
	flags.StringToStringVarP(&only.Labels, "label", "l", nil, "only instances with the label `name=value`; may be repeated")
	flags.BoolVar(&only.Protected, "protected", false, "only protected instances")
	op.define(cmd)
	return cmd
}

// protectedText says whether and until when an instance is protected.
func protectedText(in tasks.Instance) string {
	switch {
	case !in.Protected:
		return "no"
	case in.Until.IsZero():
		return "yes"
	}
	return "until " + terminal.Clock(in.Until.Time)
}

func newFleetRemoveCommand(std *terminal.Streams) *cobra.Command {
	return newFleetChangeCommand(std, "removed", (*registry.Fleet).Unregister, &cobra.Command{
		Use:   "remove ID…",
		Short: "Take instances out of the fleet",
		Long: `Takes instances out of the fleet. Items of running jobs that have not begun their
next attempt are refused then, if their job was accepted for registered instances.`,
		Example: "  batchreset fleet remove phone-1 phone-2",
	})
}

func newFleetUnprotectCommand(std *terminal.Streams) *cobra.Command {
	return newFleetChangeCommand(std, "no longer protected:", (*registry.Fleet).Unprotect, &cobra.Command{
		Use:     "unprotect ID…",
		Short:   "Let instances be reset again",
		Long:    "Ends the protection of registered instances, also one that has an end.",
		Example: "  batchreset fleet unprotect phone-1 phone-2",
	})
}

func newFleetProtectCommand(std *terminal.Streams) *cobra.Command {
	var op operation
	var reason, until string
	cmd := &cobra.Command{
		Use:   "protect ID…",
		Short: "Let nobody reset instances",
		Long: `Protects registered instances: a batch with one of them is refused, and items of
accepted jobs that have not begun their next attempt end as failed (RESET.1006). An
attempt that is running goes on.

The protection holds until 'batchreset fleet unprotect', or until the time of --until by
Redis's clock. One that holds for longer already stays as it is. Who protects, when and
why is kept with the instance and in the audit trail, so that it can serve as a legal hold.`,
		Example: `  batchreset fleet protect phone-1 phone-2
  batchreset fleet protect phone-1 --reason 'legal hold, case 4711' --until 2027-03-31T00:00:00Z
  batchreset fleet protect phone-1 --reason 'demo for the board' --until 48h`,
		Args: terminal.ArgsFromUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := tasks.CheckReason(reason); err != nil {
				return fmt.Errorf("--reason %w", err)
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				end, err := terminal.ComingTime("until", until, db.Redis.Now())
				if err != nil {
					return terminal.WithCode(terminal.ExitUsage, err)
				}
				missing, kept, err := db.Fleet.Protect(cmd.Context(), args, tasks.Time{Time: end}, terminal.Actor(reason))
				if err != nil {
					return err
				}
				if kept != nil {
					fmt.Fprintf(std.Err, "protected for longer already, and unchanged: %s\n", strings.Join(kept, ", "))
				}
				return op.changed(std, "protected", args, missing, map[string]any{"unchanged": terminal.NotNil(kept)})
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look")
	cmd.Flags().StringVar(&until, "until", "", "`time` at which the protection ends, or a duration from now such as 48h (default: never)")
	op.define(cmd)
	return cmd
}

// fleetChange changes the entries of instances, and returns those that have none.
type fleetChange func(fleet *registry.Fleet, ctx context.Context, instances []string, actor tasks.Actor) (missing []string, err error)

// newFleetChangeCommand makes a command that changes the entry of each instance that it
// is given, and names those that have none.
func newFleetChangeCommand(std *terminal.Streams, done string, change fleetChange, cmd *cobra.Command) *cobra.Command {
	var op operation
	cmd.Args = terminal.ArgsFromUsage
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return op.run(cmd, func(db *redisdb.DB) error {
			missing, err := change(db.Fleet, cmd.Context(), args, terminal.Actor(""))
			if err != nil {
				return err
			}
			return op.changed(std, done, args, missing, nil)
		})
	}
	op.define(cmd)
	return cmd
}

// changed says which instances were changed and which are not registered. more is for the document.
func (op *operation) changed(std *terminal.Streams, done string, ids, missing []string, more map[string]any) error {
	changed := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(missing, id) })
	document := map[string]any{"instance_ids": terminal.NotNil(changed), "not_registered": terminal.NotNil(missing)}
	maps.Copy(document, more)
	err := op.output.Said(std, document, "%s %s", done, terminal.Plural(len(changed), "instance"))
	return errors.Join(err, terminal.NotFound(len(changed), "not registered: %s", missing))
}
