package main

import (
	"context"
	"fmt"
	"time"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
)

// runsRow measures how long it takes until a run of a long list is made, and what an instance of
// it takes in Redis that is in no job yet: without a worker nobody makes jobs of it.
func runsRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "runs")
	if err != nil {
		return nil, err
	}
	var times, bytes []float64
	for range b.rounds {
		took, size, err := s.makeRun(ctx, b.run)
		if err != nil {
			return nil, err
		}
		times, bytes = append(times, took.Seconds()), append(bytes, size/float64(b.run))
	}
	return []report.Result{{
		What: "from the POST of a run to its answer", Unit: "s", Rounds: times,
		Note: fmt.Sprintf("%d instances: %.0f instances per second", b.run, float64(b.run)/report.Median(times)),
	}, {
		What: "an instance of it that is in no job yet", Unit: "B", Rounds: bytes, Target: report.AtMost(24),
		Note: "used_memory above that with a run of one instance; the ID alone is 14 B",
	}}, nil
}

// makeRun makes a run of n instances on an empty Redis, and returns how long that took, and how
// many bytes it takes in Redis.
func (s *stage) makeRun(ctx context.Context, n int) (took time.Duration, size float64, err error) {
	if err := s.Clear(ctx); err != nil {
		return 0, 0, err
	}
	if _, err := s.postRun(ctx, 1); err != nil { // what is there once for all
		return 0, 0, err
	}
	before, err := s.Redis.Memory(ctx)
	if err != nil {
		return 0, 0, err
	}
	if took, err = s.postRun(ctx, n); err != nil {
		return 0, 0, err
	}
	after, err := s.Redis.Memory(ctx)
	return took, after - before, err
}

// postRun makes a run of n instances, says how long that took, and leaves no api behind.
func (s *stage) postRun(ctx context.Context, n int) (time.Duration, error) {
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return 0, err
	}
	defer a.Kill()
	c, err := load.Dial(ctx, a.Addr, token)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	body := load.NextBatch(n)
	begin := time.Now()
	_, err = c.SubmitRun(body)
	return time.Since(begin), err
}
