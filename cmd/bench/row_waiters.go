package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
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
	s, err := b.newStack(ctx, "waiters")
	if err != nil {
		return nil, err
	}
	a, token, err := s.startTenant(ctx)
	if err != nil {
		return nil, err
	}
	before, err := a.waiting(ctx)
	if err != nil {
		return nil, err
	}
	c, err := load.DialCrowd(ctx, a.addr, token, b.waiters)
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
			told, during, err := s.tell(ctx, a, c, kind.jobs)
			if err != nil {
				return nil, err
			}
			kind.last = append(kind.last, float64(told.Max())/1000)
			kind.cpu = append(kind.cpu, milliseconds(during.cpu))
			kind.p99 = append(kind.p99, load.Quantile(told, 99))
			memory = append(memory, float64(during.memory-before.memory)/float64(b.waiters)/1000)
		}
	}
	peak, err := peakRSSOf(a.Process)
	if err != nil {
		return nil, err
	}
	c.Close()
	after, err := a.left(ctx, before.goroutines)
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
			Note: fmt.Sprintf("while all wait, above %.0f MB before the first; peak of the process %.0f MB", float64(before.memory)/1e6, float64(peak)/1e6),
		},
		{
			What: "goroutines left when all have gone", Unit: "", Rounds: []float64{float64(after.goroutines - before.goroutines)}, Target: report.AtMost(0),
			Note: fmt.Sprintf("%d before the first", before.goroutines),
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

// tell makes jobs, lets everybody wait for one of them, half by long polls and half by
// streams, and lets a worker finish them. It returns how long after the end of its job
// each was told, in microseconds, and what the api used.
func (s *stack) tell(ctx context.Context, a *api, c load.Crowd, jobs int) (told *hdrhistogram.Histogram, during usage, err error) {
	ids := make([]string, jobs)
	for i := range ids {
		if ids[i], err = c[0].Submit(load.NextBatch(load.BatchSize)); err != nil {
			return nil, during, err
		}
	}
	var (
		worker *workerProcess
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
				if during, err = a.when(ctx, n); err != nil {
					return err
				}
			}
		}
		if before, err = cpuOf(a.Process); err == nil {
			worker, err = s.startWorker(ctx, 0)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, during, err
	}
	worker.Kill()
	after, err := cpuOf(a.Process)
	during.cpu = after - before
	told = load.NewHistogram()
	for _, t := range times {
		load.Record(told, t)
	}
	return told, during, err
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

// usage is what an api uses.
type usage struct {
	waiters, goroutines int
	memory              int64         // resident bytes
	cpu                 time.Duration // of the telling
}

// when returns what an api uses as soon as n wait.
func (a *api) when(ctx context.Context, n int) (u usage, err error) {
	return u, harness.Until(ctx, patience, func(ctx context.Context) (err error) {
		if u, err = a.waiting(ctx); err == nil && u.waiters < n {
			err = fmt.Errorf("%d of %d wait", u.waiters, n)
		}
		return err
	})
}

// waiting reads from the metrics what an api uses now.
func (a *api) waiting(ctx context.Context) (u usage, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.ops+"/metrics", nil)
	if err != nil {
		return u, err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return u, err
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return u, err
	}
	return parseUsage(string(text))
}

func parseUsage(metrics string) (u usage, err error) {
	for line := range strings.Lines(metrics) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		value, _ := strconv.ParseFloat(text, 64) // comments have none
		switch {
		case strings.HasPrefix(name, "batchreset_waiting_requests{"):
			u.waiters += int(value)
		case name == "go_goroutines":
			u.goroutines = int(value)
		case name == "process_resident_memory_bytes":
			u.memory = int64(value)
		}
	}
	if u.goroutines == 0 || u.memory == 0 {
		return u, errors.New("the metrics do not say how many goroutines there are, or how much memory")
	}
	return u, nil
}

// left waits until the goroutines are as many as before, or no longer become fewer.
func (a *api) left(ctx context.Context, before int) (u usage, err error) {
	const leaveTime = 5 * time.Second
	for begin := time.Now(); ; {
		if u, err = a.waiting(ctx); err != nil || u.goroutines <= before || time.Since(begin) > leaveTime {
			return u, err
		}
		if !harness.Pause(ctx, 20*time.Millisecond) {
			return u, ctx.Err()
		}
	}
}
