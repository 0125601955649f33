package redisdb_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

func (w world) limit(t testing.TB, tenant string, limits tasks.Limits) {
	t.Helper()
	if err := w.db.Policies.SetLimits(t.Context(), tenant, limits, false, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
}

// trySubmit submits n instances that no other batch has.
func (w world) trySubmit(t testing.TB, n int) (tasks.Job, error) {
	t.Helper()
	s := tasks.Submission{Tenant: "acme", AllowUnregistered: true}
	for i := range n {
		s.InstanceIDs = append(s.InstanceIDs, fmt.Sprintf("%s-%d", tasks.NewJobID(), i))
	}
	return w.db.Records.Submit(t.Context(), s)
}

func wantTooMany(t testing.TB, err error, atLeast, atMost time.Duration) {
	t.Helper()
	e, ok := errors.AsType[*tasks.Error](err)
	if !ok || e.Code != tasks.TooManyRequests || e.RetryAfter < atLeast || e.RetryAfter > atMost {
		t.Errorf("error %v with %+v, want %s after %s to %s", err, e, tasks.TooManyRequests, atLeast, atMost)
	}
}

func wantRoom(t testing.TB, w world, want int) {
	t.Helper()
	if room, err := w.db.Quotas.Room(t.Context(), "acme"); room != want || err != nil {
		t.Errorf("room for %d more, %v; want %d", room, err, want)
	}
}

func TestInstancesPerHour(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		wantRoom(t, w, *tasks.DefaultLimits().OpenInstances)
		w.limit(t, "", tasks.Limits{OpenInstances: new(0)})
		wantRoom(t, w, -1)
		w.limit(t, "", tasks.Limits{InstancesPerHour: new(3)})
		wantRoom(t, w, 3)
		job, err := w.trySubmit(t, 2)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.trySubmit(t, 2)
		wantTooMany(t, err, time.Hour, 61*time.Minute)
		if n := w.rdb.ZCard(t.Context(), "reset:open").Val(); n != 1 {
			t.Errorf("%d jobs are open after a refusal", n)
		}
		if _, err := w.trySubmit(t, 1); err != nil {
			t.Errorf("what still fits: %v", err)
		}
		wantRoom(t, w, 0)
		// A retry resets as a submit does.
		w.end(t, job, 0, tasks.Fail)
		w.end(t, job, 1, tasks.Succeed)
		wantTooMany(t, w.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}), time.Hour, 61*time.Minute)
		if job := w.read(t, job.ID); job.State != tasks.JobPartial {
			t.Errorf("the job is %s after a retry that was refused", job.State)
		}
		// Its own limit is the tenant's, higher or none.
		w.limit(t, "acme", tasks.Limits{InstancesPerHour: new(4)})
		if err := w.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}); err != nil {
			t.Errorf("retry of one item: %v", err)
		}
		w.limit(t, "acme", tasks.Limits{InstancesPerHour: new(0)})
		if _, err := w.trySubmit(t, 10); err != nil {
			t.Errorf("without a limit: %v", err)
		}
		if err := w.db.Policies.SetLimits(t.Context(), "acme", tasks.Limits{}, true, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		_, err = w.trySubmit(t, 10) // more than there can ever be
		wantTooMany(t, err, time.Hour, time.Hour)
	})
}

// What is accepted without a run has a bound of its own, which the jobs of runs do not use.
func TestDirectInstancesPerHour(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		w.limit(t, "", tasks.Limits{OpenInstances: new(0), DirectInstancesPerHour: new(3)})
		wantRoom(t, w, 3)
		if _, err := w.trySubmit(t, 2); err != nil {
			t.Fatal(err)
		}
		_, err := w.trySubmit(t, 2)
		wantTooMany(t, err, time.Hour, 61*time.Minute)
		if !strings.Contains(fmt.Sprint(err), "3 instances per hour without a run") || !strings.Contains(fmt.Sprint(err), "POST /v1/runs") {
			t.Errorf("error %v", err)
		}
		ofRun := tasks.Submission{Tenant: "acme", InstanceIDs: []string{"r-1", "r-2", "r-3", "r-4"}, AllowUnregistered: true, RunID: tasks.NewJobID()}
		if _, err := w.db.Records.Submit(t.Context(), ofRun); err != nil {
			t.Errorf("a job of a run: %v", err)
		}
		if usage, err := w.db.Quotas.Usage(t.Context(), "acme"); err != nil || usage.DirectLastHour != 2 {
			t.Errorf("usage %+v, %v", usage, err)
		}
		wantRoom(t, w, 1)
		if _, err := w.trySubmit(t, 1); err != nil {
			t.Errorf("what still fits: %v", err)
		}
	})
}

