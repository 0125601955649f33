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

// eitherLock runs a test as both does, and where lock and record are written one after the other.
func eitherLock(t *testing.T, test func(t *testing.T, w world)) {
	both(t, redisdb.Options{}, test)
	t.Run("commit-replicas", func(t *testing.T) {
		primary, _ := withReplica(t)
		test(t, open(t, redisdb.Options{URL: primary.URL(), CommitReplicas: 1}))
	})
}

// locked reports whether phone-1 is.
func (w world) locked(t testing.TB) bool {
	t.Helper()
	return w.rdb.Exists(t.Context(), "reset:lock:{phone-1}").Val() == 1
}

func TestWhatWasGivenUpNeverBegins(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1", "phone-2")
		d := job.Deliveries()[0]
		// Before it has begun, more often than once, and though other attempts come between.
		for range 2 {
			if _, err := w.db.Attempts.GiveUp(t.Context(), d, "early", time.Minute); !errors.Is(err, tasks.WrongToken) {
				t.Fatal(err)
			}
		}
		w.begin(t, job, 0, "t1")
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Retry, Failure: true}, true); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Attempts.Begin(t.Context(), d, "early", "k", time.Minute); !errors.Is(err, tasks.WrongToken) {
			t.Errorf("it begins: %v", err)
		}
		if w.locked(t) {
			t.Error("it has locked the instance")
		}
		// After it has.
		w.begin(t, job, 0, "t2")
		ended, err := w.db.Attempts.GiveUp(t.Context(), d, "t2", time.Minute)
		if err != nil || ended.State != tasks.ItemRetrying || w.locked(t) {
			t.Errorf("given up: %+v, %v, locked: %t", ended, err, w.locked(t))
		}
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t2", "k", time.Minute); err == nil {
			w.db.Attempts.Finish(t.Context(), d, "t2", tasks.Outcome{Transition: tasks.Retry}, true) //nolint:errcheck // the error is told below
		}
		if _, begun := w.begin(t, job, 0, "t3"); begun.Ambiguous || begun.Failures != 1 {
			t.Errorf("begun %+v", begun)
		}
	})
}

// In doubt before, in doubt after.
func TestGivingUpEndsNoDoubt(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d, first := w.begin(t, job, 0, "t1")
		w.send(t, d)
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Retry, InDoubt: true}, false); err != nil {
			t.Fatal(err)
		}
		w.begin(t, job, 0, "t2")
		if _, err := w.db.Attempts.GiveUp(t.Context(), d, "t2", time.Minute); err != nil {
			t.Fatal(err)
		}
		if !w.locked(t) {
			t.Error("the instance is not locked any more")
		}
		if _, begun := w.begin(t, job, 0, "t3"); !begun.Ambiguous || begun.Key != first.Key {
			t.Errorf("begun %+v", begun)
		}
	})
}

func TestALostAttemptThatHadNotSentPutsNothingInDoubt(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		for n, sent := range []bool{false, true} {
			job := w.submit(t, fmt.Sprintf("phone-%d", n))
			d, first := w.begin(t, job, 0, "t1")
			if sent {
				w.send(t, d)
			}
			if err := w.db.Sweep.Redeliver(t.Context(), job, d, func(int) time.Duration { return 0 }); err != nil {
				t.Fatal(err)
			}
			if it := w.read(t, job.ID).Items[0]; it.State != tasks.ItemRetrying || it.History[0].Outcome != "lost" ||
				strings.Contains(it.History[0].Message, "nothing was sent") == sent {
				t.Errorf("sent: %t, item %+v", sent, it)
			}
			if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Succeed}, true); !errors.Is(err, tasks.WrongToken) {
				t.Errorf("the lost attempt ends: %v", err)
			}
			d.Number = 2
			begun, err := w.db.Attempts.Begin(t.Context(), d, "t2", "k2", time.Minute)
			if err != nil || begun.Ambiguous != sent || (begun.Key == first.Key) != sent || begun.Lost != 1 {
				t.Errorf("sent: %t, begun %+v, %v", sent, begun, err)
			}
		}
	})
}

