package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/api/client"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
)

const (
	fleetSize = 2000 // instances in all
	hotSize   = 20   // of them are in every tenth place of a batch
	batchMost = 16   // instances in a batch

	patience = 5 * time.Second // with one request and its tries
	inFlight = 64              // requests at a time; above it none is made
)

// caller submits, reads and cancels jobs, and records it.
type caller struct {
	rec     *history.Recorder
	clients []*client.Client // one for each api process
	servers []string
	token   string
	http    *http.Client

	mu      sync.Mutex
	rand    *rand.Rand
	jobs    []string           // acknowledged ones
	tried   map[string]bool    // every job that a request may have made
	sent    map[string]bool    // every batch, with its key
	use     func(ids []string) // is told that phones are used again, because somebody wants them reset
	batches []client.Batch     // all that were sent, with their keys
	open    []openJob          // the last ones that were accepted
	runs    runLoad
}

func newCaller(rec *history.Recorder, r *rand.Rand, token string, servers []string) (*caller, error) {
	c := &caller{rec: rec, rand: r, tried: map[string]bool{}, sent: map[string]bool{}, use: func([]string) {}, servers: servers, token: token, http: &http.Client{Transport: &http.Transport{}}}
	c.runs = runLoad{tried: map[string]bool{}, lists: map[string][]string{}}
	for _, server := range servers {
		one, err := client.New(server, token)
		if err != nil {
			return nil, err
		}
		c.clients = append(c.clients, one)
	}
	return c, nil
}

func (c *caller) close() {
	for _, one := range c.clients {
		one.Close()
	}
	c.http.CloseIdleConnections()
}

// load submits jobs and runs in an open loop, rate instances per second, and looks at random
// ones now and then, until load ends. What is under way then is still waited for, unless
// ctx ends, too.
func (c *caller) load(ctx, load context.Context, rate int) {
	var g errgroup.Group
	g.SetLimit(inFlight)
	for load.Err() == nil {
		asked := c.submitSome(ctx, load, &g)
		if job := c.randomJob(); job != "" {
			g.TryGo(func() error { _, _ = c.read(load, job); return nil }) // only what was seen counts
		}
		if run := c.someRun(true); run != "" {
			g.TryGo(func() error { _, _ = c.readRun(load, run); return nil }) // the same
		}
		c.mu.Lock()
		gap := time.Duration(c.rand.ExpFloat64() * float64(asked) / float64(rate) * float64(time.Second))
		c.mu.Unlock()
		harness.Pause(load, gap)
	}
	_ = g.Wait() // no function returns an error
}

// submitSome submits a job, or now and then a run, and returns how many instances it asked for.
func (c *caller) submitSome(ctx, load context.Context, g *errgroup.Group) (asked int) {
	c.mu.Lock()
	run := c.runs.able && c.rand.IntN(runEvery) == 0
	c.mu.Unlock()
	if run {
		request := c.runRequest()
		g.TryGo(func() error {
			if made := c.submitRun(ctx, request); made.Stage == "approval" {
				c.judgeSoon(load, made)
			}
			return nil
		})
		return len(request.InstanceIDs)
	}
	batch := c.batch()
	g.TryGo(func() error { _ = c.submit(ctx, batch); return nil }) // recorded
	return len(batch.InstanceIDs)
}

// burst submits n instances, each once, as fast as they are taken, and looks at
// random jobs meanwhile. It repeats what was not taken.
func (c *caller) burst(ctx context.Context, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for ids := range slices.Chunk(phones(n), batchMost) {
		b := client.Batch{InstanceIDs: ids, IdempotencyKey: c.newKey()}
		g.Go(func() error {
			return harness.Until(ctx, finishTimeout, func(ctx context.Context) error { return c.submit(ctx, b) })
		})
	}
	return g.Wait()
}

func phones(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("phone-%d", i)
	}
	return ids
}

// batch draws 1 to batchMost instances, some of them much asked for. Some
// batches stop at the first failure, and some are not what a caller should send.
func (c *caller) batch() client.Batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, 1+c.rand.IntN(batchMost))
	for i := range ids {
		n := c.rand.IntN(fleetSize)
		if c.rand.IntN(10) == 0 {
			n = c.rand.IntN(hotSize)
		}
		ids[i] = fmt.Sprintf("phone-%d", n)
	}
	b := client.Batch{InstanceIDs: ids, IdempotencyKey: rand32(c.rand)}
	switch c.rand.IntN(20) {
	case 0, 1:
		b.MaxFailures = 1
	case 2:
		b.NotBefore = time.Now().Add(8*time.Second + time.Duration(c.rand.Int64N(int64(7*time.Second))))
	}
	switch kind := c.rand.IntN(20); {
	case len(c.batches) == 0:
	case kind < 2: // the same again
		b = c.batches[c.rand.IntN(len(c.batches))]
	case kind == 2: // a key that was used for something else
		b.IdempotencyKey = c.batches[c.rand.IntN(len(c.batches))].IdempotencyKey
	case kind == 3:
		b.InstanceIDs = append(b.InstanceIDs, history.BadInstance)
	}
	c.batches = append(c.batches, b)
	return b
}

