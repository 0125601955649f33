package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/tasks/redisdb/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a DB and a second look at the same Redis.
type world struct {
	db  *redisdb.DB
	rdb *redis.Client
}

// both runs a test on miniredis, which serves 'dev', and on a real redis-server.
func both(t *testing.T, opts redisdb.Options, test func(t *testing.T, w world)) {
	t.Run("miniredis", func(t *testing.T) {
		opts := opts
		opts.URL, opts.Embedded = "redis://"+miniredis.RunT(t).Addr(), true
		test(t, open(t, opts))
	})
	t.Run("redis-server", func(t *testing.T) {
		opts := opts
		opts.URL = redistest.Start(t).URL()
		test(t, open(t, opts))
	})
}

func open(t testing.TB, opts redisdb.Options) world {
	t.Helper()
	db, rdb := dbtest.Open(t, opts)
	return world{db, rdb}
}

func (w world) submit(t testing.TB, instances ...string) tasks.Job {
	t.Helper()
	return w.submitTo(t, nil, instances...)
}

// submitTo submits instances some of which have another driver than the default one.
func (w world) submitTo(t testing.TB, drivers map[string]string, instances ...string) tasks.Job {
	t.Helper()
	job, err := w.db.Records.Submit(t.Context(), tasks.Submission{
		Tenant: "acme", RequestID: "req-1", InstanceIDs: instances, AllowUnregistered: true, Drivers: drivers,
	})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// after waits until Redis's clock, which gives jobs their times, has passed a job's by
// some milliseconds.
func (w world) after(t testing.TB, job tasks.Job, ms int) {
	t.Helper()
	for {
		now, err := w.rdb.Time(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		if now.Sub(job.CreatedAt.Time) > time.Duration(ms)*time.Millisecond {
			return
		}
	}
}

func (w world) read(t testing.TB, id string) tasks.Job {
	t.Helper()
	job, err := w.db.Jobs.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// begin begins an attempt at item n, as a worker does.
func (w world) begin(t testing.TB, job tasks.Job, n int, token string) (tasks.Delivery, tasks.Begun) {
	t.Helper()
	d := job.Deliveries()[n]
	begun, err := w.db.Attempts.Begin(t.Context(), d, token, "key-"+token, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return d, begun
}

// forgetEpoch is what the payload has of a delivery.
func forgetEpoch(d tasks.Delivery) tasks.Delivery {
	d.Epoch = ""
	return d
}

// send asks whether the attempt with the token t1 may send, as a driver does before it sends.
func (w world) send(t testing.TB, d tasks.Delivery) {
	t.Helper()
	if err := w.db.Attempts.Send(t.Context(), d, "t1", ""); err != nil {
		t.Fatal(err)
	}
}

func TestSubmitMakesARecordAndOneTaskPerItem(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1", "phone-2")
		got := w.read(t, job.ID)
		if fmt.Sprint(got) != fmt.Sprint(job) {
			t.Errorf("read  %+v\nwrote %+v", got, job)
		}
		if got.State != tasks.JobPending || got.Counts.Pending != 2 || got.RequestID != "req-1" || got.Tenant != "acme" {
			t.Errorf("record is %+v", got)
		}
		inspector := asynq.NewInspectorFromRedisClient(w.rdb)
		for _, d := range job.Deliveries() {
			info, err := inspector.GetTaskInfo(job.Queue, d.TaskID())
			if err != nil {
				t.Fatalf("task %s: %v", d.TaskID(), err)
			}
			if got, err := tasks.DecodeDelivery(info.Payload); err != nil || got != forgetEpoch(d) || info.Type != tasks.TypeReset {
				t.Errorf("task %s carries %+v, %v", info.Type, got, err)
			}
			if info.MaxRetry < 1e6 || info.Timeout < 8760*time.Hour {
				t.Errorf("asynq would end the task by itself: %d retries, %s", info.MaxRetry, info.Timeout)
			}
		}
		if score := w.rdb.ZScore(t.Context(), "reset:open", job.ID); score.Err() != nil {
			t.Errorf("the job is not listed as open: %v", score.Err())
		}
	})
}

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

func TestHistorySurvivesARetry(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1", "phone-2")
		_, _ = w.begin(t, job, 0, "lost")
		d := job.Deliveries()[0]
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t1", "k", time.Minute); err != nil {
			t.Fatal(err)
		}
		outcome := tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0003", Message: "internal error", Failure: true}
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", outcome, true); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Attempts.Finish(t.Context(), d, "lost", outcome, true); !errors.Is(err, tasks.WrongToken) {
			t.Errorf("the lost attempt ends: %v", err)
		}
		_, _ = w.begin(t, job, 1, "t2")
		if _, err := w.db.Attempts.Finish(t.Context(), job.Deliveries()[1], "t2", tasks.Outcome{Transition: tasks.Succeed}, true); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		got := w.read(t, job.ID)
		if got.Items[1].State != tasks.ItemSucceeded || got.State != tasks.JobRunning || got.Counts.Pending != 1 {
			t.Errorf("record after the retry: %+v", got)
		}
		it := got.Items[0]
		if it.State != tasks.ItemPending || it.Attempts != 2 || it.Code != "" || it.Delivery != 2 || len(it.History) != 2 {
			t.Fatalf("item after the retry: %+v", it)
		}
		if h := it.History[0]; h.Number != 1 || h.Outcome != "lost" || h.StartedAt.IsZero() || h.FinishedAt.IsZero() {
			t.Errorf("first attempt: %+v", h)
		}
		if h := it.History[1]; h.Number != 2 || h.Outcome != "failed" || h.Code != "CPS.0003" || h.Message != "internal error" {
			t.Errorf("second attempt: %+v", h)
		}
		if ttl := w.rdb.TTL(t.Context(), "reset:{"+job.ID+"}").Val(); ttl >= 0 {
			t.Errorf("a reopened job expires in %s", ttl)
		}
		if _, err := w.db.Attempts.Begin(t.Context(), d, "late", "k", time.Minute); !errors.Is(err, tasks.OldDelivery) {
			t.Errorf("the delivery before the retry begins: %v", err)
		}
		d.Number = 2
		if begun, err := w.db.Attempts.Begin(t.Context(), d, "t3", "k", time.Minute); err != nil || begun.Failures != 0 || begun.Ambiguous {
			t.Errorf("begun after the retry: %+v, %v", begun, err)
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

func TestWaitingForABusyInstance(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d := job.Deliveries()[0]
		if waited, err := w.db.Attempts.Wait(t.Context(), d); err != nil || waited != 0 {
			t.Fatalf("first wait: %s, %v", waited, err)
		}
		var waited time.Duration
		for waited == 0 {
			var err error
			if waited, err = w.db.Attempts.Wait(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = w.begin(t, job, 0, "t1")
		ended, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Retry, Busy: true}, true)
		if err != nil || ended.BusyFor < waited {
			t.Errorf("busy for %s, %v; it was %s before", ended.BusyFor, err, waited)
		}
		_, _ = w.begin(t, job, 0, "t2")
		if ended, err = w.db.Attempts.Finish(t.Context(), d, "t2", tasks.Outcome{Transition: tasks.Retry}, true); err != nil || ended.BusyFor != 0 {
			t.Errorf("still busy for %s after an attempt that was not, %v", ended.BusyFor, err)
		}
	})
}

