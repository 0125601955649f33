package worker

import (
	"context"
	"time"

	"batchreset/tasks"
)

// Whether an attempt is under way is asked by Redis's clock alone: its worker process keeps a
// key alive in Redis. asynq's own leases are by the clocks of workers.

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
	ticker := time.NewTicker(tasks.BeatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		once, cancel := context.WithTimeout(ctx, tasks.BeatEvery)
		if err := w.store.Beat(once, w.id); err != nil && ctx.Err() == nil {
			w.log.Warn("sign of life not written", "error", err)
		}
		cancel()
	}
}

// leave says that this process is gone, so that nobody waits for it.
func (w *Worker) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tasks.BeatEvery)
	defer cancel()
	if err := w.store.Leave(ctx, w.id); err != nil {
		w.log.Debug("leave not written", "error", err) // the key lapses
	}
}
