package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/api/client"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

const (
	runMost    = 60 // instances in a run, at most
	runEvery   = 10 // one in so many submits is a run
	recentRuns = 8  // of those that were accepted last may be under way
)

// runLoad is what a caller knows of its runs. caller.mu guards it.
type runLoad struct {
	able     bool                // the binary knows runs
	approver string              // a token of somebody else, who may approve them
	requests []client.RunRequest // all that were sent, with their keys
	tried    map[string]bool     // every run that a request may have made
	accepted []string            // acknowledged ones
	lists    map[string][]string // of those
}

// runRequest draws a run of up to runMost instances. Some are sent again, reuse a key, are for later, or are wrong.
func (c *caller) runRequest() client.RunRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := func(n int) bool { return c.rand.IntN(n) == 0 }
	r := client.RunRequest{IdempotencyKey: rand32(c.rand)}
	for range 5 + c.rand.IntN(runMost-5) {
		r.InstanceIDs = append(r.InstanceIDs, fmt.Sprintf("phone-%d", c.rand.IntN(fleetSize)))
	}
	if one(2) {
		r.Canary, r.Growth = 2+c.rand.IntN(3), []float64{0, 1.5, 4}[c.rand.IntN(3)]
		if one(2) {
			r.Soak = (time.Second + time.Duration(c.rand.IntN(2000))*time.Millisecond).String()
		}
	}
	if one(3) {
		r.MaxParallel = 4 + c.rand.IntN(16)
	}
	if one(2) {
		r.MaxFailures = []client.Budget{"0", "1", "5", "10%", "50%"}[c.rand.IntN(5)]
	}
	if one(8) {
		r.NotBefore = time.Now().Add(3*time.Second + time.Duration(c.rand.IntN(5000))*time.Millisecond).Truncate(time.Millisecond)
	}
	r.Approval = one(6)
	switch kind := c.rand.IntN(20); {
	case len(c.runs.requests) == 0:
	case kind < 3: // the same again
		r = c.runs.requests[c.rand.IntN(len(c.runs.requests))]
	case kind == 3: // a key that was used for something else
		r.IdempotencyKey = c.runs.requests[c.rand.IntN(len(c.runs.requests))].IdempotencyKey
	case kind == 4:
		r.InstanceIDs = append(r.InstanceIDs, history.BadInstance)
	}
	c.runs.requests = append(c.runs.requests, r)
	return r
}

// submitRun submits a run, and returns its record; the zero Run if it was not acknowledged.
func (c *caller) submitRun(ctx context.Context, r client.RunRequest) client.Run {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	asked := r
	asked.InstanceIDs = nil
	e := history.Event{Kind: history.SubmitRun, Begin: c.rec.Now(), Key: r.IdempotencyKey, Instances: unique(r.InstanceIDs), Request: &asked}
	if c.isNew(e) {
		c.use(e.Instances)
	}
	made, err := c.clients[c.pick()].Runs().Submit(ctx, r)
	e.End, e.Run = c.rec.Now(), made.ID
	if err != nil {
		e.Error = err.Error()
		if answer, answered := errors.AsType[*client.Error](err); answered {
			e.Status = answer.HTTPStatus
		}
	}
	c.mu.Lock()
	c.runs.tried[e.TriedRun()] = true
	if err == nil && c.runs.lists[made.ID] == nil {
		c.runs.accepted = append(c.runs.accepted, made.ID)
		c.runs.lists[made.ID] = e.Instances
	}
	c.mu.Unlock()
	c.rec.Add(e)
	return made
}

// someRun picks one of the runs that were accepted last, or any.
func (c *caller) someRun(recent bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := c.runs.accepted
	if len(ids) == 0 {
		return ""
	}
	if recent {
		ids = ids[max(0, len(ids)-recentRuns):]
	}
	return ids[c.rand.IntN(len(ids))]
}

