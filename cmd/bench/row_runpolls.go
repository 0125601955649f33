package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// runPollsRow measures how long a poll of a run takes that has as many open jobs as it may have by
// default: while all of their instances are being reset and nothing changes, and while a worker
// goes through them as fast as it can.
func runPollsRow(ctx context.Context, b *bench) ([]report.Result, error) {
	still, err := b.pollRun(ctx, "runpolls-still", tasks.DefaultMaxParallel, func(s *stage) (*stack.Worker, error) {
		return s.StartWorker(ctx, 24*time.Hour, "--concurrency", strconv.Itoa(tasks.DefaultMaxParallel))
	}, func(s *stage, w *stack.Worker) error { return s.allActive(ctx, w, tasks.DefaultMaxParallel) })
	if err != nil {
		return nil, err
	}
	busy, err := b.pollRun(ctx, "runpolls-busy", b.run, func(s *stage) (*stack.Worker, error) {
		return s.StartWorker(ctx, 0)
	}, func(s *stage, w *stack.Worker) error { return s.anyDone(ctx, w) })
	if err != nil {
		return nil, err
	}
	return append(still.results("nothing changes"), busy.results("a worker at full speed")...), nil
}

// runPolls is how long polls of a run took, and of one of its jobs, in milliseconds.
type runPolls struct {
	p50, p99, job50, job99 []float64
	n                      int64
}

func (p runPolls) results(when string) []report.Result {
	return []report.Result{{
		What: "p50 of a poll, " + when, Unit: "ms", Rounds: p.p50, Target: report.AtMost(5),
		Note: fmt.Sprintf("%d polls in all; of one of its jobs, in between: %.2f ms", p.n, report.Median(p.job50)),
	}, {
		What: "p99 of a poll, " + when, Unit: "ms", Rounds: p.p99, Target: report.AtMost(5),
		Note: fmt.Sprintf("of one of its jobs: %.2f ms", report.Median(p.job99)),
	}}
}

func (p *runPolls) add(run, job *hdrhistogram.Histogram) {
	p.p50, p.p99 = append(p.p50, load.Quantile(run, 50)), append(p.p99, load.Quantile(run, 99))
	p.job50, p.job99 = append(p.job50, load.Quantile(job, 50)), append(p.job99, load.Quantile(job, 99))
	p.n += run.TotalCount()
}

// runPollGap is the time between two polls: a caller that never rests takes from what it measures.
const runPollGap = 10 * time.Millisecond

// pollRun polls a run of n instances, with the worker that start starts, once ready says so.
func (b *bench) pollRun(ctx context.Context, name string, n int, start func(*stage) (*stack.Worker, error), ready func(*stage, *stack.Worker) error) (p runPolls, err error) {
	s, err := b.newStage(ctx, name)
	if err != nil {
		return p, err
	}
	defer s.Close()
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return p, err
	}
	c, err := load.Dial(ctx, a.Addr, token)
	if err != nil {
		return p, err
	}
	defer c.Close()
	run, err := c.SubmitRun(load.NextBatch(n))
	if err != nil {
		return p, err
	}
	w, err := start(s)
	if err != nil {
		return p, err
	}
	if err := ready(s, w); err != nil {
		return p, err
	}
	for range b.rounds {
		ofRun, ofJob := load.NewHistogram(), load.NewHistogram()
		for begin := time.Now(); time.Since(begin) < b.runPolls; {
			answer, err := timed(c, "/v1/runs/"+run, ofRun)
			if err == nil {
				err = stillOpen(answer)
			}
			if err == nil {
				_, err = timed(c, "/v1/jobs/"+tasks.PartJobID(run, 0), ofJob)
			}
			if err != nil {
				return p, err
			}
			if !harness.Pause(ctx, runPollGap) {
				return p, ctx.Err()
			}
		}
		p.add(ofRun, ofJob)
	}
	return p, nil
}

// timed makes a GET and records how long it takes.
func timed(c *load.Caller, path string, h *hdrhistogram.Histogram) (load.Answer, error) {
	begin := time.Now()
	answer, err := c.Do(http.MethodGet, path, "", nil)
	load.Record(h, time.Since(begin))
	return answer, err
}

// stillOpen says so if a run has fewer open instances than are to be open at a time.
func stillOpen(a load.Answer) error {
	var record struct {
		Data struct {
			Counts tasks.Counts `json:"counts"`
		} `json:"data"`
	}
	if err := json.Unmarshal(a.Body, &record); err != nil || a.Status != http.StatusOK {
		return fmt.Errorf("poll of a run: the api answers %d %.200s", a.Status, a.Body)
	}
	if open := record.Data.Counts.Open(); open < tasks.DefaultMaxParallel {
		return fmt.Errorf("only %d instances of the run are open by now", open)
	}
	return nil
}

// anyDone waits until the worker has finished something.
func (s *stage) anyDone(ctx context.Context, w *stack.Worker) error {
	return harness.Until(ctx, patience, func(ctx context.Context) error {
		if err := w.Check(); err != nil {
			return err
		}
		n, err := s.Redis.Processed(ctx)
		if err == nil && n == 0 {
			err = fmt.Errorf("the worker has finished nothing")
		}
		return err
	})
}
