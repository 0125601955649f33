package redisdb_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

const (
	workerOne = "AAAABBB2"
	workerTwo = "CCCCDDD3"
)

// reportOf is what a worker process tells.
func reportOf(id string, pid int) tasks.WorkerReport {
	return tasks.WorkerReport{
		ID: id, Host: "m1", PID: pid, Version: "v2", State: tasks.WorkerWorks, Started: tasks.FromMillis(time.Now().UnixMilli()),
		Drivers: []tasks.WorkerDriver{{Name: "default", Slots: 8, Busy: 2}},
	}
}

// tell has a worker process show itself, and returns its order.
func tell(t *testing.T, w world, r tasks.WorkerReport) tasks.WorkerOrder {
	t.Helper()
	must(t, w.db.Attempts.Beat(t.Context(), r.ID))
	order, err := w.db.Workers.Report(t.Context(), r)
	must(t, err)
	return order
}

func seen(t *testing.T, w world) (view tasks.WorkerView, found bool) {
	t.Helper()
	view, found, err := w.db.Workers.Worker(t.Context(), workerOne)
	must(t, err)
	return view, found
}

func TestWorkersReport(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		if order := tell(t, w, reportOf(workerOne, 7)); order != "" {
			t.Errorf("an order from nowhere: %s", order)
		}
		tell(t, w, reportOf(workerTwo, 8))
		all, err := w.db.Workers.Workers(ctx)
		must(t, err)
		if len(all) != 2 || all[0].ID != workerOne || all[1].ID != workerTwo || !all[0].Heard() || !all[0].Takes() || all[0].Busy() != 2 || !all[0].Reports {
			t.Fatalf("workers %+v", all)
		}
		// One that dies is still shown, and then not any more.
		must(t, w.rdb.PExpire(ctx, "reset:worker:{"+workerOne+"}", 20*time.Second-12*time.Second).Err())
		text := w.rdb.Get(ctx, "reset:worker:{"+workerOne+"}:report").Val()
		_, report, _ := strings.Cut(text, " ")
		must(t, w.rdb.SetArgs(ctx, "reset:worker:{"+workerOne+"}:report", "1000 "+report, redis.SetArgs{KeepTTL: true}).Err())
		if view, found := seen(t, w); !found || view.Heard() || view.Silent < 11*time.Second || view.Silent > 15*time.Second {
			t.Errorf("%v, silent for %s", found, view.Silent)
		}
		for _, key := range []string{"", ":report"} {
			if ttl := w.rdb.PTTL(ctx, "reset:worker:{"+workerOne+"}"+key).Val(); ttl <= 0 || ttl > time.Minute {
				t.Errorf("%q lapses after %s", key, ttl)
			}
			w.rdb.Del(ctx, "reset:worker:{"+workerOne+"}"+key)
		}
		if _, found := seen(t, w); found {
			t.Error("it is still there")
		}
		// How often it has shown life is kept: it may live, and only Redis was away.
		if ttl := w.rdb.PTTL(ctx, "reset:worker:{"+workerOne+"}:beats").Val(); ttl < 6*24*time.Hour || ttl > 7*24*time.Hour {
			t.Errorf("the number of its beats lapses after %s", ttl)
		}
		w.rdb.Del(ctx, "reset:worker:{"+workerOne+"}:beats")
		// One that leaves takes everything along.
		must(t, w.db.Attempts.Leave(ctx, workerTwo))
		if keys := w.rdb.Keys(ctx, "reset:worker:*").Val(); len(keys) > 0 {
			t.Errorf("left %v", keys)
		}
		if ids := w.rdb.ZRange(ctx, "reset:workers", 0, -1).Val(); slices.Contains(ids, workerTwo) {
			t.Errorf("listed %v", ids)
		}
	})
}

