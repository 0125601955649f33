package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/harness"
)

// startReceiver serves the receiver of the tenant's webhooks. It takes them all.
func (w *world) startReceiver(ctx context.Context, later func(func())) (err error) {
	w.receiver, err = serve(ctx, map[string]http.HandlerFunc{"POST /": w.receive}, later)
	return err
}

func (w *world) receive(_ http.ResponseWriter, r *http.Request) {
	e := Event{Kind: Told, Begin: w.rec.now(), Key: r.Header.Get("webhook-id")}
	var body struct{ Data client.Job }
	if json.NewDecoder(r.Body).Decode(&body) != nil {
		return // the check misses it
	}
	body.Data.Record = nil // the fields say it all
	e.Job, e.Record, e.End = body.Data.ID, &body.Data, w.rec.now()
	w.rec.add(e)
	select {
	case w.endings <- e:
	default: // nobody is in a hurry
	}
}

// allTold waits until the last end of every job was told, or for twice the patience with
// jobs, which is longer than everything that may delay a webhook: the next look of the
// sweeper at a job that was open for long, or a worker that died while it was sending.
// What is missing then is for the check to say.
func (w *world) allTold(ctx context.Context) error {
	for deadline := time.Now().Add(2 * w.patience); time.Now().Before(deadline); harness.Pause(ctx, time.Second) {
		w.rec.mu.Lock()
		f := index(History{Start: w.rec.start, Events: w.rec.events})
		w.rec.mu.Unlock()
		if len(f.untold()) == 0 || ctx.Err() != nil {
			break
		}
	}
	return ctx.Err()
}

// untold are the jobs whose last end was not told.
func (f facts) untold() (jobs []string) {
	for _, job := range f.jobs {
		end := f.last(job)
		if end != nil && end.Final() && !slices.ContainsFunc(f.told[job], func(e Event) bool {
			return e.Record.State == end.State && e.Record.FinishedAt.Equal(end.FinishedAt)
		}) {
			jobs = append(jobs, job)
		}
	}
	return jobs
}

// checkI9EveryEndIsTold: the last end of every job was told, and two ends never have one
// event ID.
func (f facts) checkI9EveryEndIsTold() (vs []Violation) {
	for _, job := range f.untold() {
		end := f.last(job)
		if at := end.FinishedAt.Sub(f.Start); !f.forgettable(at-f.Skew, at+f.Skew, 0) {
			vs = append(vs, Violation{"I9", fmt.Sprintf("job %s was %s and nobody was told", job, end.State), f.jobStory(job)})
		}
	}
	for _, job := range f.jobs {
		ends := map[string]Event{}
		for _, e := range f.told[job] {
			first, again := ends[e.Key]
			if again && !first.Record.FinishedAt.Equal(e.Record.FinishedAt) && f.Forgets == "" {
				vs = append(vs, Violation{"I9", fmt.Sprintf("job %s: two ends are told as %s", job, e.Key), f.jobStory(job)})
			}
			ends[e.Key] = e
		}
	}
	return vs
}
