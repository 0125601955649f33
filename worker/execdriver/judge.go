package execdriver

import (
	"fmt"

	"batchreset/worker"
)

// Exit statuses with a meaning, as in sysexits.h.
const (
	exitUnavailable = 69
	exitTempFail    = 75
	// Shells end with this and a signal's number if the signal has ended what they ran.
	exitSignal    = 128
	highestSignal = 64
)

// judge says what has come of a reset; nil is done. What the program says counts if all of it is
// understood and it then exits by itself.
func (p *program) judge(a worker.Attempt, end ending) error {
	resumable := end.saved || a.Checkpoint != ""
	switch {
	case end.trouble != "":
		return p.unknown(worker.NotUnderstood, "the output of the program was not understood: "+end.trouble, false)
	case end.answer != nil && end.byItself():
		return p.answered(a, end)
	case end.answer != nil:
		return p.unknown("", fmt.Sprintf("the program said %s, but %s", *end.answer.Result, end.how()), resumable)
	case end.stopped != "" || !end.byItself():
		return p.unknown("", "the program gave no result: "+end.how(), resumable)
	case p.cfg.ExitStatus:
		return p.exited(a, end)
	}
	return p.unknown(worker.NotUnderstood, "the program gave no result: "+end.how(), resumable)
}

// unknown is a reset of which nobody knows what came of it. With something to resume from, the
// next attempt resets nothing.
func (p *program) unknown(code, message string, resumable bool) error {
	return &worker.DriverError{Verdict: worker.Unknown, Code: code, Message: message, Repeatable: p.cfg.Repeatable || p.cfg.Look || resumable}
}

// answered is what a result means.
func (p *program) answered(a worker.Attempt, end ending) error {
	result := *end.answer.Result
	if result == resultDone {
		if end.code() != 0 {
			return p.unknown(worker.NotUnderstood, "the program said done, but "+end.how(), end.saved || a.Checkpoint != "")
		}
		return nil
	}
	e := failure(a, end, verdicts[result])
	e.Code = worker.Printable(end.answer.Code, maxCode)
	e.Message, e.RetryAfter = end.answer.text(), end.answer.retryAfter()
	if e.Verdict == worker.Unknown {
		e.Repeatable = e.Repeatable || p.cfg.Repeatable || p.cfg.Look
	}
	return e
}

// exited is what an exit status means for a program that says nothing else.
func (p *program) exited(a worker.Attempt, end ending) error {
	verdict := worker.Permanent
	switch code := end.code(); {
	case code == 0:
		return nil
	case code > exitSignal && code <= exitSignal+highestSignal:
		return p.unknown("", "a part of the program was ended by a signal: "+end.how(), false)
	case code == exitTempFail:
		verdict = worker.Retryable
	case code == exitUnavailable:
		verdict = worker.Unreachable
	}
	e := failure(a, end, verdict)
	e.Message = "the program failed: " + end.how()
	return e
}

// failure is a reset that has not happened. If the program had something to resume from, a failure
// for good is one of the reset that was in doubt; that the phone is busy, or cannot be reached,
// says only that the program could not go on watching that reset.
func failure(a worker.Attempt, end ending, verdict worker.Verdict) *worker.DriverError {
	watched := (end.saved || a.Checkpoint != "") && !a.Ambiguous
	if watched && (verdict == worker.Busy || verdict == worker.Unreachable) {
		return &worker.DriverError{Verdict: worker.Unknown, Repeatable: true}
	}
	return &worker.DriverError{Verdict: verdict, EndsDoubt: definite(verdict) && a.Checkpoint != ""}
}

// definite says whether a verdict is about the reset, and not only about this run.
func definite(v worker.Verdict) bool { return v == worker.Retryable || v == worker.Permanent }
