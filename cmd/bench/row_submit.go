package main

import (
	"context"
	"fmt"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
)

// submitRow compares submitting over HTTP with asynq at its best.
func submitRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "submit")
	if err != nil {
		return nil, err
	}
	var plain, ours []float64
	for i := range b.rounds {
		if err := alternate(i, func() error {
			if err := s.Clear(ctx); err != nil {
				return err
			}
			rate, err := plainSubmit(ctx, s.Redis, b.submit)
			plain = append(plain, rate)
			return err
		}, func() error {
			rate, err := s.submitOurs(ctx, b.submit)
			ours = append(ours, rate)
			return err
		}); err != nil {
			return nil, err
		}
	}
	b.submitRate = report.Median(ours)
	if b.profile != "" {
		if err := s.profileSubmit(ctx); err != nil {
			return nil, err
		}
	}
	return []report.Result{{
		What: "one api against asynq at its best", Unit: "x", Rounds: report.Ratios(ours, plain), Target: report.AtLeast(0.6), Stretch: 0.8,
		Note: fmt.Sprintf("instances per second: %.0f against %.0f", report.Median(ours), report.Median(plain)),
	}}, nil
}

// submitOurs returns the rate of a fresh api on an empty Redis, in instances per second.
func (s *stage) submitOurs(ctx context.Context, n int) (perSecond float64, err error) {
	if err := s.Clear(ctx); err != nil {
		return 0, err
	}
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return 0, err
	}
	defer a.Kill()
	return load.Submit(ctx, a.Addr, token, n)
}
