package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program, and the kernel the rest
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

// settings are what the flags say.
type settings struct {
	seeds, burst, parallel int
	first                  uint64
	duration, patience     time.Duration
	faults, redis          string
	binary, source, dir    string
	library                string // in front of the C library, for Redis's clocks
}

func parse(args []string, stderr io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&s.seeds, "seeds", 1, "how many runs, at most 1000")
	flags.Uint64Var(&s.first, "first-seed", 1, "seed of the first run; the next ones count up")
	flags.IntVar(&s.parallel, "parallel", 1, "how many runs at a time")
	flags.DurationVar(&s.duration, "duration", time.Minute, "how long each run is loaded and broken, 1s to 1h")
	flags.IntVar(&s.burst, "burst", 0, "submit so many instances at once, each once, instead of a steady load")
	flags.StringVar(&s.faults, "faults", "all", "kinds of faults, with commas between them")
	flags.StringVar(&s.redis, "redis", mixed, fmt.Sprintf("how Redis is run: one of %v, or %q for each in turn", setups, mixed))
	flags.DurationVar(&s.patience, "patience", finishTimeout, "how long after a run to wait for jobs none of which ends, 1s to 1h")
	flags.StringVar(&s.binary, "binary", "", "the batchreset to test (default: built from --source)")
	flags.StringVar(&s.source, "source", ".", "folder in the source tree that is tested, this one or an older one")
	flags.StringVar(&s.dir, "history-dir", "", "keep histories and logs in this directory")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	_, setupErr := parseSetup(s.redis, 0)
	_, faultsErr := fault.Parse(s.faults, always.replicated())
	switch {
	case flags.NArg() > 0:
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case s.seeds < 1 || s.seeds > 1000:
		return s, fmt.Errorf("--seeds must be from 1 to 1000, not %d", s.seeds)
	case s.parallel < 1 || s.parallel > 16:
		return s, fmt.Errorf("--parallel must be from 1 to 16, not %d", s.parallel)
	case s.duration < time.Second || s.duration > time.Hour:
		return s, fmt.Errorf("--duration must be from 1s to 1h, not %s", s.duration)
	case s.patience < time.Second || s.patience > time.Hour:
		return s, fmt.Errorf("--patience must be from 1s to 1h, not %s", s.patience)
	case s.burst < 0 || s.burst > 1_000_000:
		return s, fmt.Errorf("--burst must be from 0 to 1000000, not %d", s.burst)
	}
	return s, cmp.Or(setupErr, faultsErr)
}

// chaos makes one run after another and prints a table of them. Its error says so if
// any promise was broken.
func chaos(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "batchreset-chaos"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}

	var (
		mu     sync.Mutex // of what follows, and of stderr
		rows   = make([]row, s.seeds)
		broken error // of runs that came to no result, while the others went on
	)
	var g errgroup.Group
	g.SetLimit(s.parallel)
	for i := range s.seeds {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			seed := s.first + uint64(i)
			one, violations, err := s.run(ctx, seed)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				err = fmt.Errorf("seed %d: %w", seed, err)
				fmt.Fprintln(stderr, err)
				broken = errors.Join(broken, err)
				return nil
			}
			rows[i] = one
			fmt.Fprintf(stderr, "seed %d (%s): %d jobs, %d violations%s\n", seed, one.redis, one.Jobs, one.violations, byInvariant(violations))
			tell(stderr, violations)
			return nil
		})
	}
	_ = g.Wait() // each run has said its error
	total, err := report(stdout, slices.DeleteFunc(rows, func(r row) bool { return r.seeded == 0 }))
	if err == nil && total > 0 {
		err = fmt.Errorf("%d violations", total)
	}
	return errors.Join(err, broken)
}

// prepare builds what is tested, and what makes its clocks wrong if that is wanted.
func (s *settings) prepare(ctx context.Context) (err error) {
	wanted := func(kinds ...fault.Kind) bool {
		faults, _ := fault.Parse(s.faults, always.replicated()) // checked
		return slices.ContainsFunc(kinds, func(k fault.Kind) bool { return slices.Contains(faults, k) })
	}
	if wanted(fault.RedisClock) {
		if s.library, err = buildClockLibrary(ctx, s.dir); err != nil {
			return err
		}
	}
	wrong := wanted(fault.APIClock, fault.WorkerClock)
	if s.binary == "" {
		var flags []string
		if wrong {
			file, err := overlay(ctx, s.dir)
			if err != nil {
				return err
			}
			flags = []string{"-overlay", file}
		}
		s.binary, err = harness.Build(ctx, s.source, s.dir, flags...)
		return err
	}
	if !wrong {
		return nil
	}
	able, err := wrongable(s.binary)
	if err == nil && !able {
		err = fmt.Errorf("--binary %s was not built by this program, so that its clock cannot be made wrong: give --source, or leave %s and %s out of --faults",
			s.binary, fault.APIClock, fault.WorkerClock)
	}
	return err
}

// run makes the run of one seed, keeps its history, and checks it.
func (s settings) run(ctx context.Context, seed uint64) (row, []history.Violation, error) {
	p := plan{
		seed: seed, duration: s.duration, burst: s.burst, binary: s.binary, library: s.library, patience: s.patience,
		dir: filepath.Join(s.dir, "seed-"+strconv.FormatUint(seed, 10)),
	}
	var err error
	if p.setup, err = parseSetup(s.redis, seed); err != nil {
		return row{}, nil, err
	}
	if p.faults, err = fault.Parse(s.faults, p.setup.replicated()); err != nil {
		return row{}, nil, err
	}
	if err := os.Mkdir(p.dir, 0o755); err != nil { // not into the files of another run
		return row{}, nil, err
	}
	result, err := run(ctx, p)
	err = errors.Join(err, result.history.WriteFile(filepath.Join(p.dir, "history.jsonl")))
	if err != nil {
		return row{}, nil, err
	}
	violations := history.Check(result.history)
	return newRow(p, result, len(violations)), violations, nil
}

// byInvariant counts violations: " (2 I3, 1 I10)".
func byInvariant(violations []history.Violation) string {
	var parts []string
	counts := map[string]int{}
	for _, v := range violations {
		counts[v.Invariant]++
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[name], name))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// tell prints the first violations of each invariant.
func tell(w io.Writer, violations []history.Violation) {
	const most = 3
	told := map[string]int{}
	for _, v := range violations {
		if told[v.Invariant]++; told[v.Invariant] <= most {
			fmt.Fprintln(w, v)
		}
	}
}
