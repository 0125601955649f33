package worker

import (
	"time"

	"batchreset/tasks"
	"batchreset/worker/requeue"
)

const (
	backoffBase = time.Second
	backoffCap  = 5 * time.Minute
	// An item waits for a busy instance, or for an upstream that cannot be
	// reached, with these delays.
	waitBase = time.Second
	waitCap  = 30 * time.Second
	// busyLimit is how long an item waits for a busy instance in all.
	busyLimit = 30 * time.Minute
	// retryAfterCap is the longest delay that an upstream can ask for. retryAfterSpread is the
	// shortest time over which items return that were given the same delay.
	retryAfterCap    = time.Hour
	retryAfterSpread = 5 * time.Second
)

// Backoff is the longest delay before the try that follows the nth failure
// (from 1): 1 s, doubling, at most 5 min. The delay used is a random part of it
// (full jitter), so that items that failed together do not return together.
func Backoff(failures int) time.Duration { return double(backoffBase, backoffCap, failures) }

// waitDelay is the longest delay of an item that has been waiting for a busy instance:
// as long again as it has waited, from 1 s to 30 s.
func waitDelay(waited time.Duration) time.Duration { return min(max(waited, waitBase), waitCap) }

// double returns base doubled n-1 times, at most limit.
func double(base, limit time.Duration, n int) time.Duration {
	d := base
	for range n - 1 {
		if d *= 2; d >= limit {
			return limit
		}
	}
	return d
}

// spread is the delay after an upstream asked for one: that much, and up to half as much
// again, so that all that were told the same do not return together.
func spread(retryAfter time.Duration) time.Duration {
	retryAfter = min(retryAfter, retryAfterCap)
	return retryAfter + requeue.Jitter(max(retryAfter/2, retryAfterSpread))
}

// ending is what follows from how the driver's call ended.
type ending struct {
	outcome tasks.Outcome
	delay   time.Duration // before the next try, when outcome.Transition is Retry
	// unlock says that the instance may be released: nothing is going on there.
	unlock bool
}

// circumstances are what the judgement of a call depends on besides its error.
type circumstances struct {
	begun       tasks.Begun
	maxFailures int
	repeatable  bool // the driver says that a repeat under the same key is harmless
	interrupted bool // the attempt was stopped by us or an operator, not by its timeout
}

// judge decides what follows from a driver's error, nil included. It is a pure
// function but for the jitter.
func judge(e *DriverError, c circumstances) ending {
	if e == nil {
		return ending{outcome: tasks.Outcome{Transition: tasks.Succeed}, unlock: true}
	}
	o := tasks.Outcome{Transition: tasks.Retry, Code: tasks.Code(e.Code), Message: e.Message}
	if o.Code == "" {
		o.Code = tasks.ResetFailed
	}
	failures := c.begun.Failures + 1
	spent := failures >= c.maxFailures
	delay := requeue.Jitter(Backoff(failures))
	if e.RetryAfter > 0 {
		delay = spread(e.RetryAfter)
	}

	switch e.Verdict {
	case Retryable, Permanent:
		o.Failure = true
		// A refusal of this call says nothing about an earlier one.
		o.InDoubt = c.begun.Ambiguous && !e.EndsDoubt
		if spent || e.Verdict == Permanent {
			delay, o.Transition = 0, tasks.Fail
			if o.InDoubt { // the refusal's own code and text would look as if nothing had happened
				o.Transition, o.Code, o.Message = tasks.LoseTrack, tasks.TimedOut, "an earlier call may still be going on; the last one was refused: "+e.text()
			}
		}
		return ending{o, delay, !o.InDoubt}
	case Busy, Unreachable, NotSent:
		// This call did nothing. What is in doubt since an earlier one stays so.
		o.InDoubt = c.begun.Ambiguous
		o.Busy = e.Verdict == Busy
		if e.RetryAfter == 0 {
			delay = requeue.Jitter(double(waitBase, waitCap, c.begun.Number))
		}
		if c.interrupted {
			delay = 0
		}
		return ending{o, delay, !o.InDoubt}
	default:
		o.InDoubt = true
		if e.Code == "" {
			o.Code = tasks.TimedOut
			if c.begun.Ambiguous {
				o.Code = tasks.WorkerLost
			}
		}
		unanswered := c.begun.Unanswered + 1
		if e.RetryAfter == 0 {
			delay = requeue.Jitter(Backoff(unanswered))
		}
		switch {
		case !e.Repeatable && !c.repeatable:
			o.Transition = tasks.LoseTrack
		case c.interrupted:
			delay = 0
		case unanswered >= c.maxFailures:
			o.Transition = tasks.LoseTrack
		default:
			o.Unanswered = true
		}
		return ending{o, delay, false}
	}
}
