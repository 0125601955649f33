package main

import (
	"context"
	"strconv"
	"time"
)

// halt halts all tenants for so long. The event is from when the operator was told that
// they are to when he began to let them go on.
func (w *world) halt(ctx context.Context, e Event, length time.Duration) error {
	w.operator.Lock()
	defer w.operator.Unlock()
	if ctx.Err() != nil {
		return nil // the load is over
	}
	// Redis may be away for a while; and whatever becomes of the run, its jobs must end.
	patient := context.WithoutCancel(ctx)
	if err := w.operate(patient, "halt", "--all", "--commit-replicas", strconv.Itoa(w.setup.commitReplicas())); err != nil {
		return err
	}
	e.Begin = w.rec.now()
	pause(ctx, length)
	e.End = w.rec.now()
	w.rec.add(e)
	return w.operate(patient, "resume", "--all")
}
