package main

import (
	"context"
	"fmt"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
)

// signedRow compares submitting with signed requests with submitting with a token.
func signedRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "signed")
	if err != nil {
		return nil, err
	}
	var signed, plain []float64
	for i := range b.rounds {
		if err := alternate(i, func() error {
			rate, err := s.submitOurs(ctx, b.submit)
			plain = append(plain, rate)
			return err
		}, func() error {
			rate, err := s.submitSigned(ctx, b.submit)
			signed = append(signed, rate)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return []report.Result{{
		What: "signed with an access key against a token", Unit: "x", Rounds: report.Ratios(signed, plain), Target: report.AtLeast(0.9),
		Note: fmt.Sprintf("instances per second: %.0f against %.0f; the generator signs on the same two cores", report.Median(signed), report.Median(plain)),
	}}, nil
}

// submitSigned is submitOurs with signed requests.
func (s *stage) submitSigned(ctx context.Context, n int) (perSecond float64, err error) {
	if err := s.Clear(ctx); err != nil {
		return 0, err
	}
	key, err := s.Key(ctx, "bench")
	if err != nil {
		return 0, err
	}
	a, err := s.StartAPI(ctx)
	if err != nil {
		return 0, err
	}
	defer a.Kill()
	return load.SubmitSigned(ctx, a.Addr, key, n)
}