// somePart picks a job of one of the runs that were accepted last, which may not have been made yet.
func (c *caller) somePart() string {
	run := c.someRun(true)
	if run == "" {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return tasks.PartJobID(run, c.rand.IntN(4))
}

// readRun looks at a run, and returns what it saw; the zero Run if there is none.
func (c *caller) readRun(ctx context.Context, id string) (run client.Run, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	e := history.Event{Kind: history.ReadRun, Begin: c.rec.Now(), Run: id}
	run, err = c.clients[c.pick()].Runs().Get(ctx, id)
	e.End = c.rec.Now()
	answer, answered := errors.AsType[*client.Error](err)
	switch {
	case answered && answer.HTTPStatus == http.StatusNotFound:
		err = nil
	case err != nil:
		return run, err
	default:
		run.Record = nil // the fields say it all
		e.RunRecord = &run
	}
	c.rec.Add(e)
	return run, err
}

// changeRun asks for a change of a run, once. That it has ended, or is as it is wanted already, is no error.
func (c *caller) changeRun(ctx context.Context, token string, e history.Event, body map[string]any) error {
	e.Begin = c.rec.Now()
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if body == nil {
		text = nil
	}
	what, _, _ := strings.Cut(string(e.Kind), "-")
	status, answer, err := c.ask(ctx, http.MethodPost, "/v1/runs/"+e.Run+"/"+what, token, text, "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("answered %d: %.200s", status, answer)
	}
	if err != nil {
		e.Error = err.Error()
	}
	e.End, e.Status = c.rec.Now(), status
	c.rec.Add(e)
	if status == http.StatusConflict {
		return nil
	}
	return err
}

// stopRun pauses or cancels a run.
func (c *caller) stopRun(ctx context.Context, kind history.Kind, run string) error {
	return c.changeRun(ctx, c.token, history.Event{Kind: kind, Run: run}, nil)
}

// resumeRun lets a run go on, with another budget if there is one.
func (c *caller) resumeRun(ctx context.Context, run string, budget client.Budget) {
	e := history.Event{Kind: history.ResumeRun, Run: run, Budget: budget}
	var body map[string]any
	if budget != "" {
		body = map[string]any{"max_failures": budget}
	}
	_ = c.changeRun(ctx, c.token, e, body) // recorded
}

// judge decides about a run that somebody else has asked for.
func (c *caller) judge(ctx context.Context, kind history.Kind, run, list string) {
	body := map[string]any{"comment": "seen"}
	if kind == history.ApproveRun {
		body["list_sha256"] = list
	}
	_ = c.changeRun(ctx, c.runs.approver, history.Event{Kind: kind, Run: run}, body) // recorded
}

// judgeSoon approves a run after a while, or rejects it, or leaves it to awaitRuns.
func (c *caller) judgeSoon(load context.Context, run client.Run) {
	c.mu.Lock()
	wait, kind := time.Duration(c.rand.IntN(3000))*time.Millisecond, history.ApproveRun
	choice := c.rand.IntN(10)
	c.mu.Unlock()
	switch choice {
	case 0:
		return
	case 1:
		kind = history.RejectRun
	}
	if harness.Pause(load, wait) {
		c.judge(load, kind, run.ID, run.ListSHA256)
	}
}

// pauseRun pauses some run for a while, and lets it go on, sometimes with another budget. When load ends, it is left
// to awaitRuns.
func (c *caller) pauseRun(load context.Context, length time.Duration) {
	run := c.someRun(true)
	if run == "" {
		return
	}
	_ = c.stopRun(load, history.PauseRun, run) // recorded
	if !harness.Pause(load, length) {
		return
	}
	c.mu.Lock()
	budget := []client.Budget{"", "", "3", "20%"}[c.rand.IntN(4)]
	c.mu.Unlock()
	c.resumeRun(load, run, budget)
}

// cancelRun cancels some run.
func (c *caller) cancelRun(ctx context.Context) {
	if run := c.someRun(true); run != "" {
		_ = c.stopRun(ctx, history.CancelRun, run) // recorded
	}
}

// retryRun asks for another round of some run.
func (c *caller) retryRun(ctx context.Context) {
	run := c.someRun(false)
	if run == "" {
		return
	}
	choices := [][]string{{"failed"}, {"failed", "unknown"}, {"cancelled"}, {"failed", "unknown", "cancelled"}}
	c.mu.Lock()
	states := choices[c.rand.IntN(len(choices))]
	c.mu.Unlock()
	_ = c.changeRun(ctx, c.token, history.Event{Kind: history.RetryRun, Run: run, States: states}, map[string]any{"states": states}) // recorded
}

// awaitRuns reads every run, also those whose answer was lost, until all have ended, or none has come further for d. It
// resumes those that are paused, and approves those that wait for it. Then it reads the results of all, and learns of their jobs.
func (c *caller) awaitRuns(ctx context.Context, d time.Duration) error {
	if !c.runs.able {
		return nil
	}
	ids, err := c.listRuns(ctx)
	if err != nil {
		return err
	}
	ended, progress := -1, time.Now()
	for open := ids; len(open) > 0 && time.Since(progress) < d && ctx.Err() == nil; harness.Pause(ctx, time.Second) {
		var n int
		if open, n, err = c.helpRuns(ctx, open); err != nil {
			return err
		}
		if n += len(ids) - len(open); n != ended {
			ended, progress = n, time.Now()
		}
	}
	for _, id := range ids {
		if err := c.readResults(ctx, id); err != nil {
			return fmt.Errorf("results of run %s: %w", id, err)
		}
	}
	return ctx.Err()
}

// listRuns returns every run that a request may have made or that the api lists.
func (c *caller) listRuns(ctx context.Context) ([]string, error) {
	c.mu.Lock()
	known := maps.Clone(c.runs.tried)
	c.mu.Unlock()
	for run, err := range c.clients[0].Runs().List(ctx, client.RunsFilter{Limit: 100}) {
		if err != nil {
			return nil, fmt.Errorf("list runs: %w", err)
		}
		known[run.ID] = true
	}
	return slices.Sorted(maps.Keys(known)), nil
}

// helpRuns reads runs and lets those go on that wait for somebody. It returns those that have not ended, and how many of their
// instances have.
func (c *caller) helpRuns(ctx context.Context, ids []string) (open []string, ended int, err error) {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, id := range ids {
		g.Go(func() error {
			run, err := c.readRunAtLast(ctx, id)
			if err != nil || run.ID == "" || run.Final() {
				return err
			}
			switch { // again in a second, if it must be
			case run.Stage == "approval" && run.State == "paused":
				c.resumeRun(ctx, id, "")
			case run.Stage == "approval":
				c.judge(ctx, history.ApproveRun, id, run.ListSHA256)
			case run.State == "paused":
				c.resumeRun(ctx, id, client.Budget(fmt.Sprint(run.Total)))
			}
			mu.Lock()
			defer mu.Unlock()
			open = append(open, id)
			ended += run.Counts.Succeeded + run.Counts.Failed + run.Counts.Unknown + run.Counts.Cancelled
			return nil
		})
	}
	return open, ended, g.Wait()
}

// readRunAtLast is readRun on a machine that may be too busy to answer at once.
func (c *caller) readRunAtLast(ctx context.Context, id string) (run client.Run, err error) {
	err = atLast(ctx, func() error {
		run, err = c.readRun(ctx, id)
		return err
	})
	return run, err
}

// readResults reads the results of a run that has ended, if there is one, and keeps its jobs in mind.
func (c *caller) readResults(ctx context.Context, id string) error {
	run, err := c.readRunAtLast(ctx, id)
	if err != nil || !run.Final() {
		return err
	}
	e := history.Event{Kind: history.Results, Begin: c.rec.Now(), Run: id}
	if err := atLast(ctx, func() error {
		e.Rows = nil
		for row, err := range c.clients[c.pick()].Runs().Results(ctx, id) {
			if err != nil {
				return err
			}
			e.Rows = append(e.Rows, row)
		}
		return nil
	}); err != nil {
		return err
	}
	e.End = c.rec.Now()
	c.rec.Add(e)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, row := range e.Rows {
		if row.JobID != "" {
			c.tried[row.JobID] = true
		}
	}
	return nil
}