func TestOrdersReachOneProcessAlone(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		alice := tasks.Actor{By: "operator alice", Principal: "alice", Reason: "patch day"}
		tell(t, w, reportOf(workerOne, 7))
		tell(t, w, reportOf(workerTwo, 8))
		for _, order := range tasks.WorkerOrders {
			must(t, w.db.Workers.Order(ctx, workerOne, order, alice))
			for range 2 { // it stays, in case an answer is lost
				if got := tell(t, w, reportOf(workerOne, 7)); got != order {
					t.Errorf("told %q, want %q", got, order)
				}
			}
			if got := tell(t, w, reportOf(workerTwo, 8)); got != "" {
				t.Errorf("another process was told %q", got)
			}
		}
		if ttl := w.rdb.PTTL(ctx, "reset:worker:{"+workerOne+"}:order").Val(); ttl <= 0 || ttl > 20*time.Second {
			t.Errorf("the order is good for %s", ttl)
		}
		var trail []string
		must(t, w.db.Audit.Trail(ctx, tasks.AuditFilter{}, func(e tasks.AuditEntry) error {
			trail = append(trail, fmt.Sprintf("%s %s %s %s", e.Action, e.By, e.Detail, e.Reason))
			return nil
		}))
		want := "worker-quiet operator alice AAAABBB2: process 7 on m1 patch day\nworker-take operator alice AAAABBB2: process 7 on m1 patch day\nworker-stop operator alice AAAABBB2: process 7 on m1 patch day"
		if strings.Join(trail, "\n") != want {
			t.Errorf("trail\n%s", strings.Join(trail, "\n"))
		}

		// Nobody hears: nothing is written.
		whole, drains := reportOf("EEEEFFF4", 9), reportOf("GGGGHHH5", 10)
		whole.Whole, drains.State = true, tasks.WorkerDrains
		tell(t, w, whole)
		tell(t, w, drains)
		w.rdb.Del(ctx, "reset:worker:{"+workerTwo+"}") // its sign of life has lapsed, its report has not
		for _, row := range []struct {
			id    string
			order tasks.WorkerOrder
		}{
			{workerTwo, tasks.OrderStop},
			{"ZZZZZZZ7", tasks.OrderQuiet},
			{"*", tasks.OrderQuiet},
			{"a}b{cdef", tasks.OrderQuiet},
			{whole.ID, tasks.OrderStop},
			{drains.ID, tasks.OrderQuiet},
			{workerOne, "dance"},
		} {
			before := w.rdb.XLen(ctx, "reset:audit").Val()
			if err := w.db.Workers.Order(ctx, row.id, row.order, alice); tasks.CodeOf(err) != tasks.BadRequest {
				t.Errorf("%s to %s: %v", row.order, row.id, err)
			}
			if w.rdb.Exists(ctx, "reset:worker:{"+row.id+"}:order").Val() > 0 && row.id != workerOne {
				t.Errorf("%s to %s was written", row.order, row.id)
			}
			if after := w.rdb.XLen(ctx, "reset:audit").Val(); after != before {
				t.Errorf("%s to %s is in the trail", row.order, row.id)
			}
		}
	})
}

// TestWorkersReportAndHearWhileRedisIsFull: people look at the pages then more than ever.
func TestWorkersReportAndHearWhileRedisIsFull(t *testing.T) {
	t.Parallel()
	w, _ := openBounded(t, redisdb.Options{LateEntries: 10})
	tell(t, w, reportOf(workerOne, 7))
	fill(t, w)
	must(t, w.db.Workers.Order(t.Context(), workerOne, tasks.OrderQuiet, tasks.Actor{}))
	must(t, w.db.Attempts.Beat(t.Context(), workerOne))
	r := reportOf(workerOne, 7)
	r.State = tasks.WorkerQuiet
	order, _ := w.db.Workers.Report(t.Context(), r) // it cannot be listed, but is
	if view, found := seen(t, w); order != tasks.OrderQuiet || !found || view.State != tasks.WorkerQuiet {
		t.Errorf("order %q, %v, %+v", order, found, view)
	}
}

func TestAWorkerOfAnOlderVersionIsShown(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	started := make(chan struct{})
	end := make(chan struct{})
	server := w.db.Redis.NewServer(asynq.Config{Concurrency: 5, Queues: map[string]int{"reset-0": 1}, LogLevel: asynq.FatalLevel, TaskCheckInterval: 10 * time.Millisecond})
	must(t, server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { close(started); <-end; return nil })))
	t.Cleanup(server.Shutdown)
	defer close(end)
	job := w.submit(t, "phone-1")
	<-started
	host, err := os.Hostname()
	must(t, err)
	var all []tasks.WorkerView
	eventually(t, "asynq shows what the worker does", func(ctx context.Context) error {
		all, err = w.db.Workers.Workers(ctx)
		if err != nil || len(all) != 1 || all[0].UnderWay() != 1 {
			return fmt.Errorf("%+v, %w", all, err)
		}
		return nil
	})
	if got := all[0]; got.Reports || got.ID != "" || got.Host != host || got.PID != os.Getpid() || got.Slots() != 5 || !got.Takes() ||
		got.Items[0].InstanceID != "phone-1" || got.Items[0].Job() != job.ID || got.Drivers[0].Name != "default" {
		t.Errorf("%+v", got)
	}
	// The same process with a report is one row.
	r := reportOf(workerOne, os.Getpid())
	r.Host = host
	tell(t, w, r)
	eventually(t, "the report counts", func(ctx context.Context) error {
		if all, err = w.db.Workers.Workers(ctx); err != nil || len(all) != 1 || !all[0].Reports {
			return fmt.Errorf("%+v, %w", all, err)
		}
		return nil
	})
}

