package worker_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/worker"
)

func TestAWorkerAnswers(t *testing.T) {
	server := redistest.Start(t)
	db, rdb := dbtest.Open(t, redisdb.Options{URL: server.URL()})
	idle, err := worker.New(config(time.Minute), worker.StoreOf(db), &holding{}, db.Redis.NewServer, logOf(t))
	if err != nil {
		t.Fatal(err)
	}
	answers := func(w *worker.Worker, d time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		return w.Answer(ctx)
	}
	if err := answers(idle, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that does not run: %v", err)
	}
	c := startCrew(t, &scene{db: db, rdb: rdb, inspector: db.Redis.NewInspector()}, &holding{})
	if err := answers(c.Worker, patience); err != nil {
		t.Errorf("one that runs: %v", err)
	}
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(8 * time.Second); time.Now().Before(until); { // it looks for queues every 5 s
		if err := answers(c.Worker, 7*time.Second); err != nil {
			t.Fatalf("one whose Redis does not answer: %v", err)
		}
		harness.Pause(t.Context(), 100*time.Millisecond)
	}
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.end()
	if err := answers(c.Worker, patience); err != nil {
		t.Errorf("one that stops: %v", err)
	}
}
