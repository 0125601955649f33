package redisdb_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// serve has a living worker with the driver of a queue, which takes nothing: the tasks are in other queues.
func (w world) serve(t *testing.T, queue string) (stop func()) {
	t.Helper()
	server := w.db.Redis.NewServer(asynq.Config{Queues: map[string]int{queue: 1}, Concurrency: 1, LogLevel: asynq.FatalLevel})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() { once.Do(server.Shutdown) }
	t.Cleanup(stop)
	driver, _ := tasks.DriverOf(queue)
	harness.Eventually(t, 10*time.Second, "a worker with the driver", func() bool {
		served, err := w.db.Queues.Served(t.Context())
		return err == nil && served[driver]
	})
	return stop
}

// census is what a process counts that has just started, and that finds nothing.
func (w world) census(t *testing.T, unreachable ...string) tasks.Census {
	t.Helper()
	if err := w.rdb.Del(t.Context(), "reset:census").Err(); err != nil {
		t.Fatal(err)
	}
	return w.sharedCensus(t, unreachable...)
}

// sharedCensus is what one finds that has just started.
func (w world) sharedCensus(t *testing.T, unreachable ...string) tasks.Census {
	t.Helper()
	db := open(t, redisdb.Options{URL: "redis://" + w.rdb.Options().Addr, Embedded: true}).db
	db.Census.Unreachable(func(context.Context) (map[string]tasks.Time, error) {
		found := map[string]tasks.Time{}
		for _, driver := range unreachable {
			found[driver] = tasks.FromMillis(1_700_000_000_000)
		}
		return found, nil
	})
	c, err := db.Census.Census(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// submitOf submits instances of a tenant.
func (w world) submitOf(t *testing.T, s tasks.Submission, instances ...string) tasks.Job {
	t.Helper()
	s.InstanceIDs, s.AllowUnregistered = instances, true
	job, err := w.db.Records.Submit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func wantHeld(t *testing.T, w tasks.Work, waiting, running int, held map[tasks.HoldReason]int) {
	t.Helper()
	if w.Waiting != waiting || w.Running != running || !maps.Equal(w.Held, held) {
		t.Errorf("%d waiting, %d running, held %v; want %d, %d, %v", w.Waiting, w.Running, w.Held, waiting, running, held)
	}
}

func TestACensusSaysWhatHoldsEachItem(t *testing.T) {
	t.Parallel()
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		t.Parallel()
		by := tasks.Actor{By: "alice", Reason: "recall"}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		wantHeld(t, w.census(t).Work, 0, 0, nil)
		stop := w.serve(t, "reset-99")
		w.serve(t, "reset-lab-99")

		acme := w.submitOf(t, tasks.Submission{Tenant: "acme"}, "a1", "a2", "a3")
		w.submitOf(t, tasks.Submission{Tenant: "beta", Drivers: map[string]string{"b2": "lab"}}, "b1", "b2")
		w.begin(t, acme, 0, "t1")
		c := w.census(t)
		wantHeld(t, c.Work, 4, 1, nil)
		wantHeld(t, c.Tenants["acme"], 2, 1, nil)
		wantHeld(t, c.Tenants["beta"], 2, 0, nil)
		wantHeld(t, c.Drivers["lab"], 1, 0, nil)
		wantHeld(t, c.Drivers["default"], 3, 1, nil)
		if c.OpenJobs != 2 || len(c.Holdings) != 0 || !c.Oldest.Equal(acme.CreatedAt.Time) || c.OldestAge() < 0 || c.OldestAge() > time.Minute {
			t.Errorf("census %+v", c)
		}
		only := func(want tasks.Holding) tasks.Holding {
			t.Helper()
			if len(c.Holdings) != 1 {
				t.Fatalf("holdings %+v", c.Holdings)
			}
			got := c.Holdings[0]
			if got.Reason != want.Reason || got.Items != want.Items || got.Why != want.Why || got.Tenant != want.Tenant || got.Driver != want.Driver || got.Queue != want.Queue || got.Run != want.Run || got.Since.IsZero() || got.Text() == "" {
				t.Errorf("holding %+v, want %+v", got, want)
			}
			return got
		}

		// Halts: of one tenant, by itself too, of all.
		must(w.db.Policies.Halt(t.Context(), "acme", tasks.HaltedByTenant, by))
		c = w.census(t)
		only(tasks.Holding{Reason: tasks.HoldOwnHalt, Items: 2, Why: "recall", Tenant: "acme", Driver: "default"})
		must(w.db.Policies.Halt(t.Context(), "acme", tasks.HaltedByOperator, by))
		c = w.census(t)
		h := only(tasks.Holding{Reason: tasks.HoldTenantHalt, Items: 2, Why: "recall", Tenant: "acme", Driver: "default"})
		wantHeld(t, c.Work, 2, 1, map[tasks.HoldReason]int{tasks.HoldTenantHalt: 2})
		policy, err := w.db.Policies.Policy(t.Context(), "acme")
		if must(err); !h.Since.Equal(policy.OperatorHalt.Since.Time) || !h.Until.IsZero() {
			t.Errorf("since %v until %v, it was halted %v", h.Since, h.Until, policy.OperatorHalt.Since)
		}
		must(w.db.Policies.Halt(t.Context(), "", tasks.HaltedByOperator, by))
		c = w.census(t)
		only(tasks.Holding{Reason: tasks.HoldHalt, Items: 4, Why: "recall"})
		wantHeld(t, c.Work, 0, 1, map[tasks.HoldReason]int{tasks.HoldHalt: 4})
		if !c.Oldest.IsZero() || c.OldestAge() != 0 {
			t.Errorf("the oldest that could begin waits since %v", c.Oldest)
		}
		must(w.db.Policies.Resume(t.Context(), "", tasks.HaltedByOperator, by))
		must(w.db.Policies.Resume(t.Context(), "acme", tasks.HaltedByOperator, by))
		must(w.db.Policies.Resume(t.Context(), "acme", tasks.HaltedByTenant, by))
		wantHeld(t, w.census(t).Work, 4, 1, nil)

		// What is due later is not held, what has its time ahead is.
		w.fail(t, w.submitOf(t, tasks.Submission{Tenant: "gamma"}, "g1"), 0, "CPS.0005", tasks.Retry)
		from := tasks.FromMillis(c.At.Add(time.Hour).UnixMilli())
		w.submitOf(t, tasks.Submission{Tenant: "gamma", NotBefore: from}, "g2", "g3")
		c = w.census(t)
		wantHeld(t, c.Tenants["gamma"], 1, 0, map[tasks.HoldReason]int{tasks.HoldNotBefore: 2})
		if h := only(tasks.Holding{Reason: tasks.HoldNotBefore, Items: 2, Tenant: "gamma", Driver: "default"}); !h.Until.Equal(from.Time) {
			t.Errorf("until %v, want %v", h.Until, from)
		}
		// Of two reasons the first one counts.
		must(w.db.Policies.Halt(t.Context(), "gamma", tasks.HaltedByOperator, by))
		c = w.census(t)
		wantHeld(t, c.Tenants["gamma"], 0, 0, map[tasks.HoldReason]int{tasks.HoldTenantHalt: 3})
		must(w.db.Policies.Resume(t.Context(), "gamma", tasks.HaltedByOperator, by))

		// A quota that is used up, which has room later.
		w.submitOf(t, tasks.Submission{Tenant: "delta"}, "d1", "d2", "d3")
		w.limit(t, "delta", tasks.Limits{InstancesPerHour: new(1)})
		wantHeld(t, w.census(t).Tenants["delta"], 3, 0, nil)
		if _, wait, err := w.db.Quotas.Spend(t.Context(), "delta", 1); err != nil || wait != 0 {
			t.Fatal(wait, err)
		}
		c = w.census(t)
		wantHeld(t, c.Tenants["delta"], 0, 0, map[tasks.HoldReason]int{tasks.HoldQuota: 3})
		var quota tasks.Holding
		for _, h := range c.Holdings {
			if h.Reason == tasks.HoldQuota {
				quota = h
			}
		}
		if until := quota.Until.Sub(c.At.Time); until < 59*time.Minute || until > 61*time.Minute || quota.Since.IsZero() {
			t.Errorf("quota %+v", quota)
		}
		if begun, wait, err := w.db.Quotas.Spend(t.Context(), "delta", 2); err != nil || wait != 0 { // the looks have counted nothing
			t.Error(begun, wait, err)
		}
		w.limit(t, "delta", tasks.Limits{InstancesPerHour: new(0)})

		// A queue that is paused on the dashboard; a driver that nobody reaches; one that nobody has.
		must(w.db.Redis.NewInspector().PauseQueue("reset-lab-0"))
		c = w.census(t, "default")
		wantHeld(t, c.Tenants["beta"], 0, 0, map[tasks.HoldReason]int{tasks.HoldUnreachable: 1, tasks.HoldQueuePaused: 1})
		wantHeld(t, c.Drivers["lab"], 0, 0, map[tasks.HoldReason]int{tasks.HoldQueuePaused: 1})
		for _, h := range c.Holdings {
			if h.Reason == tasks.HoldUnreachable && (h.Driver != "default" || h.Since.UnixMilli() != 1_700_000_000_000 || h.Items != 7) || h.Reason == tasks.HoldQueuePaused && h.Queue != "reset-lab-0" {
				t.Errorf("holding %+v", h)
			}
		}
		must(w.db.Redis.NewInspector().UnpauseQueue("reset-lab-0"))
		stop()
		c = w.census(t, "default")
		wantHeld(t, c.Work, 1, 1, map[tasks.HoldReason]int{tasks.HoldUnserved: 7, tasks.HoldNotBefore: 2})
	})
}

func TestACensusOfRuns(t *testing.T) {
	t.Parallel()
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		t.Parallel()
		w.serve(t, "reset-99")
		run, err := w.db.Runs.Create(t.Context(), ofRun(100, "k"))
		if err != nil {
			t.Fatal(err)
		}
		w.submitOf(t, tasks.Submission{Tenant: "acme", RunID: run.ID, Part: 0}, "phone-0", "phone-1")
		c := w.census(t)
		wantHeld(t, c.Runs[run.ID], 2, 0, nil)
		if c.ToCome != 100 || c.Runs[run.ID].ToCome != 100 || c.Tenants["acme"].Ahead() != 102 { // the runner has not written the part down
			t.Errorf("to come %d, of the run %d", c.ToCome, c.Runs[run.ID].ToCome)
		}
		if err := w.db.RunDecisions.Pause(t.Context(), run.ID, tasks.Actor{By: "alice", Reason: "smoke"}); err != nil {
			t.Fatal(err)
		}
		c = w.census(t)
		wantHeld(t, c.Runs[run.ID], 0, 0, map[tasks.HoldReason]int{tasks.HoldRunPaused: 2})
		if len(c.Holdings) != 1 || c.Holdings[0].Run != run.ID || c.Holdings[0].Items != 2 || c.ToCome != 0 || c.Holdings[0].Since.IsZero() {
			t.Errorf("census %+v", c)
		}
		if err := w.db.RunDecisions.Resume(t.Context(), run.ID, nil, tasks.Actor{By: "alice"}); err != nil {
			t.Fatal(err)
		}
		if c = w.census(t); c.Runs[run.ID].Waiting != 2 || c.ToCome != 100 || len(c.Holdings) != 0 {
			t.Errorf("census after resume %+v", c)
		}
	})
}

func TestACensusGoesOnWithoutWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	w.serve(t, "reset-99")
	w.submit(t, "a", "b")
	broken := w.submit(t, "c")
	w.rdb.HSet(t.Context(), "reset:{"+broken.ID+"}", "0", "z 1 0 5 c")
	w.rdb.ZAdd(t.Context(), "reset:open", redis.Z{Score: 1, Member: tasks.NewJobID()}) // was listed, and never made
	c := w.census(t)
	wantHeld(t, c.Work, 2, 0, nil)
	if c.Unreadable != 1 || c.OpenJobs != 1 {
		t.Errorf("census %+v", c)
	}
	t.Run("and a policy that cannot be read holds its tenant", func(t *testing.T) {
		w.rdb.HSet(t.Context(), "reset:policies", "acme halt", "{", "#", "99")
		wantHeld(t, w.census(t).Work, 0, 0, map[tasks.HoldReason]int{tasks.HoldTenantHalt: 2})
	})
}

func TestAJobThatEndsLeavesTheCensus(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	w.serve(t, "reset-99")
	job := w.submit(t, "a")
	w.submit(t, "b")
	d, _ := w.begin(t, job, 0, "t1")
	if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Succeed}, true); err != nil {
		t.Fatal(err)
	}
	c := w.census(t)
	if wantHeld(t, c.Work, 1, 0, nil); c.OpenJobs != 1 {
		t.Errorf("%d open jobs", c.OpenJobs)
	}
	// Tried again, it waits since then, and not since it was made.
	w.fail(t, w.submitOf(t, tasks.Submission{Tenant: "old"}, "c"), 0, "CPS.0005", tasks.Fail)
	jobs, _, err := w.db.Jobs.Jobs(t.Context(), "old", tasks.JobFilter{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	w.after(t, jobs[0], 50)
	if err := w.db.Records.Retry(t.Context(), jobs[0].ID, []tasks.ItemState{tasks.ItemFailed}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if got := w.census(t).Tenants["old"]; got.Waiting != 1 || got.Oldest.Sub(jobs[0].CreatedAt.Time) < 50*time.Millisecond {
		t.Errorf("waits since %v, made %v: %+v", got.Oldest, jobs[0].CreatedAt, got)
	}
}

func TestProcessesShareACensus(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	w.serve(t, "reset-99")
	w.submit(t, "a")
	results := make([]tasks.Census, 8)
	var all sync.WaitGroup
	start := time.Now()
	for i := range results {
		all.Go(func() { results[i] = w.sharedCensus(t) })
	}
	all.Wait()
	made := map[tasks.Time]bool{}
	for _, c := range results {
		if made[c.At] = true; c.Waiting != 1 {
			t.Errorf("%+v", c)
		}
	}
	// One is good for two seconds: on a busy machine there may be several, but not one for each process.
	if most := 1 + int(time.Since(start)/(2*time.Second)); len(made) > most {
		t.Errorf("%d were made, want %d at most", len(made), most)
	}
	// What is seen first by one keeps its time with the next.
	w.db.Redis.Del(t.Context(), "reset:census")
	w.submitTo(t, map[string]string{"x": "lab"}, "x")
	first := w.census(t)
	var second tasks.Census
	harness.Eventually(t, 20*time.Second, "another census", func() bool {
		second = w.sharedCensus(t)
		return second.At.After(first.At.Time)
	})
	if len(second.Holdings) != 1 || second.Holdings[0].Reason != tasks.HoldUnserved || second.Holdings[0].Since != first.Holdings[0].Since {
		t.Errorf("%+v, then %+v", first.Holdings, second.Holdings)
	}
	if age := second.Next.Sub(second.At.Time); age < 2*time.Second || age > 5*time.Second {
		t.Errorf("it is good for %v", age)
	}
}

func TestACensusWhileNothingCanBeWritten(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	w.submit(t, "a")
	w.rdb.ConfigSet(t.Context(), "maxmemory", "1")
	for range 2 {
		if c := w.sharedCensus(t); c.OpenJobs != 1 || c.HeldItems() != 1 {
			t.Errorf("census %+v", c)
		}
	}
	if n := w.rdb.Exists(t.Context(), "reset:census").Val(); n != 0 {
		t.Error("it was written")
	}
}

func BenchmarkCensus(b *testing.B) {
	w := open(b, redisdb.Options{URL: redistest.Start(b, "appendfsync no").URL()})
	for n := range 3200 {
		instances := make([]string, 32)
		for i := range instances {
			instances[i] = fmt.Sprintf("phone-%d-%d", n, i)
		}
		if _, err := w.db.Records.Submit(b.Context(), tasks.Submission{Tenant: fmt.Sprintf("tenant-%d", n%20), InstanceIDs: instances, AllowUnregistered: true}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		w.rdb.Del(b.Context(), "reset:census")
		db := open(b, redisdb.Options{URL: "redis://" + w.rdb.Options().Addr}).db
		if c, err := db.Census.Census(b.Context()); err != nil || c.HeldItems() != 102_400 {
			b.Fatal(c.HeldItems(), err)
		}
	}
}

func TestWhatEndedOfEachTenantIsTold(t *testing.T) {
	t.Parallel()
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		t.Parallel()
		for tenant, n := range map[string]int{"acme": 2, "beta": 1} {
			for i := range n {
				job := w.submitOf(t, tasks.Submission{Tenant: tenant}, fmt.Sprintf("%s-%d", tenant, i), "later-"+tenant+fmt.Sprint(i))
				w.fail(t, job, 0, "", tasks.Succeed)
			}
		}
		w.db.Activity.Flush(t.Context())
		// The minute is not over: what is told are full ones.
		keys, err := w.rdb.Keys(t.Context(), "reset:activity:*:tenants").Result()
		if err != nil || len(keys) == 0 {
			t.Fatal(keys, err)
		}
		now, err := w.rdb.Time(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		for ago, n := range map[int64]int{1: 10, 5: 20, 6: 1000} {
			w.rdb.HIncrBy(t.Context(), fmt.Sprintf("reset:activity:%d:tenants", now.Unix()/60-ago), "gamma", int64(n))
		}
		sum := map[string]string{}
		for _, key := range keys {
			maps.Copy(sum, w.rdb.HGetAll(t.Context(), key).Val())
		}
		if sum["acme"] != "2" || sum["beta"] != "1" {
			t.Errorf("written %v", sum)
		}
		ended, err := w.db.Overview.EndedByTenant(t.Context())
		if after, _ := w.rdb.Time(t.Context()).Result(); err != nil || after.Unix()/60 == now.Unix()/60 && ended["gamma"] != 30 {
			t.Errorf("ended %v, %v", ended, err)
		}
	})
}

func TestACensusOfACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: cluster.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for n := range 20 {
		if _, err := db.Records.Submit(t.Context(), tasks.Submission{
			Tenant: fmt.Sprintf("tenant-%d", n%3), InstanceIDs: []string{fmt.Sprintf("phone-%d", n)}, AllowUnregistered: true,
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, limited := range []string{"tenant-0", "tenant-1"} {
		if err := db.Policies.SetLimits(t.Context(), limited, tasks.Limits{InstancesPerHour: new(1)}, false, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := db.Census.Census(t.Context())
	if err != nil || c.OpenJobs != 20 || c.Held[tasks.HoldUnserved] != 20 || len(c.Tenants) != 3 {
		t.Errorf("census %+v, %v", c, err)
	}
	for tenant := range c.Tenants {
		if wait, err := db.Quotas.SpendWait(t.Context(), tenant, 1); wait != 0 || err != nil {
			t.Errorf("%s waits %v, %v", tenant, wait, err)
		}
	}
	other, err := redisdb.Open(t.Context(), redisdb.Options{URL: cluster.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	if same, err := other.Census.Census(t.Context()); err != nil || same.At != c.At {
		t.Errorf("another process has one of %v, this one of %v, %v", same.At, c.At, err)
	}
}
