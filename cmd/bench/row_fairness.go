package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
	"batchreset/cmd/harness"
)

// fairnessRow measures how long a small job takes while a large tenant has a long queue,
// against the same on an idle system. Which queues a tenant uses is the service's choice.
func fairnessRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "fairness")
	if err != nil {
		return nil, err
	}
	f := &fairness{stage: s}
	defer f.close()
	if f.api, err = s.StartAPI(ctx); err != nil {
		return nil, err
	}
	// A few milliseconds, so that it is its slots that the worker is short of.
	if f.worker, err = s.StartWorker(ctx, 5*time.Millisecond); err != nil {
		return nil, err
	}
	if err := f.meet(ctx); err != nil {
		return nil, err
	}
	apart, shared := f.neighbours()
	smalls := []*tenant{apart, shared}
	for _, t := range smalls {
		if t == nil {
			continue
		}
		if err := f.idle(ctx, t); err != nil {
			return nil, err
		}
	}
	for _, t := range smalls {
		if err := f.crowded(ctx, t); err != nil {
			return nil, err
		}
	}
	return []report.Result{
		f.result(apart, "32 beside a large tenant, no queue shared", 2, "no tenant was found that shares no queue with the large one"),
		f.result(shared, "32 beside a large tenant, a queue shared", 4, "no tenant was found that shares a queue with the large one"),
	}, nil
}

// fairness is a large tenant and its neighbours.
type fairness struct {
	*stage
	api       *stack.API
	worker    *stack.Worker
	large     *tenant
	small     []*tenant
	submitted int
}

// tenant is one of them.
type tenant struct {
	*load.Caller
	token  string
	queues map[string]bool // that its jobs were seen in
	idle   []float64       // milliseconds
	busy   []float64       // milliseconds
	met    int             // tries whose job went to a queue that the large tenant uses, too
	given  int             // tries that were given up
	dry    int             // tries for which the long queue did not last
}

func (f *fairness) newTenant(ctx context.Context, name string) (*tenant, error) {
	token, err := f.Token(ctx, name)
	if err != nil {
		return nil, err
	}
	c, err := load.Dial(ctx, f.api.Addr, token)
	if err != nil {
		return nil, err
	}
	return &tenant{Caller: c, token: token, queues: map[string]bool{}}, nil
}

func (f *fairness) close() {
	if f.large != nil {
		f.large.Close()
	}
	for _, t := range f.small {
		t.Close()
	}
}

