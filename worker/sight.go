package worker

import (
	"context"
	"errors"
	"strings"
	"time"

	"batchreset/tasks"
)

// The first and the longest pause between two looks at an instance.
const (
	lookFirst = time.Second
	lookLast  = 10 * time.Second
)

// result is what a driver's call has come to.
type result struct {
	err      error
	evidence string // what was seen of the instance, if anything
	// resolved says that err is nil because of what was seen: the call itself was in doubt, and
	// may still be going on.
	resolved bool
}

// lookerOf is the driver if it can look, or the one behind an [Upstream]: a look is no reset, so
// breaker and bounds are not for it.
func lookerOf(d Driver) Looker {
	if u, ok := d.(*Upstream); ok {
		d = u.driver
	}
	looker, _ := d.(Looker)
	return looker
}

// resetAndLook resets with a driver that can look. An attempt whose earlier call is in doubt looks
// before anything else, unless a checkpoint tells of that call: the driver asks about it first. What
// is not seen may still come: the call is repeated only where that is harmless.
// What the upstream calls done, or leaves in doubt, is looked at until it is seen, or
// Config.LookPatience is over.
func (a *attempt) resetAndLook(ctx context.Context, input Attempt) result {
	if input.Ambiguous && input.Checkpoint == "" {
		sight, err := a.look(ctx, input)
		switch {
		case err == nil && sight.State == Initial:
			return result{evidence: evidence(sight), resolved: true}
		case !a.repeatable:
			return result{err: unseen(sight, err), evidence: evidence(sight)}
		}
	}
	err := a.callReset(ctx, remembered(&input))
	// What was never sent cannot have done what is seen.
	if err != nil && (!inDoubt(err) || !a.sent.Load() && !input.Ambiguous) {
		return result{err: err}
	}
	seen := a.lookUntilInitial(ctx, input)
	r := result{err: err, evidence: evidence(seen.Sight)}
	switch {
	case err == nil:
		r.err = confirmed(seen)
	case seen.State == Initial:
		r.err, r.resolved = nil, true
	}
	return r
}

// noteResolved counts a call that was in doubt if its outcome is known now. before says that it was in doubt when the attempt
// began, in which a checkpoint may have told of it.
func (a *attempt) noteResolved(r result) {
	var how string
	switch e := failureOf(r.err); {
	case r.resolved, e != nil && e.EndsDoubt && e.Code == string(tasks.NotConfirmed) && a.begun.Ambiguous:
		how = bySight
	case !a.begun.Ambiguous || e != nil && (e.Verdict == Unknown || !e.EndsDoubt):
		return
	case a.begun.Checkpoint != "":
		how = byPoll
	default:
		how = byRepeat
	}
	a.resolved[how].Inc()
}

// unseen says what a look has not shown of a call that is in doubt.
func unseen(sight Sight, trouble error) error {
	what := "a look does not show it: " + sight.Evidence
	if trouble != nil {
		what = "the driver could not look: " + trouble.Error()
	}
	return &DriverError{Verdict: Unknown, Message: "an earlier call may have been sent, and " + what}
}

// remembered is input for a reset whose checkpoints are in input afterwards, stored or not: a driver
// may have noted there what the instance was like before.
func remembered(input *Attempt) Attempt {
	noting, save := *input, input.Save
	noting.Save = func(ctx context.Context, checkpoint string) error {
		input.Checkpoint = checkpoint
		return save(ctx, checkpoint)
	}
	return noting
}

func inDoubt(err error) bool {
	e, ok := errors.AsType[*DriverError](err)
	return !ok || e.Verdict == Unknown
}

// looked is what looks have come to.
type looked struct {
	Sight

	trouble error // of the last look
	// patient says that the last look began when Config.LookPatience was over. Until then, what is
	// not seen may still show.
	patient bool
}

// lookUntilInitial looks at least once, and for the last time when the patience is over. It returns
// what was seen last, or the trouble of the last look. A look that was cut off because the attempt's
// time was over does not count after others.
func (a *attempt) lookUntilInitial(ctx context.Context, input Attempt) (l looked) {
	last := time.Now().Add(a.cfg.LookPatience)
	for pause := a.lookPause; ; pause = min(pause*3/2, lookLast) {
		begin := time.Now()
		seen, err := a.look(ctx, input)
		if err == nil || ctx.Err() == nil || l.State == "" && l.trouble == nil {
			l = looked{seen, err, !begin.Before(last)}
		}
		if l.State == Initial || l.patient || ctx.Err() != nil {
			return l
		}
		select {
		case <-ctx.Done():
			return l
		case <-time.After(min(pause, time.Until(last))):
		}
	}
}

// confirmed says what looks mean for a reset that the upstream calls done. Its call is over by
// its own word, so nothing is under way where the reset has not happened.
func confirmed(l looked) error {
	e := &DriverError{Verdict: Unknown, Code: string(tasks.NotConfirmed)}
	switch {
	case l.trouble != nil:
		e.Message = "the reset was called done, and the driver could not look: " + l.trouble.Error()
	case l.State == Initial:
		return nil
	case l.State == NotInitial && l.patient:
		e.Verdict, e.EndsDoubt = Retryable, true
		e.Message = "the reset was called done, and the instance is not in its initial state: " + l.Evidence
	case l.State == NotInitial: // a repeat could be a second reset
		e.Message = "the reset was called done, and the instance was not in its initial state yet when the attempt ended: " + l.Evidence
	default:
		e.Message = "the reset was called done, and a look does not show it: " + l.Evidence
	}
	return e
}

// evidence is a sight's, as the record keeps it: with the time of the look, by this process's clock.
func evidence(sight Sight) string {
	if sight.State == "" {
		return ""
	}
	text := time.Now().UTC().Format(time.RFC3339) + " " + strings.TrimSpace(sight.Evidence)
	return Printable(strings.TrimSpace(text), MaxEvidence)
}
