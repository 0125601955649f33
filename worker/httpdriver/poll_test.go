package httpdriver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"batchreset/worker"
)

// trust makes a driver accept a test server's certificate.
func trust(t *testing.T, d *Driver, s *httptest.Server) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	d.sender.Transport = newSender(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
}

// accepting is an upstream that accepts with 202 and then answers polls with
// one step after the other, the last one for ever.
func accepting(t *testing.T, location string, steps ...http.HandlerFunc) (url string, posts *int) {
	t.Helper()
	posts = new(int)
	n := 0
	url = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			*posts++
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusAccepted)
			return
		}
		step := steps[min(n, len(steps)-1)]
		n++
		step(w, r)
	})
	return url, posts
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestAnAcceptedResetIsPolled(t *testing.T) {
	for _, row := range []struct {
		name    string
		steps   []http.HandlerFunc
		verdict worker.Verdict
		message string
	}{
		{"until 200", []http.HandlerFunc{says(202, ""), says(202, ""), says(200, "")}, "", ""},
		{"until 204", []http.HandlerFunc{says(202, ""), says(204, "")}, "", ""},
		{"until it leads to the result", []http.HandlerFunc{says(202, ""), says(303, "")}, "", ""},
		{"while its status is running", []http.HandlerFunc{says(200, `{"status":"InProgress"}`), says(200, `{"status":"Succeeded"}`)}, "", ""},
		{"while a numeric status is running, whatever type its code has", []http.HandlerFunc{says(200, `{"status":1,"error_code":0}`), says(200, `{"status":2}`)}, "", ""},
		{"through trouble of the upstream", []http.HandlerFunc{says(503, ""), says(429, ""), says(500, "<html>"), says(200, "")}, "", ""},
		{"through a lost connection", []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, says(200, "")}, "", ""},
		{"until it failed", []http.HandlerFunc{says(200, `{"status":-1,"error_code":"CPS.0054","error_msg":"job timed out"}`)}, worker.Retryable, "job timed out"},
		{"until it was cancelled", []http.HandlerFunc{says(200, `{"status":"Canceled"}`)}, worker.Retryable, ""},
		{"until it is forgotten", []http.HandlerFunc{says(202, ""), says(404, "")}, worker.Unknown, "does not know it any more"},
	} {
		t.Run(row.name, func(t *testing.T) {
			url, posts := accepting(t, "/operations/7", row.steps...)
			a := attempt()
			saved := ""
			a.Save = func(_ context.Context, checkpoint string) error {
				saved = checkpoint
				return nil
			}
			err := newDriver(t, Config{URL: url}).Reset(t.Context(), a)
			if row.verdict == "" && err != nil {
				t.Errorf("got %v", err)
			} else if row.verdict != "" {
				if e := wantVerdict(t, err, row.verdict); !strings.Contains(e.Message, row.message) {
					t.Errorf("got %+v", e)
				}
			}
			if saved != url+"/operations/7" {
				t.Errorf("saved %q", saved)
			}
			if *posts != 1 {
				t.Errorf("%d POSTs", *posts)
			}
		})
	}
}

func TestPollsWaitAsLongAsTheyAreAsked(t *testing.T) {
	polled := make(chan struct{}, 10)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			polled <- struct{}{}
		}
		w.Header().Set("Location", "/operations/7")
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusAccepted)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	a := attempt()
	a.Checkpoint = url + "/operations/7" // asked at once, then not for an hour
	wantVerdict(t, newDriver(t, Config{URL: url}).Reset(ctx, a), worker.Unknown)
	if len(polled) != 1 {
		t.Errorf("polled %d times", len(polled))
	}
}

func TestRunningOutOfTimeWhilePolling(t *testing.T) {
	for name, row := range map[string]struct {
		save       error
		repeatable bool
	}{
		"can be resumed where the checkpoint was saved": {nil, true},
		"cannot be resumed where it could not be saved": {errors.New("Redis is away"), false},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := accepting(t, "/operations/7", says(202, ""))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			a := attempt()
			a.Save = func(context.Context, string) error { return row.save }
			if e := wantVerdict(t, newDriver(t, Config{URL: url}).Reset(ctx, a), worker.Unknown); e.Repeatable != row.repeatable {
				t.Errorf("repeatable is %t", e.Repeatable)
			}
		})
	}
}

func TestTheTokenDoesNotFollowALocationToAnotherHost(t *testing.T) {
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("another host was asked") })
	url, _ := accepting(t, elsewhere+"/operations/7", says(200, ""))
	e := wantVerdict(t, newDriver(t, Config{URL: url, Token: "secret"}).Reset(t.Context(), attempt()), worker.Unknown)
	if !strings.Contains(e.Message, "another host") {
		t.Errorf("got %+v", e)
	}
	a := attempt()
	a.Checkpoint = elsewhere + "/operations/7"
	wantVerdict(t, newDriver(t, Config{URL: url, Token: "secret"}).Reset(t.Context(), a), worker.Unknown)
}
