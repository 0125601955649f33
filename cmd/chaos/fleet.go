package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"batchreset/cmd/harness"
)

// register puts the phones into the fleet, if any of them will be taken away.
func (w *world) register(ctx context.Context) error {
	if !w.has(protect) && !w.has(move) {
		return nil
	}
	return w.give(ctx, phones(fleetSize), tenant)
}

// give gives phones to a tenant.
func (w *world) give(ctx context.Context, ids []string, to string) error {
	var b strings.Builder
	b.WriteString("instance_id,tenant\n")
	for _, id := range ids {
		fmt.Fprintf(&b, "%s,%s\n", id, to)
	}
	file, err := os.CreateTemp(w.dir, "fleet-*.csv")
	if err != nil {
		return err
	}
	_ = file.Close() // only the name is wanted
	if err := os.WriteFile(file.Name(), []byte(b.String()), 0o600); err != nil {
		return err
	}
	return w.operate(ctx, "fleet", "import", filepath.Clean(file.Name()))
}

// takeAway protects the phones of a job that is under way, or gives them to another
// tenant, and undoes that after a while, when load ends at the latest: the jobs of the run
// must end.
func (w *world) takeAway(ctx, load context.Context, f plannedFault) error {
	w.fleet.Lock()
	defer w.fleet.Unlock()
	ids := w.caller.someInstances()
	if len(ids) == 0 || load.Err() != nil {
		return nil
	}
	kind := Protect
	change := func() error { return w.operate(ctx, append([]string{"fleet", "protect"}, ids...)...) }
	undo := func() error { return w.operate(ctx, append([]string{"fleet", "unprotect"}, ids...)...) }
	if f.kind == move {
		kind = Move
		change = func() error { return w.give(ctx, ids, "somebody-else") }
		undo = func() error { return w.give(ctx, ids, tenant) }
	}
	// A command that does not know how it ended is given again: what counts is when it
	// was acknowledged, and when it began to be undone.
	if err := w.tellOf(kind, ids, change); err != nil {
		return err
	}
	harness.Pause(load, f.length)
	return w.tellOf(Free, ids, undo)
}

// tellOf records what a command does to phones.
func (w *world) tellOf(kind Kind, ids []string, do func() error) error {
	e := Event{Kind: kind, Begin: w.rec.now()}
	err := do()
	e.End = w.rec.now()
	if err != nil {
		e.Error = err.Error()
	}
	for _, id := range ids {
		e.Instance = id
		w.rec.add(e)
	}
	return err
}