func TestARetryDoesNotWalkThroughItsOwnLock(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d, _ := w.begin(t, job, 0, "t1")
		w.send(t, d)
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.LoseTrack, InDoubt: true}, false); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Records.Retry(t.Context(), job.ID, []tasks.ItemState{tasks.ItemUnknown}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		d = w.read(t, job.ID).Deliveries()[0]
		_, err := w.db.Attempts.Begin(t.Context(), d, "t2", "k2", time.Minute)
		if early, ok := errors.AsType[*tasks.EarlyError](err); !ok || early.Wait <= 50*time.Second || early.Wait > time.Minute {
			t.Fatalf("it begins: %v", err)
		}
		if holder := w.rdb.Get(t.Context(), "reset:lock:{phone-1}").Val(); holder != d.ItemID+" t1" {
			t.Errorf("the lock is %q", holder)
		}
		w.rdb.Del(t.Context(), "reset:lock:{phone-1}") // it has lapsed
		begun, err := w.db.Attempts.Begin(t.Context(), d, "t2", "k2", time.Minute)
		if err != nil || begun.Ambiguous || begun.Key != "k2" {
			t.Errorf("begun %+v, %v", begun, err)
		}
	})
}

// Redis's clock may step, and the nodes of a Cluster differ.
func TestTheRecordSurvivesClocksThatGoBack(t *testing.T) {
	server := miniredis.RunT(t)
	w := open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true})
	now := time.Now().Truncate(time.Second)
	for name, steps := range map[string][4]time.Duration{
		"before begin":         {-10 * time.Second, -10 * time.Second, -10 * time.Second, 0},
		"between the two":      {0, -10 * time.Second, -10 * time.Second, -10 * time.Second},
		"by a few ms":          {-10 * time.Millisecond, -9 * time.Millisecond, -8 * time.Millisecond, 0},
		"to and fro":           {-10 * time.Second, 10 * time.Second, -10 * time.Second, 10 * time.Second},
		"only before a cancel": {0, 0, -time.Hour, -time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			server.SetTime(now)
			job := w.submit(t, name[:2]+"-1", name[:2]+"-2", name[:2]+"-3")
			server.SetTime(now.Add(steps[0]))
			d, _ := w.begin(t, job, 0, "t1")
			other, _ := w.begin(t, job, 1, "t1")
			server.SetTime(now.Add(steps[1]))
			if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Retry, Failure: true, Busy: true}, true); err != nil {
				t.Fatal(err)
			}
			server.SetTime(now.Add(steps[2]))
			if _, err := w.db.Attempts.Wait(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			w.begin(t, job, 0, "t2")
			if err := w.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
			server.SetTime(now.Add(steps[3]))
			for token, d := range map[string]tasks.Delivery{"t2": d, "t1": other} {
				if _, err := w.db.Attempts.Finish(t.Context(), d, token, tasks.Outcome{Transition: tasks.Fail, Failure: true}, true); err != nil {
					t.Fatal(err)
				}
			}
			got := w.read(t, job.ID)
			if got.State != tasks.JobFailed {
				t.Fatalf("job %+v", got)
			}
			for _, it := range got.Items {
				if it.StartedAt.Before(got.CreatedAt.Time) && !it.StartedAt.IsZero() || it.FinishedAt.Before(got.CreatedAt.Time) {
					t.Errorf("item %+v of a job of %s", it, got.CreatedAt)
				}
			}
			if err := w.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Older versions wrote what their arithmetic gave them.
func TestNegativeTimesOfOlderVersionsAreRead(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		for n, raw := range []string{
			"r 1 -7  %s t1 -7  k1",
			"w 2 -7  %s   1 k1 {\"f\":1,\"y\":-7,\"c\":\"CPS.0003\",\"m\":\"busy\",\"h\":[{\"n\":1,\"b\":-7,\"e\":-3,\"o\":\"w\"}]}",
			"p    %s {\"y\":-20}",
		} {
			phone := fmt.Sprintf("phone-%d", n)
			job := w.submit(t, phone)
			w.rdb.HSet(t.Context(), "reset:{"+job.ID+"}", "0", fmt.Sprintf(raw, phone), "rev", 2)
			if it := w.read(t, job.ID).Items[0]; it.StartedAt.Before(job.CreatedAt.Time) && !it.StartedAt.IsZero() {
				t.Errorf("item %+v", it)
			}
			d := job.Deliveries()[0]
			begun, err := w.db.Attempts.Begin(t.Context(), d, "t2", "k2", time.Minute)
			if err != nil {
				t.Fatalf("%s: %v", raw, err)
			}
			if doubt := n < 2; begun.Ambiguous != doubt || (begun.Key == "k1") != doubt {
				t.Errorf("%s: begun %+v", raw, begun)
			}
			if _, err := w.db.Attempts.Finish(t.Context(), d, "t2", tasks.Outcome{Transition: tasks.Succeed}, true); err != nil {
				t.Fatal(err)
			}
			if got := w.rdb.HGet(t.Context(), "reset:{"+job.ID+"}", "0").Val(); strings.Contains(strings.ReplaceAll(got, phone, ""), " -") {
				t.Errorf("written: %s", got)
			}
		}
	})
}

