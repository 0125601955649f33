package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
	"batchreset/cmd/harness"
)

// growthRow compares what an instance costs with few and with many queued. Both exist at
// the same time, each on a Redis of its own, and take turns of a fraction of a second.
func growthRow(ctx context.Context, b *bench) ([]report.Result, error) {
	few, err := b.newDeep(ctx, "growth-few", b.few)
	if err != nil {
		return nil, err
	}
	defer few.close()
	many, err := b.newDeep(ctx, "growth-many", b.many)
	if err != nil {
		return nil, err
	}
	defer many.close()
	for i := range b.cycles {
		if err := alternate(i,
			func() error { return few.turn(ctx, b.cycle) },
			func() error { return many.turn(ctx, b.cycle) },
		); err != nil {
			return nil, err
		}
	}
	what := fmt.Sprintf(" cost, %d against %d queued", b.many, b.few)
	return []report.Result{{
		What: "submit" + what, Unit: "x", Rounds: report.Groups(report.Ratios(few.submits, many.submits), b.rounds), Target: report.AtMost(1.2),
		Note: fmt.Sprintf("instances per second: %.0f against %.0f", report.Median(many.submits), report.Median(few.submits)),
	}, {
		What: "drain" + what, Unit: "x", Rounds: report.Groups(report.Ratios(few.drains, many.drains), b.rounds), Target: report.AtMost(1.2),
		Note: fmt.Sprintf("instances per second: %.0f against %.0f; %d turns of %d", report.Median(many.drains), report.Median(few.drains), b.cycles, b.cycle),
	}}, nil
}

// deep is a service with a number of instances queued, whose worker stands still
// (SIGSTOP) but for its turn. It never comes to the bottom of the queue: a worker that
// finds nothing rests, and that would be measured, too.
type deep struct {
	*stage
	depth     int
	submitted int
	lanes     load.Crowd
	worker    *stack.Worker

	submits, drains []float64 // instances per second
}

func (b *bench) newDeep(ctx context.Context, name string, depth int) (*deep, error) {
	s, err := b.newStage(ctx, name)
	if err != nil {
		return nil, err
	}
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return nil, err
	}
	d := &deep{stage: s, depth: depth}
	if d.lanes, err = load.DialCrowd(ctx, a.Addr, token, load.Submitters); err != nil {
		return nil, err
	}
	// And a turn's worth for the worker to get up.
	if err := d.submit(ctx, depth+b.cycle); err != nil {
		return nil, err
	}
	d.submits = nil // what begins on an empty Redis is not meant
	if d.worker, err = s.StartWorker(ctx, 0); err != nil {
		return nil, err
	}
	if err := d.sink(ctx); err != nil {
		return nil, err
	}
	return d, d.worker.Signal(syscall.SIGSTOP)
}

func (d *deep) close() { d.lanes.Close() }

func (d *deep) submit(ctx context.Context, n int) error {
	rate, err := d.lanes.Submit(ctx, n)
	d.submits = append(d.submits, rate)
	d.submitted += load.Batches(n) * load.BatchSize
	return err
}

// turn submits n instances and lets the worker drain as many.
func (d *deep) turn(ctx context.Context, n int) error {
	if err := d.submit(ctx, n); err != nil {
		return err
	}
	before, err := d.Redis.Processed(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := d.worker.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	if err := d.sink(ctx); err != nil {
		return err
	}
	took := time.Since(begin)
	if err := d.worker.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	after, err := d.Redis.Processed(ctx)
	d.drains = append(d.drains, float64(after-before)/took.Seconds())
	return err
}

// sink waits until the queue is down to its depth.
func (d *deep) sink(ctx context.Context) error {
	for begin := time.Now(); ; {
		done, err := d.Redis.Processed(ctx)
		if err != nil || d.submitted-done <= d.depth {
			return err
		}
		if time.Since(begin) > patience {
			return errors.Join(fmt.Errorf("the worker does not finish %d tasks in %s", d.submitted-done-d.depth, patience), d.worker.Check())
		}
		if !harness.Pause(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
}
