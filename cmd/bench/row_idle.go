package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
	"batchreset/cmd/harness"
)

// idleRow measures one batch at a time on an idle system with default settings, and what
// the worker costs Redis meanwhile: looking for tasks more often makes the first shorter
// and the second dearer.
func idleRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "idle")
	if err != nil {
		return nil, err
	}
	times, commands, err := s.idleBatches(ctx)
	if err != nil {
		return nil, err
	}
	var redis, worker []float64
	for i := range b.idleRounds {
		var with, without float64
		if err := alternate(i, func() (err error) {
			if err := s.Clear(ctx); err != nil {
				return err
			}
			without, err = s.Redis.CPUShare(ctx, b.idleCPU)
			return err
		}, func() (err error) {
			var own float64
			with, own, err = s.idleWorker(ctx)
			worker = append(worker, own)
			return err
		}); err != nil {
			return nil, err
		}
		redis = append(redis, with-without)
	}
	return []report.Result{{
		What: "one idle batch, POST to final record", Unit: "ms", Rounds: report.Groups(times, b.rounds), Target: report.AtMost(20),
		Note: fmt.Sprintf("%d batches of 32; single ones took %s ms", len(times), report.SpreadOf(times).Range()),
	}, {
		What: "Redis commands of an idle api and worker", Unit: "/s", Rounds: []float64{commands}, Target: report.AtMost(100),
		Note: fmt.Sprintf("over %s, also those that scripts call", b.idleCPU),
	}, {
		What: "Redis: idle worker process above none", Unit: "% of a core", Rounds: redis, Target: report.AtMost(1),
		Note: fmt.Sprintf("over %s each; the worker process itself: %.1f %% of a core", b.idleCPU, report.Median(worker)),
	}}, nil
}

// idleBatches returns the time of each batch in milliseconds, and how many commands Redis is given per second afterwards.
func (s *stage) idleBatches(ctx context.Context) (times []float64, commands float64, err error) {
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return nil, 0, err
	}
	w, err := s.StartWorker(ctx, 0)
	if err != nil {
		return nil, 0, err
	}
	if err := s.WaitUp(ctx, w); err != nil {
		return nil, 0, err
	}
	c, err := load.Dial(ctx, a.Addr, token)
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	const warm = 3
	for i := range s.sizes.idleBatches + warm {
		// At any moment between two looks of the worker.
		if !harness.Pause(ctx, time.Duration(rand.Int64N(int64(2*s.idleGap)))) {
			return nil, 0, ctx.Err()
		}
		took, err := c.Time(ctx, patience)
		if err != nil {
			return nil, 0, err
		}
		if i >= warm {
			times = append(times, milliseconds(took))
		}
	}
	commands, err = s.Redis.CommandRate(ctx, s.idleCPU)
	return times, commands, err
}

// idleWorker returns what Redis and a worker use while the worker has nothing to do, in
// percent of a core.
func (s *stage) idleWorker(ctx context.Context) (redis, worker float64, err error) {
	if err := s.Clear(ctx); err != nil {
		return 0, 0, err
	}
	w, err := s.StartWorker(ctx, 0)
	if err != nil {
		return 0, 0, err
	}
	defer w.Kill()
	if err := s.WaitUp(ctx, w); err != nil {
		return 0, 0, err
	}
	if !harness.Pause(ctx, time.Second) { // its start is not meant
		return 0, 0, ctx.Err()
	}
	before, err := stack.CPUTime(w.Process)
	if err != nil {
		return 0, 0, err
	}
	if redis, err = s.Redis.CPUShare(ctx, s.idleCPU); err != nil {
		return 0, 0, err
	}
	after, err := stack.CPUTime(w.Process)
	return redis, 100 * (after - before).Seconds() / s.idleCPU.Seconds(), err
}
