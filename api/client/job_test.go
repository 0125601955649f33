package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
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
	t.Run("is not sent again while it has not changed", func(t *testing.T) {
		s := serve(t, step{header: map[string]string{"ETag": `"7"`, "Retry-After": "1"}, body: okay(running)}, step{status: 304, header: map[string]string{"ETag": `"7"`}})
		c, _ := connect(t, s.URL)
		first, err := c.JobIfChanged(t.Context(), jobID, "")
		if err != nil || !first.Changed || first.ETag != `"7"` || first.RetryAfter != time.Second {
			t.Fatalf("first look: %+v, %v", first, err)
		}
		second, err := c.JobIfChanged(t.Context(), jobID, first.ETag)
		if err != nil || second.Changed || second.ETag != `"7"` {
			t.Errorf("second look: %+v, %v", second, err)
		}
		if got := s.requests[1].Header.Get("If-None-Match"); got != `"7"` {
			t.Errorf("If-None-Match is %q", got)
		}
	})
}

func TestJobs(t *testing.T) {
	s := serve(t, step{body: okay(`{"jobs":[` + running + `],"next_cursor":"c/2"}`)}, step{body: okay(`{"jobs":[]}`)})
	c, _ := connect(t, s.URL)
	page, err := c.Jobs(t.Context(), JobsFilter{State: "running", InstanceID: "i:1", Limit: 5})
	if err != nil || len(page.Jobs) != 1 || page.Jobs[0].ID != jobID || page.NextCursor != "c/2" {
		t.Fatalf("first page %+v, %v", page, err)
	}
	page, err = c.Jobs(t.Context(), JobsFilter{
		Labels: []string{"run=a&b", "x=="}, Since: time.Date(2026, 1, 2, 4, 4, 5, 500, time.FixedZone("", 3600)),
		Until: time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC), Cursor: page.NextCursor,
	})
	if err != nil || len(page.Jobs) != 0 || page.NextCursor != "" {
		t.Fatalf("last page %+v, %v", page, err)
	}
	t.Run("sends the filter", func(t *testing.T) {
		for i, want := range []string{
			"instance_id=i%3A1&limit=5&state=running",
			"cursor=c%2F2&label=run%3Da%26b&label=x%3D%3D&since=2026-01-02T03%3A04%3A05.0000005Z&until=2026-01-03T00%3A00%3A00Z",
		} {
			if got := s.requests[i].URL.RawQuery; got != want {
				t.Errorf("query %s, want %s", got, want)
			}
		}
	})
}

func TestWait(t *testing.T) {
	still := step{status: 304}
	t.Run("looks as often as the server suggests and tells each change", func(t *testing.T) {
		s := serve(t,
			step{header: map[string]string{"ETag": `"1"`, "Retry-After": "1"}, body: okay(running)}, still, still,
			step{header: map[string]string{"ETag": `"2"`}, body: okay(done)})
		c, n := connect(t, s.URL)
		var states []string
		job, err := c.Wait(t.Context(), jobID, func(j Job) { states = append(states, j.State) })
		if err != nil || job.State != "succeeded" || string(job.Record) != done {
			t.Fatalf("%+v, %v", job, err)
		}
		if got := strings.Join(states, " "); got != "running succeeded" {
			t.Errorf("told %s", got)
		}
		n.expect(t, time.Second, time.Second, time.Second)
	})
	t.Run("backs off to 2 s when the server suggests nothing, and starts over on a change", func(t *testing.T) {
		first := step{header: map[string]string{"ETag": `"1"`}, body: okay(running)}
		s := serve(t, first, still, still, still, still, still, first, still, step{body: okay(done)})
		c, n := connect(t, s.URL)
		if _, err := c.Wait(t.Context(), jobID, nil); err != nil {
			t.Fatal(err)
		}
		ms := time.Millisecond
		n.expect(t, 200*ms, 400*ms, 800*ms, 1600*ms, 2000*ms, 2000*ms, 200*ms, 400*ms)
	})
	t.Run("survives an outage of a server that has answered before", func(t *testing.T) {
		var steps []step
		for range 7 { // more than one reading would bear
			steps = append(steps, step{cut: true}, step{status: 502, body: "<html>"}, step{status: 500, body: `{"error_code":"KOOPHONE.API.9999","error_msg":"internal"}`})
		}
		steps = append([]step{{header: map[string]string{"ETag": `"1"`}, body: okay(running)}}, steps...)
		s := serve(t, append(steps, step{body: okay(done)})...)
		c, _ := connect(t, s.URL)
		told := 0
		c.onRetry = func(error, time.Duration) { told++ }
		job, err := c.Wait(t.Context(), jobID, nil)
		if err != nil || job.State != "succeeded" {
			t.Fatalf("%+v, %v", job, err)
		}
		if told < 14 { // net/http itself repeats a GET on a connection that it kept
			t.Errorf("told of %d failures, want one for each 502 and 500", told)
		}
	})
	t.Run("gives up on a server that never answered", func(t *testing.T) {
		c, _ := connect(t, closedPort(t))
		_, err := c.Wait(t.Context(), jobID, nil)
		wantError(t, err, "no answer from")
	})
	for _, status := range []int{401, 403, 404} {
		t.Run("gives up when the server answers "+http.StatusText(status), func(t *testing.T) {
			s := serve(t, step{body: okay(running)}, step{status: status, body: `{"error_code":"X.1","error_msg":"no"}`})
			c, _ := connect(t, s.URL)
			job, err := c.Wait(t.Context(), jobID, nil)
			wantError(t, err, "X.1: no")
			if job.State != "running" {
				t.Errorf("the last record is %+v", job)
			}
		})
	}
	t.Run("ends with its context and returns the last record", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := serve(t, step{header: map[string]string{"Retry-After": "60"}, body: okay(running)})
		c, _ := connect(t, s.URL)
		c.sleep = sleep
		job, err := c.Wait(ctx, jobID, func(Job) { cancel() })
		if !errors.Is(err, context.Canceled) || job.State != "running" {
			t.Errorf("%+v, %v", job, err)
		}
	})
}