func TestOneItemAtATimeHasAnInstance(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) { oneItemAtATime(t, w.db, w.rdb) })
}

// oneItemAtATime takes the lock of an instance through the hands of two items.
func oneItemAtATime(t *testing.T, db *redisdb.DB, rdb redis.UniversalClient) {
	t.Helper()
	ctx := t.Context()
	item := func() tasks.Delivery {
		job, err := db.Records.Submit(ctx, tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true})
		if err != nil {
			t.Fatal(err)
		}
		return job.Deliveries()[0]
	}
	a, b := item(), item()
	const lock = "reset:lock:{phone-1}"
	holds := func(want string) {
		t.Helper()
		if got := rdb.Get(ctx, lock).Val(); got != want {
			t.Fatalf("the lock is held by %q, want %q", got, want)
		}
	}
	begins := func(d tasks.Delivery, token string, number int) {
		t.Helper()
		begun, err := db.Attempts.Begin(ctx, d, token, "k", time.Minute)
		if err != nil || begun.Number != number {
			t.Fatalf("begun %+v, %v; want attempt %d", begun, err, number)
		}
		holds(d.ItemID + " " + token)
		if ttl := rdb.PTTL(ctx, lock).Val(); ttl <= 0 || ttl > time.Minute {
			t.Errorf("the lock lapses in %s", ttl)
		}
	}
	refused := func(d tasks.Delivery, token string, want error) {
		t.Helper()
		before := rdb.Get(ctx, lock).Val()
		if _, err := db.Attempts.Begin(ctx, d, token, "k", time.Minute); !errors.Is(err, want) {
			t.Fatalf("begin: %v, want %v", err, want)
		}
		holds(before)
	}
	finishes := func(d tasks.Delivery, token string, want error) {
		t.Helper()
		if _, err := db.Attempts.Finish(ctx, d, token, tasks.Outcome{Transition: tasks.Retry}, true); !errors.Is(err, want) {
			t.Fatalf("finish: %v, want %v", err, want)
		}
	}
	old := a
	old.Number = 7

	refused(old, "a0", tasks.OldDelivery) // and leaves no lock
	begins(a, "a1", 1)
	begins(a, "a1", 1) // the same command, sent twice
	refused(b, "b1", tasks.InstanceBusy)
	refused(old, "a2", tasks.OldDelivery)

	// The successor of an attempt whose worker is lost takes over, and the one that
	// was lost cannot release the lock any more.
	begins(a, "a2", 2)
	finishes(a, "a1", tasks.WrongToken)
	holds(a.ItemID + " a2")
	refused(b, "b1", tasks.InstanceBusy)
	finishes(a, "a2", nil)
	holds("")

	// A worker that died between lock and record, where these are two steps.
	if err := rdb.Set(ctx, lock, b.ItemID+" b0", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	refused(a, "a3", tasks.InstanceBusy)
	begins(b, "b1", 1)
	finishes(b, "b1", nil)
	holds("")
}

