package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"batchreset/api/client"
	"batchreset/tasks"
)

// batchOptions are what a caller may say about all jobs of a submit.
type batchOptions struct {
	notBefore string
	reason    string
	labels    map[string]string
}

func (o *batchOptions) define(flags *pflag.FlagSet) {
	flags.StringVar(&o.notBefore, "not-before", "", "`time` at which the first reset may begin, such as 2026-01-02T15:04:05Z or 10m from now; until then 'batchreset cancel' takes all back")
	flags.StringVar(&o.reason, "reason", "", "`text` that is kept in the record: why")
	flags.StringToStringVar(&o.labels, "label", nil, "`name=value` that is kept in the record; may be repeated")
}

// read checks the options and puts them into the batch.
func (o *batchOptions) read(batch *client.Batch, now time.Time) error {
	if err := tasks.CheckReason(o.reason); err != nil {
		return fmt.Errorf("--reason %w", err)
	}
	if err := tasks.CheckLabels(o.labels); err != nil {
		return fmt.Errorf("--label %w", err)
	}
	batch.Reason, batch.Labels = o.reason, o.labels
	if o.notBefore == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339, o.notBefore)
	if err != nil {
		d, err := time.ParseDuration(o.notBefore)
		if err != nil {
			return fmt.Errorf("--not-before must be a time such as 2026-01-02T15:04:05Z or a duration such as 10m, not %q", o.notBefore)
		}
		if batch.IdempotencyKey != "" {
			return fmt.Errorf("--not-before must be a time and not %q from now if there is an --idempotency-key: the same command would be another request a moment later", o.notBefore)
		}
		t = now.Add(d)
	}
	if err := tasks.CheckNotBefore(t, now); err != nil {
		return fmt.Errorf("--not-before %w", err)
	}
	batch.NotBefore = t.UTC()
	return nil
}

// tryOut prints what would become of each instance.
func tryOut(ctx context.Context, out io.Writer, c *client.Client, batches []client.Batch, asJSON bool) error {
	var all []client.Verdict
	refused := 0
	for _, batch := range batches {
		verdicts, err := c.DryRun(ctx, batch)
		if err != nil {
			return err
		}
		for _, v := range verdicts {
			if v.Verdict != string(tasks.VerdictWouldReset) && v.Verdict != string(tasks.VerdictBusy) {
				refused++
			}
		}
		all = append(all, verdicts...)
	}
	var err error
	if asJSON {
		err = writeJSON(out, map[string]any{"dry_run": true, "instances": notNil(all)})
	} else {
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, v := range all {
			_, _ = fmt.Fprintf(table, "%s\t%s\n", client.Printable(v.InstanceID), client.Printable(v.Verdict)) // Flush tells
		}
		err = table.Flush()
	}
	if err == nil && refused > 0 {
		err = &exitError{code: 2, err: errors.New("a submit would be refused")}
	}
	return err
}
