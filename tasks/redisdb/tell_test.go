package redisdb_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// notices are the task IDs of what waits for the endpoints, without the job's ID.
func (w world) notices(t *testing.T, job tasks.Job) []string {
	t.Helper()
	list, err := w.db.Redis.NewInspector().ListPendingTasks(redisdb.WebhookQueue)
	if err != nil && !errors.Is(err, asynq.ErrQueueNotFound) {
		t.Fatal(err)
	}
	ids := []string{}
	for _, task := range list {
		n, err := tasks.DecodeNotice(task.Payload)
		if err != nil || task.Type != tasks.TypeNotice || task.ID != n.TaskID() {
			t.Errorf("task %s %s %+v, %v", task.Type, task.ID, n, err)
		}
		ids = append(ids, task.ID[len(job.ID):])
	}
	slices.Sort(ids)
	return ids
}

func (w world) wantNotices(t *testing.T, job tasks.Job, want ...string) {
	t.Helper()
	if got := w.notices(t, job); !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("waiting for endpoints: %q, want %q", got, want)
	}
}

// forget is what asynq does with a task that is done with.
func (w world) forget(t *testing.T) {
	t.Helper()
	if _, err := w.db.Redis.NewInspector().DeleteAllPendingTasks(redisdb.WebhookQueue); err != nil {
		t.Fatal(err)
	}
}

// end ends item n of a job.
func (w world) end(t *testing.T, job tasks.Job, n int, event tasks.Transition) {
	t.Helper()
	var d tasks.Delivery
	for _, open := range job.Deliveries() {
		if open.ItemID == job.Items[n].ID {
			d = open
		}
	}
	if _, err := w.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.Attempts.Finish(t.Context(), d, "t", tasks.Outcome{Transition: event}, true); err != nil {
		t.Fatal(err)
	}
}

func (w world) tell(t *testing.T, job tasks.Job) {
	t.Helper()
	if err := w.db.Notices.EnqueueNotices(t.Context(), w.read(t, job.ID)); err != nil {
		t.Fatal(err)
	}
}

func TestEveryEndingIsToldOnceToEachEndpointThatWantsIt(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		w.endpoint(t, "ep_1", tasks.TopicJobFinished)
		w.endpoint(t, "ep_2", tasks.Topics...)
		off := w.endpoint(t, "ep_3", tasks.Topics...)
		if _, err := w.db.Endpoints.Report(t.Context(), off, tasks.Report{EventID: "e", Error: "status 410", Gone: true}); err != nil {
			t.Fatal(err)
		}
		job := w.submit(t, "phone-1", "phone-2")
		w.tell(t, job)
		w.wantNotices(t, job)

		w.end(t, job, 0, tasks.Fail)
		w.tell(t, job)
		w.wantNotices(t, job, "-0-failed-1-ep_2")
		w.forget(t)
		w.end(t, job, 1, tasks.Succeed)
		for range 2 {
			w.tell(t, job)
			w.wantNotices(t, job, "-finished-2-ep_1", "-finished-2-ep_2")
		}
		before := w.read(t, job.ID)
		w.forget(t)
		w.tell(t, job)
		w.wantNotices(t, job) // though asynq would take them
		if ttl := w.rdb.TTL(t.Context(), "reset:{"+job.ID+"}").Val(); ttl <= 0 || before.Revision != w.read(t, job.ID).Revision {
			t.Errorf("the mark is a change of the record, or keeps it for ever (%s)", ttl)
		}

		// The same record, as somebody read it who died before the mark was written.
		before.Told = 0
		if err := w.db.Notices.EnqueueNotices(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		w.wantNotices(t, job, "-finished-2-ep_1", "-finished-2-ep_2")
	})
}

func TestWhatEndsByACancelOrBeforeARetryIsTold(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		w.endpoint(t, "ep_1", tasks.TopicJobFinished)
		job := w.submit(t, "phone-1")
		if err := w.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		w.wantNotices(t, job, "-finished-1-ep_1")
		w.forget(t)
		if err := w.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		w.wantNotices(t, job)
		w.end(t, w.read(t, job.ID), 0, tasks.Fail)
		// Its worker has died. What has ended must not be forgotten by the retry.
		if err := w.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		w.wantNotices(t, job, "-finished-2-ep_1")
	})
}

func TestARecordThatIsGoneIsNotMarked(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		w.endpoint(t, "ep_1", tasks.TopicJobFinished)
		job := w.submit(t, "phone-1")
		w.end(t, job, 0, tasks.Succeed)
		job = w.read(t, job.ID)
		if err := w.rdb.Del(t.Context(), "reset:{"+job.ID+"}").Err(); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Notices.EnqueueNotices(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		if n := w.rdb.Exists(t.Context(), "reset:{"+job.ID+"}").Val(); n != 0 {
			t.Error("a mark made a record that never ends")
		}
	})
}

func TestTenantsWithoutEndpointsCostNothing(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		w.end(t, job, 0, tasks.Succeed)
		ask := func(topic tasks.Topic) {
			t.Helper()
			if err := w.db.Notices.EnqueueNoticesIfWanted(t.Context(), "acme", job.ID, topic); err != nil {
				t.Fatal(err)
			}
		}
		ask(tasks.TopicJobFinished)
		w.endpoint(t, "ep_1", tasks.TopicJobFinished)
		ask(tasks.TopicJobFinished) // what is known is believed for a moment
		w.wantNotices(t, job)
		w.tell(t, job) // but not when it counts
		w.wantNotices(t, job, "-finished-1-ep_1")
	})
	t.Run("but those with one are told", func(t *testing.T) {
		both(t, redisdb.Options{}, func(t *testing.T, w world) {
			w.endpoint(t, "ep_1", tasks.TopicJobFinished)
			job := w.submit(t, "phone-1")
			w.end(t, job, 0, tasks.Fail)
			if err := w.db.Notices.EnqueueNoticesIfWanted(t.Context(), "acme", job.ID, tasks.TopicItemFailed); err != nil {
				t.Fatal(err)
			}
			w.wantNotices(t, job) // nobody wants that
			if err := w.db.Notices.EnqueueNoticesIfWanted(t.Context(), "acme", job.ID, tasks.TopicItemFailed, tasks.TopicJobFinished); err != nil {
				t.Fatal(err)
			}
			w.wantNotices(t, job, "-finished-1-ep_1")
		})
	})
}
