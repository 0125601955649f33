package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
	"batchreset/cmd/harness"
)

// queueFlag is how the service is told to spread its tasks over queues.
const queueFlag, queueCount = "--queues", "16"

// inFlightRow measures one worker process with many long resets in flight: its memory,
// what its leases cost Redis meanwhile, and what asynq's LREM costs when they finish.
func inFlightRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "inflight")
	if err != nil {
		return nil, err
	}
	submitted, err := s.submitForMany(ctx)
	if err != nil {
		return nil, err
	}
	w, err := s.StartWorker(ctx, b.inFlightLasts, append(b.program.IfKnown("worker", queueFlag, queueCount), "--concurrency", strconv.Itoa(b.inFlight))...)
	if err != nil {
		return nil, err
	}
	if err := s.allActive(ctx, w, b.inFlight); err != nil {
		return nil, err
	}
	if !harness.Pause(ctx, b.inFlightLasts/60) { // the rush is over
		return nil, ctx.Err()
	}
	if err := s.Redis.Client.ConfigResetStat(ctx).Err(); err != nil {
		return nil, err
	}
	share, err := s.Redis.CPUShare(ctx, b.inFlightWindow)
	if err != nil {
		return nil, err
	}
	rss, err := stack.PeakRSS(w.Process)
	if err != nil {
		return nil, err
	}
	if err := s.finished(ctx, submitted, w); err != nil {
		return nil, err
	}
	costs, err := s.Redis.Commands(ctx)
	if err != nil {
		return nil, err
	}
	lrem := stack.CommandCost{}
	for _, c := range costs {
		if c.Name == "lrem" {
			lrem = c
		}
	}
	if lrem.Calls == 0 {
		return nil, fmt.Errorf("asynq has called no LREM: the way in which it finishes a task has changed")
	}
	queues, err := s.Redis.Client.SCard(ctx, "asynq:queues").Result()
	if err != nil {
		return nil, err
	}
	return []report.Result{{
		What: "peak RSS of the worker", Unit: "MiB", Rounds: []float64{float64(rss) / (1 << 20)}, Target: report.AtMost(250),
		Note: fmt.Sprintf("%d resets of %s (half to one and a half), %d tenants, %d queues", b.inFlight, b.inFlightLasts, b.inFlightSplit, queues),
	}, {
		What: "Redis meanwhile (leases)", Unit: "% of a core", Rounds: []float64{share}, Target: report.AtMost(15),
		Note: fmt.Sprintf("over %s; asynq extends leases every 5 s", b.inFlightWindow),
	}, {
		What: "asynq's LREM when they finish", Unit: "us", Rounds: []float64{float64(lrem.Usec) / float64(lrem.Calls)}, Target: report.AtMost(10),
		Note: fmt.Sprintf("average of %d calls, from all in flight down to none", lrem.Calls),
	}}, nil
}

// submitForMany submits what shall be in flight, for many tenants, so that it spreads
// over the queues. It returns how many instances.
func (s *stage) submitForMany(ctx context.Context) (n int, err error) {
	a, err := s.StartAPI(ctx, s.program.IfKnown("api", queueFlag, queueCount)...)
	if err != nil {
		return 0, err
	}
	defer a.Kill()
	tokens := make([]string, s.inFlightSplit)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for i := range tokens {
		g.Go(func() (err error) {
			tokens[i], err = s.Token(gctx, "tenant-"+strconv.Itoa(i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	count := load.Batches(s.inFlight)
	for i, token := range tokens {
		c, err := load.Dial(ctx, a.Addr, token)
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

// allActive waits until so many are in flight.
func (s *stage) allActive(ctx context.Context, w *stack.Worker, inFlight int) error {
	return harness.Until(ctx, patience, func(ctx context.Context) error {
		if err := w.Check(); err != nil {
			return err
		}
		n, err := s.Redis.Active(ctx)
		if err == nil && n < inFlight {
			err = fmt.Errorf("%d of %d resets are in flight", n, inFlight)
		}
		return err
	})
}

// finished waits until n tasks are finished, looking seldom.
func (s *stage) finished(ctx context.Context, n int, w *stack.Worker) error {
	for {
		done, err := s.Redis.Processed(ctx)
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
