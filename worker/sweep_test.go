package worker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// sweepBench is a bench whose clock can be set, and a sweeper over it.
type sweepBench struct {
	bench
	server *miniredis.Miniredis
	*Sweeper
}

func newSweepBench(t *testing.T) sweepBench {
	t.Helper()
	server := miniredis.RunT(t)
	b := newBenchOn(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true, TaskRetention: time.Hour},
		repeatable{func(context.Context, Attempt) error { return nil }})
	store := SweepStoreOf(b.db)
	store.OpenJobs = nobody{store.OpenJobs}
	return sweepBench{b, server, NewSweeper(store, b.db.Queues.Queues, b.log)}
}

func (b sweepBench) sweep(t *testing.T) {
	t.Helper()
	if err := b.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// later moves Redis's clock.
func (b sweepBench) later(d time.Duration) { b.server.SetTime(time.Now().Add(d)) }

func (b sweepBench) deliveryOf(t *testing.T, job tasks.Job) int {
	t.Helper()
	return b.item(t, job).Delivery
}

func (b sweepBench) listed(job tasks.Job) bool {
	return b.rdb.ZScore(context.Background(), "reset:open", job.ID).Err() == nil
}

func TestSweepDeliversWhatIsLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, b sweepBench, d tasks.Delivery) error{
		"a task that was deleted, or never enqueued": func(_ *testing.T, b sweepBench, d tasks.Delivery) error {
			return b.db.Redis.NewInspector().DeleteTask("reset-0", d.TaskID())
		},
		"a task that was archived on the dashboard": func(_ *testing.T, b sweepBench, d tasks.Delivery) error {
			return b.db.Redis.NewInspector().ArchiveTask("reset-0", d.TaskID())
		},
		"a queue that was deleted": func(_ *testing.T, b sweepBench, _ tasks.Delivery) error {
			return b.db.Redis.NewInspector().DeleteQueue("reset-0", true)
		},
		"a task that completed without an end in the record": func(t *testing.T, b sweepBench, d tasks.Delivery) error {
			t.Helper()
			done := make(chan struct{})
			server := b.db.Redis.NewServer(asynq.Config{Queues: map[string]int{"reset-0": 1}, LogLevel: asynq.FatalLevel, ShutdownTimeout: time.Minute})
			if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
				close(done)
				return nil
			})); err != nil {
				return err
			}
			<-done
			server.Shutdown()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newSweepBench(t)
			job := b.submit(t, "phone-1")
			if err := lose(t, b, job.Deliveries()[0]); err != nil {
				t.Fatal(err)
			}
			b.sweep(t)
			if n := b.deliveryOf(t, job); n != 1 {
				t.Fatalf("delivery %d before the sweep is due: the submit may still be enqueuing", n)
			}
			b.later(2 * time.Minute)
			b.sweep(t)
			if n := b.deliveryOf(t, job); n != 2 {
				t.Fatalf("delivery %d after the sweep", n)
			}
			b.start(t)
			if got := b.waitFinal(t, job); got.State != tasks.JobSucceeded || got.Items[0].Attempts != 1 {
				t.Errorf("job %+v", got)
			}
		})
	}
}

