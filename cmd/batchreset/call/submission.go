package call

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

const (
	// interruptGrace is how long requests that are under way may take for their answer
	// after Ctrl-C, timeoutGrace after --timeout: only the answer says whether a batch was
	// accepted.
	interruptGrace = 5 * time.Second
	timeoutGrace   = time.Second
	// maxAway is how long a server that has accepted something may be away in the middle
	// of a run, and awayWait how often it is tried.
	maxAway  = time.Minute
	awayWait = time.Second
)

// submission is one run of submit.
type submission struct {
	runID     string // empty unless the run can be repeated
	kind      string // of the run; empty for a submit
	instances []string
	listed    []string     // of the result, unless those are all
	skipped   []resultRow  // of those that are listed and not sent
	also      []client.Job // under way, of those
	result    *resultFile  // nil without one
	wait      bool
	output    terminal.Output // on out
	out       io.Writer
	notices   *notices

	mu       sync.Mutex
	jobs     []client.Job // as accepted, with their items' names only
	failed   []failedBatch
	notSent  []string
	printing error // of job IDs
}

// failedBatch is a request that brought no job.
type failedBatch struct {
	InstanceIDs   []string `json:"instance_ids"`
	MayBeAccepted bool     `json:"may_be_accepted"`
	terminal.Failure
}

// run sends the instances and follows their jobs if asked to. Its error gives the exit
// code.
func (s *submission) run(ctx context.Context, c *client.Client, batch client.Batch, options batchOptions) error {
	if s.runID == "" && len(s.instances) > options.chunk {
		s.runID = newRunID()
		fmt.Fprintf(s.notices, "if this breaks off, the same command with %s goes on\n", again(s.runID, batch))
	}
	if s.runID != "" {
		var err error
		if batch, err = labelled(batch, s.runID, s.kind, s.instances); err != nil {
			return err
		}
	}
	for _, job := range s.also {
		s.add(job)
	}
	batches := chunks(batch, s.instances, options.chunk)
	if s.runID != "" {
		keyed(batches, s.runID)
	}
	s.send(ctx, c, batches, options.parallel)
	return s.finish(ctx, c, again(s.runID, batch))
}

// send submits the batches, some at a time, until an error that is not about one
// batch alone, or until ctx ends.
func (s *submission) send(ctx context.Context, c *client.Client, batches []client.Batch, parallel int) {
	more, stop := context.WithCancel(ctx)
	defer stop()
	sending, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace(ctx), abandon) })()

	var accepted atomic.Int64
	changed, shown := func() {}, func() {}
	if len(batches) > 1 {
		changed, shown = showLines(s.notices, func() string {
			return fmt.Sprintf("%d of %d accepted", accepted.Load(), len(s.instances))
		})
	}
	defer shown()
	var requests errgroup.Group
	requests.SetLimit(parallel)
	for n, batch := range batches {
		requests.Go(func() error {
			if more.Err() != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.notSent = append(s.notSent, batch.InstanceIDs...)
				return nil
			}
			a, err := s.submit(sending, more, c, batch)
			if err != nil && !refusesInstances(err) {
				stop()
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if err != nil {
				s.failed = append(s.failed, failedBatch{batch.InstanceIDs, errors.Is(err, client.ErrUncertain), terminal.NewFailure(err)})
				return nil
			}
			accepted.Add(int64(len(a.Items)))
			s.accept(a)
			changed()
			return nil
		})
		if n == 0 {
			_ = requests.Wait() // what is wrong with all of them is said once
		}
	}
	_ = requests.Wait() // errors are in failed
}

// grace is how long what is under way may take once ctx has ended.
func grace(ctx context.Context) time.Duration {
	if _, over := errors.AsType[*terminal.TimeoutError](context.Cause(ctx)); over {
		return timeoutGrace
	}
	return interruptGrace
}

// submit sends one batch, again and again while a server is away that has accepted
// another; under the batch's key that is harmless. more ends the waiting.
func (s *submission) submit(ctx, more context.Context, c *client.Client, batch client.Batch) (client.Accepted, error) {
	for began := time.Now(); ; {
		a, err := c.Submit(ctx, batch)
		e, answered := errors.AsType[*client.Error](err)
		if err == nil || answered && e.HTTPStatus < 500 || !s.begun() || time.Since(began) > maxAway {
			return a, err
		}
		s.notices.retry(err, awayWait)
		select {
		case <-more.Done():
			return a, err
		case <-time.After(awayWait):
		}
	}
}

