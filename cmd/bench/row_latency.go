package main

import (
	"context"
	"fmt"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
)

// latencyRow measures how long a submit takes at half of the rate that was measured.
func latencyRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "latency")
	if err != nil {
		return nil, err
	}
	if b.submitRate == 0 { // the row that measures it was not chosen
		var rates []float64
		for range 3 {
			rate, err := s.submitOurs(ctx, b.submit)
			if err != nil {
				return nil, err
			}
			rates = append(rates, rate)
		}
		b.submitRate = report.Median(rates)
	}
	perSecond := b.submitRate / 2 / load.BatchSize
	var p50, p99, worst, late []float64
	for range b.rounds {
		if err := s.Clear(ctx); err != nil {
			return nil, err
		}
		a, token, err := s.StartTenant(ctx)
		if err != nil {
			return nil, err
		}
		lanes, err := load.DialCrowd(ctx, a.Addr, token, 2*load.Submitters)
		if err != nil {
			return nil, err
		}
		if _, err := lanes.Submit(ctx, 50*load.BatchSize); err != nil { // warm
			return nil, err
		}
		latency, lateness, err := load.OpenLoop(ctx, perSecond, b.latency, len(lanes), func(lane int) error {
			_, err := lanes[lane].Submit(load.NextBatch(load.BatchSize))
			return err
		})
		lanes.Close()
		if err != nil {
			return nil, err
		}
		p50, p99 = append(p50, load.Quantile(latency, 50)), append(p99, load.Quantile(latency, 99))
		worst, late = append(worst, load.Quantile(latency, 100)), append(late, load.Quantile(lateness, 99))
	}
	return []report.Result{{
		What: "p50 of a batch at half of the submit rate", Unit: "ms", Rounds: p50, Target: report.AtMost(3),
		Note: fmt.Sprintf("%.0f batches per second that arrive by chance; the generator was late by %.2f ms (its p99), which counts", perSecond, report.Median(late)),
	}, {
		What: "p99 of a batch at half of the submit rate", Unit: "ms", Rounds: p99, Target: report.AtMost(15),
		Note: fmt.Sprintf("the slowest of a round: %.1f ms (median of the rounds)", report.Median(worst)),
	}}, nil
}
