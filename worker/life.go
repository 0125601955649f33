package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"batchreset/tasks"
)

// Whether an attempt is under way is asked by Redis's clock alone: its worker process keeps a
// key alive in Redis. asynq's own leases are by the clocks of workers.

//
// The same key tells whether Redis still knows what it knew: somebody may have restored an older state while this process
// runs. Resets that were begun since then are not in it, so they would be begun again, perhaps while they go on. So nothing
// begins once a sign of life had no answer, until one has shown that Redis is what it was; and if it is not, everything is halted
// until a human being has looked.

// errUnsure is why nothing begins for a moment.
var errUnsure = errors.New("nothing begins: Redis was away, and it is not known yet whether it has gone back in time")

// showLife writes the first sign of life of this process. No attempt may begin before that,
// because others would think that its worker is dead.
func (w *Worker) showLife(ctx context.Context) error {
	for {
		err := w.store.Beat(ctx, w.id)
		if err == nil {
			return nil
		}
		w.log.Warn("no attempt begins: Redis does not take the sign of life", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tasks.BeatEvery / 3):
		}
	}
}

// live goes on showing that this process is alive until ctx ends.
func (w *Worker) live(ctx context.Context) {
	var wentBack error // everything must be halted because of that
	for {
		pause := tasks.BeatEvery
		if w.unsure.Load() {
			pause /= 3
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		once, cancel := context.WithTimeout(ctx, tasks.BeatEvery)
		err := w.store.Beat(once, w.id)
		if _, back := errors.AsType[*tasks.WentBackError](err); back {
			w.unsure.Store(true)
			wentBack, err = err, nil
			w.log.Error("everything is halted: resets since then may be repeated", "error", wentBack)
		}
		if err == nil && wentBack != nil {
			if err = w.haltAll(once, wentBack.Error()); err == nil {
				wentBack = nil
			}
		}
		if err != nil && ctx.Err() == nil {
			w.log.Warn("sign of life not written", "error", err)
		}
		w.unsure.Store(err != nil)
		cancel()
	}
}

// haltAll halts all tenants, as an operator does who has seen that.
func (w *Worker) haltAll(ctx context.Context, seen string) error {
	reason := seen + ": see the runbook, Restore from a backup"
	if err := w.store.Halt(ctx, "", tasks.HaltedByOperator, tasks.Actor{By: "worker " + w.id, Reason: reason}); err != nil {
		return fmt.Errorf("halt everything: %w", err)
	}
	return nil
}

// leave says that this process is gone, so that nobody waits for it.
func (w *Worker) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tasks.BeatEvery)
	defer cancel()
	if err := w.store.Leave(ctx, w.id); err != nil {
		w.log.Debug("leave not written", "error", err) // the key lapses
	}
}
