package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
)

func (b bench) limit(t *testing.T, limits tasks.Limits) {
	t.Helper()
	if err := b.db.Policies.SetLimits(t.Context(), "acme", limits, false, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
}

func TestNothingBeginsWhileTheTenantIsHalted(t *testing.T) {
	for _, tenant := range []string{"acme", ""} {
		calls := 0
		b := newBench(t, driverFunc(func(context.Context, Attempt) error { calls++; return nil }))
		raw, err := json.Marshal(tasks.Halt{Since: tasks.Time{Time: time.Now().Add(-4 * time.Second)}, Reason: "wrong list"})
		if err != nil {
			t.Fatal(err)
		}
		b.rdb.HSet(t.Context(), "reset:policies", cmp.Or(tenant, "*")+" halt", raw, "#", 7)
		job := b.submit(t, "phone-1")
		a := wantAgain(t, b.deliver(t, job))
		if a.Failure || a.Delay < 2*time.Second || a.Delay > 5*time.Second || a.Reason != "resets are halted: wrong list" {
			t.Errorf("put back with %+v", a)
		}
		if it := b.item(t, job); calls != 0 || it.Attempts != 0 || it.State != tasks.ItemPending || b.locked(t, "phone-1") {
			t.Errorf("%d calls, item %+v", calls, it)
		}
		if err := b.db.Policies.Resume(t.Context(), tenant, tasks.HaltedByOperator, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if err := b.deliver(t, job); err != nil || calls != 1 {
			t.Errorf("after the halt: %v, %d calls", err, calls)
		}
	}
}

// Between its begin and its sending an attempt may wait, for --driver-rate for example.
func TestAHaltStopsAnAttemptThatHasNotSentYet(t *testing.T) {
	var b bench
	b = newBench(t, driverFunc(func(_ context.Context, a Attempt) error {
		if err := b.db.Policies.Halt(t.Context(), "acme", tasks.HaltedByTenant, tasks.Actor{}); err != nil {
			t.Error(err)
		}
		if err := a.MaySend(); err != nil {
			return &DriverError{Verdict: NotSent, Message: err.Error()}
		}
		return nil
	}))
	job := b.submit(t, "phone-1")
	a := wantAgain(t, b.deliver(t, job))
	it := b.item(t, job)
	if a.Failure || it.State != tasks.ItemRetrying || !strings.Contains(it.Message, "halted") || b.locked(t, "phone-1") {
		t.Errorf("put back with %+v, item %+v", a, it)
	}
}

// blind is a store that cannot see the policies any more.
type blind struct {
	Policies
	after int
}

var errBlind = errors.New("connection refused")

func (s *blind) PolicyOf(ctx context.Context, tenant, run string) (tasks.Policy, error) {
	if s.after--; s.after < 0 {
		return tasks.Policy{}, errBlind
	}
	return s.Policies.PolicyOf(ctx, tenant, run)
}

func TestNothingIsSentWhileNobodyKnowsWhetherTheTenantIsHalted(t *testing.T) {
	calls := 0
	b := newBench(t, driverFunc(func(context.Context, Attempt) error { calls++; return nil }))
	b.store.Policies = &blind{b.store.Policies, 1}
	job := b.submit(t, "phone-1")
	_ = wantAgain(t, b.deliver(t, job))
	if it := b.item(t, job); calls != 0 || it.State != tasks.ItemRetrying || !strings.Contains(it.Message, "connection refused") {
		t.Errorf("%d calls, item %+v", calls, it)
	}
}

func TestTheQuotaOfResetsCountsInstances(t *testing.T) {
	var failure error
	b := newBench(t, driverFunc(func(context.Context, Attempt) error { return failure }))
	begun := func(want int) {
		t.Helper()
		if usage, err := b.db.Quotas.Usage(t.Context(), "acme"); err != nil || usage.BegunLastHour != want {
			t.Errorf("usage %+v, %v; want %d begun", usage, err, want)
		}
	}
	job, other := b.submit(t, "phone-1"), b.submit(t, "phone-2")
	b.limit(t, tasks.Limits{InstancesPerHour: new(1)}) // after they were accepted
	failure = &DriverError{Verdict: Retryable}
	_ = wantAgain(t, b.deliver(t, job))
	begun(1)
	b.limit(t, tasks.Limits{InstancesPerHour: new(2)})
	_ = wantAgain(t, b.deliver(t, job)) // the same instance once more
	begun(1)

	// What does not begin is not counted.
	if err := b.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-2", Tenant: "acme", Protected: true}}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	wantArchived(t, b.deliver(t, other))
	begun(1)

	failure = nil
	if err := b.deliver(t, b.submit(t, "phone-3")); err != nil {
		t.Fatal(err)
	}
	begun(2)
	b.limit(t, tasks.Limits{InstancesPerHour: new(0)})
	fourth := b.submit(t, "phone-4")
	b.limit(t, tasks.Limits{InstancesPerHour: new(2)})
	a := wantAgain(t, b.deliver(t, fourth))
	if a.Failure || a.Delay > waitCap || !strings.Contains(a.Reason, "quota") {
		t.Errorf("put back with %+v", a)
	}
	if it := b.item(t, fourth); it.State != tasks.ItemPending || it.Attempts != 0 {
		t.Errorf("item %+v", it)
	}
	begun(2)
}

func TestThePolicyStopsAJobAfterTooManyFailures(t *testing.T) {
	b := newBench(t, driverFunc(func(context.Context, Attempt) error { return &DriverError{Verdict: Permanent} }))
	job := b.submit(t, "phone-1", "phone-2", "phone-3")
	b.limit(t, tasks.Limits{MaxFailures: new(1)})
	wantArchived(t, b.deliver(t, job))
	read, err := b.db.Jobs.Job(t.Context(), job.ID)
	if err != nil || read.Counts.Failed != 1 || read.Counts.Cancelled != 2 || read.State != tasks.JobFailed {
		t.Errorf("record %+v, %v", read, err)
	}
}
