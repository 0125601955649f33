package call

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
)

func newStatusCommand(std *terminal.Streams) *cobra.Command {
	var flags callerFlags
	cmd := &cobra.Command{
		Use:   "status JOB",
		Short: "Show the record of a job",
		Long: `Shows the record of a job as it is now: its state, its counts and every instance
with its attempts and, if it was not reset, why. The exit code is 0 if the job
exists, whatever became of it; 'batchreset watch' has one that tells.

With --output json the record is printed just as the service has it; jsonl, csv and
table have a row for each instance, as 'submit --result' has.`,
		Example: `  batchreset status 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f
  batchreset status 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f --output json | jq .state`,
		Args: jobArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := flags.connect(&notices{w: std.Err})
			if err != nil {
				return err
			}
			defer c.Close()
			job, err := c.Job(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v := itemsOf([]client.Job{job})
			v.Document, v.Text = job.Record, func(w io.Writer) error { return writeJob(w, job) }
			return flags.output.Show(std.Out, v)
		},
	}
	flags.define(cmd.Flags(), std)
	return cmd
}

// itemsOf has the records of jobs as a document, and a row for each of their instances.
func itemsOf(jobs []client.Job) terminal.View {
	return terminal.View{
		Document: map[string]any{"jobs": records(jobs)},
		Columns:  resultColumns,
		Rows: func(add func(any) error) error {
			for _, job := range jobs {
				for _, it := range job.Items {
					if err := add(rowOf(job.ID, it)); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

func writeJob(w io.Writer, job client.Job) error {
	head := terminal.NewTable(w, "Job", job.ID)
	head.Row("State", job.State)
	head.Row("Instances", strconv.Itoa(job.Total)+": "+countsInWords(job.Counts))
	head.Row("Created", terminal.Clock(job.CreatedAt))
	head.Row("Started", terminal.Clock(job.StartedAt))
	head.Row("Finished", terminal.Clock(job.FinishedAt))
	head.Row("Request ID", job.RequestID)
	if job.Held.Reason != "" {
		head.Row("Waits", job.Held.Reason+", since "+terminal.Clock(job.Held.Since))
	}
	if job.Reason != "" {
		head.Row("Reason", job.Reason)
	}
	if len(job.Labels) > 0 {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(job.Labels)) {
			labels = append(labels, key+"="+job.Labels[key])
		}
		head.Row("Labels", strings.Join(labels, " "))
	}
	if err := head.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	items := terminal.NewTable(w, "INSTANCE", "STATE", "ATTEMPTS", "TOOK", "CODE", "MESSAGE")
	for _, it := range job.Items {
		items.Row(it.InstanceID, it.State, strconv.Itoa(it.Attempts), terminal.Took(it.StartedAt, it.FinishedAt), it.Code, cmp.Or(it.Message, it.Evidence))
	}
	return items.Flush()
}
