package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// startReceiver serves the receiver of the tenant's webhooks. It takes them all.
func (w *world) startReceiver(ctx context.Context, later func(func())) (err error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", w.receive)
	w.receiver, err = serve(ctx, mux, later)
	return err
}

func (w *world) receive(_ http.ResponseWriter, r *http.Request) {
	e := history.Event{Kind: history.Told, Begin: w.rec.Now(), Key: r.Header.Get("webhook-id")}
	var body struct {
		Type tasks.Topic
		Data client.Job
	}
	if json.NewDecoder(r.Body).Decode(&body) != nil || body.Type != tasks.TopicJobFinished {
		return // if it was about the end of a job, the check misses it
	}
	body.Data.Record = nil // the fields say it all
	e.Job, e.Record, e.End = body.Data.ID, &body.Data, w.rec.Now()
	w.rec.Add(e)
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
		if len(history.Untold(w.rec.Events())) == 0 || ctx.Err() != nil {
			break
		}
	}
	return ctx.Err()
}
