package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/redis/go-redis/v9"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
)

// pollers is how many connections poll at the same time.
const pollers = 16

// pollRow measures how many status polls of a finished job one api answers. Two simpler
// things measured in the same rounds say what the machine and the HTTP library allow.
func pollRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "polls")
	if err != nil {
		return nil, err
	}
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return nil, err
	}
	job, tag, err := s.finishedJob(ctx, a, token)
	if err != nil {
		return nil, err
	}
	c, err := load.DialCrowd(ctx, a.Addr, token, pollers)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	direct := redis.NewClient(&redis.Options{Addr: s.Redis.Addr, PoolSize: pollers})
	defer func() { _ = direct.Close() }()

	get := func(path, header string, status int) func(lane int) error {
		return func(lane int) error {
			a, err := c[lane].Do(http.MethodGet, path, header, nil)
			if err == nil && a.Status != status {
				err = fmt.Errorf("GET %s: the api answers %d %.200s", path, a.Status, a.Body)
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
			rate, err := load.ClosedLoop(ctx, b.polls, pollers, poll)
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
func (s *stage) finishedJob(ctx context.Context, a *stack.API, token string) (job, tag string, err error) {
	w, err := s.StartWorker(ctx, 0)
	if err != nil {
		return "", "", err
	}
	defer w.Kill()
	c, err := load.Dial(ctx, a.Addr, token)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	if job, err = c.Submit(load.NextBatch(load.BatchSize)); err != nil {
		return "", "", err
	}
	if err := c.Await(ctx, job, patience); err != nil {
		return "", "", err
	}
	final, err := c.Do(http.MethodGet, "/v1/jobs/"+job, "", nil)
	return job, string(final.ETag), err
}
