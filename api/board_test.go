package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"batchreset/api"
	"batchreset/tasks"
)

// board is a store with one job, which a test changes. It works under a fake clock.
type board struct {
	api.Store
	mu   sync.Mutex
	job  tasks.Job
	away int  // so many reads fail
	gone bool // the record has expired

	token     tasks.Token // everybody's; its tenant is empty when there is none any more
	tokenAway bool        // looks at tokens fail
	tokens    int         // that were looked at
}

func newBoard(items int) *board {
	job := finishedJob()
	job.FinishedAt, job.State = tasks.Time{}, tasks.JobRunning
	job.Items = nil
	for n := range items {
		job.Items = append(job.Items, tasks.Item{
			ID: tasks.ItemID(job.ID, n), InstanceID: fmt.Sprintf("phone-%d", n), State: tasks.ItemRunning, Attempts: 1,
			StartedAt: job.StartedAt, Message: strings.Repeat("x", 1000),
		})
	}
	return &board{job: job, token: tasks.Token{Hash: "hash", Tenant: "acme", Scopes: tasks.Scopes}}
}

func (b *board) Now() time.Time { return time.Now() }

// change writes a new version of the record.
func (b *board) change(state tasks.JobState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.job.State = state
	b.job.Revision++
}

func (b *board) read() (tasks.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away > 0 {
		b.away--
		return tasks.Job{}, errors.New("Redis is away")
	}
	if b.gone {
		return tasks.Job{}, tasks.JobGone
	}
	return b.job, nil
}

func (b *board) path() string { return "/v1/jobs/" + b.job.ID }

func (b *board) Token(context.Context, string) (tasks.Token, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.token, nil
}

func (b *board) NoteUse(context.Context, map[string]tasks.Time) error { return nil }

func (b *board) TokensByHash(_ context.Context, hashes []string) (map[string]tasks.Token, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens += len(hashes)
	if b.tokenAway {
		return nil, errors.New("Redis is away")
	}
	if b.token.Tenant == "" {
		return nil, nil
	}
	return map[string]tasks.Token{b.token.Hash: b.token}, nil
}

// setToken changes the token, for those who wait, too.
func (b *board) setToken(change func(*tasks.Token)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.token)
}

func (b *board) Pace(context.Context, string) error { return nil }

func (b *board) Version(context.Context, string) (tasks.Job, error) { return b.read() }

func (b *board) Job(context.Context, string) (tasks.Job, error) { return b.read() }

func (b *board) Finished(ctx context.Context, _ func(string)) error {
	<-ctx.Done()
	return nil
}

func (b *board) Tags(context.Context, []string) (map[string]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return map[string]string{b.job.ID: b.job.Tag()}, nil
}

// runOn runs an API on a board until the test ends or stop is called.
func runOn(t *testing.T, b *board, cfg api.Config, log *slog.Logger) (a *api.API, stop func()) {
	t.Helper()
	a = api.New(cfg, oneStore(b), log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return a, stop
}

// metric is the sum over a metric's labels.
func metric(t *testing.T, c prometheus.Collector, name string) (sum float64) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
