package client

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/api/relaytest"
	"batchreset/cmd/harness/faketime"
)

// within is how long a dead connection may hold up a caller.
const within = time.Minute

// throughRelay gives f, in a bubble whose time is not real, a client that has a connection
// in use for looks and one for streams, once over HTTP/1.1 and once over HTTP/2.
func throughRelay(t *testing.T, h http.Handler, f func(t *testing.T, relay *relaytest.Relay, c *Client)) {
	t.Helper()
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				relay := relaytest.Start(t, h)
				c, _ := connect(t, "http://service.example")
				c.sleep = sleep
				relay.Carry(c.http.Transport.(*http.Transport), http2)
				relay.Carry(c.streams.Transport.(*http.Transport), http2)
				f(t, relay, c)
				c.Close()
			})
		})
	}
}

func TestWaitOverAConnectionThatGoesDead(t *testing.T) {
	var ended atomic.Bool
	service := http.NewServeMux()
	service.HandleFunc("GET /v1/jobs/{job}", func(w http.ResponseWriter, _ *http.Request) {
		if ended.Load() {
			write(w, okay(done))
			return
		}
		w.Header().Set("ETag", `"1"`)
		write(w, okay(running))
	})
	service.HandleFunc("GET /v1/jobs/{job}/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		write(w, jobEvent("1", running))
		for !ended.Load() {
			select {
			case <-time.After(15 * time.Second):
				write(w, ":\n\n")
			case <-r.Context().Done():
				return
			}
		}
		write(w, jobEvent("2", done))
	})
	throughRelay(t, service, func(t *testing.T, relay *relaytest.Relay, c *Client) {
		ended.Store(false)
		if _, err := c.Job(t.Context(), jobID); err != nil { // as a submit before
			t.Fatal(err)
		}
		var swallowed time.Time
		job, err := c.Wait(t.Context(), jobID, func(job Job) {
			if !job.Final() {
				relay.Swallow()
				swallowed = time.Now()
				ended.Store(true)
			}
		})
		if err != nil || job.State != "succeeded" {
			t.Fatalf("%+v, %v", job, err)
		}
		if took := time.Since(swallowed); took > within {
			t.Errorf("heard of the end after %s", took)
		}
	})
}

// TestPollingOverAConnectionThatGoesDead has no streams.
func TestPollingOverAConnectionThatGoesDead(t *testing.T) {
	var looks atomic.Int32
	var ended atomic.Bool
	service := http.NewServeMux()
	service.HandleFunc("GET /v1/jobs/{job}", func(w http.ResponseWriter, r *http.Request) {
		looks.Add(1)
		switch {
		case ended.Load():
			write(w, okay(done))
		case strings.HasPrefix(r.Header.Get("Prefer"), "wait="):
			faketime.Pass(longPoll)
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("ETag", `"1"`)
			write(w, okay(running))
		}
	})
	throughRelay(t, service, func(t *testing.T, relay *relaytest.Relay, c *Client) {
		looks.Store(0)
		ended.Store(false)
		var swallowed time.Time
		go func() {
			for looks.Load() < 5 {
				faketime.Pass(time.Second)
			}
			faketime.Pass(time.Second) // the fifth waits
			relay.Swallow()
			swallowed = time.Now()
			ended.Store(true)
		}()
		job, err := c.Wait(t.Context(), jobID, nil)
		if err != nil || job.State != "succeeded" {
			t.Fatalf("%+v, %v", job, err)
		}
		if took := time.Since(swallowed); took > within {
			t.Errorf("heard of the end after %s", took)
		}
	})
}

func TestASubmitOverAConnectionThatGoesDead(t *testing.T) {
	var relay *relaytest.Relay
	keys := make(chan string, 10)
	service := http.NewServeMux()
	service.HandleFunc("GET /v1/jobs/{job}", func(w http.ResponseWriter, _ *http.Request) { write(w, okay(running)) })
	service.HandleFunc("POST /v1/instances/batch-reset", func(w http.ResponseWriter, r *http.Request) {
		if keys <- r.Header.Get("Idempotency-Key"); len(keys) == 1 {
			relay.Swallow() // it was accepted
		}
		write(w, okay(`{"task_id":"`+jobID+`"}`))
	})
	throughRelay(t, service, func(t *testing.T, r *relaytest.Relay, c *Client) {
		relay, keys = r, make(chan string, 10)
		began := time.Now()
		accepted, err := c.Submit(t.Context(), Batch{InstanceIDs: []string{"a"}})
		if err != nil || accepted.JobID != jobID || len(keys) != 2 {
			t.Fatalf("%+v, %v after %d requests", accepted, err, len(keys))
		}
		if first, second := <-keys, <-keys; first != second {
			t.Errorf("the second try has the key %s, the first had %s", second, first)
		}
		if took := time.Since(began); took > within {
			t.Errorf("it took %s", took)
		}
	})
}

// TestManyDeadConnections has more of them than a request is repeated.
func TestManyDeadConnections(t *testing.T) {
	together := make(chan struct{})
	service := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == jobPath("first") {
			<-together
		}
		write(w, okay(running))
	})
	throughRelay(t, service, func(t *testing.T, relay *relaytest.Relay, c *Client) {
		together = make(chan struct{})
		failed := make(chan error, maxReads)
		for range maxReads {
			go func() {
				_, err := c.Job(t.Context(), "first")
				failed <- err
			}()
		}
		synctest.Wait()
		close(together)
		var err error
		for range maxReads {
			err = errors.Join(err, <-failed)
		}
		if err != nil {
			t.Fatal(err)
		}
		relay.Swallow()
		began, before := time.Now(), relay.Connections()
		if _, err := c.Job(t.Context(), jobID); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > within {
			t.Errorf("it took %s", took)
		}
		if relay.Connections() != before+1 {
			t.Errorf("%d connections, then %d", before, relay.Connections())
		}
	})
}
