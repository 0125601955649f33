package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/tasks"
)

// Whether an attempt is under way is asked by Redis's clock alone: its worker process keeps a
// key alive in Redis. asynq's own leases are by the clocks of workers.

//
// The same key tells whether Redis still knows what it knew: somebody may have restored an older state while this process
// runs; in a Cluster there is one for each primary. Resets that were begun since then are not in it, so they would be begun again,
// perhaps while they go on. So nothing begins once a sign of life had no answer, until one has shown that Redis is what it was;
// and if it is not, what is under way is locked again, and everything is halted until a human being has looked.

// haltFrom is what Redis must have forgotten for everything to be halted: more than a crash with appendfsync everysec or the
// failover to a replica that was in step loses.
const haltFrom = 10 * time.Second

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
	var back *tasks.WentBackError // something must be done about that
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
		if now, older := errors.AsType[*tasks.WentBackError](err); older {
			w.unsure.Store(true)
			if back == nil || now.By > back.By {
				back = now
			}
			err = nil
		}
		if err == nil && back != nil {
			if err = w.mend(once, back); err == nil {
				back = nil
			}
		}
		if err != nil && ctx.Err() == nil {
			w.log.Warn("sign of life not written", "error", err)
		}
		w.unsure.Store(err != nil)
		cancel()
	}
}

// mend locks what is under way again, so that nobody else resets it meanwhile, and halts everything if much is forgotten.
func (w *Worker) mend(ctx context.Context, back *tasks.WentBackError) error {
	sent := w.under.sent()
	var all errgroup.Group
	all.SetLimit(sweepAtOnce)
	for _, a := range sent {
		if left := time.Until(a.deadline); left > 0 {
			all.Go(func() error { return w.store.Relock(ctx, a.d, a.token, left+lockMargin) })
		}
	}
	if err := all.Wait(); err != nil {
		return err
	}
	if back.By < haltFrom {
		w.log.Warn("Redis has forgotten the last moments: what is under way is locked again", "under_way", len(sent))
		return nil
	}
	if err := w.haltAll(ctx, back.Error()); err != nil {
		return err
	}
	w.log.Error("everything is halted: resets since then may be repeated", "error", back, "under_way", len(sent))
	return nil
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
