package redisdb_test

import (
	"log/slog"
	"strconv"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/tasks/redisdb/wire"
)

// benchmarkBatch is how many instances the batches of the benchmarks have.
const benchmarkBatch = 32

// benchmarkWorld is a real Redis that writes nothing to disk.
func benchmarkWorld(b *testing.B) world {
	b.Helper()
	wire.LogTo(slog.New(slog.DiscardHandler)) // in the middle of a line that benchstat reads
	w := open(b, redisdb.Options{URL: redistest.Start(b, "appendonly no").URL()})
	w.limit(b, "", tasks.Limits{OpenInstances: new(tasks.MaxLimit)}) // it counts, as it does by default
	return w
}

// batchOf returns a batch that has no instance in common with any of another number.
func batchOf(number int) tasks.Submission {
	s := tasks.Submission{Tenant: "acme", RequestID: "req-1", AllowUnregistered: true}
	for n := range benchmarkBatch {
		s.InstanceIDs = append(s.InstanceIDs, "phone-"+strconv.Itoa(10_000_000+number*benchmarkBatch+n))
	}
	return s
}

// One batch of 32: listed, created and enqueued.
func BenchmarkSubmit(b *testing.B) {
	w := benchmarkWorld(b)
	batch := 0
	for b.Loop() {
		if _, err := w.db.Records.Submit(b.Context(), batchOf(batch)); err != nil {
			b.Fatal(err)
		}
		batch++
	}
}

// One instance: locked, begun, finished and unlocked, nothing else going on.
func BenchmarkAttempt(b *testing.B) {
	w := benchmarkWorld(b)
	var waiting []tasks.Delivery
	batch := 0
	for b.Loop() {
		if len(waiting) == 0 {
			b.StopTimer()
			job, err := w.db.Records.Submit(b.Context(), batchOf(batch))
			if err != nil {
				b.Fatal(err)
			}
			waiting = job.Deliveries()
			batch++
			b.StartTimer()
		}
		d := waiting[0]
		waiting = waiting[1:]
		if _, err := w.db.Attempts.Begin(b.Context(), d, "token", "key", time.Minute); err != nil {
			b.Fatal(err)
		}
		if _, err := w.db.Attempts.Finish(b.Context(), d, "token", tasks.Outcome{Transition: tasks.Succeed}, true); err != nil {
			b.Fatal(err)
		}
	}
}

// One read of the record of a batch of 32.
func BenchmarkJob(b *testing.B) {
	w := benchmarkWorld(b)
	job, err := w.db.Records.Submit(b.Context(), batchOf(0))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := w.db.Jobs.Job(b.Context(), job.ID); err != nil {
			b.Fatal(err)
		}
	}
}