// meet makes the tenants and finds out which queues their jobs go to. The service may
// prefer some of a tenant's queues for a second, by how long they are: the worker runs, and
// they are looked at more than once.
func (f *fairness) meet(ctx context.Context) (err error) {
	if f.large, err = f.newTenant(ctx, "large"); err != nil {
		return err
	}
	for i := range f.candidates {
		t, err := f.newTenant(ctx, "small-"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		f.small = append(f.small, t)
	}
	const looks, jobs, between = 2, 16, 1200 * time.Millisecond
	for look := range looks {
		if look > 0 {
			if !harness.Pause(ctx, between) {
				return ctx.Err()
			}
		}
		for _, t := range append([]*tenant{f.large}, f.small...) {
			for range jobs {
				queue, err := f.probe(ctx, t.Caller)
				if err != nil {
					return err
				}
				t.queues[queue] = true
			}
		}
	}
	return nil
}

// probe submits one instance and returns the queue that it is in.
func (f *fairness) probe(ctx context.Context, c *load.Caller) (queue string, err error) {
	job, err := c.Submit(load.NextBatch(1))
	if err != nil {
		return "", err
	}
	f.submitted++
	return f.queueOf(ctx, job)
}

func (f *fairness) queueOf(ctx context.Context, job string) (string, error) {
	queue, err := f.Redis.Client.HGet(ctx, "reset:{"+job+"}", "queue").Result()
	if err != nil {
		return "", fmt.Errorf("the record of job %s does not tell its queue: %w", job, err)
	}
	return queue, nil
}

// neighbours returns a tenant that shares no queue with the large one, and the one that
// shares the most. What there is none of is nil.
func (f *fairness) neighbours() (apart, shared *tenant) {
	most := 0
	for _, t := range f.small {
		switch n := f.sharedQueues(t); {
		case n == 0 && apart == nil:
			apart = t
		case n > most:
			most, shared = n, t
		}
	}
	return apart, shared
}

// sharedQueues is how many queues a tenant shares with the large one.
func (f *fairness) sharedQueues(t *tenant) (n int) {
	for queue := range t.queues {
		if f.large.queues[queue] {
			n++
		}
	}
	return n
}

// idle measures a tenant's jobs while there are no others.
func (f *fairness) idle(ctx context.Context, t *tenant) error {
	if _, err := f.Redis.Drained(ctx, f.submitted, f.worker.Process); err != nil {
		return err
	}
	const warm = 2
	for i := range f.rounds*f.tries + warm {
		took, err := t.Time(ctx, patience)
		if err != nil {
			return err
		}
		f.submitted += load.BatchSize
		if i >= warm {
			t.idle = append(t.idle, milliseconds(took))
		}
	}
	return nil
}

// crowded measures a tenant's jobs while the large one has a long queue. When most of
// the tries are given up, the target is missed by far and there are no more.
func (f *fairness) crowded(ctx context.Context, t *tenant) error {
	if t == nil {
		return nil
	}
	limit := time.Duration(20*report.Median(t.idle)) * time.Millisecond
	for want := f.rounds * f.tries; len(t.busy) < want && t.given <= want/2; {
		if err := f.fillUp(ctx); err != nil {
			return err
		}
		body := load.NextBatch(load.BatchSize)
		begin := time.Now()
		job, err := t.Submit(body)
		if err != nil {
			return err
		}
		f.submitted += load.BatchSize
		err = t.Await(ctx, job, limit)
		t.busy = append(t.busy, milliseconds(time.Since(begin)))
		switch {
		case errors.Is(err, load.ErrSlow):
			t.given++
		case err != nil:
			return errors.Join(err, f.worker.Check())
		}
		queue, err := f.queueOf(ctx, job)
		if err != nil {
			return err
		}
		if f.large.queues[queue] {
			t.met++
		}
		done, err := f.Redis.Processed(ctx)
		if err != nil {
			return err
		}
		if f.submitted-done < f.crowd/4 {
			t.dry++
		}
	}
	return nil
}

// fillUp makes the large tenant's queue as long as it shall be.
func (f *fairness) fillUp(ctx context.Context) error {
	done, err := f.Redis.Processed(ctx)
	if err != nil {
		return err
	}
	missing := f.crowd - (f.submitted - done)
	if missing < load.BatchSize {
		return nil
	}
	if _, err := load.Submit(ctx, f.api.Addr, f.large.token, missing); err != nil {
		return err
	}
	f.submitted += load.Batches(missing) * load.BatchSize
	return nil
}

// result is what the tries of a tenant come to.
func (f *fairness) result(t *tenant, what string, limit float64, missing string) report.Result {
	r := report.Result{What: what, Unit: "x", Target: report.AtMost(limit)}
	if t == nil {
		r.Failure = fmt.Sprintf("%s (%d tried; it uses %d queues)", missing, f.candidates, len(f.large.queues))
		return r
	}
	r.Rounds = report.Ratios(report.Groups(t.busy, f.rounds), report.Groups(t.idle, f.rounds))
	r.Note = fmt.Sprintf("%.1f ms with %d of another tenant queued, %.1f ms without; of its %d queues %d are shared, and %d of %d jobs went to those",
		report.Median(t.busy), f.crowd, report.Median(t.idle), len(t.queues), f.sharedQueues(t), t.met, len(t.busy))
	if t.given > 0 {
		r.Note += fmt.Sprintf("; %d tries were given up after 20 x the time without, which counts as theirs", t.given)
	}
	if t.dry > 0 && r.Verdict() != report.Missed {
		r.Failure = fmt.Sprintf("the long queue did not last for %d of %d tries", t.dry, len(t.busy))
	}
	return r
}