// A key that is used again after its record has expired makes a record that meets no old task.
func TestARecordMadeAgainMeetsNoOldTask(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		s := tasks.Submission{
			Tenant: "acme", RequestID: "r", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true, IdempotencyKey: "nightly",
			NotBefore: tasks.FromMillis(time.Now().Add(time.Hour).UnixMilli()),
		}
		first, err := w.db.Records.Submit(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		w.rdb.Del(t.Context(), "reset:{"+first.ID+"}") // it has expired; its task is still scheduled
		second, err := w.db.Records.Submit(t.Context(), s)
		if err != nil || second.ID != first.ID {
			t.Fatalf("%s, %v", second.ID, err)
		}
		old, now := first.Deliveries()[0], second.Deliveries()[0]
		if old.TaskID() == now.TaskID() {
			t.Errorf("both have the task %s", now.TaskID())
		}
		for _, d := range []tasks.Delivery{old, now} {
			if _, err := w.db.Redis.NewInspector().GetTaskInfo(second.Queue, d.TaskID()); err != nil && first.Queue == second.Queue {
				t.Errorf("task %s: %v", d.TaskID(), err)
			}
		}
		w.rdb.HSet(t.Context(), "reset:{"+first.ID+"}", "end", time.Now().Add(time.Hour).UnixMilli()) // its time comes
		if _, err := w.db.Attempts.Begin(t.Context(), old, "t1", "k", time.Minute); !errors.Is(err, tasks.OldDelivery) {
			t.Errorf("the old task begins: %v", err)
		}
		if _, err := w.db.Attempts.Begin(t.Context(), now, "t2", "k", time.Minute); err != nil {
			t.Error(err)
		}
		// The same request again is the same record.
		again, err := w.db.Records.Submit(t.Context(), s)
		if err != nil || again.Epoch != second.Epoch || tasks.EpochOf(now.TaskID()) != second.Epoch {
			t.Errorf("epoch %q, then %q, %v", second.Epoch, again.Epoch, err)
		}
	})
}

// What Redis says of itself is no fault of the record.
func TestAFullRedisIsNoBrokenRecord(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	job := w.submit(t, "phone-1")
	if err := w.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	_, err := w.db.Attempts.Begin(t.Context(), job.Deliveries()[0], "t1", "k", time.Minute)
	if err == nil || errors.Is(err, tasks.ErrBrokenRecord) {
		t.Errorf("begin: %v", err)
	}
	w.rdb.ConfigSet(t.Context(), "maxmemory", "0")
	for _, raw := range []string{"garbage", "r 1 2", "w 1 2  phone-1 {nonsense", ""} {
		w.rdb.HSet(t.Context(), "reset:{"+job.ID+"}", "0", raw)
		if _, err := w.db.Attempts.Begin(t.Context(), job.Deliveries()[0], "t2", "k", time.Minute); !errors.Is(err, tasks.ErrBrokenRecord) {
			t.Errorf("begin of %q: %v", raw, err)
		}
	}
}

func TestWhatIsInDoubtStaysSoUntilADefiniteAnswer(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d, first := w.begin(t, job, 0, "t1")
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Retry, InDoubt: true, Unanswered: true}, false); err != nil {
			t.Fatal(err)
		}
		second, err := w.db.Attempts.Begin(t.Context(), d, "t2", "fresh key", time.Minute)
		if err != nil || !second.Ambiguous || second.Key != first.Key || second.Unanswered != 1 || second.Failures != 0 {
			t.Errorf("begun %+v, %v", second, err)
		}
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t2", tasks.Outcome{Transition: tasks.Retry, InDoubt: true}, false); err != nil {
			t.Fatal(err)
		}
		// Giving the item up now cannot call it failed.
		ended, err := w.db.Attempts.Abandon(t.Context(), d, tasks.NotInTime, "too late", 0)
		if err != nil || ended != (tasks.Ended{State: tasks.ItemUnknown, JobFinal: true}) {
			t.Errorf("abandoned as %+v, %v", ended, err)
		}
	})
}
