package ops_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynqmon"
	"github.com/prometheus/client_golang/prometheus"

	"batchreset/api/browsertest"
	"batchreset/api/ops"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/tasks/redisdb/runs"
	"batchreset/worker"
)

type driverFunc func(ctx context.Context, a worker.Attempt) error

func (f driverFunc) Reset(ctx context.Context, a worker.Attempt) error { return f(ctx, a) }

// newSite starts the operators' site over a Redis in which one item has failed
// for good and one waits for its retry.
func newSite(t *testing.T) (url string) {
	t.Helper()
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: redistest.Start(t).URL(), TaskRetention: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	w, err := worker.New(worker.Config{
		QueuesOf: db.Queues.Of, Concurrency: 1, Lanes: 1, MaxAttempts: 5, AttemptTimeout: time.Minute,
	}, worker.Store{Attempts: db.Attempts, Policies: db.Policies, Quotas: db.Quotas, Notices: db.Notices, Routes: db.Sweep}, driverFunc(func(_ context.Context, a worker.Attempt) error {
		switch a.InstanceID {
		case "phone-gone":
			return &worker.DriverError{Verdict: worker.Permanent, Code: "CPS.0005", Message: "Phone not found."}
		case "phone-slow":
			return &worker.DriverError{Verdict: worker.Retryable, Code: "CPS.0042", Message: "system busy", RetryAfter: time.Hour}
		}
		return nil
	}), db.Redis.NewServer, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	job, err := db.Records.Submit(t.Context(), tasks.Submission{
		Tenant: "acme", InstanceIDs: []string{"phone-ok", "phone-gone", "phone-slow"}, AllowUnregistered: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for reached := false; !reached; {
		got, err := db.Jobs.Job(t.Context(), job.ID)
		if err != nil {
			t.Fatal(err)
		}
		reached = got.Counts == tasks.Counts{Succeeded: 1, Failed: 1, Retrying: 1}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	calls := prometheus.NewCounter(prometheus.CounterOpts{Name: "batchreset_test_calls_total", Help: "Of the test."})
	calls.Add(3)
	site := httptest.NewServer(ops.New(ops.Config{
		Version: "v1.2.3",
		Redis:   asynqmon.Options{RedisConnOpt: db.Redis}, Store: storeOf(db), OpenHere: true, Log: slog.New(slog.DiscardHandler),
	}, calls))
	t.Cleanup(site.Close)
	return site.URL
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

func TestTheSite(t *testing.T) {
	t.Parallel()
	url := newSite(t)
	t.Run("leads from its home page to the dashboard", func(t *testing.T) {
		if status, body := get(t, url+"/"); status != http.StatusOK || !strings.Contains(body, `href="asynq"`) {
			t.Errorf("%d %s", status, body)
		}
	})
	t.Run("is alive, and says its version", func(t *testing.T) {
		if status, body := get(t, url+"/healthz"); status != http.StatusOK || body != `{"error_code":"0","error_msg":"ok","data":{"version":"v1.2.3"}}`+"\n" {
			t.Errorf("%d %s", status, body)
		}
	})
	t.Run("has metrics of Go, of the process and of what it is given", func(t *testing.T) {
		_, body := get(t, url+"/metrics")
		for _, want := range []string{"go_goroutines", "process_start_time_seconds", "go_build_info", "batchreset_test_calls_total 3\n"} {
			if !strings.Contains(body, want) {
				t.Errorf("lacks %s", want)
			}
		}
	})
	t.Run("lets no other site change something through a browser", func(t *testing.T) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, url+"/asynq/api/queues/reset-0", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("answers %d", response.StatusCode)
		}
	})
	t.Run("shows queues, retries and archived tasks in a browser", func(t *testing.T) {
		for _, page := range []struct {
			name, path string
			want       []string
		}{
			{"queues", "/asynq/", []string{"reset-0"}},
			{"retry", "/asynq/queues/reset-0?status=retry", []string{"phone-slow", "CPS.0042", "instance:reset"}},
			{"archived", "/asynq/queues/reset-0?status=archived", []string{"phone-gone", "CPS.0005", "instance:reset"}},
			{"completed", "/asynq/queues/reset-0?status=completed", []string{"phone-ok"}},
		} {
			dom := browsertest.Open(t, url+page.path, "asynq-"+page.name).DOM
			for _, want := range page.want {
				if !strings.Contains(dom, want) {
					t.Errorf("%s: the page does not show %q", page.name, want)
				}
			}
		}
	})
}

func TestReadyzOfTheSite(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	stopping := make(chan struct{})
	site := httptest.NewServer(ops.New(ops.Config{
		Redis: asynqmon.Options{RedisConnOpt: db.Redis}, Store: storeOf(db), Stopping: stopping, Log: slog.New(slog.DiscardHandler),
	}))
	defer site.Close()
	for _, row := range []struct {
		name   string
		make   func()
		status int
		text   string
	}{
		{"well", func() {}, http.StatusOK, `"error_code":"0"`},
		{"a Redis that may evict jobs", func() {
			if err := server.Client(t).ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
				t.Fatal(err)
			}
		}, http.StatusInternalServerError, "maxmemory-policy allkeys-lru"},
		{"no Redis", server.Kill, http.StatusInternalServerError, "Redis does not answer"},
		{"a process that is to stop", func() { close(stopping) }, http.StatusServiceUnavailable, "is stopping"},
	} {
		row.make()
		if status, body := get(t, site.URL+"/readyz"); status != row.status || !strings.Contains(body, row.text) {
			t.Errorf("%s: %d %s", row.name, status, body)
		}
	}
}

// storeOf is what a site needs of a DB.
func storeOf(db *redisdb.DB) ops.Store {
	return ops.Store{
		Operators: db.Operators, Accounts: db.Operators, Forms: db.Operators, AuditTrail: db.Audit, Jobs: db.Jobs, Records: db.Records, Runs: struct {
			*runs.Runs
			*runs.Decisions
		}{db.Runs, db.RunDecisions},
		FailureIndex: db.Failures, Fleet: db.Fleet, Workers: db.Workers,
		Credentials: db.Tokens, Policies: db.Policies, Quotas: db.Quotas, Endpoints: db.Endpoints, Notices: db.Notices, Summary: db.Overview, Server: db, Clock: db.Redis,
	}
}
