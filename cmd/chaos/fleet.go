package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
)

// register puts the phones into the fleet, if any of them will be taken away.
func (w *world) register(ctx context.Context) error {
	if !w.has(fault.Protect) && !w.has(fault.Move) {
		return nil
	}
	return w.give(ctx, phones(fleetSize), history.Tenant)
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
func (w *world) takeAway(ctx, load context.Context, f fault.Planned) error {
	w.fleet.Lock()
	defer w.fleet.Unlock()
	ids := w.caller.someInstances()
	if len(ids) == 0 || load.Err() != nil {
		return nil
	}
	kind := history.Protect
	change := func() error { return w.operate(ctx, append([]string{"fleet", "protect"}, ids...)...) }
	undo := func() error { return w.operate(ctx, append([]string{"fleet", "unprotect"}, ids...)...) }
	if f.Kind == fault.Move {
		kind = history.Move
		change = func() error { return w.give(ctx, ids, "somebody-else") }
		undo = func() error { return w.give(ctx, ids, history.Tenant) }
	}
	// A command that does not know how it ended is given again: what counts is when it
	// was acknowledged, and when it began to be undone.
	if err := w.tellOf(kind, ids, change); err != nil {
		return err
	}
	harness.Pause(load, f.Length)
	return w.tellOf(history.Free, ids, undo)
}

// tellOf records what a command does to phones.
func (w *world) tellOf(kind history.Kind, ids []string, do func() error) error {
	e := history.Event{Kind: kind, Begin: w.rec.Now()}
	err := do()
	e.End = w.rec.Now()
	if err != nil {
		e.Error = err.Error()
	}
	for _, id := range ids {
		e.Instance = id
		w.rec.Add(e)
	}
	return err
}
