package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := chaos(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// chaos makes one run after another and prints a table of them. Its error says so if
// any promise was broken.
func chaos(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	seeds := flags.Int("seeds", 1, "how many runs, at most 1000")
	first := flags.Uint64("first-seed", 1, "seed of the first run; the next ones count up")
	duration := flags.Duration("duration", time.Minute, "how long each run is loaded, 1s to 1h")
	faults := flags.String("faults", "all", "kinds of faults, with commas between them")
	fsync := flags.String("fsync", "always", "appendfsync of Redis: 'always' or 'everysec'")
	binary := flags.String("binary", "", "the batchreset to test (default: built from this tree)")
	historyDir := flags.String("history-dir", "", "keep histories and logs in this directory")
	if err := flags.Parse(args); err != nil {
		return err
	}
	kinds, err := parseFaults(*faults)
	switch {
	case err != nil:
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *seeds < 1 || *seeds > 1000:
		return fmt.Errorf("--seeds must be from 1 to 1000, not %d", *seeds)
	case *duration < time.Second || *duration > time.Hour:
		return fmt.Errorf("--duration must be from 1s to 1h, not %s", *duration)
	case *fsync != "always" && *fsync != "everysec":
		return fmt.Errorf("--fsync must be 'always' or 'everysec', not %q", *fsync)
	}
	dir := *historyDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "batchreset-chaos"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if *binary == "" {
		if *binary, err = build(ctx, dir, stderr); err != nil {
			return err
		}
	}

	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "seed\tfaults\tjobs\titems\tattempts\tcalls\texits\tviolations")
	total := 0
	for i := range *seeds {
		p := plan{
			seed: *first + uint64(i), duration: *duration, faults: kinds, fsync: *fsync, binary: *binary,
			dir: filepath.Join(dir, "seed-"+strconv.FormatUint(*first+uint64(i), 10)),
		}
		if err := os.MkdirAll(p.dir, 0o755); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "seed %d\n", p.seed)
		result, err := run(ctx, p)
		err = errors.Join(err, result.history.writeFile(filepath.Join(p.dir, "history.jsonl")))
		if err != nil {
			return fmt.Errorf("seed %d: %w", p.seed, err)
		}
		violations := Check(result.history)
		total += len(violations)
		tell(stderr, violations)
		result.row(table, p.seed, len(violations))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if total > 0 {
		return fmt.Errorf("%d violations", total)
	}
	return nil
}

// tell prints the first violations.
func tell(w io.Writer, violations []Violation) {
	const most = 10
	for i, v := range violations {
		if i == most {
			fmt.Fprintf(w, "and %d more\n", len(violations)-most)
			return
		}
		fmt.Fprintln(w, v)
	}
}

// row prints the result's line of the table.
func (r result) row(w io.Writer, seed uint64, violations int) {
	var faults []string
	for _, k := range faultKinds {
		if n := r.injured[k.kind]; n > 0 {
			faults = append(faults, fmt.Sprintf("%d %s", n, k.kind))
		}
	}
	f := index(r.history)
	items, attempts, calls := 0, 0, 0
	for item := range f.items {
		items++
		attempts += item.Attempts
	}
	for _, ofItem := range f.byItem {
		calls += len(ofItem)
	}
	fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", seed, strings.Join(faults, ", "), len(f.jobs), items, attempts, calls, r.exits, violations)
}
