package call

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// maxParallel bounds --parallel, as the client bounds its connections.
const maxParallel = 32

// batchOptions are what a caller may say about all requests of a run, and about what
// comes after.
type batchOptions struct {
	chunk       int
	parallel    int
	maxFailures int
	notBefore   string
	reason      string
	labels      map[string]string
	wait        bool
	result      string
	yes         bool
}

func (o *batchOptions) define(flags *pflag.FlagSet) {
	flags.IntVar(&o.chunk, "chunk", tasks.DefaultMaxInstances, "instances per request; the server's own limit is 32 unless it was raised")
	flags.IntVar(&o.parallel, "parallel", 4, "requests under way at a time")
	flags.IntVar(&o.maxFailures, "max-failures", 0, "stop the rest of a job once so many of its instances failed; 0 = never")
	flags.StringVar(&o.notBefore, "not-before", "", "`time` at which the first reset may begin, such as 2026-01-02T15:04:05Z or 10m from now; until then 'batchreset cancel' takes all back")
	flags.StringVar(&o.reason, "reason", "", "`text` that is kept in the record: why")
	flags.BoolVarP(&o.wait, "wait", "w", false, "follow the jobs to their end")
	flags.StringVar(&o.result, "result", "", "wait, and write a row for each instance to this `file`, a .csv or .jsonl; - is standard output, as CSV")
}

// read checks the options and makes a batch of them, without instances. runID may be
// empty.
func (o *batchOptions) read(runID string, now time.Time) (client.Batch, error) {
	batch := client.Batch{MaxFailures: o.maxFailures, Reason: o.reason, Labels: o.labels}
	if runID != "" {
		if err := checkRunID(runID); err != nil {
			return batch, err
		}
	}
	if o.chunk < 1 || o.chunk > tasks.MaxMaxInstances {
		return batch, fmt.Errorf("--chunk must be from 1 to %d, not %d", tasks.MaxMaxInstances, o.chunk)
	}
	if o.parallel < 1 || o.parallel > maxParallel {
		return batch, fmt.Errorf("--parallel must be from 1 to %d, not %d", maxParallel, o.parallel)
	}
	if o.maxFailures < 0 {
		return batch, errors.New("--max-failures must not be negative")
	}
	if err := tasks.CheckReason(o.reason); err != nil {
		return batch, fmt.Errorf("--reason %w", err)
	}
	if err := tasks.CheckLabels(o.labels); err != nil {
		return batch, fmt.Errorf("--label %w", err)
	}
	o.wait = o.wait || o.result != ""
	safe := ""
	if runID != "" {
		safe = "a --run-id"
	}
	var err error
	batch.NotBefore, err = firstReset(o.notBefore, safe, now)
	return batch, err
}

// firstReset is the time of --not-before, or zero. safe is what was given to make the command safe to
// repeat, or empty.
func firstReset(notBefore, safe string, now time.Time) (time.Time, error) {
	if notBefore == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, notBefore); err == nil {
		return t.UTC(), nil // whether it is past is for the service to say, by its own clock
	}
	d, err := time.ParseDuration(notBefore)
	if err != nil {
		return time.Time{}, fmt.Errorf("--not-before must be a time such as 2026-01-02T15:04:05Z or a duration such as 10m, not %q", notBefore)
	}
	if safe != "" {
		return time.Time{}, fmt.Errorf("--not-before must be a time and not %q from now if there is %s: the same command would be another request a moment later", notBefore, safe)
	}
	t := now.Add(d).Truncate(time.Second) // easy to say again
	if err := tasks.CheckNotBefore(t, now); err != nil {
		return t, fmt.Errorf("--not-before %w", err)
	}
	return t.UTC(), nil
}

// tryOut prints what would become of each instance.
func tryOut(ctx context.Context, out io.Writer, c *client.Client, batches []client.Batch, output terminal.Output) error {
	var all []client.Verdict
	for _, batch := range batches {
		verdicts, err := c.DryRun(ctx, batch)
		if err != nil {
			return err
		}
		all = append(all, verdicts...)
	}
	return showVerdicts(out, all, output)
}

// showVerdicts prints what a dry run says. Its error tells that some instances would be refused.
func showVerdicts(out io.Writer, all []client.Verdict, output terminal.Output) error {
	refused, reassigned := 0, 0
	for _, v := range all {
		switch tasks.Verdict(v.Verdict) {
		case tasks.VerdictWouldReset, tasks.VerdictBusy:
		case tasks.VerdictReassigned:
			reassigned++
		default:
			refused++
		}
	}
	err := output.Show(out, terminal.View{
		Document: map[string]any{"dry_run": true, "instances": terminal.NotNil(all)},
		Rows:     terminal.Each(all), Columns: []string{"instance_id", "verdict"},
		Text: func(w io.Writer) error {
			t := terminal.NewTable(w)
			for _, v := range all {
				t.Row(v.InstanceID, v.Verdict)
			}
			return t.Flush()
		},
	})
	switch {
	case err != nil:
	case refused > 0:
		err = &terminal.ExitError{Code: terminal.ExitSome, Err: errors.New("a submit would be refused")}
	case reassigned > 0: // which is found out for each when its turn comes
		err = &terminal.ExitError{Code: terminal.ExitSome, Err: fmt.Errorf("a submit would be accepted, and %s not reset: assigned again since", terminal.Plural(reassigned, "instance"))}
	}
	return err
}
