package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

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
			if flags.output.json() {
				err = writeJSON(std.out, map[string]any{"jobs": records(f.jobs), "errors": f.errors})
			} else if len(f.jobs) > 0 {
				err = writeSummary(std.out, f.jobs)
			}
			if err != nil {
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

// jobError says why a job could not be followed to its end.
type jobError struct {
	JobID string `json:"job_id"`
	failure
}

// follow waits until jobs are final and shows how far they are. With eachState
// there is a line for each change of a job's state too.
func follow(ctx context.Context, c *client.Client, n *notices, jobs []client.Job, eachState bool) following {
	latest := newTally(jobs)
	changed, stop := showProgress(n, latest)
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(jobs))
	var waits sync.WaitGroup
	for i, job := range jobs {
		id := job.ID
		waits.Go(func() {
			_, errs[i] = c.Wait(watching, id, func(job client.Job) {
				if before := latest.update(id, job); eachState && before != job.State {
					fmt.Fprintf(n, "job %s: %s\n", id, client.Printable(job.State))
				}
				changed()
			})
			if refusesCaller(errs[i]) {
				cancel() // the other jobs would only say the same
			}
		})
	}
	waits.Wait()
	stop()

	f := following{errors: []jobError{}, interrupted: ctx.Err() != nil}
	for i, job := range jobs {
		if job = latest.job(job.ID); job.Record != nil {
			f.jobs = append(f.jobs, job)
		}
		if errs[i] != nil && !errors.Is(errs[i], context.Canceled) {
			f.errors = append(f.errors, jobError{jobs[i].ID, newFailure(errs[i])})
		}
	}
	return f
}

// refusesCaller reports whether the server answered that the token may not do
// what was asked, so that asking for more is of no use.
func refusesCaller(err error) bool {
	e, answered := errors.AsType[*client.Error](err)
	return answered && (e.HTTPStatus == http.StatusUnauthorized || e.HTTPStatus == http.StatusForbidden)
}

// verdict is the error that gives the command its exit code.
func (f following) verdict() error {
	if f.interrupted {
		return errors.New("interrupted; the jobs go on, and 'batchreset watch' follows them again")
	}
	var all []error
	for _, e := range f.errors {
		all = append(all, fmt.Errorf("job %s: %s", e.JobID, e.Message))
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
