package redisdb_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// A record of a version that is not known is read by nobody and changed by nothing; the error
// says why.
func TestARecordOfAnUnknownVersionIsLeftAlone(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1", "phone-2")
		running, _ := w.begin(t, job, 0, "t1")
		waiting := w.read(t, job.ID).Deliveries()[1]
		key := "reset:{" + job.ID + "}"
		if err := w.rdb.HSet(t.Context(), key, "v", "3").Err(); err != nil {
			t.Fatal(err)
		}
		before := w.rdb.HGetAll(t.Context(), key).Val()
		refused := func(what string, err error) {
			t.Helper()
			if err == nil || !strings.Contains(err.Error(), "version") || !strings.Contains(err.Error(), "3") {
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err := w.db.Jobs.Job(t.Context(), job.ID)
		refused("read", err)
		_, err = w.db.Attempts.Begin(t.Context(), waiting, "t2", "k", time.Minute)
		refused("begin", err)
		refused("send", w.db.Attempts.Send(t.Context(), running, "t1", ""))
		_, err = w.db.Attempts.Finish(t.Context(), running, "t1", tasks.Outcome{Transition: tasks.Succeed}, true)
		refused("finish", err)
		_, err = w.db.Attempts.Wait(t.Context(), waiting)
		refused("wait", err)
		_, err = w.db.Attempts.Abandon(t.Context(), waiting, tasks.NotInTime, "late", 0)
		refused("abandon", err)
		if !errors.Is(err, tasks.ErrBrokenRecord) {
			t.Errorf("abandon: another try would not be spared: %v", err)
		}
		refused("checkpoint", w.db.Attempts.Checkpoint(t.Context(), running, "t1", "c"))
		refused("deliver", w.db.Sweep.Redeliver(t.Context(), job, waiting, func(int) time.Duration { return 0 }))
		refused("cancel", w.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}))
		refused("retry", w.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}))
		if after := w.rdb.HGetAll(t.Context(), key).Val(); !maps.Equal(after, before) {
			t.Errorf("the record was %v and is %v", before, after)
		}
	})
}

func TestNothingOfAJobStaysForEver(t *testing.T) {
	server := miniredis.RunT(t)
	w := open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true, JobRetention: time.Hour, GiveUpAfter: time.Hour})
	if _, err := w.db.Tokens.Add(t.Context(), "secret", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, time.Hour, tasks.Actor{}); err != nil {
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
