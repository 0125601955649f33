package redisdb_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// endings are the item states of mixed.
var endings = []tasks.ItemState{tasks.ItemSucceeded, tasks.ItemFailed, tasks.ItemUnknown, tasks.ItemCancelled, tasks.ItemFailed}

// mixed is a final job with an item in each of endings.
func (w world) mixed(t *testing.T) tasks.Job {
	t.Helper()
	job := w.submit(t, "phone-0", "phone-1", "phone-2", "phone-3", "phone-4")
	w.fail(t, job, 0, "", tasks.Succeed)
	w.fail(t, job, 1, "CPS.0005", tasks.Fail)
	w.fail(t, job, 2, "RESET.1001", tasks.LoseTrack)
	w.fail(t, job, 4, "CPS.0042", tasks.Fail)
	if err := w.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil { // what is left
		t.Fatal(err)
	}
	job = w.read(t, job.ID)
	for n, want := range endings {
		if job.Items[n].State != want {
			t.Fatalf("item %d is %s, want %s", n, job.Items[n].State, want)
		}
	}
	return job
}

func TestARetryOpensWhatItIsAskedForAndNothingElse(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		w.limit(t, "acme", tasks.Limits{InstancesPerHour: new(1000)})
		for _, states := range [][]tasks.ItemState{
			{tasks.ItemFailed},
			{tasks.ItemUnknown},
			{tasks.ItemCancelled},
			{tasks.ItemFailed, tasks.ItemUnknown},
			{tasks.ItemCancelled, tasks.ItemFailed},
			{tasks.ItemUnknown, tasks.ItemCancelled},
			{tasks.ItemCancelled, tasks.ItemUnknown, tasks.ItemFailed},
		} {
			t.Run(fmt.Sprint(states), func(t *testing.T) {
				for n := range endings { // of the job before
					w.rdb.Del(t.Context(), fmt.Sprintf("reset:lock:{phone-%d}", n))
				}
				before := w.mixed(t)
				room, err := w.db.Quotas.Room(t.Context(), "acme")
				if err != nil {
					t.Fatal(err)
				}
				if err := w.db.Records.Retry(t.Context(), before.ID, states, tasks.Actor{}); err != nil {
					t.Fatal(err)
				}
				after := w.read(t, before.ID)
				opened := 0
				for n, it := range after.Items {
					if !slices.Contains(states, endings[n]) {
						if fmt.Sprint(it) != fmt.Sprint(before.Items[n]) {
							t.Errorf("item %d was not asked for, and is now %+v, before %+v", n, it, before.Items[n])
						}
						continue
					}
					opened++
					if it.State != tasks.ItemPending || it.Delivery != 2 || it.Code != "" || len(it.History) != len(before.Items[n].History) {
						t.Errorf("item %d is %+v", n, it)
					}
				}
				wantRoom(t, w, room-opened)
				if after.State.Final() || after.Counts.Pending != opened || len(after.Deliveries()) != opened {
					t.Errorf("the job is %s with %+v", after.State, after.Counts)
				}
				if ttl := w.rdb.TTL(t.Context(), "reset:{"+after.ID+"}").Val(); ttl >= 0 {
					t.Errorf("an open job expires in %s", ttl)
				}
				// It ends with the items that were opened, all of it.
				for n, state := range endings {
					if slices.Contains(states, state) {
						w.fail(t, after, n, "", tasks.Succeed)
					}
				}
				ended := w.read(t, before.ID)
				if ended.Counts.Succeeded != 1+opened || !ended.State.Final() || ended.FinishedAt.IsZero() {
					t.Errorf("the job ended as %+v", ended)
				}
			})
		}
	})
}

func TestARetryOfWhatIsNotThereChangesNothing(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		w.limit(t, "acme", tasks.Limits{InstancesPerHour: new(1000)})
		refused := func(job tasks.Job, want string, states ...tasks.ItemState) {
			t.Helper()
			room, err := w.db.Quotas.Room(t.Context(), "acme")
			if err != nil {
				t.Fatal(err)
			}
			before := w.read(t, job.ID)
			if err := w.db.Records.Retry(t.Context(), job.ID, states, tasks.Actor{}); tasks.CodeOf(err) != tasks.JobFinal || !strings.Contains(err.Error(), want) {
				t.Errorf("retry of %v: %v, want %q", states, err, want)
			}
			wantRoom(t, w, room)
			if after := w.read(t, job.ID); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("the job is %+v, before %+v", after, before)
			}
		}
		job := w.submit(t, "a", "b", "c")
		refused(job, "it has not ended", tasks.ItemFailed)
		w.fail(t, job, 0, "RESET.1001", tasks.LoseTrack)
		w.fail(t, job, 1, "RESET.1001", tasks.LoseTrack)
		w.fail(t, job, 2, "", tasks.Succeed)
		refused(job, "no item is failed; 2 are unknown: name the state to retry them", tasks.ItemFailed)
		refused(job, "no item is failed or cancelled; 2 are unknown", tasks.ItemFailed, tasks.ItemCancelled)
		good := w.submit(t, "d")
		w.fail(t, good, 0, "", tasks.Succeed)
		refused(good, "every item succeeded", tasks.ItemFailed)
		refused(good, "every item succeeded", tasks.RetryStates...)
		// What no caller may ask for, whatever is asked besides.
		for _, state := range []tasks.ItemState{tasks.ItemSucceeded, tasks.ItemPending, "", "f"} {
			if err := w.db.Records.Retry(t.Context(), good.ID, []tasks.ItemState{tasks.ItemFailed, state}, tasks.Actor{}); err == nil || !strings.Contains(err.Error(), "cannot be opened") {
				t.Errorf("retry of %q: %v", state, err)
			}
		}
	})
}

// What stays failed still counts against max_failures.
func TestAPartialRetryOfAJobThatWasStopped(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job, err := w.db.Records.Submit(t.Context(), tasks.Submission{
			Tenant: "acme", InstanceIDs: []string{"a", "b", "c", "d"}, AllowUnregistered: true, MaxFailures: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		w.fail(t, job, 0, "CPS.0005", tasks.Fail)
		if err := w.db.Records.Retry(t.Context(), job.ID, []tasks.ItemState{tasks.ItemCancelled}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		job = w.read(t, job.ID)
		w.fail(t, job, 1, "", tasks.Succeed)
		if got := w.read(t, job.ID); got.Counts.Pending != 2 {
			t.Errorf("a success stopped the job: %+v", got.Counts)
		}
		w.fail(t, job, 2, "CPS.0005", tasks.Fail)
		if got := w.read(t, job.ID); got.Counts.Failed != 2 || got.Counts.Cancelled != 1 || got.State != tasks.JobPartial {
			t.Errorf("another failure did not stop the job: %+v", got.Counts)
		}
		if _, err := w.db.Attempts.Begin(t.Context(), job.Deliveries()[2], "t", "k", time.Minute); err == nil {
			t.Error("a stopped item begins")
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
