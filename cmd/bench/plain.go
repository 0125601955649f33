package main

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"batchreset/cmd/bench/stack"
)

// payloadSize is that of our own task payload, about, in bytes.
const payloadSize = 70

// plainSubmit is asynq at its best: 256 goroutines that enqueue through one client.
func plainSubmit(ctx context.Context, r *stack.Redis, n int) (perSecond float64, err error) {
	const goroutines = 256
	rdb := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer func() { _ = rdb.Close() }()
	client := asynq.NewClientFromRedisClient(rdb)
	payload := []byte(strings.Repeat("x", payloadSize))
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for range goroutines {
		g.Go(func() error {
			for next.Add(1) <= int64(n) {
				if _, err := client.EnqueueContext(ctx, asynq.NewTask("plain", payload)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return float64(n) / time.Since(start).Seconds(), err
}

// plainDrain is asynq plain: one server, default settings but concurrency 50, and a
// handler that does nothing. The queue has been filled with n tasks.
func plainDrain(ctx context.Context, r *stack.Redis, n int) (perSecond float64, err error) {
	srv := asynq.NewServer(asynq.RedisClientOpt{Addr: r.Addr}, asynq.Config{Concurrency: 50, LogLevel: asynq.FatalLevel})
	if err := srv.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
		return 0, err
	}
	defer srv.Shutdown()
	return r.Drained(ctx, n)
}
