package main

import (
	"context"
	"strconv"
	"time"

	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
)

// halt halts all tenants for so long. The event is from when the operator was told that
// they are to when the operator began to let them go on, which is when load ends at the
// latest: the jobs of the run must end.
func (w *world) halt(ctx, load context.Context, e history.Event, length time.Duration) error {
	w.operator.Lock()
	defer w.operator.Unlock()
	if load.Err() != nil {
		return nil // the load is over
	}
	if err := w.operate(ctx, "halt", "--all", "--commit-replicas", strconv.Itoa(w.setup.commitReplicas())); err != nil {
		return err
	}
	e.Begin = w.rec.Now()
	harness.Pause(load, length)
	e.End = w.rec.Now()
	w.rec.Add(e)
	return w.operate(ctx, "resume", "--all")
}
