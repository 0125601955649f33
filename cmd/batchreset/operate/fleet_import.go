package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func newFleetImportCommand(std *terminal.Streams) *cobra.Command {
	var op operation
	var shared bool
	cmd := &cobra.Command{
		Use:   "import FILE.csv|FILE.json|FILE.jsonl",
		Short: "Register instances from a file, or change their entries",
		Long: `Registers every instance of the file, or changes the entry that it has; other entries
stay. What the file does not say stays, too: without the column protected, or where its
cell is empty, a protected instance is still protected; without the column tenant an
instance stays its tenant's, and a new one is refused. The whole file is checked before
anything is written. What 'batchreset fleet list' prints as CSV or JSON lines can be
imported again. Columns and fields that are not known are refused, and so are two
entries of one instance that differ. Protections that end by this, and instances that
move to another tenant, are counted, and in the audit trail.

The driver is the name of one that workers have ('worker --drivers'); without one it is
the driver called default. Where no living worker has it, the instance's items wait.
The address is where the driver finds the instance: what that is depends on the driver, such
as a container or a serial number; without one it looks for the instance's ID. An
attempt whose call may still be going on at an old address ends as unknown. Labels are
given to the driver. Two instances with one driver and address are refused: they are one
phone, and what is protected under one ID is reset under the other. Where the address is
only a part of the way, such as a host with many phones, allow that with
--shared-addresses.

A new protection is yours unless protected_by says whose it is; protected_until is when it
ends. The generation counts the users that an instance had: a batch may say which one it
is meant for. It never goes back.

CSV:   a header line instance_id[,tenant][,protected][,protected_by][,protected_reason]
       [,protected_until][,driver][,address][,labels][,generation], in any order, then
       one instance per line; labels are like rack=7;site=lab
JSON:  [{"instance_id":"phone-1","tenant":"acme","protected":false,"driver":"lab",
       "address":"10.0.0.7:5555","labels":{"rack":"7"}}, …]; an empty address or {} removes what there was
JSONL: one such object per line`,
		Example:           "  batchreset fleet import fleet.csv --redis-file redis-url.txt",
		Args:              terminal.ArgsFromUsage,
		ValidArgsFunction: cobra.FixedCompletions([]string{"csv", "json", "jsonl"}, cobra.ShellCompDirectiveFilterFileExt),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := readFleet(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := redisflags.CheckFullAt(op.options.FullAt); err != nil {
				return err
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				report, err := db.Fleet.Import(cmd.Context(), file.Changes, shared, terminal.Actor(""))
				done := newImported(report, file.Repeats)
				if err == nil {
					done.Registered = len(file.Changes)
				}
				if refused, ok := errors.AsType[*tasks.EntryError](err); ok {
					err = terminal.WithCode(terminal.ExitUsage, fmt.Errorf("%s: %s: %w", args[0], file.Place(refused.ID), refused))
				}
				return errors.Join(err, op.imported(cmd.Context(), std, db, done, file.Changes))
			})
		},
	}
	defineShared(cmd.Flags(), &shared)
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
	Reassigned  int `json:"reassigned"`
	Repeats     int `json:"identical_rows_left_out"`
	// Unserved are drivers of the import that no living worker has.
	Unserved []string `json:"unserved_drivers,omitempty"`
}

func newImported(r tasks.FleetReport, repeats int) imported {
	return imported{
		New: r.New, Protected: r.Protected, Unprotected: r.Unprotected, Moved: r.Moved, Readdressed: r.Readdressed, Reassigned: r.Reassigned, Repeats: repeats,
	}
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
		{"protection ended or made shorter", i.Unprotected},
		{"moved to another tenant", i.Moved},
		{"another driver or address", i.Readdressed},
		{"another generation", i.Reassigned},
		{"identical rows left out", i.Repeats},
	} {
		if line.n > 0 {
			fmt.Fprintf(w, "%s: %d\n", line.what, line.n)
		}
	}
	for _, driver := range i.Unserved {
		fmt.Fprintf(w, "warning: no living worker has the driver %s; its instances wait until one has it\n", driver)
	}
}

// imported says what was done, and which drivers of the changes are not there.
func (op *operation) imported(ctx context.Context, std *terminal.Streams, db *redisdb.DB, done imported, changes []tasks.FleetChange) error {
	served, err := db.Queues.Served(ctx)
	if err != nil {
		return err
	}
	for _, c := range changes {
		driver := ""
		if c.Driver != nil {
			driver = cmp.Or(*c.Driver, tasks.DefaultDriver)
		}
		if done.Registered > 0 && driver != "" && !served[driver] && !slices.Contains(done.Unserved, driver) {
			done.Unserved = append(done.Unserved, driver)
		}
	}
	return op.output.Show(std.Out, terminal.View{Document: done, Text: func(io.Writer) error { done.write(std.Err); return nil }})
}

