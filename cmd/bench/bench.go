package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
)

// bench is what the rows share.
type bench struct {
	sizes
	dir      string // for logs and binaries
	program  *stack.Program
	profile  string // directory, or empty
	progress io.Writer

	submitRate float64        // instances per second, once it has been measured
	extras     []string       // to be printed below the table
	stacks     []*stack.Stack // open ones
}

// run runs the benchmark. Its error says so if a target was missed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	size := full()
	if s.quick {
		size = quick()
	}
	if s.rounds > 0 {
		size.rounds = s.rounds
	}
	r, extras, err := measure(ctx, s, size, args, stderr)
	if err != nil {
		return err
	}
	err = r.Table(stdout)
	for _, text := range extras {
		fmt.Fprint(stdout, "\n", text)
	}
	if s.json != "" {
		err = errors.Join(err, r.Write(s.json))
	}
	return errors.Join(err, r.Err())
}

// measure measures the chosen rows.
func measure(ctx context.Context, s settings, size sizes, args []string, progress io.Writer) (r report.Report, extras []string, err error) {
	b := &bench{sizes: size, profile: s.profile, progress: progress}
	if b.dir = s.keep; b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "batchreset-bench"); err != nil {
			return r, nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	r = report.Report{Machine: report.ThisMachine(ctx, args), Quick: s.quick}
	fmt.Fprintf(progress, "load of this machine before the start: %s on %d cores\n", r.Machine.Load, r.Machine.Cores)
	if err := b.prepare(ctx, s.binary); err != nil {
		return r, nil, err
	}
	if r.Machine.Redis, err = b.redisVersion(ctx); err != nil {
		return r, nil, err
	}
	for _, row := range rows() {
		if len(s.rows) > 0 && !slices.Contains(s.rows, row.name) {
			continue
		}
		begin := time.Now()
		fmt.Fprintf(progress, "%s: %s ...\n", row.name, row.what)
		results := b.measureRow(ctx, row)
		if ctx.Err() != nil {
			return r, nil, errors.New("stopped")
		}
		r.Results = append(r.Results, results...)
		fmt.Fprintf(progress, "%s: done in %.1f s\n", row.name, time.Since(begin).Seconds())
	}
	return r, b.extras, nil
}

// measureRow measures a row and ends whatever it has started. A row that fails does not
// keep the others from being measured.
func (b *bench) measureRow(ctx context.Context, row row) []report.Result {
	limited, cancel := context.WithTimeout(ctx, b.rowLimit)
	defer cancel()
	results, err := row.run(limited, b)
	b.closeStacks()
	for i := range results {
		results[i].Row = row.name
	}
	if err != nil && ctx.Err() == nil { // otherwise all of it was stopped
		if limited.Err() != nil {
			err = fmt.Errorf("not done within %s (%w)", b.rowLimit, err)
		}
		fmt.Fprintf(b.progress, "%s: %v\n", row.name, err)
		results = append(results, report.Result{Row: row.name, What: row.what, Failure: err.Error()})
	}
	return results
}

// prepare makes the directories, and builds the program under measurement if none is given.
func (b *bench) prepare(ctx context.Context, binary string) (err error) {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if b.profile != "" {
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return err
		}
	}
	b.program, err = stack.NewProgram(ctx, binary, b.dir)
	return err
}

func (b *bench) redisVersion(ctx context.Context) (string, error) {
	s, err := b.newStage(ctx, "version")
	if err != nil {
		return "", err
	}
	defer b.closeStacks()
	return s.Redis.Version(ctx)
}
