package redisdb_test

import (
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
	primary = redistest.Start(t, "--repl-diskless-sync-delay", "0")
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica = redistest.Start(t, "--replicaof", host, port)
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
	if _, err := w.db.Finish(t.Context(), d, "t1", tasks.Outcome{Event: tasks.Succeed}, true); err != nil {
		t.Fatal(err)
	}
	if n := w.rdb.Exists(t.Context(), "reset:lock:{phone-1}").Val(); n != 0 {
		t.Error("the instance is still locked")
	}

	other := w.submit(t, "phone-3")
	replica.Kill()
	if _, err := w.db.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-4"}}); err == nil ||
		!strings.Contains(err.Error(), "reached 0 of 1 replicas") {
		t.Errorf("accepted without a replica: %v", err)
	}
	late := job.Deliveries()[1]
	for n := range 2 { // the second time the lock is there, and still no replica has it
		if _, err := w.db.Begin(t.Context(), late, "t2", "k", time.Minute); err == nil || !strings.Contains(err.Error(), "0 of 1 replicas") {
			t.Errorf("try %d begins without a replica: %v", n+1, err)
		}
	}
	if err := w.db.Cancel(t.Context(), other.ID, tasks.Actor{}); err == nil {
		t.Error("cancelled without a replica")
	}
	if err := w.db.Retry(t.Context(), other.ID, tasks.RetryStates, tasks.Actor{}); err == nil || !strings.Contains(err.Error(), "list job as open") {
		t.Errorf("listed without a replica: %v", err)
	}
	replica.Restart(t)
	for deadline := time.Now().Add(20 * time.Second); ; {
		begun, err := w.db.Begin(t.Context(), late, "t2", "k", time.Minute)
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
