package client

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// noStream is what a server, or a proxy before it, answers that has no streams.
var noStream = step{status: 404, body: "<html>"}

func TestWaitWithoutAStream(t *testing.T) {
	still := step{status: 304}
	page := func(tag, body string, retryAfter string) step {
		return step{header: map[string]string{"ETag": tag, "Retry-After": retryAfter}, body: okay(body)}
	}
	t.Run("looks as often as the server suggests and tells each change", func(t *testing.T) {
		s := serve(t, noStream, page(`"1"`, running, "1"), noStream, step{status: 304, header: map[string]string{"Retry-After": "1"}},
			step{status: 304, header: map[string]string{"Retry-After": "1"}}, page(`"2"`, done, ""))
		c, n := connect(t, s.URL)
		var states []string
		job, err := c.Wait(t.Context(), jobID, func(j Job) { states = append(states, j.State) })
		if err != nil || job.State != "succeeded" || string(job.Record) != done {
			t.Fatalf("%+v, %v", job, err)
		}
		if got := strings.Join(states, " "); got != "running succeeded" {
			t.Errorf("told %s", got)
		}
		for i, want := range []string{"", "", "", "wait=10", "wait=10", "wait=10"} {
			if got := s.requests[i].Header.Get("Prefer"); got != want {
				t.Errorf("request %d has Prefer: %q", i, got)
			}
		}
		if got := s.requests[5].Header.Get("If-None-Match"); got != `"1"` {
			t.Errorf("If-None-Match is %q", got)
		}
		n.expect(t, time.Second, time.Second)
	})
	t.Run("backs off to 2 s when the server suggests nothing, and starts over on a change", func(t *testing.T) {
		first := step{header: map[string]string{"ETag": `"1"`}, body: okay(running)}
		second := step{header: map[string]string{"ETag": `"2"`}, body: okay(running)}
		s := serve(t, noStream, first, noStream, still, still, still, still, still, second, still, step{body: okay(done)})
		c, n := connect(t, s.URL)
		if _, err := c.Wait(t.Context(), jobID, nil); err != nil {
			t.Fatal(err)
		}
		ms := time.Millisecond
		n.expect(t, 400*ms, 800*ms, 1600*ms, 2000*ms, 2000*ms, 200*ms, 400*ms)
	})
	t.Run("survives an outage of a server that has answered before", func(t *testing.T) {
		var steps []step
		for range 7 { // more than one reading would bear
			steps = append(steps, step{cut: true}, step{status: 502, body: "<html>"}, step{status: 500, body: `{"error_code":"KOOPHONE.API.9999","error_msg":"internal"}`})
		}
		steps = append([]step{noStream, {header: map[string]string{"ETag": `"1"`}, body: okay(running)}, noStream}, steps...)
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
			refused := step{status: status, body: `{"error_code":"X.1","error_msg":"no"}`}
			s := serve(t, noStream, step{body: okay(running)}, refused)
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
		s := serve(t, noStream, page(`"1"`, running, "60"), noStream, page(`"1"`, running, "60"))
		c, _ := connect(t, s.URL)
		c.sleep = sleep
		job, err := c.Wait(ctx, jobID, func(Job) { cancel() })
		if !errors.Is(err, context.Canceled) || job.State != "running" {
			t.Errorf("%+v, %v", job, err)
		}
	})
}