func TestAnHourLaterThereIsRoom(t *testing.T) {
	server := miniredis.RunT(t)
	start := time.Unix(1_800_000_000, 0) // the first second of a minute
	server.SetTime(start)
	w := open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true})
	w.limit(t, "acme", tasks.Limits{InstancesPerHour: new(10)})
	for _, at := range []time.Duration{0, 20 * time.Minute} {
		server.SetTime(start.Add(at))
		if _, err := w.trySubmit(t, 5); err != nil {
			t.Fatal(err)
		}
	}
	// Five need the first five to be gone, six also the others.
	_, err := w.trySubmit(t, 5)
	wantTooMany(t, err, 41*time.Minute, 41*time.Minute)
	_, err = w.trySubmit(t, 6)
	wantTooMany(t, err, 61*time.Minute, 61*time.Minute)
	server.SetTime(start.Add(61*time.Minute - time.Second))
	wantRoom(t, w, 0)
	server.SetTime(start.Add(61 * time.Minute))
	wantRoom(t, w, 5)
	if _, err := w.trySubmit(t, 5); err != nil {
		t.Error(err)
	}
}

func TestOpenInstances(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		w.limit(t, "acme", tasks.Limits{OpenInstances: new(4)})
		first, err := w.trySubmit(t, 2)
		if err != nil {
			t.Fatal(err)
		}
		second, err := w.trySubmit(t, 2)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.trySubmit(t, 1)
		wantTooMany(t, err, time.Second, time.Minute)
		wantRoom(t, w, 0)
		w.end(t, first, 0, tasks.Fail)
		if _, err := w.trySubmit(t, 1); err != nil {
			t.Errorf("one has ended: %v", err)
		}
		w.end(t, first, 1, tasks.Succeed)
		wantRoom(t, w, 1)
		if err := w.db.Records.Retry(t.Context(), first.ID, tasks.RetryStates, tasks.Actor{}); err != nil {
			t.Errorf("retry of one item: %v", err)
		}
		wantRoom(t, w, 0)
		if err := w.db.Records.Cancel(t.Context(), second.ID, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		wantRoom(t, w, 2)
		if usage, err := w.db.Quotas.Usage(t.Context(), "acme"); usage.OpenInstances != 2 || err != nil {
			t.Errorf("usage %+v, %v", usage, err)
		}
	})
}

// A submit that is cut off after it was counted is repeated under its key.
func TestASubmitThatIsRepeatedIsCountedOnce(t *testing.T) {
	w := open(t, redisdb.Options{URL: "redis://" + miniredis.RunT(t).Addr(), Embedded: true})
	w.limit(t, "acme", tasks.Limits{OpenInstances: new(2), InstancesPerHour: new(2)})
	s := tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1", "phone-2"}, AllowUnregistered: true, IdempotencyKey: "k"}
	for range 2 {
		job, err := w.db.Records.Submit(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		w.rdb.Del(t.Context(), "reset:{"+job.ID+"}") // as if it had not come so far
	}
	if usage, err := w.db.Quotas.Usage(t.Context(), "acme"); usage.AcceptedLastHour != 2 || usage.OpenInstances != 2 || err != nil {
		t.Errorf("usage %+v, %v", usage, err)
	}
}

func TestResetsPerHour(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		spend := func(want bool) int64 {
			t.Helper()
			receipt, wait, err := w.db.Quotas.Spend(t.Context(), "acme", 2)
			if err != nil || (wait == 0) != want || wait > 61*time.Minute {
				t.Fatalf("wait %s, %v; want %v", wait, err, want)
			}
			return receipt
		}
		first := spend(true)
		spend(true)
		spend(false)
		if err := w.db.Quotas.Unspend(t.Context(), "acme", first); err != nil {
			t.Fatal(err)
		}
		spend(true)
		spend(false)
	})
}

