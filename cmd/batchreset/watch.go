package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/tasks"
)

// exitCodes is the part of the help that submit --wait and watch share.
const exitCodes = `Exit code: 0 if every instance was reset, 2 if some were not, 1 if the command line
is wrong or the service could not be asked.`

func newWatchCommand(std *streams) *cobra.Command {
	var flags callerFlags
	cmd := &cobra.Command{
		Use:   "watch JOB…",
		Short: "Follow jobs to their end",
		Long: `Follows jobs until every one is final. On a terminal a progress bar shows how far
they are; otherwise there is a line now and then. Progress goes to standard error;
the summary, with each instance that was not reset and why, to standard output.

A server that goes away in between is waited for. Ctrl-C ends the watching, not the
jobs.

` + exitCodes,
		Example: `  batchreset watch 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f
  batchreset submit --file phones.txt | xargs batchreset watch`,
		Args: jobArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			notices := &notices{w: std.err}
			c, err := flags.connect(notices)
			if err != nil {
				return err
			}
			defer c.Close()
			jobs := make([]client.Job, 0, len(args))
			for _, id := range args {
				if !slices.ContainsFunc(jobs, func(job client.Job) bool { return job.ID == id }) {
					jobs = append(jobs, client.Job{ID: id})
				}
			}
			f := follow(cmd.Context(), c, notices, jobs, true)
			if err := f.show(std.out, flags.output); err != nil {
				return err
			}
			return f.verdict()
		},
	}
	flags.define(cmd.Flags())
	return cmd
}

// following is what became of jobs that were followed.
type following struct {
	jobs        []client.Job // the last record of each, where there is one
	errors      []jobError
	interrupted bool
}

// jobError says why a job, or without its ID any, could not be followed to its end.
type jobError struct {
	JobID string `json:"job_id,omitempty"`
	failure
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
			fmt.Fprintf(n, "job %s: %s\n", job.ID, client.Printable(job.State))
		}
		changed()
	})
	stop()

	f := following{jobs: latest.all(jobs), errors: []jobError{}, interrupted: ctx.Err() != nil}
	for _, id := range missing {
		f.errors = append(f.errors, jobError{id, failure{string(tasks.NoJob), tasks.Errorf(tasks.NoJob, "there is no such job").Error()}})
	}
	if err != nil && !f.interrupted {
		f.errors = append(f.errors, jobError{failure: newFailure(err)})
	}
	return f
}

// show prints the summary, or the last records.
func (f following) show(w io.Writer, output outputFlag) error {
	v := itemsOf(f.jobs)
	v.document = map[string]any{"jobs": records(f.jobs), "errors": f.errors}
	v.text = func(w io.Writer) error {
		if len(f.jobs) == 0 {
			return nil
		}
		return writeSummary(w, f.jobs)
	}
	return output.show(w, v)
}

// verdict is the error that gives the command its exit code.
func (f following) verdict() error {
	if f.interrupted {
		return errors.New("interrupted; the jobs go on, and 'batchreset watch' follows them again")
	}
	var all []error
	for _, e := range f.errors {
		if e.JobID == "" {
			all = append(all, errors.New(e.Message))
		} else {
			all = append(all, fmt.Errorf("job %s: %s", e.JobID, e.Message))
		}
	}
	if all != nil {
		return errors.Join(all...)
	}
	for _, job := range f.jobs {
		if job.State != string(tasks.JobSucceeded) {
			return &exitError{code: 2}
		}
	}
	return nil
}
