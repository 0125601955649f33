package worker

import (
	"context"
	"log/slog"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/tasks/redisdb/wire"
)

// One attempt from lock to unlock with a driver that is done at once, on a real Redis
// that writes nothing to disk. What asynq does before and after is not in it.
func BenchmarkProcess(b *testing.B) {
	b.Run("one at a time", func(b *testing.B) {
		w, items := newProcessBenchmark(b)
		b.ResetTimer()
		for _, task := range items {
			if err := w.process(b.Context(), task); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("50 at a time", func(b *testing.B) {
		const concurrency = 50
		w, items := newProcessBenchmark(b)
		b.SetParallelism((concurrency + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
		var next atomic.Int64
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := w.process(b.Context(), items[next.Add(1)-1]); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// newProcessBenchmark makes a worker that is not started, and the tasks of b.N items.
func newProcessBenchmark(b *testing.B) (*Worker, []*asynq.Task) {
	b.Helper()
	wire.LogTo(slog.New(slog.DiscardHandler)) // in the middle of a line that benchstat reads
	db, err := redisdb.Open(b.Context(), redisdb.Options{URL: redistest.Start(b, "appendonly no").URL()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	w, err := New(Config{
		QueuesOf: db.Queues.Of, Concurrency: 50, Lanes: 1, MaxAttempts: 3, AttemptTimeout: time.Minute, ShutdownTimeout: time.Minute,
		Calls: func(driver string) CallCounter { return db.Calls.Of(driver) },
	}, StoreOf(db), driverFunc(func(context.Context, Attempt) error { return nil }), db.Redis.NewServer, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	const batch = 32
	var items []*asynq.Task
	for first := 0; first < b.N; first += batch {
		s := tasks.Submission{Tenant: "acme", AllowUnregistered: true}
		for n := range batch {
			s.InstanceIDs = append(s.InstanceIDs, "phone-"+strconv.Itoa(first+n))
		}
		job, err := db.Records.Submit(b.Context(), s)
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range job.Deliveries() {
			items = append(items, asynq.NewTask(tasks.TypeReset, d.Encode()))
		}
	}
	return w, items[:b.N]
}
