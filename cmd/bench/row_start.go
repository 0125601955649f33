package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
)

// startRow measures the time from the exec of a worker to its first task.
func startRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "start")
	if err != nil {
		return nil, err
	}
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return nil, err
	}
	c, err := load.Dial(ctx, a.Addr, token)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var times []float64
	for i := range b.starts {
		if _, err := c.Submit(load.NextBatch(load.BatchSize)); err != nil {
			return nil, err
		}
		took, err := s.firstTask(ctx, i*load.BatchSize)
		if err != nil {
			return nil, err
		}
		times = append(times, milliseconds(took))
	}
	return []report.Result{{
		What: "exec of a worker to its first task", Unit: "ms", Rounds: report.Groups(times, b.rounds), Target: report.AtMost(300),
		Note: fmt.Sprintf("%d starts; single ones took %s ms", len(times), report.SpreadOf(times).Range()),
	}}, nil
}

// firstTask starts a worker on a queue with one batch, and ends it when that is done, so
// that the next one finds no task of a dead worker. Before were finished by others.
func (s *stage) firstTask(ctx context.Context, before int) (took time.Duration, err error) {
	begin := time.Now()
	w, err := s.StartWorker(ctx, 0)
	if err != nil {
		return 0, err
	}
	defer w.Kill()
	err = w.WaitReady(ctx, patience, func(ctx context.Context) error {
		inHand, err := s.Redis.Active(ctx)
		if err != nil {
			return err
		}
		done, err := s.Redis.Processed(ctx)
		if err == nil && inHand == 0 && done == before {
			err = errors.New("no task is taken")
		}
		return err
	})
	took = time.Since(begin)
	if err != nil {
		return 0, err
	}
	_, err = s.Redis.Drained(ctx, before+load.BatchSize, w.Process)
	return took, err
}