// begun reports whether a batch was accepted.
func (s *submission) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.jobs) > 0
}

// refusesInstances reports whether the server found fault with the instances of a batch,
// so that other batches may fare better. After anything else they would meet the same
// error, or leave one more batch of which nobody knows whether it was accepted.
func refusesInstances(err error) bool {
	e, answered := errors.AsType[*client.Error](err)
	return answered && (e.Code == string(tasks.NotYourInstance) || e.Code == string(tasks.Protected))
}

// accept notes an accepted batch, and prints its job ID at once: whatever
// happens next, the caller has it.
func (s *submission) accept(a client.Accepted) {
	record, err := json.Marshal(a)
	job := client.Job{ID: a.JobID, Total: len(a.Items), Counts: client.Counts{Pending: len(a.Items)}, Record: record}
	for _, it := range a.Items {
		job.Items = append(job.Items, client.Item{ItemID: it.ItemID, InstanceID: it.InstanceID, State: rowAccepted})
	}
	s.printing = errors.Join(s.printing, err)
	s.add(job)
}

// add adds a job to those that can be followed, and prints its ID.
func (s *submission) add(job client.Job) {
	s.jobs = append(s.jobs, job)
	if !s.output.IsText() || s.result.onOutput() {
		return
	}
	_, err := fmt.Fprintln(s.out, tasks.Visible(job.ID))
	s.printing = errors.Join(s.printing, err)
}

// finish reports what was accepted and what was not, follows the jobs if asked
// to, and returns the error that gives the exit code.
func (s *submission) finish(ctx context.Context, c *client.Client, again string) error {
	if !s.output.IsDocument() {
		s.report(again)
	}
	f := following{jobs: s.jobs, errors: []jobError{}}
	if s.wait && len(s.jobs) > 0 {
		f = follow(ctx, c, s.notices, s.jobs, false)
	}
	err := s.show(f)
	if s.result != nil {
		err = errors.Join(err, s.writeResult(ctx, c, f.jobs, again))
	}
	if err = errors.Join(s.printing, err); err != nil {
		return err
	}
	if err = s.verdict(ctx); err == nil && s.wait {
		err = f.verdict(s.which())
	}
	if n := s.undone(); err == nil && n > 0 {
		err = &terminal.ExitError{Code: terminal.ExitSome, Err: fmt.Errorf("%s not reset again", terminal.Plural(n, "instance"))}
	}
	return err
}

// show prints what became of the instances.
func (s *submission) show(f following) error {
	return s.output.Show(s.out, terminal.View{
		Document: map[string]any{
			"jobs": records(f.jobs), "failed": terminal.NotNil(s.failed), "not_sent": terminal.NotNil(s.notSent), "errors": f.errors,
		},
		Rows: terminal.Each(s.rows(f.jobs)), Columns: resultColumns,
		Text: func(io.Writer) error {
			if !s.wait || len(s.jobs) == 0 {
				return nil // the job IDs were printed when they were known
			}
			return writeSummary(s.notices, f.jobs)
		},
	})
}

// which names the jobs on a command line.
func (s *submission) which() string {
	if s.runID != "" && s.also == nil {
		return "--label " + runIDLabel + "=" + s.runID
	}
	var ids []string
	for _, job := range s.jobs {
		ids = append(ids, job.ID)
	}
	return terminal.SomeIDs(ids)
}

// writeResult writes a row for each instance. Where no batch was decided on, the file
// is left as it is: it may be that of an earlier run.
func (s *submission) writeResult(ctx context.Context, c *client.Client, jobs []client.Job, again string) error {
	decided := len(jobs) > 0 || len(s.skipped) > 0 || slices.ContainsFunc(s.failed, func(f failedBatch) bool { return refusesInstances(f.Err) })
	if !decided {
		fmt.Fprintf(s.notices, "--result %s is not written: nothing was accepted\n", s.result.path)
		return nil
	}
	if ctx.Err() != nil {
		jobs = asTheyAre(ctx, c, jobs)
	}
	if err := s.result.write(s.out, s.rows(jobs)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		fmt.Fprintf(s.notices, "--result %s has the state of each instance as it was when this was interrupted\n", s.result.path)
		if s.runID != "" {
			fmt.Fprintf(s.notices, "the same command with %s completes it\n", again)
		}
	}
	return nil
}

