package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// serve starts an asynq server of the DB on its queues and returns what it takes.
func serve(t *testing.T, db *redisdb.DB) <-chan tasks.Delivery {
	t.Helper()
	queues, err := db.Queues.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]int{}
	for _, q := range queues {
		served[q] = 1
	}
	taken := make(chan tasks.Delivery, 1000)
	server := db.Redis.NewServer(asynq.Config{Queues: served, LogLevel: asynq.FatalLevel, TaskCheckInterval: 10 * time.Millisecond})
	if err := server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		d, err := tasks.DecodeDelivery(task.Payload())
		taken <- d
		return err
	})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	return taken
}

// scripts is how many scripts Redis has run.
func scripts(t *testing.T, rdb *redis.Client) (n int) {
	t.Helper()
	stats := rdb.InfoMap(t.Context(), "commandstats").Item("Commandstats", "cmdstat_evalsha")
	_, _ = fmt.Sscanf(stats, "calls=%d", &n)
	return n
}

// lookedForLater waits until so many sets of tasks for later have been found empty.
func lookedForLater(t *testing.T, rdb *redis.Client, sets int) {
	t.Helper()
	eventually(t, "the sets of tasks for later are known", func(ctx context.Context) error {
		n := 0
		_, _ = fmt.Sscanf(rdb.InfoMap(ctx, "commandstats").Item("Commandstats", "cmdstat_zrange"), "calls=%d", &n)
		if n < sets {
			return fmt.Errorf("%d of %d", n, sets)
		}
		return nil
	})
}

func TestAnIdleServerAsksSeldomAndHearsOfWorkAtOnce(t *testing.T) {
	s := redistest.Start(t)
	rdb := s.Client(t)
	db := open(t, redisdb.Options{URL: s.URL(), Queues: 16}).db
	ctx, stop := context.WithCancel(t.Context())
	listened := make(chan error, 1)
	go func() { listened <- db.Redis.Listen(ctx) }()
	taken := serve(t, db)
	eventually(t, "the DB listens", func(ctx context.Context) error {
		if n := rdb.PubSubNumSub(ctx, "reset:enqueued").Val()["reset:enqueued"]; n != 1 {
			return fmt.Errorf("%d listeners", n)
		}
		return nil
	})

	// Sixteen queues, asked every 10 ms, would be 1,600 scripts a second, and for tasks that are due 32 more.
	lookedForLater(t, rdb, 30)
	before, since := scripts(t, rdb), time.Now()
	time.Sleep(4 * time.Second) // the time is what is measured
	if n, passed := scripts(t, rdb)-before, time.Since(since); float64(n) > 20*passed.Seconds() {
		t.Errorf("an idle server ran %d scripts in %s", n, passed)
	}
	// Every queue has just been found empty, and all the same:
	submitted := time.Now()
	if _, err := submit(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	<-taken
	t.Logf("taken after %s", time.Since(submitted))
	stop()
	if err := <-listened; err != nil {
		t.Error(err)
	}
}

// What is for later is taken when it is due, whoever has put it there.
func TestATaskForLaterIsTakenWhenItIsDue(t *testing.T) {
	s := redistest.Start(t)
	db := open(t, redisdb.Options{URL: s.URL(), Queues: 1}).db
	another := asynq.NewClientFromRedisClient(s.Client(t))
	ctx, stop := context.WithCancel(t.Context())
	listened := make(chan error, 1)
	go func() { listened <- db.Redis.Listen(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-listened; err != nil {
			t.Error(err)
		}
	})
	began := make(chan string, 100)
	failed := map[string]bool{}
	server := db.Redis.NewServer(asynq.Config{
		Queues: map[string]int{"reset-0": 1}, Concurrency: 1, LogLevel: asynq.FatalLevel,
		TaskCheckInterval: 10 * time.Millisecond, DelayedTaskCheckInterval: 100 * time.Millisecond,
		RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Second },
	})
	if err := server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		began <- task.Type()
		if task.Type() == "again" && !failed["again"] {
			failed["again"] = true
			return errors.New("once more")
		}
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	enqueue := func(name string, in time.Duration) {
		t.Helper()
		if _, err := another.Enqueue(asynq.NewTask(name, nil), asynq.Queue("reset-0"), asynq.ProcessIn(in)); err != nil {
			t.Fatal(err)
		}
	}
	// within waits for a task. asynq counts in whole seconds.
	within := func(name string, limit time.Duration) {
		t.Helper()
		start := time.Now()
		select {
		case got := <-began:
			if passed := time.Since(start); got != name || passed > limit {
				t.Errorf("%s began after %s, want %s within %s", got, passed, name, limit)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s is not taken", name)
		}
	}
	lookedForLater(t, s.Client(t), 2)
	enqueue("another's", time.Second)
	within("another's", 12500*time.Millisecond)
	enqueue("again", 0)
	within("again", 3*time.Second)
	within("again", 3500*time.Millisecond) // by this process: it knows of it
	enqueue("announced", time.Second)
	if err := s.Client(t).Publish(t.Context(), "reset:enqueued", "reset-0").Err(); err != nil {
		t.Fatal(err)
	}
	within("announced", 3500*time.Millisecond)
}

func TestATaskIsTakenWithoutAnAnnouncement(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL(), Queues: 2})
	taken := serve(t, w.db) // and nobody listens
	w.submit(t, "phone-1")
	select {
	case <-taken:
	case <-time.After(10 * time.Second):
		t.Fatal("the task was not found")
	}
}