func TestRequestsPerSecond(t *testing.T) {
	server := miniredis.RunT(t)
	now := time.Unix(1_800_000_000, 0)
	server.SetTime(now)
	w := open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true})
	w.limit(t, "acme", tasks.Limits{RequestsPerSecond: new(4)})
	for range 4 {
		if err := w.db.Quotas.Pace(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
	}
	wantTooMany(t, w.db.Quotas.Pace(t.Context(), "acme"), 250*time.Millisecond, 250*time.Millisecond)
	if err := w.db.Quotas.Pace(t.Context(), "other"); err != nil {
		t.Errorf("another tenant: %v", err)
	}
	server.SetTime(now.Add(249 * time.Millisecond))
	wantTooMany(t, w.db.Quotas.Pace(t.Context(), "acme"), time.Millisecond, time.Millisecond)
	server.SetTime(now.Add(250 * time.Millisecond))
	if err := w.db.Quotas.Pace(t.Context(), "acme"); err != nil {
		t.Error(err)
	}
}

func TestTheBacklogIsBounded(t *testing.T) {
	both(t, redisdb.Options{MaxBacklog: 5, Queues: 3}, func(t *testing.T, w world) {
		later := tasks.Time{Time: time.Now().Add(time.Hour)}
		// What waits for its time counts, too.
		if _, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"a", "b"}, AllowUnregistered: true, NotBefore: later}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.trySubmit(t, 4); err != nil {
			t.Fatal(err)
		}
		_, err := w.trySubmit(t, 1)
		wantTooMany(t, err, time.Second, time.Minute)
	})
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		other, err := redisdb.Open(ctx, redisdb.Options{URL: "redis://" + w.rdb.Options().Addr, Embedded: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Close() }()
		// policy is what another process has seen within a second.
		policy := func(want func(tasks.Policy) bool) {
			t.Helper()
			for deadline := time.Now().Add(time.Second); ; {
				p, err := other.Policies.Policy(ctx, "acme")
				if err != nil {
					t.Fatal(err)
				}
				if want(p) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("policy %+v", p)
				}
			}
		}
		halt := func(tenant, reason string) {
			t.Helper()
			if err := w.db.Policies.Halt(ctx, tenant, tasks.HaltedByOperator, tasks.Actor{Reason: reason}); err != nil {
				t.Fatal(err)
			}
		}
		resume := func(tenant string) {
			t.Helper()
			if err := w.db.Policies.Resume(ctx, tenant, tasks.HaltedByOperator, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
		}
		policy(func(p tasks.Policy) bool { return p.Halt() == nil && *p.MaxFailures == 0 })
		halt("acme", "oops")
		policy(func(p tasks.Policy) bool { return p.Halt() != nil && p.Halt().Reason == "oops" })
		halt("", "")
		resume("acme")
		policy(func(p tasks.Policy) bool { return p.Halt() != nil && p.Halt().Reason == "" })
		resume("")
		policy(func(p tasks.Policy) bool { return p.Halt() == nil })
		w.limit(t, "", tasks.Limits{MaxFailures: new(3), OpenInstances: new(7)})
		w.limit(t, "acme", tasks.Limits{MaxFailures: new(0)})
		policy(func(p tasks.Policy) bool { return *p.MaxFailures == 0 && *p.OpenInstances == 7 })
		all, err := w.db.Policies.List(ctx)
		if err != nil || len(all) != 2 || all[0].Tenant != "" || *all[0].MaxFailures != 3 || all[1].Tenant != "acme" || all[1].OpenInstances != nil {
			t.Errorf("policies %+v, %v", all, err)
		}
	})
}

// TestAPolicyStopsAJobThatWasAcceptedBefore also goes through abandon.
func TestAPolicyStopsAJobThatWasAcceptedBefore(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "a", "b", "c", "d")
		fail := tasks.Outcome{Transition: tasks.Fail, Failure: true}
		d, _ := w.begin(t, job, 0, "t0")
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t0", fail, true); err != nil {
			t.Fatal(err)
		}
		if got := w.read(t, job.ID); got.Counts.Pending != 3 {
			t.Fatalf("counts %+v", got.Counts)
		}
		if _, err := w.db.Attempts.Abandon(t.Context(), job.Deliveries()[1], tasks.NotInTime, "late", 3); err != nil {
			t.Fatal(err)
		}
		if got := w.read(t, job.ID); got.Counts.Pending != 2 {
			t.Fatalf("counts %+v", got.Counts)
		}
		d, _ = w.begin(t, job, 2, "t2")
		fail.MaxFailures = 3
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t2", fail, true); err != nil {
			t.Fatal(err)
		}
		got := w.read(t, job.ID)
		if got.Counts.Failed != 3 || got.Counts.Cancelled != 1 || got.Items[3].Code != tasks.Stopped {
			t.Errorf("record %+v", got)
		}
	})
}

