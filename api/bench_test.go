package api_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
)

// instantStore answers at once, so that a benchmark measures what is before it.
type instantStore struct {
	api.Store
	job tasks.Job
}

func (s instantStore) Token(context.Context, string) (tasks.Token, error) {
	return tasks.Token{Tenant: s.job.Tenant, Scopes: tasks.Scopes}, nil
}

func (s instantStore) Now() time.Time { return time.Now() }

func (s instantStore) Registered(context.Context, []string) (map[string]tasks.Instance, error) {
	return nil, nil
}

func (s instantStore) Submit(context.Context, tasks.Submission) (tasks.Job, error) {
	return s.job, nil
}

func (s instantStore) Pace(context.Context, string) error { return nil }

func (s instantStore) Job(context.Context, string) (tasks.Job, error) { return s.job, nil }

func (s instantStore) Version(context.Context, string) (tasks.Job, error) { return s.job, nil }

// finishedJob is a job with 32 items that succeeded.
func finishedJob() tasks.Job {
	now := tasks.FromMillis(time.Now().UnixMilli())
	job := tasks.Job{
		ID: strings.Repeat("0123456789abcdef", 2), Tenant: "acme", Queue: "reset-0", AllowUnregistered: true,
		CreatedAt: now, StartedAt: now, FinishedAt: now, Total: 32, Revision: 65,
	}
	for n := range job.Total {
		job.Items = append(job.Items, tasks.Item{
			ID: tasks.ItemID(job.ID, n), InstanceID: "phone-" + strconv.Itoa(10_000_000+n), State: tasks.ItemSucceeded,
			Attempts: 1, Delivery: 1, StartedAt: now, FinishedAt: now,
		})
	}
	job.Counts = tasks.Count(job.Items)
	job.State = job.Counts.State()
	return job
}

// benchmarkRequest sends one request over and over to a handler on an instant store.
func benchmarkRequest(b *testing.B, job tasks.Job, method, path, body string, want int, header ...string) {
	b.Helper()
	h := api.New(api.Config{MaxInstances: tasks.DefaultMaxInstances, AllowUnregistered: true}, oneStore(instantStore{job: job}), slog.New(slog.DiscardHandler))
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(b.Context(), method, path, strings.NewReader(body))
		r.Header.Set("X-Auth-Token", "acme")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			b.Fatalf("%s %s answers %d %s", method, path, w.Code, w.Body)
		}
	}
}

// One POST of 32 instances, without a connection and without Redis.
func BenchmarkBatchReset(b *testing.B) {
	job := finishedJob()
	var request struct {
		InstanceIDs []string `json:"instance_ids"`
	}
	for _, item := range job.Items {
		request.InstanceIDs = append(request.InstanceIDs, item.InstanceID)
	}
	body, err := json.Marshal(request)
	if err != nil {
		b.Fatal(err)
	}
	benchmarkRequest(b, job, http.MethodPost, batchReset, string(body), http.StatusOK)
}

// One status poll of a job with 32 items, without a connection and without Redis.
func BenchmarkJob(b *testing.B) {
	job := finishedJob()
	b.Run("200", func(b *testing.B) {
		benchmarkRequest(b, job, http.MethodGet, "/v1/jobs/"+job.ID, "", http.StatusOK)
	})
	b.Run("304", func(b *testing.B) {
		benchmarkRequest(b, job, http.MethodGet, "/v1/jobs/"+job.ID, "", http.StatusNotModified,
			"If-None-Match", strconv.Quote(job.Tag()))
	})
}
