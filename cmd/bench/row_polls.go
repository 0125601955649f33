package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"batchreset/cmd/bench/report"
)

// pollers is how many connections poll at the same time.
const pollers = 16

// pollRow measures how many status polls of a finished job one api answers. Two simpler
// things measured in the same rounds say what the machine and the HTTP library allow.
func pollRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStack(ctx, "polls")
	if err != nil {
		return nil, err
	}
	a, token, err := s.startTenant(ctx)
	if err != nil {
		return nil, err
	}
	job, tag, err := s.finishedJob(ctx, a, token)
	if err != nil {
		return nil, err
	}
	c, err := dialCrowd(ctx, a.addr, token, pollers)
	if err != nil {
		return nil, err
	}
	defer c.close()
	direct := redis.NewClient(&redis.Options{Addr: s.redis.Addr, PoolSize: pollers})
	defer func() { _ = direct.Close() }()

	get := func(path, header string, status int) func(lane int) error {
		return func(lane int) error {
			a, err := c[lane].do(http.MethodGet, path, header, nil)
			if err == nil && a.status != status {
				err = fmt.Errorf("GET %s: the api answers %d %.200s", path, a.status, a.body)
			}
			return err
		}
	}
	kinds := []func(lane int) error{
		get("/v1/jobs/"+job, "", http.StatusOK),
		get("/v1/jobs/"+job, "If-None-Match: "+tag+"\r\n", http.StatusNotModified),
		get("/healthz", "", http.StatusOK),
		func(int) error { return direct.HGetAll(ctx, "reset:{"+job+"}").Err() },
	}
	rates := make([][]float64, len(kinds))
	for range b.rounds {
		for i, poll := range kinds {
			rate, err := closedLoop(ctx, b.polls, pollers, poll)
			if err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], rate)
		}
	}
	compared := func(i int) string {
		return fmt.Sprintf("%.2f x GET /healthz (%.0f/s), %.2f x HGETALL with go-redis (%.0f/s)",
			report.Median(report.Ratios(rates[i], rates[2])), report.Median(rates[2]), report.Median(report.Ratios(rates[i], rates[3])), report.Median(rates[3]))
	}
	return []report.Result{
		{What: "status polls of a finished job with 32 items", Unit: "/s", Rounds: rates[0], Target: report.AtLeast(10_000), Note: compared(0)},
		{What: "the same with If-None-Match, answered 304", Unit: "/s", Rounds: rates[1], Target: report.AtLeast(20_000), Note: compared(1)},
	}, nil
}

// finishedJob makes a job, lets a worker finish it, and returns its ID and its tag.
func (s *stack) finishedJob(ctx context.Context, a *api, token string) (job, tag string, err error) {
	w, err := s.startWorker(ctx, 0)
	if err != nil {
		return "", "", err
	}
	defer w.Kill()
	c, err := dial(ctx, a.addr, token)
	if err != nil {
		return "", "", err
	}
	defer c.close()
	if job, err = c.submit(nextBatch(batchSize)); err != nil {
		return "", "", err
	}
	if err := c.await(ctx, job, patience); err != nil {
		return "", "", err
	}
	final, err := c.do(http.MethodGet, "/v1/jobs/"+job, "", nil)
	return job, string(final.etag), err
}

// closedLoop makes calls on so many lanes for d, each after the answer to the one
// before, and returns how many a second.
func closedLoop(ctx context.Context, d time.Duration, lanes int, call func(lane int) error) (perSecond float64, err error) {
	var calls atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for lane := range lanes {
		g.Go(func() error {
			n := int64(0)
			defer func() { calls.Add(n) }()
			for ; time.Since(begin) < d && ctx.Err() == nil; n++ {
				if err := call(lane); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	err = g.Wait()
	return float64(calls.Load()) / time.Since(begin).Seconds(), err
}
