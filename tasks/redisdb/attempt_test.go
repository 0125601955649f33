package redisdb_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestAnAttemptFromBeginToFinish(t *testing.T) {
	both(t, redisdb.Options{JobRetention: time.Hour}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1", "phone-2")
		d, begun := w.begin(t, job, 0, "t1")
		if begun.Number != 1 || begun.Key != "key-t1" || begun.Ambiguous || begun.Checkpoint != "" {
			t.Errorf("begun %+v", begun)
		}
		if got := w.read(t, job.ID); got.State != tasks.JobRunning || got.Counts.Running != 1 || got.StartedAt.IsZero() {
			t.Errorf("record while running: %+v", got)
		}
		ended, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Succeed}, true)
		if err != nil || ended.JobFinal {
			t.Fatalf("finish: %+v, %v", ended, err)
		}
		if n := w.rdb.Exists(t.Context(), "reset:lock:{phone-1}").Val(); n != 0 {
			t.Error("the instance is still locked")
		}
		if ttl := w.rdb.TTL(t.Context(), "reset:{"+job.ID+"}").Val(); ttl >= 0 {
			t.Errorf("a job that is not final expires in %s", ttl)
		}

		d, _ = w.begin(t, job, 1, "t2")
		ended, err = w.db.Attempts.Finish(t.Context(), d, "t2", tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005", Message: "Phone not found."}, true)
		if err != nil || !ended.JobFinal {
			t.Fatalf("finish of the last item: %+v, %v", ended, err)
		}
		got := w.read(t, job.ID)
		if got.State != tasks.JobPartial || got.FinishedAt.IsZero() {
			t.Errorf("final record: %+v", got)
		}
		if it := got.Items[1]; it.State != tasks.ItemFailed || it.Attempts != 1 || it.Code != "CPS.0005" ||
			it.Message != "Phone not found." || it.StartedAt.IsZero() || it.FinishedAt.IsZero() {
			t.Errorf("failed item: %+v", it)
		}
		if ttl := w.rdb.TTL(t.Context(), "reset:{"+job.ID+"}").Val(); ttl <= 59*time.Minute || ttl > time.Hour {
			t.Errorf("the final record expires in %s, want an hour", ttl)
		}
	})
}

func TestOnlyTheHolderOfTheTokenEndsAnAttempt(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d, _ := w.begin(t, job, 0, "t1")
		succeed := tasks.Outcome{Transition: tasks.Succeed}
		if _, err := w.db.Attempts.Finish(t.Context(), d, "other", succeed, true); !errors.Is(err, tasks.WrongToken) {
			t.Errorf("another token: %v", err)
		}
		if err := w.db.Attempts.Checkpoint(t.Context(), d, "other", "c"); !errors.Is(err, tasks.WrongToken) {
			t.Errorf("checkpoint with another token: %v", err)
		}
		if got := w.read(t, job.ID); got.Items[0].State != tasks.ItemRunning {
			t.Errorf("item is %s", got.Items[0].State)
		}
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", succeed, true); err != nil {
			t.Fatal(err)
		}
		revision := w.read(t, job.ID).Revision
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Fail}, true); !errors.Is(err, tasks.WrongToken) {
			t.Errorf("second finish: %v", err)
		}
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t2", "k", time.Minute); !errors.Is(err, tasks.AlreadyFinal) {
			t.Errorf("begin of a final item: %v", err)
		}
		if got := w.read(t, job.ID); got.Revision != revision {
			t.Error("a refused change left something behind")
		}
	})
}

func TestTheSameCommandTwiceIsOneAttempt(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d, first := w.begin(t, job, 0, "t1")
		second, err := w.db.Attempts.Begin(t.Context(), d, "t1", "another key", time.Minute)
		if err != nil || !reflect.DeepEqual(second, first) {
			t.Errorf("the answer to the repeated begin is %+v, %v; the first was %+v", second, err, first)
		}
		if got := w.read(t, job.ID).Items[0].Attempts; got != 1 {
			t.Errorf("%d attempts", got)
		}
	})
}

func TestALostAttemptIsAmbiguousAndKeepsKeyAndCheckpoint(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d, first := w.begin(t, job, 0, "t1")
		if err := w.db.Attempts.Checkpoint(t.Context(), d, "t1", "upstream job 7"); err != nil {
			t.Fatal(err)
		}
		w.send(t, d)
		// The worker is gone; the item is delivered again.
		second, err := w.db.Attempts.Begin(t.Context(), d, "t2", "fresh key", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if !second.Ambiguous || second.Key != first.Key || second.Checkpoint != "upstream job 7" ||
			second.Number != 2 || second.Failures != 0 || second.Lost != 1 {
			t.Errorf("begun %+v", second)
		}
		// After a definite failure nothing is in doubt any more.
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t2", tasks.Outcome{Transition: tasks.Retry, Failure: true}, true); err != nil {
			t.Fatal(err)
		}
		_, third := w.begin(t, job, 0, "t3")
		if third.Ambiguous || third.Key != "key-t3" || third.Checkpoint != "" || third.Failures != 1 {
			t.Errorf("begun after a definite failure: %+v", third)
		}
	})
}

