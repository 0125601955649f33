package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"batchreset/tasks"
)

// call runs the driver under the attempt timeout. interrupted says that the
// attempt was stopped from outside.
func (a *attempt) call(ctx context.Context, turn Turn) (r result, interrupted bool) {
	ctx, cancel := context.WithDeadline(ctx, a.deadline)
	defer cancel()
	defer context.AfterFunc(a.stop, cancel)()
	turn.Take()
	r = a.await(ctx, a.start(ctx, turn))
	return r, errors.Is(ctx.Err(), context.Canceled)
}

// failure is a driver's error with a verdict, or nil.
func failureOf(err error) *DriverError {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*DriverError](err); ok {
		return e
	}
	return &DriverError{Verdict: Unknown, Message: err.Error()}
}

// start calls the driver, which may not return in its time, or ever. It and await are not
// parts of call so that an attempt that waits has a small stack: 8 kB with that of the
// driver, or else 12 (row inflight of the benchmark, with 10,000 of them).
func (a *attempt) start(ctx context.Context, turn Turn) <-chan result {
	input := Attempt{
		InstanceID: a.d.InstanceID, Address: a.begun.Address, Labels: a.begun.Labels, ItemID: a.d.ItemID, Number: a.begun.Number,
		Key: a.begun.Key, Deadline: a.deadline, MaySend: func() error { return a.maySend(ctx) }, Ambiguous: a.begun.Ambiguous, Checkpoint: a.begun.Checkpoint,
		Save: func(ctx context.Context, checkpoint string) error {
			if len(checkpoint) > MaxCheckpoint {
				return fmt.Errorf("checkpoint of %d bytes, the limit is %d", len(checkpoint), MaxCheckpoint)
			}
			err := a.store.Checkpoint(ctx, a.d, a.token, checkpoint)
			if err == nil {
				a.first(&a.steps.saved)
			}
			return err
		},
	}
	returned := make(chan result, 1) // buffered: a driver left behind must be able to end
	a.calls.Go(func() {
		defer turn.Leave()
		returned <- a.reset(ctx, input)
	})
	return returned
}

// await waits for the driver's answer, until driverGrace after its time.
func (a *attempt) await(ctx context.Context, returned <-chan result) result {
	select {
	case r := <-returned:
		return r
	case <-ctx.Done():
	}
	select {
	case r := <-returned:
		return r
	case <-time.After(driverGrace):
		a.say(slog.LevelError, "the driver does not return after its time, left behind")
		a.leftBehind()
		return result{err: &DriverError{Verdict: Unknown, Message: "the driver did not return in time"}}
	}
}

// maySend is the last look before a reset is sent: whether nobody has halted the tenant, the
// record lets this attempt go on, and this process was not frozen meanwhile.
func (a *attempt) maySend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lastLookPatience)
	defer cancel()
	if err := a.inTime(); err != nil {
		return err
	}
	for {
		start := time.Now()
		if err := a.lastLook(ctx); err != nil {
			return err
		}
		if time.Since(start) <= lastLookFresh {
			err := a.inTime() // the look may have taken long
			a.sent.Store(err == nil)
			if err == nil {
				a.first(&a.steps.sent)
			}
			return err
		}
	}
}

// lastLook asks Redis whether the attempt may go on.
func (a *attempt) lastLook(ctx context.Context) error {
	policy, err := a.store.PolicyOf(ctx, a.d.Tenant, a.d.Run)
	if err == nil && policy.Halt() != nil {
		err = errHalted(policy)
	}
	if err != nil {
		return err
	}
	if a.unsure.Load() { // the attempt may have begun in the first moment of an old state
		return errUnsure
	}
	return a.store.Send(ctx, a.d, a.token, a.begun.Address)
}

// inTime says whether the item is certainly still this attempt's, as far as this process can
// know by itself.
func (a *attempt) inTime() error {
	// Both clocks: the wall clock can be set back.
	now := time.Now()
	if !now.Before(a.deadline) || !now.Round(0).Before(a.deadline.Round(0)) {
		return errLate
	}
	if a.pulse.beat() != a.stalls {
		return errFrozen
	}
	return nil
}

// reset calls the driver and turns a panic into an error.
func (a *attempt) reset(ctx context.Context, input Attempt) (r result) {
	defer func() {
		if p := recover(); p != nil {
			a.say(slog.LevelError, "the driver panicked", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			// Nobody knows how far it came.
			r.err = &DriverError{Verdict: Unknown, Code: string(tasks.ResetFailed), Message: fmt.Sprintf("the driver panicked: %v", p)}
		}
	}()
	if err := a.inTime(); err != nil { // begin may have taken long
		return result{err: &DriverError{Verdict: NotSent, Message: "nothing was sent: " + err.Error()}}
	}
	if a.looker != nil {
		return a.resetAndLook(ctx, input)
	}
	return result{err: a.callReset(ctx, input)}
}
