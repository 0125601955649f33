package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"batchreset/tasks"
)

// CallCounter is told of each call of a driver that reached it. It is asked ten thousand times a second.
type CallCounter interface {
	Count(kind tasks.CallKind, took time.Duration)
	// Fail is told more of a call that failed.
	Fail(f tasks.CallFailure)
}

// verdictKinds are what calls count as that end with these verdicts.
var verdictKinds = map[Verdict]tasks.CallKind{
	Retryable: tasks.CallRetry, Permanent: tasks.CallPermanent, Busy: tasks.CallBusy, Unreachable: tasks.CallUnreachable, NotSent: tasks.CallNotSent,
}

// callReset is the driver's Reset, counted.
func (a *attempt) callReset(ctx context.Context, input Attempt) (err error) {
	if a.counter == nil {
		return a.driver.Reset(ctx, input)
	}
	a.calling.Store(int64(time.Since(a.started)) + 1)
	returned := false
	defer func() {
		if !returned { // it panics
			err = errors.New("the driver panicked")
		}
		a.countReset(err)
	}()
	err = a.driver.Reset(ctx, input)
	returned = true
	return err
}

// countReset counts the call that is under way, unless that was done before: one that does not return is counted when it
// is left behind.
func (a *attempt) countReset(err error) {
	began := a.calling.Swap(0)
	if began == 0 {
		return
	}
	took := time.Duration(int64(time.Since(a.started)) + 1 - began)
	if err == nil {
		a.counter.Count(tasks.CallDone, took)
		return
	}
	e := failureOf(err)
	if e.notCalled {
		return
	}
	kind, ok := verdictKinds[e.Verdict]
	if !ok {
		kind = tasks.CallUnknown
	}
	a.count(kind, took, e.Code, e.Message)
}

// look is the driver's Look, counted.
func (a *attempt) look(ctx context.Context, input Attempt) (Sight, error) {
	start := time.Now()
	sight, err := a.looker.Look(ctx, input)
	a.steps.looked.Store(a.sinceBegun())
	if err != nil {
		a.looksFailed.Inc()
	}
	switch {
	case a.counter == nil:
	case err == nil:
		a.counter.Count(tasks.CallSeen, time.Since(start))
	default:
		a.count(tasks.CallNotSeen, time.Since(start), "", err.Error())
	}
	return sight, err
}

func (a *attempt) count(kind tasks.CallKind, took time.Duration, code, message string) {
	a.counter.Count(kind, took)
	if kind.Failed() {
		a.counter.Fail(tasks.CallFailure{
			Kind: kind.String(), Code: code, Message: Printable(message, tasks.MaxCallMessage), ItemID: a.d.ItemID, InstanceID: a.d.InstanceID,
		})
	}
}

// leftBehind counts a call that does not return.
func (a *attempt) leftBehind() {
	if a.counter != nil {
		a.countReset(&DriverError{Verdict: Unknown, Message: fmt.Sprintf("the driver did not return within %s after its time", driverGrace)})
	}
}
