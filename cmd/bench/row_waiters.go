package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// waiterRow measures how soon those who wait for jobs are told that these have ended, half
// of them with Prefer: wait and half by streams, what one of them costs the api, and what
// stays of them.
func waiterRow(ctx context.Context, b *bench) ([]report.Result, error) {
	if err := enoughFiles(b.waiters); err != nil {
		return nil, err
	}
	s, err := b.newStage(ctx, "waiters")
	if err != nil {
		return nil, err
	}
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return nil, err
	}
	before, err := a.Usage(ctx)
	if err != nil {
		return nil, err
	}
	c, err := load.DialCrowd(ctx, a.Addr, token, b.waiters)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	kinds := []struct {
		jobs           int
		last, p99, cpu []float64
	}{{jobs: 1}, {jobs: b.waitedJobs}}
	var memory []float64
	for range b.waitRounds {
		for i := range kinds {
			kind := &kinds[i]
			t, err := s.tell(ctx, a, c, kind.jobs)
			if err != nil {
				return nil, err
			}
			kind.last = append(kind.last, float64(t.delays.Max())/1000)
			kind.cpu = append(kind.cpu, milliseconds(t.cpu))
			kind.p99 = append(kind.p99, load.Quantile(t.delays, 99))
			memory = append(memory, float64(t.waiting.Memory-before.Memory)/float64(b.waiters)/1000)
		}
	}
	peak, err := stack.PeakRSS(a.Process)
	if err != nil {
		return nil, err
	}
	c.Close()
	after, err := left(ctx, a, before.Goroutines)
	if err != nil {
		return nil, err
	}
	line := func(what string, i int) report.Result {
		return report.Result{
			What: what, Unit: "ms", Rounds: kinds[i].last, Target: report.AtMost(1000),
			Note: fmt.Sprintf("p99 %s ms; the api used %s ms of a core for all; the meter reads on the same cores", report.Number(report.Median(kinds[i].p99)), report.Number(report.Median(kinds[i].cpu))),
		}
	}
	return []report.Result{
		line(fmt.Sprintf("one job ends: the last of %d waiters is told", b.waiters), 0),
		line(fmt.Sprintf("%d jobs end: the last of %d waiters is told", b.waitedJobs, b.waiters), 1),
		{
			What: "RSS of the api for each waiter", Unit: "kB", Rounds: memory, Target: report.AtMost(64),
			Note: fmt.Sprintf("while all wait, above %.0f MB before the first; peak of the process %.0f MB", float64(before.Memory)/1e6, float64(peak)/1e6),
		},
		{
			What: "goroutines left when all have gone", Unit: "", Rounds: []float64{float64(after.Goroutines - before.Goroutines)}, Target: report.AtMost(0),
			Note: fmt.Sprintf("%d before the first", before.Goroutines),
		},
	}, nil
}

// enoughFiles returns an error if this process or the api may not have so many
// connections. Go itself raises the limit as far as it may.
func enoughFiles(connections int) error {
	const others = 200
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if need := uint64(connections + others); limit.Cur < need {
		return fmt.Errorf("%d waiters need %d open files, the limit is %d: raise the hard limit (ulimit -Hn)", connections, need, limit.Cur)
	}
	return nil
}

// telling is what it took to tell everybody who waited.
type telling struct {
	waiting stack.Usage             // of the api, while all waited
	cpu     time.Duration           // of the api, for the telling
	delays  *hdrhistogram.Histogram // from the end of a job until a waiter was told, in microseconds
}

// tell makes jobs, lets everybody wait for one of them, half by long polls and half by
// streams, and lets a worker finish them.
func (s *stage) tell(ctx context.Context, a *stack.API, c load.Crowd, jobs int) (t telling, err error) {
	ids := make([]string, jobs)
	for i := range ids {
		if ids[i], err = c[0].Submit(load.NextBatch(load.BatchSize)); err != nil {
			return t, err
		}
	}
	var (
		worker *stack.Worker
		before time.Duration
	)
	times := make([]time.Duration, len(c))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		for i, one := range c {
			g.Go(func() (err error) {
				times[i], err = endOf(one, ids[i/2%jobs], i%2 == 0)
				return err
			})
			// Not all come at once: the api would refuse those who wait too long for Redis.
			const atOnce = 500
			if n := i + 1; n%atOnce == 0 || n == len(c) {
				if t.waiting, err = when(ctx, a, n); err != nil {
					return err
				}
			}
		}
		if before, err = stack.CPUTime(a.Process); err == nil {
			worker, err = s.StartWorker(ctx, 0)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return t, err
	}
	worker.Kill()
	after, err := stack.CPUTime(a.Process)
	t.cpu = after - before
	t.delays = load.NewHistogram()
	for _, d := range times {
		load.Record(t.delays, d)
	}
	return t, err
}

// endOf waits for the end of a job and returns how long ago that was by then.
func endOf(c *load.Caller, job string, poll bool) (time.Duration, error) {
	path, header := "/v1/jobs/"+job, "Prefer: wait=50\r\n"
	if !poll {
		path, header = path+"/events", ""
	}
	a, err := c.Do(http.MethodGet, path, header, nil)
	now := time.Now()
	if err != nil {
		return 0, err
	}
	// A stream ends with the final record.
	record := a.Body[max(0, bytes.LastIndex(a.Body, []byte(`{"job_id":"`))):]
	if !bytes.Contains(record, []byte(`"state":"`+tasks.JobSucceeded+`"`)) {
		return 0, fmt.Errorf("GET %s: the api answers %d %.200s", path, a.Status, record)
	}
	_, rest, _ := bytes.Cut(record, []byte(`"finished_at":"`))
	text, _, _ := bytes.Cut(rest, []byte(`"`))
	ended, err := time.Parse(time.RFC3339, string(text))
	return now.Sub(ended), err
}

// when returns what an api uses as soon as n wait.
func when(ctx context.Context, a *stack.API, n int) (u stack.Usage, err error) {
	return u, harness.Until(ctx, patience, func(ctx context.Context) (err error) {
		if u, err = a.Usage(ctx); err == nil && u.Waiters < n {
			err = fmt.Errorf("%d of %d wait", u.Waiters, n)
		}
		return err
	})
}

// left waits until the goroutines are as many as before, or no longer become fewer.
func left(ctx context.Context, a *stack.API, before int) (u stack.Usage, err error) {
	const leaveTime = 5 * time.Second
	for begin := time.Now(); ; {
		if u, err = a.Usage(ctx); err != nil || u.Goroutines <= before || time.Since(begin) > leaveTime {
			return u, err
		}
		if !harness.Pause(ctx, 20*time.Millisecond) {
			return u, ctx.Err()
		}
	}
}