func TestJobsAreSpreadByTenant(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL(), Queues: 16})
	used := map[string][]string{}
	for _, tenant := range []string{"acme", "blue", "coral"} {
		for range 40 {
			job, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: tenant, InstanceIDs: []string{"phone-1"}})
			if err != nil {
				t.Fatal(err)
			}
			if stored := w.read(t, job.ID); stored.Queue != job.Queue {
				t.Fatalf("job in queue %q, record says %q", job.Queue, stored.Queue)
			}
			if !slices.Contains(used[tenant], job.Queue) {
				used[tenant] = append(used[tenant], job.Queue)
			}
		}
		slices.Sort(used[tenant])
		if len(used[tenant]) != 2 {
			t.Errorf("tenant %s uses the queues %v, want 2", tenant, used[tenant])
		}
	}
	if slices.Equal(used["acme"], used["blue"]) && slices.Equal(used["blue"], used["coral"]) {
		t.Error("every tenant uses the same queues")
	}
}

func TestAJobAvoidsALongQueue(t *testing.T) {
	s := redistest.Start(t)
	w := open(t, redisdb.Options{URL: s.URL(), Queues: 2}) // every tenant uses both
	long, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: manyPhones(100)})
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, redisdb.Options{URL: s.URL(), Queues: 4}).db // has not looked yet
	eventually(t, "twenty jobs in a row go elsewhere", func(ctx context.Context) error {
		for range 20 {
			job, err := other.Records.Submit(ctx, tasks.Submission{Tenant: "blue", InstanceIDs: []string{"phone-1"}})
			if err != nil {
				return err
			}
			if job.Queue == long.Queue {
				return errors.New("a job was put behind a hundred items, with three other queues to choose from")
			}
		}
		return nil
	})
}

func TestABatchIsEnqueuedAfterRedisHasForgottenTheScripts(t *testing.T) {
	s := redistest.Start(t)
	w := open(t, redisdb.Options{URL: s.URL()})
	for range 2 {
		if err := s.Client(t).ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		w.submit(t, manyPhones(32)...)
	}
	if info, err := w.db.Redis.NewInspector().GetQueueInfo("reset-0"); err != nil || info.Pending != 64 {
		t.Errorf("queue %+v, %v", info, err)
	}
}

func manyPhones(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("phone-%d", i)
	}
	return ids
}

// TestTheSameJobIsNeverInTwoQueues: asynq knows a task's ID per queue only, so two
// processes that create one job must not choose two queues for it.
func TestTheSameJobIsNeverInTwoQueues(t *testing.T) {
	s := redistest.Start(t)
	w := open(t, redisdb.Options{URL: s.URL(), Queues: 16})
	again := open(t, redisdb.Options{URL: s.URL(), Queues: 16}).db
	for n := range 20 {
		submission := tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, IdempotencyKey: fmt.Sprint("key-", n)}
		first, err := w.db.Records.Submit(t.Context(), submission)
		if err != nil {
			t.Fatal(err)
		}
		second, err := again.Records.Submit(t.Context(), submission)
		if err != nil {
			t.Fatal(err)
		}
		if first.ID != second.ID || first.Queue != second.Queue {
			t.Fatalf("job %s in %s, and job %s in %s", first.ID, first.Queue, second.ID, second.Queue)
		}
	}
	pending := 0
	for n := range 16 {
		if info, err := w.db.Redis.NewInspector().GetQueueInfo(fmt.Sprint("reset-", n)); err == nil {
			pending += info.Pending
		}
	}
	if pending != 20 {
		t.Errorf("%d tasks for 20 items", pending)
	}
}

func TestQueuesOfFormerSettingsAreServed(t *testing.T) {
	s := redistest.Start(t)
	w := open(t, redisdb.Options{URL: s.URL(), Queues: 16})
	job := w.submit(t, "phone-1")
	few := open(t, redisdb.Options{URL: s.URL(), Queues: 1}).db
	if d := <-serve(t, few); d.ItemID != job.Items[0].ID {
		t.Errorf("took %+v", d)
	}
}
