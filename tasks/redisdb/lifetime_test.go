package redisdb_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// recordV1 is a job record as the first version wrote it: later fields are absent.
// It must run through every version that reads schema 1.
var recordV1 = map[string]any{
	"v": "1", "created": "1795392451804", "end": "4102444800000", "keep": "604800",
	"tenant": "acme", "queue": "reset-0", "open": "1", "request_id": "KURFLOJJSPT2N52MVF4KGO7VLA",
	"total": "3", "pending": "1", "running": "1", "succeeded": "1", "started": "1795392451831", "rev": "5",
	"0": `{"i":"phone-1","s":"s","a":1,"b":27,"e":1035}`,
	"1": `{"i":"phone-2","s":"r","a":1,"b":27,"t":"KXZ5QWLQTW4G","k":"Y3VQ7LSGCX2F"}`,
	"2": `{"i":"phone-3","s":"p"}`,
}

func TestYesterdaysRecordRunsThroughTodaysCode(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		id := tasks.NewJobID()
		if err := w.rdb.HSet(t.Context(), "reset:{"+id+"}", recordV1).Err(); err != nil {
			t.Fatal(err)
		}
		job := w.read(t, id)
		if job.State != tasks.JobRunning || job.Counts != (tasks.Counts{Pending: 1, Running: 1, Succeeded: 1}) ||
			job.Items[0].FinishedAt.Sub(job.CreatedAt.Time) != 1035*time.Millisecond {
			t.Fatalf("record %+v", job)
		}
		// The attempt that was running goes on under the worker that began it.
		deliveries := job.Deliveries()
		if _, err := w.db.Attempts.Finish(t.Context(), deliveries[0], "KXZ5QWLQTW4G", tasks.Outcome{Transition: tasks.Retry, Code: "CPS.0003", Failure: true}, true); err != nil {
			t.Fatal(err)
		}
		for n, d := range deliveries {
			token := "today-" + d.InstanceID
			begun, err := w.db.Attempts.Begin(t.Context(), d, token, "k", time.Minute)
			if err != nil || begun.Number != 2-n {
				t.Fatalf("item %d begun as %+v, %v", n, begun, err)
			}
			if _, err := w.db.Attempts.Finish(t.Context(), d, token, tasks.Outcome{Transition: tasks.Succeed}, true); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.read(t, id); got.State != tasks.JobSucceeded || got.FinishedAt.IsZero() {
			t.Errorf("record at the end: %+v", got)
		}
	})
}

func TestNothingOfAJobStaysForEver(t *testing.T) {
	server := miniredis.RunT(t)
	w := open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true, JobRetention: time.Hour, GiveUpAfter: time.Hour})
	if _, err := w.db.Tokens.Add(t.Context(), "secret", "acme", tasks.Scopes, time.Hour, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	w.limit(t, "", tasks.Limits{OpenInstances: new(9), InstancesPerHour: new(9), RequestsPerSecond: new(9)})
	job := w.submit(t, "phone-1", "phone-2")
	if _, _, err := w.db.Quotas.Spend(t.Context(), "acme", 9); err != nil {
		t.Fatal(err)
	}
	if err := w.db.Quotas.Pace(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	d, _ := w.begin(t, job, 0, "t1")
	if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Retry, InDoubt: true}, false); err != nil {
		t.Fatal(err) // leaves the lock to lapse
	}
	if err := w.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.Sweep.Lead(t.Context(), "sweeper", time.Minute); err != nil {
		t.Fatal(err)
	}
	server.SetTime(time.Now().Add(time.Hour))
	due, _, err := w.db.Sweep.Claim(t.Context(), 10, time.Minute)
	if err != nil || len(due) != 1 {
		t.Fatalf("due %v, %v", due, err)
	}
	if err := w.db.Sweep.Unlist(t.Context(), due[0]); err != nil {
		t.Fatal(err)
	}
	server.FastForward(60 * 24 * time.Hour)
	if _, err := w.db.Jobs.Job(t.Context(), job.ID); !errors.Is(err, tasks.JobGone) {
		t.Errorf("the record is still there: %v", err)
	}
	if tokens, err := w.db.Tokens.List(t.Context()); err != nil || len(tokens) != 0 {
		t.Errorf("tokens %v, %v", tokens, err)
	}
	for _, key := range server.Keys() {
		// What operators have set stays, and the trail loses its entries as it grows.
		if strings.HasPrefix(key, "reset:") && key != "reset:policies" && key != "reset:audit" {
			t.Errorf("%s stays", key)
		}
	}
}
