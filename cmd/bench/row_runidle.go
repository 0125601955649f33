package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
	"batchreset/cmd/harness"
)

// runIdleRow measures what many open runs of one instance cost, whose resets last, above what as
// many loose jobs do.
func runIdleRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "runidle")
	if err != nil {
		return nil, err
	}
	var above, runs, jobs []float64
	for i := range b.runRounds {
		if err := alternate(i, func() error {
			share, err := s.openWork(ctx, (*load.Caller).Submit)
			jobs = append(jobs, share)
			return err
		}, func() error {
			share, err := s.openWork(ctx, (*load.Caller).SubmitRun)
			runs = append(runs, share)
			return err
		}); err != nil {
			return nil, err
		}
		above = append(above, runs[i]-jobs[i])
	}
	return []report.Result{{
		What: "worker, api and Redis with open runs above loose jobs", Unit: "% of a core", Rounds: above, Target: report.AtMost(1),
		Note: fmt.Sprintf("%d of one instance each, all being reset, over %s: %.2f %% with runs, %.2f %% with loose jobs",
			b.idleRuns, b.runIdle, report.Median(runs), report.Median(jobs)),
	}}, nil
}

// openWork submits as many runs or jobs of one instance as the row is to have open, whose resets
// do not end, and returns what share of a core worker, api and Redis use then, in percent.
func (s *stage) openWork(ctx context.Context, submit func(*load.Caller, []byte) (string, error)) (percent float64, err error) {
	if err := s.Clear(ctx); err != nil {
		return 0, err
	}
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return 0, err
	}
	c, err := load.Dial(ctx, a.Addr, token)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for range s.idleRuns {
		if _, err := submit(c, load.NextBatch(1)); err != nil {
			return 0, err
		}
	}
	w, err := s.StartWorker(ctx, 24*time.Hour, "--concurrency", strconv.Itoa(s.idleRuns))
	if err != nil {
		return 0, err
	}
	if err := s.allActive(ctx, w, s.idleRuns); err != nil {
		return 0, err
	}
	if !harness.Pause(ctx, 3*time.Second) { // the runner looks again at what it has begun
		return 0, ctx.Err()
	}
	if err := s.spreadRuns(ctx); err != nil {
		return 0, err
	}
	return s.share(ctx, s.runIdle, a.Process, w.Process)
}

// spreadRuns spreads when the runner looks at the open runs over the minute in which it comes to each: those that
// were begun together would all come within or without what is measured.
func (s *stage) spreadRuns(ctx context.Context) error {
	open, err := s.Redis.Client.ZRange(ctx, "reset:runs", 0, -1).Result()
	if err != nil || len(open) == 0 {
		return err
	}
	now := time.Now()
	due := make([]redis.Z, len(open))
	for i, run := range open {
		due[i] = redis.Z{Score: float64(now.Add(time.Minute * time.Duration(i) / time.Duration(len(open))).UnixMilli()), Member: run}
	}
	return s.Redis.Client.ZAddXX(ctx, "reset:runs", due...).Err()
}

// share returns what share of a core processes and Redis use together for d, in percent.
func (s *stage) share(ctx context.Context, d time.Duration, processes ...*harness.Process) (percent float64, err error) {
	before, err := cpuTime(processes)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if percent, err = s.Redis.CPUShare(ctx, d); err != nil {
		return 0, err
	}
	after, err := cpuTime(processes)
	return percent + 100*(after-before).Seconds()/time.Since(begin).Seconds(), err
}

// cpuTime is the processor time that processes have used together.
func cpuTime(processes []*harness.Process) (sum time.Duration, err error) {
	for _, p := range processes {
		used, err := stack.CPUTime(p)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}
