package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// halt halts all tenants for so long. The event is from when the operator was told that
// they are to when he began to let them go on.
func (w *world) halt(ctx context.Context, e Event, length time.Duration) error {
	// Redis may be away for a while; and whatever becomes of the run, its jobs must end.
	patient := context.WithoutCancel(ctx)
	operate := func(args ...string) error {
		return until(patient, startTimeout, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			args := append(args, "--all", "--redis", w.store.url)
			if out, err := exec.CommandContext(ctx, w.binary, args...).CombinedOutput(); err != nil {
				return fmt.Errorf("batchreset %v: %w: %s", args, err, out)
			}
			return nil
		})
	}
	if err := operate("halt", "--commit-replicas", strconv.Itoa(w.setup.commitReplicas())); err != nil {
		return err
	}
	e.Begin = w.rec.now()
	pause(ctx, length)
	e.End = w.rec.now()
	w.rec.add(e)
	return operate("resume")
}
