package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"batchreset/cmd/bench/report"
	"batchreset/cmd/harness"
)

// bench is what the rows share.
type bench struct {
	sizes
	dir      string // for logs and binaries
	binary   string // the program under measurement
	profile  string // directory, or empty
	progress io.Writer
	help     map[string]string // of the program's commands

	submitRate float64  // instances per second, once it has been measured
	extras     []string // to be printed below the table
	stacks     []*stack // open ones
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
	b := &bench{sizes: size, binary: s.binary, profile: s.profile, progress: progress}
	if b.dir = s.keep; b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "batchreset-bench"); err != nil {
			return r, nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	r = report.Report{Machine: report.ThisMachine(ctx, args), Quick: s.quick}
	fmt.Fprintf(progress, "load of this machine before the start: %s on %d cores\n", r.Machine.Load, r.Machine.Cores)
	if err := b.prepare(ctx); err != nil {
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

// prepare makes the directories and builds the program under measurement.
func (b *bench) prepare(ctx context.Context) error {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if b.profile != "" {
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return err
		}
	}
	if b.binary == "" {
		var err error
		if b.binary, err = harness.Build(ctx, "", b.dir); err != nil {
			return err
		}
	}
	b.help = map[string]string{}
	for _, command := range []string{"api", "worker"} {
		out, _, err := harness.Run(ctx, b.binary, command, "--help")
		if err != nil {
			return err
		}
		b.help[command] = out
	}
	return nil
}

// ifKnown returns the flag with its value if the command has such a flag.
func (b *bench) ifKnown(command, flag, value string) []string {
	if !strings.Contains(b.help[command], flag+" ") {
		return nil
	}
	return []string{flag, value}
}

func (b *bench) redisVersion(ctx context.Context) (string, error) {
	s, err := b.newStack(ctx, "version")
	if err != nil {
		return "", err
	}
	defer b.closeStacks()
	text, err := s.redis.client.Info(ctx, "server").Result()
	if err != nil {
		return "", err
	}
	return infoField(text, "redis_version")
}