func TestTooManyFailuresStopTheRest(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job, err := w.db.Records.Submit(t.Context(), tasks.Submission{
			Tenant: "acme", InstanceIDs: []string{"phone-1", "phone-2", "phone-3", "phone-4"}, AllowUnregistered: true, MaxFailures: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		running, _ := w.begin(t, job, 1, "t1")
		d, _ := w.begin(t, job, 0, "t0")
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t0", tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005"}, true); err != nil {
			t.Fatal(err)
		}
		got := w.read(t, job.ID)
		if got.Counts != (tasks.Counts{Failed: 1, Running: 1, Cancelled: 2}) || got.Items[2].Code != tasks.Stopped {
			t.Errorf("after the first failure: %+v", got)
		}
		// What runs ends by itself and is not tried again.
		ended, err := w.db.Attempts.Finish(t.Context(), running, "t1", tasks.Outcome{Transition: tasks.Retry, Code: "CPS.0003", Failure: true}, true)
		if err != nil || ended.State != tasks.ItemFailed || !ended.JobFinal {
			t.Errorf("the running attempt ended as %+v, %v", ended, err)
		}
	})
}

func TestBeginRefuses(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		for _, row := range []struct {
			name   string
			change func(*tasks.Delivery)
			want   tasks.Refusal
		}{
			{"an unknown job", func(d *tasks.Delivery) { d.ItemID = tasks.ItemID(tasks.NewJobID(), 0) }, tasks.JobGone},
			{"an unknown item", func(d *tasks.Delivery) { d.ItemID = tasks.ItemID(job.ID, 7) }, tasks.JobGone},
			{"another instance than the record's", func(d *tasks.Delivery) { d.InstanceID = "phone-2" }, tasks.WrongInstance},
			{"a delivery that is not the current one", func(d *tasks.Delivery) { d.Number = 2 }, tasks.OldDelivery},
		} {
			t.Run(row.name, func(t *testing.T) {
				d := job.Deliveries()[0]
				row.change(&d)
				if _, err := w.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); !errors.Is(err, row.want) {
					t.Errorf("begin: %v, want %v", err, row.want)
				}
				if _, err := w.db.Attempts.Wait(t.Context(), d); !errors.Is(err, row.want) {
					t.Errorf("wait: %v, want %v", err, row.want)
				}
				if _, err := w.db.Attempts.Abandon(t.Context(), d, "c", "m", 0); !errors.Is(err, row.want) {
					t.Errorf("abandon: %v, want %v", err, row.want)
				}
				if got := w.read(t, job.ID); got.Revision != 1 {
					t.Errorf("the record was changed: %+v", got)
				}
			})
		}
	})
}

func TestAnItemDoesNotStartAfterItsTime(t *testing.T) {
	both(t, redisdb.Options{GiveUpAfter: time.Millisecond}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d := job.Deliveries()[0]
		for now := job.CreatedAt.Time; now.Before(job.EndBefore.Time); {
			var err error
			if now, err = w.rdb.Time(t.Context()).Result(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); !errors.Is(err, tasks.TooLate) {
			t.Errorf("begin: %v", err)
		}
		ended, err := w.db.Attempts.Abandon(t.Context(), d, tasks.NotInTime, "too late", 0)
		if err != nil || ended != (tasks.Ended{State: tasks.ItemFailed, JobFinal: true}) {
			t.Errorf("abandoned as %+v, %v", ended, err)
		}
		if got := w.read(t, job.ID); got.State != tasks.JobFailed || got.Items[0].Code != tasks.NotInTime {
			t.Errorf("record %+v", got)
		}
	})
}

func TestFinishWorksAfterRedisForgotItsScripts(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d, _ := w.begin(t, job, 0, "t1")
		if err := w.rdb.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if ended, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Succeed}, true); err != nil || !ended.JobFinal {
			t.Fatalf("finish: %+v, %v", ended, err)
		}
		if n := w.rdb.Exists(t.Context(), "reset:lock:{phone-1}").Val(); n != 0 {
			t.Error("the instance is still locked")
		}
	})
}
