package redisdb_test

import (
	"errors"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestAJobThatIsPutOffDoesNotBeginBefore(t *testing.T) {
	server := miniredis.RunT(t)
	now := time.Now().Truncate(time.Second)
	server.SetTime(now)
	w := open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true, GiveUpAfter: time.Hour})
	start := now.Add(24 * time.Hour).Add(400 * time.Millisecond)
	submitted, err := w.db.Records.Submit(t.Context(), tasks.Submission{
		Tenant: "acme", InstanceIDs: []string{"phone-1", "phone-2"}, AllowUnregistered: true,
		NotBefore: tasks.FromMillis(start.UnixMilli()), Reason: "recall", Labels: map[string]string{"site": "a b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	job := w.read(t, submitted.ID)
	if !job.NotBefore.Equal(start) || !job.EndBefore.Equal(start.Add(time.Hour)) || !submitted.EndBefore.Equal(job.EndBefore.Time) ||
		job.Reason != "recall" || job.Labels["site"] != "a b" {
		t.Errorf("record %+v", job)
	}
	d := job.Deliveries()[0]
	info, err := w.db.Redis.NewInspector().GetTaskInfo(job.Queue, d.TaskID())
	if err != nil || info.State != asynq.TaskStateScheduled || info.NextProcessAt.Before(start) || info.NextProcessAt.After(start.Add(time.Second)) {
		t.Errorf("task %+v, %v", info, err)
	}

	// Whoever hands it out early, the dashboard for example.
	_, err = w.db.Attempts.Begin(t.Context(), d, "t1", "k", time.Minute)
	early, ok := errors.AsType[*tasks.EarlyError](err)
	if !ok || !errors.Is(err, tasks.TooEarly) || early.Wait != start.Sub(now) {
		t.Fatalf("begin: %v", err)
	}
	if n := w.rdb.Exists(t.Context(), "reset:lock:{phone-1}").Val(); n != 0 {
		t.Error("the instance is locked")
	}
	if got := w.read(t, job.ID); got.Revision != 1 {
		t.Errorf("the record was changed: %+v", got)
	}
	server.SetTime(start.Add(-time.Millisecond))
	if _, err := w.db.Attempts.Begin(t.Context(), d, "t1", "k", time.Minute); !errors.Is(err, tasks.TooEarly) {
		t.Errorf("a millisecond before: %v", err)
	}
	server.SetTime(start)
	if _, err := w.db.Attempts.Begin(t.Context(), d, "t1", "k", time.Minute); err != nil {
		t.Errorf("at its time: %v", err)
	}
	server.SetTime(start.Add(time.Hour))
	if _, err := w.db.Attempts.Begin(t.Context(), job.Deliveries()[1], "t2", "k", time.Minute); !errors.Is(err, tasks.TooLate) {
		t.Errorf("an hour after: %v", err)
	}
}

func TestAJobThatIsPutOffCanBeTakenBack(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job, err := w.db.Records.Submit(t.Context(), tasks.Submission{
			Tenant: "acme", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true, NotBefore: tasks.FromMillis(time.Now().Add(time.Hour).UnixMilli()),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if got := w.read(t, job.ID); got.State != tasks.JobCancelled {
			t.Errorf("record %+v", got)
		}
		// A retry is for now.
		if err := w.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		job = w.read(t, job.ID)
		if !job.NotBefore.IsZero() {
			t.Errorf("record %+v", job)
		}
		if _, err := w.db.Attempts.Begin(t.Context(), job.Deliveries()[0], "t", "k", time.Minute); err != nil {
			t.Error(err)
		}
	})
}