func TestBeginAsksWhoseTheInstanceIs(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		for _, row := range []struct {
			name  string
			fleet []tasks.Instance
			open  bool
			want  error
		}{
			{"allows an unregistered instance if the fleet was open", nil, true, nil},
			{"refuses an unregistered instance otherwise", nil, false, tasks.NotAllowed},
			{"allows the tenant's own", []tasks.Instance{{ID: "phone-1", Tenant: "acme"}}, false, nil},
			{"refuses another tenant's", []tasks.Instance{{ID: "phone-1", Tenant: "other"}}, false, tasks.NotAllowed},
			{"refuses another tenant's in an open fleet too", []tasks.Instance{{ID: "phone-1", Tenant: "other"}}, true, tasks.NotAllowed},
			{"refuses a protected one", []tasks.Instance{{ID: "phone-1", Tenant: "acme", Protected: true}}, true, tasks.NotAllowed},
		} {
			t.Run(row.name, func(t *testing.T) {
				if _, err := w.db.Fleet.Unregister(t.Context(), []string{"phone-1"}, tasks.Actor{}); err != nil {
					t.Fatal(err)
				}
				if row.fleet != nil {
					if err := w.db.Fleet.Register(t.Context(), row.fleet, tasks.Actor{}); err != nil {
						t.Fatal(err)
					}
				}
				d := w.submit(t, "phone-1").Deliveries()[0]
				d.AllowUnregistered = row.open
				if _, err := w.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); !errors.Is(err, row.want) {
					t.Errorf("begin: %v, want %v", err, row.want)
				}
				w.rdb.Del(t.Context(), "reset:lock:{phone-1}")
			})
		}
	})
}

func TestProtectionHoldsForJobsThatAreAccepted(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		if err := w.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-1", Tenant: "acme"}}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		d := w.submit(t, "phone-1").Deliveries()[0]
		protect := func(id string, protected, want bool) {
			t.Helper()
			if missing, err := w.db.Fleet.Protect(t.Context(), []string{id}, protected, tasks.Actor{}); err != nil || missing == nil != want {
				t.Errorf("missing %v, %v", missing, err)
			}
		}
		protect("phone-2", true, false)
		if n := w.rdb.Exists(t.Context(), "reset:fleet:{phone-2}").Val(); n != 0 {
			t.Error("an instance that is not registered has an entry")
		}
		protect("phone-1", true, true)
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); !errors.Is(err, tasks.NotAllowed) {
			t.Errorf("begin of a protected one: %v", err)
		}
		protect("phone-1", false, true)
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
			t.Error(err)
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

