package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
)

// memoryRow measures what an instance takes in Redis while it is queued, and once it is
// finished and asynq keeps nothing of it. What is there once for all (tokens, scripts,
// indexes with one entry) does not count.
func memoryRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "memory")
	if err != nil {
		return nil, err
	}
	queued, err := s.queuedMemory(ctx)
	if err != nil {
		return nil, err
	}
	n := float64(b.memoryBatches * load.BatchSize)
	// The same again without retention of tasks, and drained.
	before, err := s.filledMemory(ctx, "--task-retention", "0")
	if err != nil {
		return nil, err
	}
	w, err := s.StartWorker(ctx, 0)
	if err != nil {
		return nil, err
	}
	if _, err := s.Redis.Drained(ctx, (b.memoryBatches+1)*load.BatchSize, w.Process); err != nil {
		return nil, err
	}
	w.Kill()
	after, err := s.Redis.Memory(ctx)
	if err != nil {
		return nil, err
	}
	// The sweeper takes a finished job out of this index after a minute.
	open, err := s.Redis.Client.MemoryUsage(ctx, "reset:open", 0).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	finished := (after - float64(open) - before) / n
	return []report.Result{{
		What: "queued, record included", Unit: "B", Rounds: []float64{queued}, Target: report.AtMost(750),
		Note: fmt.Sprintf("used_memory over %d batches of 32, with default settings", b.memoryBatches),
	}, {
		What: "finished, record only (--task-retention 0)", Unit: "B", Rounds: []float64{finished}, Target: report.AtMost(150),
		Note: fmt.Sprintf("without the index of open jobs, which a finished one leaves after a minute (%.1f B)", float64(open)/n),
	}}, nil
}

// queuedMemory returns the bytes of a queued instance, with default settings.
func (s *stage) queuedMemory(ctx context.Context) (float64, error) {
	before, err := s.filledMemory(ctx)
	if err != nil {
		return 0, err
	}
	after, err := s.Redis.Memory(ctx)
	return (after - before) / float64(s.memoryBatches*load.BatchSize), err
}

// filledMemory submits one batch, and returns the memory that is in use then; and then
// submits the batches that are to be measured. No api is left behind either time, because
// connections take memory, too.
func (s *stage) filledMemory(ctx context.Context, flags ...string) (before float64, err error) {
	if err := s.Clear(ctx); err != nil {
		return 0, err
	}
	if err := s.fill(ctx, load.BatchSize, flags...); err != nil {
		return 0, err
	}
	if before, err = s.Redis.Memory(ctx); err != nil {
		return 0, err
	}
	return before, s.fill(ctx, s.memoryBatches*load.BatchSize, flags...)
}