// rows are the rows of the result, in the order of the list.
func (s *submission) rows(jobs []client.Job) []resultRow {
	known := make(map[string]resultRow, len(s.instances))
	for _, row := range s.skipped {
		known[row.InstanceID] = row
	}
	for _, job := range jobs {
		for _, it := range job.Items {
			known[it.InstanceID] = rowOf(job.ID, it)
		}
	}
	for _, f := range s.failed {
		row := resultRow{State: rowNotAccepted, Code: f.Code, Message: f.Message}
		switch {
		case f.MayBeAccepted:
			row.State = rowUncertain
		case refusesInstances(f.Err):
			row.State = rowRefused
		}
		for _, id := range f.InstanceIDs {
			row.InstanceID = id
			known[id] = row
		}
	}
	listed := s.listed
	if listed == nil {
		listed = s.instances
	}
	rows := make([]resultRow, 0, len(listed))
	for _, id := range listed {
		row, ok := known[id]
		if !ok {
			row = resultRow{InstanceID: id, State: rowNotAccepted}
		}
		rows = append(rows, row)
	}
	return rows
}

// report tells people what to do next.
func (s *submission) report(again string) {
	const atMost = 100 // IDs in a line, and requests in a list; a result has all
	for n, f := range s.failed {
		if n == atMost {
			fmt.Fprintf(s.notices, "and %d more requests\n", len(s.failed)-n)
			break
		}
		what := "not accepted"
		if f.MayBeAccepted {
			what = "may have been accepted"
		}
		fmt.Fprintf(s.notices, "%s: %s\n  %s\n", what, f.Err, strings.Join(f.InstanceIDs, " "))
	}
	if n := len(s.notSent); n > atMost {
		fmt.Fprintf(s.notices, "not sent:\n  %s and %d more\n", strings.Join(s.notSent[:atMost], " "), n-atMost)
	} else if n > 0 {
		fmt.Fprintf(s.notices, "not sent:\n  %s\n", strings.Join(s.notSent, " "))
	}
	switch {
	case s.runID == "":
	case slices.ContainsFunc(s.failed, func(f failedBatch) bool { return f.Code == string(tasks.KeyReused) }):
		fmt.Fprintf(s.notices, "--run-id %s was used for another list or with other options: give those again, or another ID\n", s.runID)
	case s.broken():
		fmt.Fprintf(s.notices, "the same command with %s goes on from here\n", again)
	}
	if len(s.jobs) > 0 && !s.wait {
		total, _ := sum(s.jobs)
		fmt.Fprintf(s.notices, "%s accepted in %s; 'batchreset watch JOB…' follows them\n", terminal.Plural(total, "instance"), terminal.Plural(len(s.jobs), "job"))
	}
}

// broken reports whether more was missing than instances that were refused.
func (s *submission) broken() bool {
	return len(s.notSent) > 0 || slices.ContainsFunc(s.failed, func(f failedBatch) bool { return !refusesInstances(f.Err) })
}

// verdict is an error unless every instance was accepted.
func (s *submission) verdict(ctx context.Context) error {
	missing := len(s.notSent)
	for _, f := range s.failed {
		missing += len(f.InstanceIDs)
	}
	if missing == 0 {
		return nil
	}
	total := terminal.Plural(len(s.instances), "instance")
	text := fmt.Sprintf("%d of %s not accepted, or not for certain", missing, total)
	switch {
	case ctx.Err() == nil && !s.broken():
		text = fmt.Sprintf("%d of %s refused", missing, total)
	case ctx.Err() != nil && len(s.jobs) > 0:
		text += "; " + theyGoOn(s.which())
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w; %s", terminal.Cause(ctx), text)
	}
	return &terminal.ExitError{Code: s.code(), Err: errors.New(text)}
}

// undone is how many were not sent, have ended, and were not reset.
func (s *submission) undone() (n int) {
	for _, row := range s.skipped {
		if state := tasks.ItemState(row.State); state.Final() && state != tasks.ItemSucceeded {
			n++
		}
	}
	return n
}

// code is the exit code where some instances were not accepted.
func (s *submission) code() int {
	code := terminal.ExitRefused
	if len(s.jobs) > 0 {
		code = terminal.ExitSome
	}
	for _, f := range s.failed {
		if terminal.ExitCode(f.Err) == terminal.ExitAway {
			return terminal.ExitAway
		}
	}
	return code
}