func TestJobsAreListedNewestFirstInPages(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		want := map[string]bool{}
		for n := range 25 {
			want[w.submit(t, fmt.Sprintf("phone-%d", n%5)).ID] = true
		}
		seen := map[string]bool{}
		var last tasks.Job
		cursor := ""
		for page := 0; page == 0 || cursor != ""; page++ {
			jobs, next, err := w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 10, Cursor: cursor})
			if err != nil {
				t.Fatal(err)
			}
			for _, job := range jobs {
				if last.ID != "" && job.CreatedAt.After(last.CreatedAt.Time) {
					t.Errorf("%s is newer than the one before it", job.ID)
				}
				if seen[job.ID] || !want[job.ID] {
					t.Errorf("job %s is listed twice or is not ours", job.ID)
				}
				seen[job.ID], last = true, job
			}
			cursor = next
		}
		if len(seen) != 25 {
			t.Errorf("%d jobs listed, want 25", len(seen))
		}

		jobs, _, err := w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 100, InstanceID: "phone-3"})
		if err != nil || len(jobs) != 5 {
			t.Errorf("%d jobs for phone-3, want 5; %v", len(jobs), err)
		}
		jobs, _, err = w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 100, State: tasks.JobFailed})
		if err != nil || len(jobs) != 0 {
			t.Errorf("%d failed jobs, want none; %v", len(jobs), err)
		}
		jobs, _, err = w.db.Jobs.Jobs(t.Context(), "other", tasks.JobFilter{Limit: 100})
		if err != nil || len(jobs) != 0 {
			t.Errorf("another tenant sees %d jobs; %v", len(jobs), err)
		}
		for _, bad := range []string{"x", "1-x", "-", "1-" + strings.Repeat("g", 32)} {
			if _, _, err := w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 1, Cursor: bad}); tasks.CodeOf(err) != tasks.BadRequest {
				t.Errorf("cursor %q: %v", bad, err)
			}
		}
	})
}

func TestListingDropsJobsWhoseRecordIsGone(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		old := float64(time.Now().Add(-time.Hour).UnixMilli())
		fresh := float64(time.Now().UnixMilli())
		gone, justListed := tasks.NewJobID(), tasks.NewJobID()
		key := "reset:jobs:{acme}"
		if err := w.rdb.ZAdd(t.Context(), key, redis.Z{Score: old, Member: gone}, redis.Z{Score: fresh, Member: justListed}).Err(); err != nil {
			t.Fatal(err)
		}
		if jobs, _, err := w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 10}); err != nil || len(jobs) != 0 {
			t.Fatalf("%d jobs, %v", len(jobs), err)
		}
		left := w.rdb.ZRange(t.Context(), key, 0, -1).Val()
		if len(left) != 1 || left[0] != justListed {
			t.Errorf("left in the index: %v, want the one whose record may still come", left)
		}
	})
}

func TestARecordOfAnotherSchemaIsNotGuessedAt(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		if err := w.rdb.HSet(t.Context(), "reset:{"+job.ID+"}", "v", "99").Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Jobs.Job(t.Context(), job.ID); err == nil || errors.Is(err, tasks.JobGone) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSubmitFailsWithinItsDeadlineWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := open(t, redisdb.Options{URL: server.URL()})
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := w.db.Records.Submit(ctx, tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}})
	if err == nil {
		t.Fatal("accepted without Redis")
	}
	server.Restart(t)
	w.submit(t, "phone-1") // resumes by itself
}

func TestAcceptedJobsSurviveAKillOfRedis(t *testing.T) {
	server := redistest.Start(t)
	w := open(t, redisdb.Options{URL: server.URL()})
	job := w.submit(t, "phone-1", "phone-2")
	server.Kill()
	server.Restart(t)
	if got := w.read(t, job.ID); fmt.Sprint(got) != fmt.Sprint(job) {
		t.Errorf("after the restart %+v, before %+v", got, job)
	}
}
