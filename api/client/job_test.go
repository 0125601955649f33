package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"testing"
	"time"
)

const batchAccepted = `{"task_id":"` + jobID + `","cmd_jobs":[{"instance_id":"i-1","job_id":"` + jobID + `-0"},{"instance_id":"i-2","job_id":"` + jobID + `-1"}]}`

func TestSubmit(t *testing.T) {
	batch := Batch{InstanceIDs: []string{"i-1", "i-2"}}
	t.Run("posts the IDs and returns the job in our words", func(t *testing.T) {
		s := serve(t, step{body: okay(batchAccepted)})
		c, _ := connect(t, s.URL)
		got, err := c.Submit(t.Context(), batch)
		if err != nil {
			t.Fatal(err)
		}
		want := Accepted{JobID: jobID, Items: []AcceptedItem{{jobID + "-0", "i-1"}, {jobID + "-1", "i-2"}}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		r := s.requests[0]
		if r.Method != http.MethodPost || r.URL.Path != "/v1/instances/batch-reset" || s.bodies[0] != `{"instance_ids":["i-1","i-2"]}` {
			t.Errorf("sent %s %s %s", r.Method, r.URL.Path, s.bodies[0])
		}
	})
	t.Run("sends again after 429, which accepts nothing", func(t *testing.T) {
		s := serve(t, step{status: 429, header: map[string]string{"Retry-After": "2"}, body: `{"error_code":"APIGW.0308","error_msg":"slow"}`}, step{body: okay(batchAccepted)})
		c, n := connect(t, s.URL)
		if _, err := c.Submit(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		n.expect(t, 2*time.Second)
		if s.bodies[0] != s.bodies[1] {
			t.Errorf("sent %s, then %s", s.bodies[0], s.bodies[1])
		}
	})

	t.Run("bears with 429 for as long as its context lasts", func(t *testing.T) {
		busy := step{status: 429, header: map[string]string{"Retry-After": "3600"}, body: `{"error_code":"APIGW.0308","error_msg":"quota"}`}
		s := serve(t, busy, busy, busy, step{body: okay(batchAccepted)})
		c, n := connect(t, s.URL)
		if _, err := c.Submit(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		n.expect(t, time.Hour, time.Hour, time.Hour)
	})

	failed := `{"error_code":"KOOPHONE.API.9999","error_msg":"internal error"}`
	for _, row := range []struct {
		name      string
		answer    step
		uncertain bool
	}{
		{"a lost connection", step{cut: true}, true},
		{"half an answer", step{short: true, body: okay(batchAccepted)}, true},
		{"an internal error", step{status: 500, body: failed}, true},
		{"a proxy's 502", step{status: 502, body: "<html>"}, true},
		{"a proxy's 503", step{status: 503, body: "<html>"}, true},
		{"a success that is no JSON", step{body: okay(batchAccepted)[:50]}, true},
		{"a success without a task_id", step{body: okay(`{}`)}, true},
		{"a 400", step{status: 400, body: `{"error_code":"KOOPHONE.API.1001","error_msg":"no permission"}`}, false},
		{"a 401", step{status: 401, body: `{"error_code":"APIGW.0301","error_msg":"no"}`}, false},
		{"a 404 page of another server", step{status: 404, body: "not found"}, false},
		{"a Redis that is nearly full", step{status: 507, body: `{"error_code":"RESET.0006","error_msg":"full"}`}, false},
		{"a token service that is away", step{status: 503, body: `{"error_code":"APIGW.0613","error_msg":"IAM"}`}, false},
	} {
		name := "says that nothing was accepted after " + row.name
		if row.uncertain {
			name = "says that the batch may have been accepted after " + row.name
		}
		t.Run(name, func(t *testing.T) {
			s := serve(t, step{body: okay(batchAccepted)}, row.answer)
			c, n := connect(t, s.URL)
			// The first request leaves a connection that the second one reuses, which
			// is when net/http is tempted to send again.
			if _, err := c.Submit(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			_, err := c.Submit(t.Context(), batch)
			if err == nil || errors.Is(err, ErrUncertain) != row.uncertain {
				t.Errorf("error %v", err)
			}
			if row.uncertain {
				wantError(t, err, "may have been accepted", "batchreset jobs")
			}
			keys := map[string]bool{}
			s.mu.Lock()
			tries := s.requests[1:]
			s.mu.Unlock()
			for _, r := range tries {
				keys[r.Header.Get("Idempotency-Key")] = true
			}
			if len(keys) != 1 {
				t.Errorf("sent under %d keys", len(keys))
			}
			if row.uncertain != (s.seen() > 2) {
				t.Errorf("the batch was sent %d times", s.seen()-1)
			}
			if !row.uncertain {
				n.expect(t)
			}
		})
	}
	t.Run("sends a batch whose answer was lost again, as the same batch", func(t *testing.T) {
		s := serve(t, step{cut: true}, step{body: okay(batchAccepted)})
		c, _ := connect(t, s.URL)
		b := batch
		b.IdempotencyKey, b.MaxFailures = `my "key"`, 1
		if _, err := c.Submit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		for i, r := range s.requests {
			if got := r.Header.Get("Idempotency-Key"); got != `"my \"key\""` {
				t.Errorf("try %d has the key %s", i, got)
			}
			if s.bodies[i] != `{"instance_ids":["i-1","i-2"],"max_failures":1}` {
				t.Errorf("try %d sends %s", i, s.bodies[i])
			}
		}
	})
	t.Run("says that nothing was accepted when there is no server", func(t *testing.T) {
		c, n := connect(t, closedPort(t))
		_, err := c.Submit(t.Context(), batch)
		wantError(t, err, "no answer from http://127.0.0.1:")
		if errors.Is(err, ErrUncertain) {
			t.Error(err)
		}
		n.expect(t)
	})
	t.Run("says that nothing was accepted when the context had ended before", func(t *testing.T) {
		s := serve(t, step{body: okay(batchAccepted)})
		c, _ := connect(t, s.URL)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Submit(ctx, batch)
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUncertain) || s.seen() != 0 {
			t.Errorf("error %v after %d requests", err, s.seen())
		}
	})
}

func TestJob(t *testing.T) {
	t.Run("reads every field and keeps the record as it was sent", func(t *testing.T) {
		record := `{"job_id":"` + jobID + `","state":"partial","request_id":"R1","created_at":"2026-01-02T03:04:05.678Z",` +
			`"total":7,"counts":{"pending":1,"running":2,"retrying":3,"succeeded":4,"failed":5,"unknown":6,"cancelled":7},` +
			`"items":[{"item_id":"` + jobID + `-0","instance_id":"i-1","state":"failed","attempts":3,"error_code":"CPS.0005","error_msg":"no"}],` +
			`"reason":"spring","labels":{"team":"a"},"newer":[1]}`
		s := serve(t, step{body: okay(record)})
		c, _ := connect(t, s.URL)
		got, err := c.Job(t.Context(), jobID)
		if err != nil {
			t.Fatal(err)
		}
		want := Job{
			ID: jobID, State: "partial", RequestID: "R1", CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC),
			Total: 7, Counts: Counts{1, 2, 3, 4, 5, 6, 7},
			Items:  []Item{{ItemID: jobID + "-0", InstanceID: "i-1", State: "failed", Attempts: 3, Code: "CPS.0005", Message: "no"}},
			Reason: "spring", Labels: map[string]string{"team": "a"},
			Record: json.RawMessage(record),
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}

func TestRetry(t *testing.T) {
	const record = `{"job_id":"` + jobID + `","state":"pending"}`
	for _, row := range []struct {
		states []string
		body   string
	}{
		{nil, ""},
		{[]string{"unknown"}, `{"states":["unknown"]}`},
		{[]string{"failed", "cancelled"}, `{"states":["failed","cancelled"]}`},
	} {
		s := serve(t, step{body: okay(record)})
		c, _ := connect(t, s.URL)
		job, err := c.Retry(t.Context(), jobID, row.states...)
		if err != nil || job.State != "pending" {
			t.Errorf("%v: %+v, %v", row.states, job, err)
		}
		if r := s.requests[0]; r.Method != http.MethodPost || r.URL.Path != "/v1/jobs/"+jobID+"/retry" || s.bodies[0] != row.body {
			t.Errorf("%v: sent %s %s %q", row.states, r.Method, r.URL.Path, s.bodies[0])
		}
	}
}