func (c *caller) newKey() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return rand32(c.rand)
}

func rand32(r *rand.Rand) string { return fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64()) }

func (c *caller) randomJob() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.jobs) == 0 {
		return ""
	}
	return c.jobs[c.rand.IntN(len(c.jobs))]
}

// pick is the index of a random api process.
func (c *caller) pick() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rand.IntN(len(c.clients))
}

func (c *caller) submit(ctx context.Context, batch client.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	e := history.Event{
		Kind: history.Submit, Begin: c.rec.Now(), Key: batch.IdempotencyKey,
		Instances: unique(batch.InstanceIDs), MaxFailures: batch.MaxFailures,
	}
	if !batch.NotBefore.IsZero() {
		e.NotBefore = batch.NotBefore.Sub(c.rec.Start)
	}
	if c.isNew(e) {
		c.use(e.Instances)
	}
	accepted, err := c.clients[c.pick()].Submit(ctx, batch)
	e.End, e.Job = c.rec.Now(), accepted.JobID
	c.mu.Lock()
	c.tried[e.Tried()] = true
	if err == nil {
		c.jobs = append(c.jobs, accepted.JobID)
		c.open = append(c.open, openJob{accepted.JobID, e.Instances})
		if len(c.open) > recentJobs {
			c.open = c.open[1:]
		}
	}
	c.mu.Unlock()
	if err != nil {
		e.Error = err.Error()
		if answer, answered := errors.AsType[*client.Error](err); answered {
			e.Status = answer.HTTPStatus
		}
	}
	c.rec.Add(e)
	return err
}

// isNew reports whether a submit was not sent before.
func (c *caller) isNew(e history.Event) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	what := fmt.Sprint(e.Key, e.Instances)
	sent := c.sent[what]
	c.sent[what] = true
	return !sent
}

// unique is what the service makes of a list: repeats are one item.
func unique(ids []string) (kept []string) {
	for _, id := range ids {
		if !slices.Contains(kept, id) {
			kept = append(kept, id)
		}
	}
	return kept
}

// read looks at a job. final says whether there is nothing to wait for: the job is
// final, or does not exist.
func (c *caller) read(ctx context.Context, job string) (final bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	e := history.Event{Kind: history.Read, Begin: c.rec.Now(), Job: job}
	record, err := c.clients[c.pick()].Job(ctx, job)
	e.End = c.rec.Now()
	if answer, answered := errors.AsType[*client.Error](err); answered && answer.HTTPStatus == http.StatusNotFound {
		c.rec.Add(e)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	record.Record = nil // the fields say it all
	e.Record = &record
	c.rec.Add(e)
	return record.Final(), nil
}

// awaitFinal reads every job, also those whose answer was lost, until all are final or
// none of them has become so for d, and then all of them once more. Jobs that wait
// for one phone end one after the other; that takes its time and is no standstill.
func (c *caller) awaitFinal(ctx context.Context, d time.Duration) error {
	jobs, err := c.list(ctx)
	if err != nil {
		return err
	}
	const patience = 6 // times d in all
	start, progress := time.Now(), time.Now()
	for open := jobs; len(open) > 0 && time.Since(progress) < d && time.Since(start) < patience*d && ctx.Err() == nil; harness.Pause(ctx, time.Second) {
		left, err := c.readAll(ctx, open)
		if err != nil {
			return err
		}
		if len(left) < len(open) {
			progress = time.Now()
		}
		open = left
	}
	_, err = c.readAll(ctx, jobs)
	return err
}

// readAll reads jobs and returns those that are not final.
func (c *caller) readAll(ctx context.Context, jobs []string) (open []string, err error) {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, job := range jobs {
		g.Go(func() error {
			final, err := c.readAtLast(ctx, job)
			if err == nil && !final {
				mu.Lock()
				open = append(open, job)
				mu.Unlock()
			}
			return err
		})
	}
	return open, g.Wait()
}

// readAtLast is read on a machine that may be too busy to answer at once.
func (c *caller) readAtLast(ctx context.Context, job string) (final bool, err error) {
	err = atLast(ctx, func() error {
		final, err = c.read(ctx, job)
		return err
	})
	return final, err
}

// atLast asks again until there is an answer that will not be another one in a second, for half a minute.
func atLast(ctx context.Context, ask func() error) (err error) {
	for range 30 {
		err = ask()
		answer, answered := errors.AsType[*client.Error](err)
		if err == nil || answered && answer.HTTPStatus < http.StatusInternalServerError || ctx.Err() != nil {
			return err
		}
		harness.Pause(ctx, time.Second)
	}
	return err
}

// list returns every job that a request may have made or that the api lists.
func (c *caller) list(ctx context.Context) ([]string, error) {
	c.mu.Lock()
	known := maps.Clone(c.tried)
	c.mu.Unlock()
	for job, err := range c.clients[0].Jobs(ctx, client.JobsFilter{Limit: 100}) {
		if err != nil {
			return nil, fmt.Errorf("list jobs: %w", err)
		}
		known[job.ID] = true
	}
	return slices.Collect(maps.Keys(known)), nil
}
