package redisdb_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// withReplica starts a primary with one replica that is in step.
func withReplica(t *testing.T) (primary, replica *redistest.Server) {
	t.Helper()
	primary = redistest.Start(t, "repl-diskless-sync-delay 0")
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica = redistest.Start(t, "replicaof "+host+" "+port)
	rdb := primary.Client(t)
	pipe := rdb.Pipeline() // WAIT is about the writes of its own connection
	for deadline := time.Now().Add(20 * time.Second); ; {
		pipe.Set(t.Context(), "step", "", time.Minute)
		reached := pipe.Do(t.Context(), "WAIT", 1, 100)
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, _ := reached.Int(); n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the replica does not get in step")
		}
	}
	return primary, replica
}

func TestCommitWaitsForReplicas(t *testing.T) {
	t.Parallel()
	primary, replica := withReplica(t)
	w := open(t, redisdb.Options{URL: primary.URL(), CommitReplicas: 1})
	job := w.submit(t, "phone-1", "phone-2")
	behind := replica.Client(t)
	if n := behind.Exists(t.Context(), "reset:{"+job.ID+"}").Val(); n != 1 {
		t.Error("the replica does not have an accepted job")
	}
	d, first := w.begin(t, job, 0, "t1")
	if got := behind.HGet(t.Context(), "reset:{"+job.ID+"}", "0").Val(); !strings.HasPrefix(got, "r 1 ") {
		t.Error("the replica does not have a begun attempt")
	}
	if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Succeed}, true); err != nil {
		t.Fatal(err)
	}
	if n := w.rdb.Exists(t.Context(), "reset:lock:{phone-1}").Val(); n != 0 {
		t.Error("the instance is still locked")
	}

	other := w.submit(t, "phone-3")
	replica.Kill()
	if _, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-4"}}); err == nil ||
		!strings.Contains(err.Error(), "reached 0 of 1 replicas") {
		t.Errorf("accepted without a replica: %v", err)
	}
	late := job.Deliveries()[1]
	for n := range 2 { // the second time the lock is there, and still no replica has it
		if _, err := w.db.Attempts.Begin(t.Context(), late, "t2", "k", time.Minute); err == nil || !strings.Contains(err.Error(), "0 of 1 replicas") {
			t.Errorf("try %d begins without a replica: %v", n+1, err)
		}
	}
	if err := w.db.Records.Cancel(t.Context(), other.ID, tasks.Actor{}); err == nil {
		t.Error("cancelled without a replica")
	}
	if err := w.db.Records.Retry(t.Context(), other.ID, tasks.RetryStates, tasks.Actor{}); err == nil || !strings.Contains(err.Error(), "list job as open") {
		t.Errorf("listed without a replica: %v", err)
	}
	replica.Restart(t)
	for deadline := time.Now().Add(20 * time.Second); ; {
		begun, err := w.db.Attempts.Begin(t.Context(), late, "t2", "k", time.Minute)
		if err == nil {
			if begun.Number != 1 || begun.Key == first.Key {
				t.Errorf("begun %+v", begun)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// Who asks again for what was done, but not heard of by enough replicas, is told that it is
// done when they have it: a failover would forget it.
func TestWhatWasDoneBeforeWaitsForReplicasToo(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	primary, replica := withReplica(t)
	w := open(t, redisdb.Options{URL: primary.URL(), CommitReplicas: 1})
	cancelled := w.submit(t, "phone-1")
	if _, err := w.db.Endpoints.Add(ctx, tasks.Endpoint{ID: "wh_1", Tenant: "acme", Secret: "s", URL: "https://hooks.example/", Topics: tasks.Topics}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	replica.Kill()
	again := tasks.Submission{Tenant: "acme", IdempotencyKey: "once", InstanceIDs: []string{"phone-2"}, AllowUnregistered: true}
	repeated := map[string]func() error{
		"submit": func() error {
			if _, err := w.db.Records.Replay(ctx, again); err == nil || !errors.Is(err, tasks.JobGone) {
				return err
			}
			_, err := w.db.Records.Submit(ctx, again)
			return err
		},
		"cancel":          func() error { return w.db.Records.Cancel(ctx, cancelled.ID, tasks.Actor{}) },
		"the tenant halt": func() error { return w.db.Policies.Halt(ctx, "acme", tasks.HaltedByTenant, tasks.Actor{}) },
		"resume":          func() error { return w.db.Policies.Resume(ctx, "acme", tasks.HaltedByOperator, tasks.Actor{}) },
	}
	for what, f := range repeated {
		for n := range 3 {
			if err := f(); err == nil {
				t.Errorf("%s, try %d, is done, and no replica knows", what, n+1)
			}
		}
	}
	if err := w.rdb.HSet(ctx, "reset:{"+cancelled.ID+"}", "left", 0, "0", "c  1 1 phone-1").Err(); err != nil {
		t.Fatal(err)
	}
	ended, err := w.db.Jobs.Job(ctx, cancelled.ID)
	if err != nil || !ended.State.Final() {
		t.Fatalf("the cancelled job is %s, %v", ended.State, err)
	}
	if err := w.db.Notices.EnqueueNotices(ctx, ended); err == nil {
		t.Error("an end is told that no replica knows")
	}
	replica.Restart(t)
	repeated["tell"] = func() error { return w.db.Notices.EnqueueNotices(ctx, ended) }
	for what, f := range repeated {
		var err error
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			err = f()
			if e, final := errors.AsType[*tasks.Error](err); final && e.Code == tasks.JobFinal {
				err = nil // by now the cancelled job is
			}
			if err == nil {
				break
			}
		}
		if err != nil {
			t.Errorf("%s with a replica: %v", what, err)
		}
	}
}
