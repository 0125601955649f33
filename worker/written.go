package worker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"batchreset/tasks"
)

// begin locks the instance and begins the attempt. It is repeated while Redis does not
// answer: the record may have begun already, and under the same token that is the
// same attempt.
func (a *attempt) begin(ctx context.Context) error {
	key := newKey()
	return a.patiently(ctx, func() (err error) {
		a.begun, err = a.store.Begin(ctx, a.d, a.token, key, a.lockTime())
		return err
	})
}

// finish writes the outcome: the driver's work is done and must not be forgotten because
// Redis is away.
func (a *attempt) finish(ctx context.Context, e ending) (ended tasks.Ended, err error) {
	err = a.persist(ctx, func() error {
		ended, err = a.store.Finish(ctx, a.d, a.token, e.outcome, e.unlock)
		return err
	})
	return ended, err
}

// persist repeats f until it succeeds, the record refuses or cannot be worked on, or this
// process has to end. Nobody else takes the attempt as long as this process lives, so it must
// be closed.
func (a *attempt) persist(ctx context.Context, f func() error) error {
	var patience <-chan time.Time // once the process has to end
	stopping := a.stop.Done()
	for n := 1; ; n++ {
		err := f()
		if _, refused := errors.AsType[tasks.Refusal](err); err == nil || refused {
			return err
		}
		if errors.Is(err, tasks.ErrBrokenRecord) && n >= brokenTries {
			return err
		}
		select {
		case <-stopping:
			stopping, patience = nil, time.After(storePatience)
		case <-patience:
			return err
		case <-time.After(double(50*time.Millisecond, 5*time.Second, n)):
		case <-ctx.Done():
			return err
		}
	}
}

// patiently repeats f until it succeeds, the record refuses, or storePatience is over. It is for
// what does no harm if it is not done.
func (a *attempt) patiently(ctx context.Context, f func() error) error {
	for n, start := 1, time.Now(); ; n++ {
		err := f()
		if _, refused := errors.AsType[tasks.Refusal](err); err == nil || refused || time.Since(start) > storePatience {
			return err
		}
		if errors.Is(err, tasks.ErrBrokenRecord) && n >= brokenTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(double(50*time.Millisecond, 2*time.Second, n)):
		}
	}
}

// giveUp makes sure that an attempt whose begin had no answer neither goes on nor begins later.
// Nothing was sent, and the record must not say that something may have been.
func (a *attempt) giveUp(ctx context.Context) error {
	a.say(slog.LevelWarn, "attempt given up: Redis does not answer")
	var ended tasks.Ended
	err := a.persist(ctx, func() (err error) {
		ended, err = a.store.GiveUp(ctx, a.d, a.token, a.lockTime())
		return err
	})
	if err == nil {
		a.enqueueNotices(ctx, ended)
	} else if errors.Is(err, tasks.WrongToken) { // it had not begun
		err = nil
	}
	return err
}

// lockTime is how long an instance stays locked.
func (a *attempt) lockTime() time.Duration { return a.timeout + lockMargin }
