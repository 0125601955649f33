package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"batchreset/cmd/chaos/history"
)

// recentJobs is how many of the jobs that were accepted last may be under way.
const recentJobs = 30

// openJob is a job that was accepted not long ago.
type openJob struct {
	id        string
	instances []string
}

// openJob picks one of the jobs that were accepted last, or "".
func (c *caller) openJob() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) == 0 {
		return ""
	}
	return c.open[c.rand.IntN(len(c.open))].id
}

// someJob picks any job, or one that was accepted not long ago, or is a part of a run.
func (c *caller) someJob() string {
	c.mu.Lock()
	which := c.rand.IntN(10)
	c.mu.Unlock()
	switch {
	case which == 0:
		return c.somePart()
	case which < 5:
		return c.randomJob()
	}
	return c.openJob()
}

// someInstances picks the instances of a few jobs, and perhaps a run, that may be under way, 8 at the most.
func (c *caller) someInstances() (ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range min(len(c.open), 3) {
		ids = append(ids, c.open[c.rand.IntN(len(c.open))].instances...)
	}
	if n := len(c.runs.accepted); n > 0 && c.rand.IntN(2) == 0 {
		ids = append(ids, c.runs.lists[c.runs.accepted[max(0, n-1-c.rand.IntN(recentRuns))]]...)
	}
	ids = unique(ids)
	c.rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids[:min(len(ids), 8)]
}

// ask sends one request as it is, once. Its error says that there was no answer.
func (c *caller) ask(ctx context.Context, method, path, token string, body []byte, key string) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.servers[c.pick()]+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("X-Auth-Token", token)
	if key != "" {
		r.Header.Set("Idempotency-Key", `"`+key+`"`)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }() // read as far as it is wanted
	answer, err = io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, answer, err
}

// change asks for a change of a job, once.
func (c *caller) change(ctx context.Context, e history.Event, what string, body []byte) error {
	e.Begin = c.rec.Now()
	status, answer, err := c.ask(ctx, http.MethodPost, "/v1/jobs/"+e.Job+"/"+what, c.token, body, "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("answered %d: %.200s", status, answer)
	}
	if err != nil {
		e.Error = err.Error()
	}
	e.End, e.Status = c.rec.Now(), status
	c.rec.Add(e)
	return err
}

// cancel cancels some job.
func (c *caller) cancel(ctx context.Context) {
	if job := c.someJob(); job != "" {
		_ = c.cancelJob(ctx, job) // recorded
	}
}

// cancelJob cancels a job. One that has ended already needs none.
func (c *caller) cancelJob(ctx context.Context, job string) error {
	err := c.change(ctx, history.Event{Kind: history.Cancel, Job: job}, "cancel", nil)
	if err != nil && strings.Contains(err.Error(), "RESET.0003") {
		return nil
	}
	return err
}

// retry asks for items of a job in some states to be tried again.
func (c *caller) retry(ctx context.Context, job string) {
	if job == "" {
		return
	}
	choices := [][]string{{"failed"}, {"failed", "unknown"}, {"unknown"}, {"failed", "unknown", "cancelled"}}
	c.mu.Lock()
	states := choices[c.rand.IntN(len(choices))]
	c.mu.Unlock()
	body, err := json.Marshal(map[string]any{"states": states})
	if err != nil {
		return
	}
	_ = c.change(ctx, history.Event{Kind: history.Retry, Job: job, States: states}, "retry", body) // recorded
}

// oddBatches are bodies that nobody should send, and the instances that they may be taken
// to be about, if they are taken at all. %s are two instances.
var oddBatches = []struct {
	body  string
	about []int
}{
	{`{"instance_ids":[%q],"INSTANCE_IDS":[%q]}`, []int{0}},
	{`{"instance_ids":[%q],"instance_ids":[%q]}`, nil},
	{`{"instance_ids":[%q,%q],"dry_run":true,"DRY_RUN":false}`, nil},
	{`{"instance_ids":[%q,%q],"dry_run":true,"dry_run":false}`, nil},
	{`{"instance_ids":[%q,%q],"dryRun":true}`, nil},
	{`{"instance_ids":[%q,%q],"notBefore":"2099-01-01T00:00:00Z"}`, nil},
}

// odd sends a batch whose names are repeated or misspelled.
func (c *caller) odd(ctx context.Context) {
	c.mu.Lock()
	kind := oddBatches[c.rand.IntN(len(oddBatches))]
	two := []string{fmt.Sprintf("phone-%d", c.rand.IntN(fleetSize)), fmt.Sprintf("phone-%d", c.rand.IntN(fleetSize))}
	key := rand32(c.rand)
	c.mu.Unlock()
	e := history.Event{Kind: history.Odd, Begin: c.rec.Now(), Key: key, Body: fmt.Sprintf(kind.body, two[0], two[1])}
	for _, n := range kind.about {
		e.Instances = append(e.Instances, two[n])
	}
	status, answer, err := c.ask(ctx, http.MethodPost, "/v1/instances/batch-reset", c.token, []byte(e.Body), key)
	e.End, e.Status = c.rec.Now(), status
	var accepted struct {
		Data struct {
			Job string `json:"task_id"`
		}
	}
	if err != nil {
		e.Error = err.Error()
	} else if status == http.StatusOK && json.Unmarshal(answer, &accepted) == nil {
		e.Job = accepted.Data.Job
	}
	c.mu.Lock()
	c.tried[e.Tried()] = true
	c.mu.Unlock()
	c.rec.Add(e)
}

// follow takes notice of ends until ctx is over, and retries some of what has ended as
// unknown at once, as a pipeline may that is told by a webhook.
func (c *caller) follow(ctx context.Context, ends <-chan history.Event, retries bool) {
	for {
		select {
		case <-ctx.Done():
			return
		case end := <-ends:
			c.mu.Lock()
			chosen := retries && end.Record.Counts.Unknown > 0 && c.rand.IntN(2) == 0
			c.mu.Unlock()
			if chosen {
				_ = c.change(ctx, history.Event{Kind: history.Retry, Job: end.Job, States: []string{"unknown"}}, "retry", []byte(`{"states":["unknown"]}`)) // recorded
			}
		}
	}
}
