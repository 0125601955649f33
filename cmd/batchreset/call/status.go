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
	"batchreset/tasks"
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
table have a row for each instance, as 'submit --result' has. junit and markdown are the
reports of 'run results'.`,
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
			v.Others = reportForms(reportOfJobs([]client.Job{job}), rowsIn([]client.Job{job}))
			return flags.output.Show(std.Out, v)
		},
	}
	flags.define(cmd.Flags(), std, reportNames...)
	return cmd
}

// itemsOf has the records of jobs as a document, and a row for each of their instances.
func itemsOf(jobs []client.Job) terminal.View {
	return terminal.View{
		Document: map[string]any{"jobs": records(jobs)},
		Rows:     terminal.Each(rowsOf(jobs)), Columns: resultColumns,
	}
}

func labelsInWords(labels map[string]string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, name+"="+labels[name])
	}
	return strings.Join(words, " ")
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
	if job.RunID != "" {
		head.Row("Run", job.RunID)
	}
	if len(job.Labels) > 0 {
		head.Row("Labels", labelsInWords(job.Labels))
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

// countsInWords tells the counts that are not zero: "1 running, 3 succeeded".
func countsInWords(counts client.Counts) string {
	c := tasks.Counts(counts)
	all := map[string]int{}
	for _, state := range tasks.ItemStates {
		all[string(state)] = *c.Of(state)
	}
	return statesInWords(all)
}

// statesInWords is the same for the states of rows, which are more.
func statesInWords(counts map[string]int) string {
	var words []string
	for _, state := range rowStates {
		if n := counts[state]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(words, ", ")
}

// ended is how many items are final.
func ended(c client.Counts) int { return c.Succeeded + c.Failed + c.Unknown + c.Cancelled }

// sum adds up the counts of jobs.
func sum(jobs []client.Job) (total int, counts client.Counts) {
	for _, job := range jobs {
		total += job.Total
		addCounts(&counts, job.Counts, 1)
	}
	return total, counts
}

// addCounts adds some counts, or takes them off with a sign of -1.
func addCounts(to *client.Counts, some client.Counts, sign int) {
	all, more := (*tasks.Counts)(to), tasks.Counts(some)
	for _, state := range tasks.ItemStates {
		*all.Of(state) += sign * *more.Of(state)
	}
}

// writeSummary tells how jobs ended, and lists the instances that were not reset.
func writeSummary(w io.Writer, jobs []client.Job) error {
	total, counts := sum(jobs)
	fmt.Fprintf(w, "%s in %s: %s\n", terminal.Plural(total, "instance"), terminal.Plural(len(jobs), "job"), countsInWords(counts))
	if ended(counts) == counts.Succeeded {
		return nil
	}
	fmt.Fprintln(w)
	t := terminal.NewTable(w, "INSTANCE", "STATE", "ATTEMPTS", "CODE", "MESSAGE")
	for _, job := range jobs {
		for _, it := range job.Items {
			if state := tasks.ItemState(it.State); state.Final() && state != tasks.ItemSucceeded {
				t.Row(it.InstanceID, it.State, strconv.Itoa(it.Attempts), it.Code, it.Message)
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if counts.Unknown > 0 {
		fmt.Fprintln(w, "\nunknown: the reset was sent and nobody can say whether it happened; look at the phone before you reset it again")
	}
	return nil
}
