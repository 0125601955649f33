package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/harness"
)

// queueFlag is how the service is told to spread its tasks over queues.
const queueFlag, queueCount = "--queues", "16"

// inFlightRow measures one worker process with many long resets in flight: its memory,
// what its leases cost Redis meanwhile, and what asynq's LREM costs when they finish.
func inFlightRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStack(ctx, "inflight")
	if err != nil {
		return nil, err
	}
	submitted, err := s.submitForMany(ctx)
	if err != nil {
		return nil, err
	}
	w, err := s.startWorker(ctx, b.inFlightLasts, append(b.ifKnown("worker", queueFlag, queueCount), "--concurrency", strconv.Itoa(b.inFlight))...)
	if err != nil {
		return nil, err
	}
	if err := s.allActive(ctx, w); err != nil {
		return nil, err
	}
	if !harness.Pause(ctx, b.inFlightLasts/60) { // the rush is over
		return nil, ctx.Err()
	}
	if err := s.redis.client.ConfigResetStat(ctx).Err(); err != nil {
		return nil, err
	}
	load, err := s.redis.load(ctx, b.inFlightWindow)
	if err != nil {
		return nil, err
	}
	rss, err := peakRSSOf(w.Process)
	if err != nil {
		return nil, err
	}
	if err := s.finished(ctx, submitted, w); err != nil {
		return nil, err
	}
	costs, err := s.redis.commands(ctx)
	if err != nil {
		return nil, err
	}
	lrem := commandCost{}
	for _, c := range costs {
		if c.name == "lrem" {
			lrem = c
		}
	}
	if lrem.calls == 0 {
		return nil, fmt.Errorf("asynq has called no LREM: the way in which it finishes a task has changed")
	}
	queues, err := s.redis.client.SCard(ctx, "asynq:queues").Result()
	if err != nil {
		return nil, err
	}
	return []report.Result{{
		What: "peak RSS of the worker", Unit: "MiB", Rounds: []float64{float64(rss) / (1 << 20)}, Target: report.AtMost(250),
		Note: fmt.Sprintf("%d resets of %s (half to one and a half), %d tenants, %d queues", b.inFlight, b.inFlightLasts, b.inFlightSplit, queues),
	}, {
		What: "Redis meanwhile (leases)", Unit: "% of a core", Rounds: []float64{load}, Target: report.AtMost(15),
		Note: fmt.Sprintf("over %s; asynq extends leases every 5 s", b.inFlightWindow),
	}, {
		What: "asynq's LREM when they finish", Unit: "us", Rounds: []float64{float64(lrem.usec) / float64(lrem.calls)}, Target: report.AtMost(10),
		Note: fmt.Sprintf("average of %d calls, from all in flight down to none", lrem.calls),
	}}, nil
}

// submitForMany submits what shall be in flight, for many tenants, so that it spreads
// over the queues. It returns how many instances.
func (s *stack) submitForMany(ctx context.Context) (n int, err error) {
	a, err := s.startAPI(ctx, s.ifKnown("api", queueFlag, queueCount)...)
	if err != nil {
		return 0, err
	}
	defer a.Kill()
	tokens := make([]string, s.inFlightSplit)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for i := range tokens {
		g.Go(func() (err error) {
			tokens[i], err = s.token(gctx, "tenant-"+strconv.Itoa(i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	count := load.Batches(s.inFlight)
	for i, token := range tokens {
		c, err := load.Dial(ctx, a.addr, token)
		if err != nil {
			return 0, err
		}
		for batch := i; batch < count && err == nil; batch += len(tokens) {
			_, err = c.Submit(load.NextBatch(load.BatchSize))
		}
		c.Close()
		if err != nil {
			return 0, err
		}
	}
	return count * load.BatchSize, nil
}

// allActive waits until as many are in flight as shall be.
func (s *stack) allActive(ctx context.Context, w *workerProcess) error {
	return harness.Until(ctx, patience, func(ctx context.Context) error {
		if err := w.Check(); err != nil {
			return err
		}
		n, err := s.redis.active(ctx)
		if err == nil && n < s.inFlight {
			err = fmt.Errorf("%d of %d resets are in flight", n, s.inFlight)
		}
		return err
	})
}

// finished waits until n tasks are finished, looking seldom.
func (s *stack) finished(ctx context.Context, n int, w *workerProcess) error {
	for {
		done, err := s.redis.processed(ctx)
		if err != nil || done >= n {
			return err
		}
		if err := w.Check(); err != nil {
			return err
		}
		if !harness.Pause(ctx, 100*time.Millisecond) {
			return fmt.Errorf("%d of %d resets are finished: %w", done, n, ctx.Err())
		}
	}
}