// A worker may die between the end of an item and its entry in the list of failures.
func TestAJobIsNotDoneWithBeforeItsFailuresAreListed(t *testing.T) {
	b := newSweepBench(t)
	job := b.submit(t, "phone-1")
	d := job.Deliveries()[0]
	if _, err := b.db.Attempts.Abandon(t.Context(), d, tasks.BusyTooLong, "busy", 0); err != nil {
		t.Fatal(err)
	}
	kinds := func() int {
		found, err := b.db.Failures.FailureKinds(t.Context(), 24*time.Hour, 1)
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	if kinds() != 1 {
		t.Fatal("the failure is not listed")
	}
	b.rdb.Del(t.Context(), b.rdb.Keys(t.Context(), "reset:failures*").Val()...)
	b.rdb.Set(t.Context(), "reset:failures", "no list", 0) // nothing can be listed
	b.later(2 * time.Minute)
	b.sweep(t)
	if !b.listed(job) {
		t.Fatal("the job left the open index without its failures")
	}
	b.rdb.Del(t.Context(), "reset:failures")
	b.later(time.Hour)
	b.sweep(t)
	if b.listed(job) || kinds() != 1 {
		t.Errorf("listed as open: %t, %d kinds of failures", b.listed(job), kinds())
	}
}

func TestSweepLeavesAloneWhatIsNotLost(t *testing.T) {
	b := newSweepBench(t)
	job := b.submit(t, "phone-1")
	for n := range 5 {
		b.later(time.Duration(n) * time.Hour)
		b.sweep(t)
	}
	if n := b.deliveryOf(t, job); n != 1 {
		t.Errorf("delivery %d of an item whose task waits", n)
	}
	// A job that has been open for long is not looked at all the time.
	score := b.rdb.ZScore(t.Context(), "reset:open", job.ID).Val()
	if next := time.UnixMilli(int64(score)).Sub(time.Now().Add(4 * time.Hour)); next < recheckLast-time.Minute || next > recheckLast+time.Minute {
		t.Errorf("looked at again in %s", next)
	}
}

func TestSweepDropsFinalJobsAndThoseThatNeverCameToBe(t *testing.T) {
	b := newSweepBench(t)
	job, ghost := b.submit(t, "phone-1"), tasks.Job{ID: tasks.NewJobID()}
	if err := b.deliver(t, job); err != nil {
		t.Fatal(err)
	}
	if err := b.rdb.ZAdd(t.Context(), "reset:open", redis.Z{Score: float64(time.Now().Add(time.Minute).UnixMilli()), Member: ghost.ID}).Err(); err != nil {
		t.Fatal(err)
	}
	b.sweep(t)
	if !b.listed(job) || !b.listed(ghost) {
		t.Error("dropped before it was due")
	}
	b.later(2 * time.Minute)
	b.sweep(t)
	if b.listed(job) || b.listed(ghost) {
		t.Error("still listed as open")
	}
}

func TestARetryThatComesWhileAJobIsBeingDroppedKeepsItListed(t *testing.T) {
	b := newSweepBench(t)
	job := b.submit(t, "phone-1")
	if err := b.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	b.later(2 * time.Minute)
	due, _, err := b.db.Sweep.Claim(t.Context(), 10, claimTime)
	if err != nil || len(due) != 1 {
		t.Fatalf("due %v, %v", due, err)
	}
	if err := b.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if err := b.db.Sweep.Unlist(t.Context(), due[0]); err != nil {
		t.Fatal(err)
	}
	if !b.listed(job) {
		t.Error("an open job is not listed")
	}
}

func TestSweepTakesOverFromADeadWorker(t *testing.T) {
	b := newSweepBench(t)
	job := b.submit(t, "phone-1")
	d := job.Deliveries()[0]
	// A worker took the task, began, and died.
	_ = b.taken(t, d)
	if _, err := b.db.Attempts.Begin(t.Context(), d, "dead", "k", time.Minute); err != nil {
		t.Fatal(err)
	}
	b.sweep(t)
	if n := b.deliveryOf(t, job); n != 1 {
		t.Fatalf("delivery %d at the first look", n)
	}
	b.SuspectFor(0)
	b.sweep(t)
	if n := b.deliveryOf(t, job); n != 2 {
		t.Fatalf("delivery %d of an item that nobody has had in hand for long", n)
	}
	if _, err := b.db.Attempts.Begin(t.Context(), d, "asynq gave the old task to someone", "k", time.Minute); !errors.Is(err, tasks.OldDelivery) {
		t.Errorf("the old delivery begins: %v", err)
	}
	b.start(t)
	got := b.waitFinal(t, job)
	if it := got.Items[0]; got.State != tasks.JobSucceeded || it.Attempts != 2 {
		t.Errorf("job %+v", got)
	}
}

// taken makes a task active, as if a worker had taken it.
func (b sweepBench) taken(t *testing.T, d tasks.Delivery) string {
	t.Helper()
	entered := make(chan struct{})
	hold := make(chan struct{})
	// With a second slot it would take the next delivery, too, before the worker under test.
	server := b.db.Redis.NewServer(asynq.Config{Concurrency: 1, Queues: map[string]int{"reset-0": 1}, LogLevel: asynq.FatalLevel, ShutdownTimeout: time.Minute})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		close(entered)
		<-hold
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(hold)
		server.Shutdown()
	})
	<-entered
	return d.TaskID()
}

func TestLossSchedule(t *testing.T) {
	want := []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second}
	for before, d := range want {
		if got := lossDelay(before); got != d {
			t.Errorf("after %d lost attempts before: %s, want %s", before, got, d)
		}
	}
	if got := lossDelay(100); got != lossCap {
		t.Errorf("after 100 lost attempts: %s", got)
	}
}
