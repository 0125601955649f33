package main

import (
	"context"
	"fmt"
	"time"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
)

// runDrainRow compares a run with as many instances in loose jobs, from the first POST until the
// last instance is reset and, for the run, until its record says that it has ended.
func runDrainRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "rundrain")
	if err != nil {
		return nil, err
	}
	var runs, loose []float64
	for i := range b.runPairs {
		if err := alternate(i, func() error {
			rate, err := s.whole(ctx, s.looseJobs)
			loose = append(loose, rate)
			return err
		}, func() error {
			rate, err := s.whole(ctx, s.oneRun)
			runs = append(runs, rate)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return []report.Result{{
		What: "a run against loose jobs", Unit: "x", Rounds: report.Ratios(runs, loose), Target: report.AtLeast(0.95),
		Note: fmt.Sprintf("%d instances on each side, from the first POST to the end; instances per second: %.0f against %.0f",
			b.runDrain, report.Median(runs), report.Median(loose)),
	}}, nil
}

// whole starts an api and a worker on an empty Redis, and returns at what rate work resets
// instances with them, per second.
func (s *stage) whole(ctx context.Context, work func(ctx context.Context, a *stack.API, token string, w *stack.Worker) error) (perSecond float64, err error) {
	if err := s.Clear(ctx); err != nil {
		return 0, err
	}
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return 0, err
	}
	w, err := s.StartWorker(ctx, 0)
	if err != nil {
		return 0, err
	}
	if err := s.WaitUp(ctx, w); err != nil {
		return 0, err
	}
	begin := time.Now()
	err = work(ctx, a, token, w)
	return float64(s.runDrain) / time.Since(begin).Seconds(), err
}

// looseJobs submits instances in batches, and waits until all are reset.
func (s *stage) looseJobs(ctx context.Context, a *stack.API, token string, w *stack.Worker) error {
	if _, err := load.Submit(ctx, a.Addr, token, s.runDrain); err != nil {
		return err
	}
	_, err := s.Redis.Drained(ctx, s.runDrain, w.Process)
	return err
}

// oneRun submits as many as a run, and waits until it has ended. It is not polled before that:
// loose jobs are not, either.
func (s *stage) oneRun(ctx context.Context, a *stack.API, token string, w *stack.Worker) error {
	c, err := load.Dial(ctx, a.Addr, token)
	if err != nil {
		return err
	}
	defer c.Close()
	run, err := c.SubmitRun(load.NextBatch(s.runDrain))
	if err != nil {
		return err
	}
	if _, err := s.Redis.Drained(ctx, s.runDrain, w.Process); err != nil {
		return err
	}
	return c.AwaitRun(ctx, run, patience)
}
