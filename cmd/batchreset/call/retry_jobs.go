package call

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// jobRetry opens jobs for another try: those that are named, or those that fit.
type jobRetry struct {
	flags  *callerFlags
	filter *jobsFilter
	states []string // of the items that are meant; none: those that failed
	wait   bool
	yes    bool
}

func (r *jobRetry) run(ctx context.Context, std *terminal.Streams, ids []string) error {
	selected, err := r.filter.read(time.Now())
	if err != nil {
		return err
	}
	if err := checkStates(r.states); err != nil {
		return err
	}
	notices := &notices{w: std.Err}
	c, err := r.flags.connect(notices)
	if err != nil {
		return err
	}
	defer c.Close()
	if len(ids) == 0 {
		if ids, err = r.choose(ctx, std, c, selected); err != nil {
			return err
		}
	}
	f, failed := r.open(ctx, c, ids)
	if !r.wait || len(f.jobs) == 0 {
		return errors.Join(r.show(std, f), failed)
	}
	refused := f.errors
	f = follow(ctx, c, notices, f.jobs, true)
	f.errors = append(refused, f.errors...)
	verdict := f.verdict(terminal.SomeIDs(ids))
	if f.cut != nil {
		failed = nil // that it was cut short counts for more
	}
	return cmp.Or(f.show(std.Out, r.flags.output), failed, verdict)
}

// show shows the records as they are now.
func (r *jobRetry) show(std *terminal.Streams, f following) error {
	v := f.view()
	v.Text = func(w io.Writer) error {
		if len(f.jobs) == 1 {
			return writeJob(w, f.jobs[0])
		}
		return writeJobs(w, f.jobs)
	}
	return r.flags.output.Show(std.Out, v)
}

// choose finds the jobs that have ended, fit, and have something to retry.
func (r *jobRetry) choose(ctx context.Context, std *terminal.Streams, c *client.Client, filter client.JobsFilter) (ids []string, err error) {
	jobs, err := listJobs(ctx, c, filter, -1)
	if err != nil {
		return nil, err
	}
	instances := 0
	for _, job := range jobs {
		if n := inStates(job.Counts, r.states); job.Final() && n > 0 {
			ids, instances = append(ids, job.ID), instances+n
		}
	}
	fmt.Fprintf(std.Err, "%s of %s to reset again\n", terminal.Plural(instances, "instance"), terminal.Plural(len(ids), "job"))
	if len(ids) > 0 && !r.yes && terminal.IsTerminal(std.In) {
		err = terminal.Confirm(ctx, std, "This destroys the data on them. Go on?")
	}
	return ids, err
}

// inStates is how many of the counted are in the states that are to be opened; none named: those that failed.
func inStates(counts client.Counts, states []string) (n int) {
	if states == nil {
		states = []string{string(tasks.ItemFailed)}
	}
	all := tasks.Counts(counts)
	for _, state := range slices.Compact(slices.Sorted(slices.Values(states))) {
		n += *all.Of(tasks.ItemState(state))
	}
	return n
}

// open opens the jobs, one after the other, until one meets an error that the others would
// meet, too.
func (r *jobRetry) open(ctx context.Context, c *client.Client, ids []string) (f following, failed error) {
	f.errors = []jobError{}
	var all []error
	code := terminal.ExitRefused
	for _, id := range ids {
		job, err := c.Retry(ctx, id, r.states...)
		if err == nil {
			f.jobs = append(f.jobs, job)
			continue
		}
		f.errors = append(f.errors, jobError{id, terminal.NewFailure(err)})
		if len(ids) > 1 {
			err = fmt.Errorf("job %s: %w", id, err)
		}
		all, code = append(all, err), max(code, terminal.ExitCode(err))
		if e, answered := errors.AsType[*client.Error](err); !answered || e.HTTPStatus != http.StatusNotFound && e.HTTPStatus != http.StatusConflict {
			break
		}
	}
	if all == nil {
		return f, nil
	}
	if code == terminal.ExitRefused && len(f.jobs) > 0 {
		code = terminal.ExitSome
	}
	return f, &terminal.ExitError{Code: code, Err: errors.Join(all...)}
}