func defineShared(flags *pflag.FlagSet, shared *bool) {
	flags.BoolVar(shared, "shared-addresses", false, "several instances may have one address, because the driver needs the instance's ID, too")
}

func newFleetSetCommand(std *terminal.Streams) *cobra.Command {
	var op operation
	var set fleetSet
	cmd := &cobra.Command{
		Use:   "set ID…",
		Short: "Change entries of the fleet, or register instances",
		Long: `Changes what the flags say of each instance, and nothing else; a new instance needs
--tenant. The flags mean what the columns of 'batchreset fleet import' do. An empty
--driver is the driver called default, an empty --address is none.

With --reassigned the instances have other users from now on: their generation grows by
one, and resets that were meant for the users before, and say so, do not begin any more.`,
		Example: `  batchreset fleet set phone-1 --tenant acme --driver lab --address 10.0.0.7:5555
  batchreset fleet set phone-1 phone-2 --label rack=7 --label site=lab
  batchreset fleet set phone-1 --reassigned`,
		Args: terminal.ArgsFromUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			changes, err := set.changes(cmd.Flags(), args)
			if err != nil {
				return err
			}
			if err := redisflags.CheckFullAt(op.options.FullAt); err != nil {
				return err
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				report, err := db.Fleet.Import(cmd.Context(), changes, set.shared, terminal.Actor(""))
				done := newImported(report, 0)
				if err == nil {
					done.Registered = len(changes)
				}
				if refused, ok := errors.AsType[*tasks.EntryError](err); ok {
					err = terminal.WithCode(terminal.ExitUsage, refused)
				}
				return errors.Join(err, op.imported(cmd.Context(), std, db, done, changes))
			})
		},
	}
	set.define(cmd.Flags())
	op.define(cmd)
	redisflags.DefineFullAt(cmd.Flags(), &op.options.FullAt)
	return cmd
}

// fleetSet are the flags of 'fleet set'.
type fleetSet struct {
	tenant, driver, address string
	labels                  map[string]string
	noLabels                bool
	reassigned, shared      bool
}

func (s *fleetSet) define(flags *pflag.FlagSet) {
	flags.StringVar(&s.tenant, "tenant", "", "`tenant` whose they are")
	flags.StringVar(&s.driver, "driver", "", "`name` of the driver that resets them")
	flags.StringVar(&s.address, "address", "", "`address` where the driver finds it; for one instance only, unless addresses are shared")
	terminal.MayBeEmpty(flags, "driver", "address")
	flags.StringToStringVarP(&s.labels, "label", "l", nil, "`name=value` for the driver, in place of all labels that there were; may be repeated")
	flags.BoolVar(&s.noLabels, "no-labels", false, "take the labels away")
	flags.BoolVar(&s.reassigned, "reassigned", false, "they have other users from now on")
	defineShared(flags, &s.shared)
	terminal.Alternatives(flags, "label", "no-labels")
}

// changes are those of the flags that were given.
func (s *fleetSet) changes(flags *pflag.FlagSet, ids []string) ([]tasks.FleetChange, error) {
	change := tasks.FleetChange{Tenant: s.tenant, Reassigned: s.reassigned}
	if flags.Changed("tenant") {
		if err := tasks.CheckTenant(s.tenant); err != nil {
			return nil, fmt.Errorf("--tenant %w", err)
		}
	}
	if flags.Changed("driver") {
		change.Driver = &s.driver
	}
	if flags.Changed("address") {
		change.Address = &s.address
	}
	switch {
	case s.noLabels:
		change.Labels = map[string]string{}
	case flags.Changed("label"):
		change.Labels = s.labels
	}
	if change.Tenant == "" && change.Driver == nil && change.Address == nil && change.Labels == nil && !change.Reassigned {
		return nil, errors.New("there is nothing to set: give --tenant, --driver, --address, --label, --no-labels or --reassigned")
	}
	if err := change.Check(); err != nil {
		return nil, fmt.Errorf("--%w", err)
	}
	var list tasks.FleetList
	for i, id := range ids {
		change.ID = id
		if err := list.Add(change, fmt.Sprintf("argument %d", i+1)); err != nil {
			return nil, err
		}
	}
	return list.Changes, nil
}
