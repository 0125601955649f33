package cph

import (
	"cmp"
	"context"
	"math/rand/v2"
	"time"

	"batchreset/worker"
)

// watch follows one call until it is known what came of it. It only reads.
type watch struct {
	*Driver
	mark  mark
	doubt *worker.DriverError // of the call itself, if its answer is none

	seen  bool      // the phone, while it was being reset
	since time.Time // of when the phone has been at rest and said nothing
	wait  time.Duration
	last  string // what was heard last
	code  string // of that, if it was not understood
}

// settling is how many intervals a phone at rest may say nothing before its call stays in doubt.
const settling = 6

// follow asks, first after wait, until the call has ended or ctx has.
func (w *watch) follow(ctx context.Context, wait time.Duration) error {
	for w.wait = wait; pause(ctx, w.wait); {
		w.wait = w.interval()
		if over, err := w.round(ctx); over {
			return err
		}
	}
	// A later attempt can go on: it looks, and does not reset again.
	return w.unknown("nothing was decided in time", true)
}

// interval is the time to the next round. It is spread: what began together must not stay so.
func (d *Driver) interval() time.Duration { return d.pollInterval + rand.N(d.pollInterval/2+1) }

// pause waits for d, or until ctx ends. It reports whether all of d has passed.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// round asks once: the job, if there is one, and the phone unless the job goes on or has failed.
func (w *watch) round(ctx context.Context) (over bool, err error) {
	said, f := w.client.outcome(ctx, w.mark)
	switch {
	case said == failed:
		return true, failure(f, "job "+w.mark.JobID+" has failed")
	case f != nil:
		w.unanswered(ctx, f)
		return false, nil
	case said == pending:
		w.last, w.code = "job "+w.mark.JobID+" is running", ""
		return false, nil
	}
	p, f := w.client.phone(ctx, w.mark.PhoneID)
	if f != nil {
		w.unanswered(ctx, f)
		return false, nil
	}
	return w.judged(p, w.mark.judge(p, said, w.seen))
}

// judged draws the conclusion from what a phone says.
func (w *watch) judged(p phone, says finding) (over bool, err error) {
	w.seen = w.seen || p.Status == resetting
	w.last, w.code = p.String(), ""
	switch says {
	case done:
		return true, nil
	case failed:
		return true, failure(&fault{class: later, message: p.String()}, "the reset has failed")
	case pending:
		w.since = time.Time{}
		return false, nil
	}
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if time.Since(w.since) < settling*w.pollInterval {
		return false, nil
	}
	return true, w.unknown("the phone does not say whether it was reset", false)
}

// unanswered keeps why nothing was heard, and when to ask again.
func (w *watch) unanswered(ctx context.Context, f *fault) {
	if ctx.Err() != nil { // which says nothing about CPH
		return
	}
	w.last, w.code = f.Error(), ""
	if f.code == worker.NotUnderstood {
		w.last, w.code = f.message, f.code
	}
	w.wait = max(w.wait, f.wait)
	if f.class == shut { // asking with refused credentials at this pace would lock them
		w.wait = max(w.wait, w.locked)
	}
}

// unknown is what remains when nothing more can be found out.
func (w *watch) unknown(why string, repeatable bool) error {
	e := &worker.DriverError{Verdict: worker.Unknown, Code: w.code, Message: why + "; last heard: " + cmp.Or(w.last, "nothing"), Repeatable: repeatable}
	if w.doubt != nil {
		e.Code = cmp.Or(w.doubt.Code, e.Code)
		e.Message = w.doubt.Message + "; " + e.Message
	}
	e.Message = worker.Printable(e.Message, maxMessage)
	return e
}

// failure is a call that has failed, as CPH itself says about it.
func failure(f *fault, what string) error {
	e := f.as(f.class.verdict(), what)
	e.EndsDoubt = true
	return e
}

// outcome is what the job of a call says: done, pending, failed with why, or undecided with why
// it could not be asked. Without a job, or when CPH does not know it any more, it is undecided, and
// overdue when CPH has stopped waiting for it: then the phone must say it.
func (c *client) outcome(ctx context.Context, m mark) (finding, *fault) {
	if m.JobID == "" {
		return undecided, nil
	}
	j, f := c.job(ctx, m.JobID, m.PhoneID)
	switch {
	case f != nil && f.class == gone:
		return undecided, nil
	case f != nil:
		return undecided, f
	case j.timedOut():
		return overdue, nil
	case j.Status == jobSucceeded:
		return done, nil
	case j.Status == jobFailed:
		return failed, j.failure()
	}
	return pending, nil
}
