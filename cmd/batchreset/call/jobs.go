package call

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

func newJobsCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags  callerFlags
		filter jobsFilter
		bound  howMany
	)
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "List your jobs, newest first",
		Long: `Lists the jobs of your tenant, newest first, without their instances. Job records
are kept for some days after their job has finished.

--instance finds the jobs that name an instance. Ask it when a submit broke off and
you do not know whether the batch was accepted. --since and --until are about the
time at which a job was accepted.`,
		Example: `  batchreset jobs
  batchreset jobs --label ticket=T-4711 --since 2h
  batchreset jobs --state running --all
  batchreset jobs --instance phone-1 --limit 1 --output json`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			selected, err := filter.read(time.Now())
			if err != nil {
				return err
			}
			limit, err := bound.read()
			if err != nil {
				return err
			}
			c, err := flags.connect(&notices{w: std.Err})
			if err != nil {
				return err
			}
			defer c.Close()
			jobs, err := listJobs(cmd.Context(), c, selected, limit)
			if err != nil {
				return err
			}
			if len(jobs) == 0 {
				fmt.Fprintln(std.Err, "no jobs")
			}
			return flags.output.Show(std.Out, terminal.View{
				List: "jobs", Rows: terminal.Each(records(jobs)), Columns: jobColumns,
				Table: func(w io.Writer) error { return writeJobs(w, jobs) },
			})
		},
	}
	flags.define(cmd.Flags(), std)
	filter.define(cmd.Flags())
	cmd.Flags().StringVarP(&filter.State, "state", "s", "", "only jobs in this `state`: pending, running, succeeded, failed, partial or cancelled")
	bound.define(cmd.Flags(), "job")
	return cmd
}

// jobsFilter is what the flags say of the jobs that are meant.
type jobsFilter struct {
	client.JobsFilter
	period
}

func (f *jobsFilter) define(flags *pflag.FlagSet) {
	flags.StringVar(&f.InstanceID, "instance", "", "only jobs that name the instance with this `ID`")
	flags.StringArrayVarP(&f.Labels, "label", "l", nil, "only jobs with the label `name=value`; may be repeated, and a job must have all")
	f.period.define(flags, "jobs")
}

// given says whether any of the flags is.
func (f *jobsFilter) given() bool {
	return f.InstanceID != "" || len(f.Labels) > 0 || f.since != "" || f.until != ""
}

// asLabels are the labels that were given for new jobs, rather than to find some.
func (f *jobsFilter) asLabels() (map[string]string, error) {
	if err := tasks.CheckLabelFilter(f.Labels); err != nil {
		return nil, fmt.Errorf("--label %w", err)
	}
	labels := map[string]string{}
	for _, label := range f.Labels {
		name, value, _ := strings.Cut(label, "=")
		if _, twice := labels[name]; twice {
			return nil, fmt.Errorf("--label %s is given twice, which one is right?", name)
		}
		labels[name] = value
	}
	return labels, nil
}

// orArgs has the variables of the flags count for nothing where jobs are named, and those of
// one kind where there is the other: all jobs, or those that fit.
func (f *jobsFilter) orArgs(flags *pflag.FlagSet) {
	terminal.Yields(flags, "all", terminal.Arguments)
	for _, name := range []string{"instance", "label", "since", "until"} {
		terminal.Yields(flags, name, terminal.Arguments)
		terminal.Alternatives(flags, name, "all")
	}
}

// checkArgs refuses anything but jobs by name, or flags that say which ones are meant.
func (f *jobsFilter) checkArgs(cmd *cobra.Command, args []string, all bool) error {
	switch selected := all || f.given(); {
	case len(args) > 0 && selected:
		return errors.New("jobs by name and flags that select jobs do not go together")
	case selected:
		return nil
	}
	return jobArgs(0)(cmd, args)
}

// read checks the flags.
func (f *jobsFilter) read(now time.Time) (filter client.JobsFilter, err error) {
	filter = f.JobsFilter
	if f.State != "" && !slices.Contains(tasks.JobStates, tasks.JobState(f.State)) {
		return filter, fmt.Errorf("--state must be one of %v, not %q", tasks.JobStates, f.State)
	}
	if f.InstanceID != "" {
		if err := tasks.CheckInstanceID(f.InstanceID); err != nil {
			return filter, fmt.Errorf("--instance %w", err)
		}
	}
	if err := tasks.CheckLabelFilter(f.Labels); err != nil {
		return filter, fmt.Errorf("--label %w", err)
	}
	filter.Since, filter.Until, err = f.period.read(now)
	return filter, err
}

// listJobs lists limit jobs at most; all, if limit is negative.
func listJobs(ctx context.Context, c *client.Client, filter client.JobsFilter, limit int) ([]client.Job, error) {
	filter.Limit = pageOf(limit)
	return firstOf(c.Jobs(ctx, filter), limit)
}

var jobColumns = []string{
	"job_id", "state", "created_at", "started_at", "finished_at", "total",
	"counts.pending", "counts.running", "counts.retrying", "counts.succeeded", "counts.failed", "counts.unknown", "counts.cancelled",
	"reason", "labels",
}

func writeJobs(w io.Writer, jobs []client.Job) error {
	if len(jobs) == 0 {
		return nil
	}
	t := terminal.NewTable(w, "JOB", "STATE", "CREATED", "TOOK", "INSTANCES", "")
	for _, job := range jobs {
		t.Row(job.ID, job.State, terminal.Clock(job.CreatedAt), terminal.Took(job.StartedAt, job.FinishedAt), strconv.Itoa(job.Total), countsInWords(job.Counts))
	}
	return t.Flush()
}

// records are jobs as the server sent them.
func records(jobs []client.Job) []json.RawMessage {
	all := make([]json.RawMessage, 0, len(jobs))
	for _, job := range jobs {
		all = append(all, job.Record)
	}
	return all
}
