package call

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

func newCancelCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags  callerFlags
		filter jobsFilter
		all    bool
	)
	cmd := &cobra.Command{
		Use:   "cancel JOB… | cancel --label NAME=VALUE | cancel --all",
		Short: "Cancel what jobs have not begun",
		Long: `Cancels every instance of a job that waits, for its first attempt or for its next.
Attempts that are running end by themselves and are not repeated: a reset that was
sent cannot be called back. Prints the record as it is then.

With --label, --instance, --since or --until (as for 'batchreset jobs') it cancels every
job of your tenant that matches and has not ended. With --all it cancels every job that
has not ended. It may miss a job that is submitted at the same time: give the command
again until it finds none. 'batchreset retry JOB --state cancelled' opens a cancelled
job again. A run makes new jobs all the same: 'batchreset run cancel' ends it.`,
		Example: `  batchreset cancel 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f
  batchreset cancel --label ticket=T-4711
  batchreset cancel --since 1h
  batchreset cancel --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := filter.checkArgs(cmd, args, all); err != nil {
				return err
			}
			if len(args) == 1 {
				return cancelOne(cmd.Context(), std, &flags, args[0])
			}
			selected, err := filter.read(time.Now())
			if err != nil {
				return err
			}
			c, err := flags.connect(&notices{w: std.Err})
			if err != nil {
				return err
			}
			defer c.Close()
			if len(args) == 0 {
				if args, err = openJobs(cmd.Context(), c, selected); err != nil {
					return err
				}
			}
			return cancelAll(cmd.Context(), std, c, args, flags.output)
		},
	}
	flags.define(cmd.Flags(), std)
	filter.define(cmd.Flags())
	cmd.Flags().BoolVar(&all, "all", false, "every job of your tenant that has not ended")
	filter.orArgs(cmd.Flags())
	return cmd
}

// openJobs are the IDs of the jobs that fit and have not ended, each once.
func openJobs(ctx context.Context, c *client.Client, filter client.JobsFilter) (ids []string, err error) {
	// In this order, so that one which begins between the two lists is not missed.
	for _, state := range []tasks.JobState{tasks.JobPending, tasks.JobRunning} {
		filter.State = string(state)
		jobs, err := listJobs(ctx, c, filter, -1)
		if err != nil {
			return nil, err
		}
		for _, job := range jobs {
			ids = append(ids, job.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// cancelAll cancels jobs and shows what has become of them.
func cancelAll(ctx context.Context, std *terminal.Streams, c *client.Client, ids []string, output terminal.Output) error {
	cancelled := []client.Job{}
	missing, err := c.CancelAll(ctx, ids, func(job client.Job) { cancelled = append(cancelled, job) })
	instances, counts := sum(cancelled)
	fmt.Fprintf(std.Err, "%s with %s cancelled", terminal.Plural(len(cancelled), "job"), terminal.Plural(instances, "instance"))
	if instances > 0 {
		fmt.Fprintf(std.Err, ": %s", countsInWords(counts))
	}
	fmt.Fprintln(std.Err)
	switch ended := len(ids) - len(cancelled) - len(missing); {
	case err != nil:
		err = fmt.Errorf("stopped, give the command again: %w", err)
	case len(missing) > 0:
		err = terminal.NotFound(len(ids)-len(missing), "there is no job %s", missing)
	case ended > 0:
		fmt.Fprintf(std.Err, "%s had ended\n", terminal.Plural(ended, "job"))
	}
	f := following{jobs: cancelled, errors: noJobs(missing)}
	v := f.view()
	v.Text = func(w io.Writer) error { return writeJobs(w, cancelled) }
	return errors.Join(err, output.Show(std.Out, v))
}

// cancelOne cancels a job and shows it.
func cancelOne(ctx context.Context, std *terminal.Streams, flags *callerFlags, id string) error {
	c, err := flags.connect(&notices{w: std.Err})
	if err != nil {
		return err
	}
	defer c.Close()
	job, err := c.Cancel(ctx, id)
	if err != nil {
		return err
	}
	f := following{jobs: []client.Job{job}, errors: noJobs(nil)}
	v := f.view()
	v.Text = func(w io.Writer) error { return writeJob(w, job) }
	return flags.output.Show(std.Out, v)
}
