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

// exitCodes is the part of the help that submit --wait and watch share.
const exitCodes = `Exit code: 0 if every instance was reset, 2 if some were not, 3 if the service refused,
4 if it could not be reached or failed, 64 if the command line is wrong, 124 if
--timeout was over ('batchreset help exit-codes').`

func newWatchCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags  callerFlags
		filter jobsFilter
		all    bool
	)
	cmd := &cobra.Command{
		Use:   "watch JOB… | watch --label NAME=VALUE | watch --all",
		Short: "Follow jobs to their end",
		Long: `Follows jobs until every one is final. On a terminal a progress bar shows how far
they are; otherwise there is a line now and then. Progress goes to standard error;
the summary, with each instance that was not reset and why, to standard output.

With --label, --instance, --since or --until (as for 'batchreset jobs') it follows every
job of your tenant that matches, also if it has ended: the exit code is about all of them.
With --all it follows every job that has not ended.

If the server goes away, it waits until the server is back. Ctrl-C and --timeout end the
watching, not the jobs.

` + exitCodes,
		Example: `  batchreset watch 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f
  batchreset submit phone-1 phone-2 | xargs batchreset watch
  batchreset watch --label ticket=T-4711`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := filter.checkArgs(cmd, args, all); err != nil {
				return err
			}
			selected, err := filter.read(time.Now())
			if err != nil {
				return err
			}
			notices := &notices{w: std.Err}
			c, err := flags.connect(notices)
			if err != nil {
				return err
			}
			defer c.Close()
			if len(args) == 0 {
				if args, err = jobsToWatch(cmd.Context(), c, selected, all); err != nil {
					return err
				}
			}
			jobs := make([]client.Job, 0, len(args))
			for _, id := range args {
				if !slices.ContainsFunc(jobs, func(job client.Job) bool { return job.ID == id }) {
					jobs = append(jobs, client.Job{ID: id})
				}
			}
			f := follow(cmd.Context(), c, notices, jobs, true)
			if err := f.show(std.Out, flags.output); err != nil {
				return err
			}
			return f.verdict(terminal.SomeIDs(args))
		},
	}
	flags.define(cmd.Flags(), std)
	filter.define(cmd.Flags())
	cmd.Flags().BoolVar(&all, "all", false, "every job of your tenant that has not ended")
	filter.orArgs(cmd.Flags())
	return cmd
}

// jobsToWatch are the IDs of the jobs that fit, or of all that have not ended. Where none
// fits, nothing was reset that somebody waits for.
func jobsToWatch(ctx context.Context, c *client.Client, filter client.JobsFilter, all bool) ([]string, error) {
	if all {
		return openJobs(ctx, c, filter)
	}
	jobs, err := listJobs(ctx, c, filter, -1)
	if err == nil && len(jobs) == 0 {
		err = tasks.Errorf(tasks.NoJob, "there is no such job: none matches")
	}
	var ids []string
	for _, job := range jobs {
		ids = append(ids, job.ID)
	}
	return ids, err
}

// following is what became of jobs that were followed.
type following struct {
	jobs    []client.Job // the last record of each, where there is one
	errors  []jobError
	missing int   // of errors: jobs that there are not
	failed  error // what kept the others from being followed
	cut     error // why it ended early, if it did
}

// jobError says why a job, or without its ID any, could not be followed to its end.
type jobError struct {
	JobID string `json:"job_id,omitempty"`
	terminal.Failure
}

// follow waits until jobs are final and shows how far they are. With eachState
// there is a line for each change of a job's state too.
func follow(ctx context.Context, c *client.Client, n *notices, jobs []client.Job, eachState bool) following {
	latest := newTally(jobs)
	changed, stop := showProgress(n, latest)
	ids := make([]string, 0, len(jobs))
	for _, job := range jobs {
		ids = append(ids, job.ID)
	}
	missing, err := c.WaitAll(ctx, ids, func(job client.Job) {
		if before := latest.update(job); eachState && before != job.State {
			fmt.Fprintf(n, "job %s: %s\n", job.ID, tasks.Visible(job.State))
		}
		changed()
	})
	stop()

	f := following{jobs: latest.all(jobs), errors: noJobs(missing), missing: len(missing)}
	if ctx.Err() != nil && len(f.open())+len(jobs)-len(f.jobs)-len(missing) > 0 {
		f.cut = terminal.Cause(ctx)
	}
	if err != nil && ctx.Err() == nil {
		f.failed = err
		f.errors = append(f.errors, jobError{Failure: terminal.NewFailure(err)})
	}
	return f
}

// noJobs says of each job that it does not exist.
func noJobs(ids []string) []jobError {
	all := []jobError{}
	for _, id := range ids {
		all = append(all, jobError{id, terminal.NewFailure(tasks.Errorf(tasks.NoJob, "there is no such job"))})
	}
	return all
}

// view has the last records and what went wrong, without a text.
func (f following) view() terminal.View {
	v := itemsOf(f.jobs)
	v.Document = map[string]any{"jobs": records(f.jobs), "errors": f.errors}
	return v
}

// show prints the summary, or the last records.
func (f following) show(w io.Writer, output terminal.Output) error {
	v := f.view()
	v.Text = func(w io.Writer) error {
		if len(f.jobs) == 0 {
			return nil
		}
		return writeSummary(w, f.jobs)
	}
	return output.Show(w, v)
}

// open are the IDs of the jobs that are not final.
func (f following) open() (ids []string) {
	for _, job := range f.jobs {
		if !job.Final() {
			ids = append(ids, job.ID)
		}
	}
	return ids
}

// theyGoOn says what can be done about jobs that a command has left: which says of which.
func theyGoOn(which string) string {
	return fmt.Sprintf("the jobs go on; 'batchreset watch %[1]s' follows them, 'batchreset cancel %[1]s' takes back what has not begun", which)
}

// verdict is the error that gives the command its exit code. which names the jobs on a
// command line.
func (f following) verdict(which string) error {
	if f.cut != nil {
		return fmt.Errorf("%w; %s", f.cut, theyGoOn(which))
	}
	var all []error
	for _, e := range f.errors {
		if e.JobID == "" {
			all = append(all, e.Err)
		} else {
			all = append(all, fmt.Errorf("job %s: %w", e.JobID, e.Err))
		}
	}
	switch err := errors.Join(all...); {
	case f.failed != nil:
		return &terminal.ExitError{Code: terminal.ExitCode(f.failed), Err: err}
	case f.missing > 0 && len(f.jobs) > 0:
		return &terminal.ExitError{Code: terminal.ExitSome, Err: err}
	case f.missing > 0:
		return &terminal.ExitError{Code: terminal.ExitRefused, Err: err}
	}
	for _, job := range f.jobs {
		if job.State != string(tasks.JobSucceeded) {
			return &terminal.ExitError{Code: terminal.ExitSome}
		}
	}
	return nil
}
