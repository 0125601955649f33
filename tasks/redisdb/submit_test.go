package redisdb_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

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
