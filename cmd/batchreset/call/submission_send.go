package call

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// makeRun makes a run, or finds the one of the same key, and follows it if that is wanted.
func (s *submission) makeRun(ctx context.Context, service *client.Client) error {
	s.request.IdempotencyKey = cmp.Or(s.request.IdempotencyKey, newRunID())
	var run client.Run
	err := patiently(ctx, func(ctx context.Context) (err error) {
		run, err = service.Runs().Submit(ctx, s.request)
		return err
	})
	if err != nil {
		return s.explained(ctx, err)
	}
	if s.wait {
		fmt.Fprintf(s.notices, "run %s: %s\n", run.ID, terminal.Plural(run.Total, "instance"))
		f := runFollower{service, s.notices, s.std.Out, *s.output, s.result}
		return f.follow(ctx, run.ID)
	}
	v := runView(run)
	v.Text = func(w io.Writer) error { return terminal.Line(tasks.Visible(run.ID))(w) }
	return s.output.Show(s.std.Out, v)
}

// newRunID makes up a key for a run that has none.
func newRunID() string { return strings.ToLower(rand.Text()[:12]) }

// makeJob makes a job, and follows it if that is wanted.
func (s *submission) makeJob(ctx context.Context, service *client.Client) error {
	var accepted client.Accepted
	err := patiently(ctx, func(ctx context.Context) (err error) {
		accepted, err = service.Submit(ctx, s.batch())
		return err
	})
	if err != nil {
		return s.explained(ctx, err)
	}
	job, err := jobOf(accepted)
	if err != nil {
		return err
	}
	if s.output.IsText() && !s.result.onOutput() { // at once: whatever happens next, the caller has it
		if err := terminal.Line(tasks.Visible(job.ID))(s.std.Out); err != nil {
			return err
		}
	}
	f := following{jobs: []client.Job{job}, errors: []jobError{}}
	if s.wait {
		f = follow(ctx, service, s.notices, f.jobs, false)
	} else if !s.output.IsDocument() {
		fmt.Fprintf(s.notices, "%s accepted; 'batchreset watch %s' follows the job\n", terminal.Plural(job.Total, "instance"), job.ID)
	}
	if err := errors.Join(s.showJob(f), s.writeResult(ctx, service, f.jobs)); err != nil || !s.wait {
		return err
	}
	return f.verdict(job.ID)
}

// batch is the request for a job.
func (s *submission) batch() client.Batch {
	r := s.request
	return client.Batch{
		InstanceIDs: r.InstanceIDs, MaxFailures: s.maxFailures, NotBefore: r.NotBefore, Reason: r.Reason, Labels: r.Labels,
		Generation: r.Generation, IdempotencyKey: r.IdempotencyKey,
	}
}

// jobOf is the record of a job of which no more is known than that it was accepted.
func jobOf(a client.Accepted) (client.Job, error) {
	record, err := json.Marshal(a)
	job := client.Job{ID: a.JobID, Total: len(a.Items), Counts: client.Counts{Pending: len(a.Items)}, Record: record}
	for _, it := range a.Items {
		job.Items = append(job.Items, client.Item{ItemID: it.ItemID, InstanceID: it.InstanceID, State: rowAccepted})
	}
	return job, err
}

// showJob prints what has become of the job.
func (s *submission) showJob(f following) error {
	v := f.view()
	v.Text = func(io.Writer) error { // the ID was printed when it was known
		if !s.wait || len(f.jobs) == 0 {
			return nil
		}
		return writeSummary(s.notices, f.jobs)
	}
	return s.output.Show(s.std.Out, v)
}

// writeResult writes a row for each instance of a job, also if nobody waits for its end any more.
func (s *submission) writeResult(ctx context.Context, service *client.Client, jobs []client.Job) error {
	if s.result == nil {
		return nil
	}
	if ctx.Err() != nil {
		jobs = asTheyAre(ctx, service, jobs)
		fmt.Fprintf(s.notices, "--result %s has the state of each instance as it was when this was interrupted\n", s.result.path)
	}
	return s.result.write(s.std.Out, jobs)
}

// asTheyAre reads the records of jobs that are not final once more, for as long as an
// interrupted command may take. One that it does not get stays as it was.
func asTheyAre(ctx context.Context, c *client.Client, jobs []client.Job) []client.Job {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace(ctx))
	defer cancel()
	latest := newTally(jobs)
	var open []string
	for _, job := range jobs {
		if !job.Final() {
			open = append(open, job.ID)
		}
	}
	_, _ = c.Read(ctx, open, func(job client.Job) { latest.update(job) }) // the rest stays as it was
	return latest.all(jobs)
}

// tryOut prints what would become of each instance. Its error tells that some would not be reset.
func (s *submission) tryOut(ctx context.Context, service *client.Client) error {
	all, err := s.verdicts(ctx, service)
	if err != nil {
		return err
	}
	err = s.output.Show(s.std.Out, terminal.View{
		Document: map[string]any{"dry_run": true, "instances": terminal.NotNil(all)},
		Rows:     terminal.Each(all), Columns: []string{"instance_id", "verdict"},
		Text: func(w io.Writer) error {
			t := terminal.NewTable(w)
			for _, v := range all {
				t.Row(v.InstanceID, v.Verdict)
			}
			return t.Flush()
		},
	})
	if err != nil {
		return err
	}
	refused, reassigned := 0, 0
	for _, v := range all {
		switch tasks.Verdict(v.Verdict) {
		case tasks.VerdictWouldReset, tasks.VerdictBusy:
		case tasks.VerdictReassigned:
			reassigned++
		default:
			refused++
		}
	}
	switch {
	case refused > 0:
		err = &terminal.ExitError{Code: terminal.ExitSome, Err: errors.New("a submit would be refused")}
	case reassigned > 0: // which is found out for each when its turn comes
		err = &terminal.ExitError{Code: terminal.ExitSome, Err: fmt.Errorf("a submit would be accepted, and %s not reset: assigned again since", terminal.Plural(reassigned, "instance"))}
	}
	return err
}

func (s *submission) verdicts(ctx context.Context, service *client.Client) (all []client.Verdict, err error) {
	if !s.isRun {
		return service.DryRun(ctx, s.batch())
	}
	for verdict, err := range service.Runs().DryRun(ctx, s.request) {
		if err != nil {
			return nil, s.explained(ctx, err)
		}
		all = append(all, verdict)
	}
	return all, nil
}