// Where nothing is set a tenant is limited all the same; 0 is no limit.
func TestLimitsByDefault(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		held := *tasks.DefaultLimits().OpenInstances
		if _, err := w.trySubmit(t, 30); err != nil {
			t.Fatal(err)
		}
		if n := w.rdb.HGet(t.Context(), "reset:held:{acme}", "").Val(); n != "30" {
			t.Errorf("%q instances are counted as open, want 30", n)
		}
		// As if it had as many as it may.
		w.rdb.HSet(t.Context(), "reset:held:{acme}", "", held)
		if _, err := w.trySubmit(t, 1); tasks.CodeOf(err) != tasks.TooManyRequests || !strings.Contains(err.Error(), "100000 open instances") {
			t.Errorf("one more than the default: %v", err)
		}
		w.limit(t, "acme", tasks.Limits{OpenInstances: new(0)})
		if _, err := w.trySubmit(t, 1); err != nil {
			t.Errorf("without a limit: %v", err)
		}
		refused := 0
		for range 500 {
			err := w.db.Quotas.Pace(t.Context(), "other")
			if err != nil {
				wantTooMany(t, err, time.Millisecond, 20*time.Millisecond)
				refused++
			}
		}
		if refused == 0 {
			t.Error("500 requests at once and none is refused")
		}
		w.limit(t, "", tasks.Limits{RequestsPerSecond: new(0)})
		for range 300 {
			if err := w.db.Quotas.Pace(t.Context(), "other"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A job that ends is taken off what is open by itself, however it ends: nobody has to count.
func TestAJobThatEndsIsNotOpen(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		held := func(want string) {
			t.Helper()
			if n := w.rdb.HGet(t.Context(), "reset:held:{acme}", "").Val(); n != want {
				t.Errorf("%q instances are counted as open, want %s", n, want)
			}
		}
		done, err := w.trySubmit(t, 2)
		if err != nil {
			t.Fatal(err)
		}
		cancelled, err := w.trySubmit(t, 3)
		if err != nil {
			t.Fatal(err)
		}
		held("5")
		w.end(t, done, 0, tasks.Succeed)
		w.end(t, done, 1, tasks.Fail)
		held("3")
		if err := w.db.Records.Cancel(t.Context(), cancelled.ID, tasks.Actor{By: "test"}); err != nil {
			t.Fatal(err)
		}
		held("0")
		if n := w.rdb.HLen(t.Context(), "reset:held:{acme}").Val(); n != 1 {
			t.Errorf("%d members, want the sum alone", n)
		}
	})
}

// A tenant who is at the limit with many jobs, and keeps on asking, does not have all of them
// read each time.
func TestATenantAtItsLimitCostsLittle(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	w.limit(t, "acme", tasks.Limits{OpenInstances: new(300)})
	jobs := make([]tasks.Job, 300)
	for n := range jobs {
		var err error
		if jobs[n], err = w.trySubmit(t, 1); err != nil {
			t.Fatal(err)
		}
	}
	w.rdb.ConfigResetStat(t.Context())
	for range 50 {
		_, err := w.trySubmit(t, 1)
		wantTooMany(t, err, time.Second, time.Minute)
	}
	var reads int
	text := w.rdb.Info(t.Context(), "commandstats").Val()
	if _, after, found := strings.Cut(text, "cmdstat_hmget:calls="); found {
		if _, err := fmt.Sscanf(after, "%d", &reads); err != nil {
			t.Fatal(err)
		}
	}
	if reads > 50*300/2 {
		t.Errorf("%d reads for 50 refusals", reads)
	}
	// Once the rest is over, what has ended without a word makes room.
	w.rdb.HSet(t.Context(), "reset:held:{acme}", "@", "0 0")
	w.rdb.Del(t.Context(), "reset:{"+jobs[7].ID+"}")
	w.rdb.HSet(t.Context(), "reset:held:{acme}", jobs[7].ID, "1 1000")
	if _, err := w.trySubmit(t, 1); err != nil {
		t.Errorf("one has gone: %v", err)
	}
}
