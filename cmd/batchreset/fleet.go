package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	var redis redisFlags
	cmd := &cobra.Command{
		Use:   "import FILE.csv|FILE.json",
		Short: "Register instances from a file, or change their entries",
		Long: `Registers every instance of the file; entries that exist are replaced, others stay.
The whole file is checked before anything is written.

CSV:   a header line instance_id,tenant[,protected], then one instance per line
JSON:  [{"instance_id":"phone-1","tenant":"acme","protected":false}, …]`,
		Example:           "  batchreset fleet import fleet.csv --redis redis://localhost:6379/0",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions([]string{"csv", "json"}, cobra.ShellCompDirectiveFilterFileExt),
		RunE: func(cmd *cobra.Command, args []string) error {
			instances, err := readFleet(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return withRedis(cmd, redis, func(db *redisdb.DB) error {
				if err := register(cmd.Context(), db, instances); err != nil {
					return err
				}
				fmt.Fprintf(std.err, "registered %d instances\n", len(instances))
				return nil
			})
		},
	}
	redis.define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	return cmd
}

func register(ctx context.Context, db *redisdb.DB, instances []tasks.Instance) error {
	for chunk := range slices.Chunk(instances, 500) {
		if err := db.Register(ctx, chunk, actor("")); err != nil {
			return fmt.Errorf("stopped at instance %s, repeat the import: %w", chunk[0].ID, err)
		}
	}
	return nil
}

// readFleet reads and checks a fleet file.
func readFleet(path string) ([]tasks.Instance, error) {
	var read func(io.Reader) ([]tasks.Instance, error)
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".csv":
		read = readFleetCSV
	case ".json":
		read = readFleetJSON
	default:
		return nil, errors.New("the name must end in .csv or .json")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err) // the path is said already
	}
	instances, err := read(f)
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil && len(instances) == 0 {
		err = errors.New("lists no instance")
	}
	return instances, err
}

func readFleetCSV(r io.Reader) ([]tasks.Instance, error) {
	rows := csv.NewReader(r)
	header, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("is empty")
	}
	if err != nil {
		return nil, err
	}
	columns := map[string]int{}
	for i, name := range header {
		columns[strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))] = i
	}
	id, hasID := columns["instance_id"]
	tenant, hasTenant := columns["tenant"]
	protected, hasProtected := columns["protected"]
	if !hasID || !hasTenant {
		return nil, errors.New("the first line must name the columns instance_id and tenant")
	}
	var instances []tasks.Instance
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return instances, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := rows.FieldPos(0)
		in := tasks.Instance{ID: row[id], Tenant: row[tenant]}
		if hasProtected && row[protected] != "" {
			if in.Protected, err = strconv.ParseBool(row[protected]); err != nil {
				return nil, fmt.Errorf("line %d: protected must be true or false, not %q", line, row[protected])
			}
		}
		if err := checkInstance(in); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		instances = append(instances, in)
	}
}

func readFleetJSON(r io.Reader) ([]tasks.Instance, error) {
	var instances []tasks.Instance
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields() // "protect": true must not go unnoticed
	if err := decoder.Decode(&instances); err != nil {
		return nil, fmt.Errorf("is not a JSON array of instances: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has more after the JSON array")
	}
	for i, in := range instances {
		if err := checkInstance(in); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return instances, nil
}

func checkInstance(in tasks.Instance) error {
	if err := tasks.CheckInstanceID(in.ID); err != nil {
		return fmt.Errorf("instance_id %w", err)
	}
	if err := tasks.CheckTenant(in.Tenant); err != nil {
		return fmt.Errorf("tenant %w", err)
	}
	return nil
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