func TestCallsOfDrivers(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		lab := w.db.Calls.Of("lab")
		for n := range 100 {
			lab.Count(tasks.CallDone, time.Duration(n+1)*100*time.Millisecond)
		}
		lab.Count(tasks.CallUnreachable, time.Hour) // says nothing of how fast it is
		for range 10 {
			lab.Count(tasks.CallSeen, 50*time.Millisecond)
		}
		for n := range 13 {
			lab.Count(tasks.CallRetry, time.Second)
			lab.Fail(tasks.CallFailure{Kind: "retry", Code: fmt.Sprint(n), Message: strings.Repeat("ä", 150), ItemID: "x", InstanceID: "phone-1"})
		}
		w.db.Calls.Flush(ctx)
		lab.Count(tasks.CallDone, 10*time.Second) // added to what is there, or to the next minute
		w.db.Calls.Flush(ctx)
		before := w.rdb.Keys(ctx, "reset:activity:calls*").Val()
		w.db.Calls.Flush(ctx) // nothing
		r := reportOf(workerOne, 7)
		r.Drivers = append(r.Drivers, tasks.WorkerDriver{Name: "lab"})
		tell(t, w, r)
		planes, err := w.db.Workers.ControlPlanes(ctx)
		must(t, err)
		if len(planes) != 2 || planes[0].Driver != "default" || planes[1].Driver != "lab" || len(planes[1].Workers) != 1 {
			t.Fatalf("planes %+v", planes)
		}
		now := planes[1].Now()
		if now.Kinds[tasks.CallDone] != 101 || now.Kinds[tasks.CallRetry] != 13 || now.Kinds[tasks.CallUnreachable] != 1 || now.Kinds[tasks.CallSeen] != 10 ||
			now.Resets.Count() != 114 || now.Looks.Count() != 10 || planes[1].Before().Kinds != [tasks.CallKinds]int64{} {
			t.Errorf("calls %+v", now)
		}
		if q := now.Resets.Quantile(.5); q < 4*time.Second || q > 5500*time.Millisecond {
			t.Errorf("half took %s", q)
		}
		failures := planes[1].Failures
		if len(failures) != 10 || failures[0].Code != "12" || failures[9].Code != "3" || len(failures[0].Message) != 200 || failures[0].At.IsZero() || failures[0].InstanceID != "phone-1" {
			t.Errorf("failures %+v", failures)
		}
		for _, key := range before {
			if ttl := w.rdb.TTL(ctx, key).Val(); key != "reset:activity:calls" && (ttl <= 0 || ttl > 25*time.Hour) {
				t.Errorf("%s is kept for %s", key, ttl)
			}
		}
	})
}

func TestCountingCallsMakesNoGarbage(t *testing.T) {
	calls := open(t, redisdb.Options{URL: redistest.Start(t).URL()}).db.Calls.Of("lab")
	if n := testing.AllocsPerRun(1000, func() { calls.Count(tasks.CallDone, 1234*time.Millisecond) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAHeldQueueIsNotTakenFrom(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	w.db.Redis.Hold(tasks.QueuePrefix, true)
	taken := serve(t, w.db)
	w.submit(t, "phone-1")
	select {
	case d := <-taken:
		t.Errorf("took %+v", d)
	case <-time.After(2 * time.Second): // the time is what is tested
	}
	if info, err := w.db.Redis.NewInspector().GetQueueInfo("reset-0"); err != nil || info.Pending != 1 || info.Retry+info.Scheduled+info.Active != 0 {
		t.Errorf("queue %+v, %v", info, err)
	}
	w.db.Redis.Hold(tasks.QueuePrefix, false)
	select {
	case <-taken:
	case <-time.After(10 * time.Second):
		t.Error("the task was not taken afterwards")
	}
}

// TestWorkersInACluster: the keys of a worker and those of a driver are in one slot each, the lists of them elsewhere.
func TestWorkersInACluster(t *testing.T) {
	t.Parallel()
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: redistest.StartCluster(t).URL()})
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	w := world{db: db}
	tell(t, w, reportOf(workerOne, 7))
	tell(t, w, reportOf(workerTwo, 8))
	must(t, db.Workers.Order(t.Context(), workerTwo, tasks.OrderQuiet, tasks.Actor{}))
	if order := tell(t, w, reportOf(workerTwo, 8)); order != tasks.OrderQuiet {
		t.Errorf("order %q", order)
	}
	for _, driver := range []string{"a", "b", "c"} {
		db.Calls.Of(driver).Count(tasks.CallDone, time.Second)
		db.Calls.Of(driver).Fail(tasks.CallFailure{Kind: "retry"})
	}
	db.Calls.Flush(t.Context())
	planes, err := db.Workers.ControlPlanes(t.Context())
	must(t, err)
	if len(planes) != 4 || len(planes[3].Workers) != 2 {
		t.Fatalf("planes %+v", planes)
	}
	for _, p := range planes[:3] {
		if now := p.Now(); now.Total() != 1 || len(p.Failures) != 1 {
			t.Errorf("driver %s: %+v, %+v", p.Driver, now.Kinds, p.Failures)
		}
	}
	must(t, db.Attempts.Leave(t.Context(), workerOne))
	if _, found := seen(t, w); found {
		t.Error("it has left, and is shown")
	}
}
