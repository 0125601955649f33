package main

import (
	"context"
	"fmt"

	"batchreset/cmd/bench/report"
	"batchreset/cmd/harness"
)

// drainRow compares one and two worker processes with asynq plain.
func drainRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "drain")
	if err != nil {
		return nil, err
	}
	var plain, one, two []float64
	for i := range b.rounds {
		if err := alternate(i, func() error {
			rate, err := s.drainPlain(ctx, b.drain)
			plain = append(plain, rate)
			return err
		}, func() error {
			rate, err := s.drainOurs(ctx, b.drain, 1)
			one = append(one, rate)
			if err != nil {
				return err
			}
			rate, err = s.drainOurs(ctx, b.drain, 2)
			two = append(two, rate)
			return err
		}); err != nil {
			return nil, err
		}
	}
	if b.profile != "" {
		if err := s.profileDrain(ctx, report.Median(one)); err != nil {
			return nil, err
		}
	}
	return []report.Result{{
		What: "one worker process against asynq plain", Unit: "x", Rounds: report.Ratios(one, plain), Target: report.AtLeast(1.5), Stretch: 2,
		Note: fmt.Sprintf("instances per second: %.0f against %.0f", report.Median(one), report.Median(plain)),
	}, {
		What: "two worker processes against asynq plain", Unit: "x", Rounds: report.Ratios(two, plain), Target: report.AtLeast(1.7),
		Note: fmt.Sprintf("instances per second: %.0f", report.Median(two)),
	}}, nil
}

func (s *stage) drainPlain(ctx context.Context, n int) (perSecond float64, err error) {
	if err := s.Clear(ctx); err != nil {
		return 0, err
	}
	if _, err := plainSubmit(ctx, s.Redis, n); err != nil {
		return 0, err
	}
	return plainDrain(ctx, s.Redis, n)
}

// drainOurs returns the rate of so many fresh worker processes, in instances per second.
func (s *stage) drainOurs(ctx context.Context, n, workers int) (perSecond float64, err error) {
	if err := s.Clear(ctx); err != nil {
		return 0, err
	}
	if err := s.fill(ctx, n); err != nil {
		return 0, err
	}
	var processes []*harness.Process
	for range workers {
		w, err := s.StartWorker(ctx, 0)
		if err != nil {
			return 0, err
		}
		defer w.Kill()
		processes = append(processes, w.Process)
	}
	return s.Redis.Drained(ctx, n, processes...)
}
