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

	"batchreset/cmd/batchreset/redisflags"
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
	cmd.AddCommand(newFleetImportCommand(std), newFleetListCommand(std), newFleetProtectCommand(std),
		newFleetUnprotectCommand(std), newFleetRemoveCommand(std))
	return cmd
}

func newFleetImportCommand(std *terminal.Streams) *cobra.Command {
	var op operation
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

The driver is the name of one that workers have ('worker --drivers'); without one it is
the driver called default. Where no living worker has it, the instance's items wait.
The address is where the driver finds the instance: what that is depends on the driver, such
as a container or a serial number; without one it looks for the instance's ID. An
attempt whose call may still be going on at an old address ends as unknown. Labels are
given to the driver.

CSV:   a header line instance_id[,tenant][,protected][,driver][,address][,labels], then one
       instance per line; labels are like rack=7;site=lab
JSON:  [{"instance_id":"phone-1","tenant":"acme","protected":false,"driver":"lab",
       "address":"10.0.0.7:5555","labels":{"rack":"7"}}, …]; an empty address or {} removes what there was`,
		Example:           "  batchreset fleet import fleet.csv --redis-file redis-url.txt",
		Args:              terminal.ArgsFromUsage,
		ValidArgsFunction: cobra.FixedCompletions([]string{"csv", "json"}, cobra.ShellCompDirectiveFilterFileExt),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := readFleet(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := redisflags.CheckFullAt(op.options.FullAt); err != nil {
				return err
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				if err := file.checkTenants(cmd.Context(), db); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				report, err := register(cmd.Context(), db, file.changes)
				done := imported{New: report.New, Protected: report.Protected, Unprotected: report.Unprotected, Moved: report.Moved, Readdressed: report.Readdressed, Repeats: file.repeats}
				if err == nil {
					done.Registered = len(file.changes)
				}
				return errors.Join(err, op.output.Show(std.Out, terminal.View{Document: done, Text: func(io.Writer) error { done.write(std.Err); return nil }}))
			})
		},
	}
	op.define(cmd)
	redisflags.DefineFullAt(cmd.Flags(), &op.options.FullAt)
	return cmd
}

// imported is what an import did.
type imported struct {
	Registered  int `json:"registered"` // 0 if it stopped
	New         int `json:"new"`
	Protected   int `json:"protection_begun"`
	Unprotected int `json:"protection_ended"`
	Moved       int `json:"moved"`
	Readdressed int `json:"readdressed"`
	Repeats     int `json:"identical_rows_left_out"`
}

func (i imported) write(w io.Writer) {
	if i.Registered > 0 {
		fmt.Fprintf(w, "registered %s\n", terminal.Plural(i.Registered, "instance"))
	}
	for _, line := range []struct {
		what string
		n    int
	}{
		{"new", i.New},
		{"protection begun", i.Protected},
		{"protection ended", i.Unprotected},
		{"moved to another tenant", i.Moved},
		{"another driver or address", i.Readdressed},
		{"identical rows left out", i.Repeats},
	} {
		if line.n > 0 {
			fmt.Fprintf(w, "%s: %d\n", line.what, line.n)
		}
	}
}

// register is told of what is done even where it stops.
func register(ctx context.Context, db *redisdb.DB, changes []tasks.FleetChange) (report tasks.FleetReport, err error) {
	for chunk := range slices.Chunk(changes, fleetChunk) {
		done, err := db.Fleet.Import(ctx, chunk, terminal.Actor(""))
		report.Add(done)
		if err != nil {
			return report, fmt.Errorf("stopped at instance %s, repeat the import: %w", chunk[0].ID, err)
		}
	}
	return report, nil
}

func newFleetListCommand(std *terminal.Streams) *cobra.Command {
	var op operation
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the registered instances",
		Long: `Lists the registered instances by ID. What --output csv prints can be changed and given
to 'batchreset fleet import'.`,
		Example: `  batchreset fleet list --output json
  batchreset fleet list --output csv > fleet.csv`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return op.run(cmd, func(db *redisdb.DB) error {
				return op.output.Show(std.Out, terminal.View{
					List: "instances", Columns: fleetColumns,
					Rows: func(add func(any) error) error {
						return db.Fleet.All(cmd.Context(), func(in tasks.Instance) error { return add(in) })
					},
					Table: func(w io.Writer) error {
						table := terminal.NewTable(w, "INSTANCE", "TENANT", "PROTECTED", "DRIVER", "ADDRESS", "LABELS")
						err := db.Fleet.All(cmd.Context(), func(in tasks.Instance) error {
							table.Row(in.ID, in.Tenant, strconv.FormatBool(in.Protected), in.Driver, in.Address, labelText(in.Labels))
							return nil
						})
						return errors.Join(err, table.Flush())
					},
				})
			})
		},
	}
	op.define(cmd)
	return cmd
}

// labelText is the inverse of parseLabels.
func labelText(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, name+"="+labels[name])
	}
	return strings.Join(parts, ";")
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

func newFleetProtectCommand(std *terminal.Streams) *cobra.Command {
	return newFleetChangeCommand(std, "protected", protect(true), &cobra.Command{
		Use:   "protect ID…",
		Short: "Let nobody reset instances",
		Long: `Protects registered instances: a batch with one of them is refused, and items of
accepted jobs that have not begun their next attempt end as failed (RESET.1006). An
attempt that is running goes on.`,
		Example: "  batchreset fleet protect phone-1 phone-2",
	})
}

func newFleetUnprotectCommand(std *terminal.Streams) *cobra.Command {
	return newFleetChangeCommand(std, "no longer protected:", protect(false), &cobra.Command{
		Use:     "unprotect ID…",
		Short:   "Let instances be reset again",
		Long:    "Ends the protection of registered instances.",
		Example: "  batchreset fleet unprotect phone-1 phone-2",
	})
}

// fleetChange changes the entries of instances, and returns those that have none.
type fleetChange func(fleet *registry.Fleet, ctx context.Context, instances []string, actor tasks.Actor) (missing []string, err error)

func protect(protected bool) fleetChange {
	return func(fleet *registry.Fleet, ctx context.Context, instances []string, actor tasks.Actor) ([]string, error) {
		return fleet.Protect(ctx, instances, protected, actor)
	}
}

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
			changed := slices.DeleteFunc(slices.Clone(args), func(id string) bool { return slices.Contains(missing, id) })
			err = op.output.Said(std, map[string]any{"instance_ids": changed, "not_registered": terminal.NotNil(missing)}, "%s %d instances", done, len(changed))
			return errors.Join(err, terminal.NotFound(len(changed), "not registered: %s", missing))
		})
	}
	op.define(cmd)
	return cmd
}
