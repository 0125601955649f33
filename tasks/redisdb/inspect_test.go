package redisdb_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// asynq's client lists a queue once. Somebody may delete the queue while it is empty.
func TestADeletedQueueComesBackWithItsNextTask(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		inspector := w.db.Redis.NewInspector()
		job := w.submit(t, "phone-1")
		if err := inspector.DeleteTask(job.Queue, job.Deliveries()[0].TaskID()); err != nil {
			t.Fatal(err)
		}
		if err := inspector.DeleteQueue(job.Queue, false); err != nil {
			t.Fatal(err)
		}
		w.submit(t, "phone-2")
		if queues, err := inspector.Queues(); err != nil || !slices.Contains(queues, job.Queue) {
			t.Errorf("asynq knows the queues %v, %v", queues, err)
		}
		if info, err := inspector.GetQueueInfo(job.Queue); err != nil || info.Pending != 1 {
			t.Errorf("the dashboard shows %+v, %v", info, err)
		}
		// So it is with what the sweeper delivers again.
		if _, err := inspector.DeleteAllPendingTasks(job.Queue); err != nil {
			t.Fatal(err)
		}
		if err := inspector.DeleteQueue(job.Queue, false); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Sweep.Redeliver(t.Context(), job, job.Deliveries()[0], func(int) time.Duration { return 0 }); err != nil {
			t.Fatal(err)
		}
		if info, err := inspector.GetQueueInfo(job.Queue); err != nil || info.Pending != 1 {
			t.Errorf("the dashboard shows %+v, %v", info, err)
		}
	})
}

func TestLookUp(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		inspector := w.db.Redis.NewInspector()
		job := w.submit(t, "waits", "archived", "removed", "garbled")
		ids := make([]string, len(job.Items))
		for i, d := range job.Deliveries() {
			ids[i] = d.TaskID()
		}
		if err := inspector.ArchiveTask(job.Queue, ids[1]); err != nil {
			t.Fatal(err)
		}
		if err := inspector.DeleteTask(job.Queue, ids[2]); err != nil {
			t.Fatal(err)
		}
		if err := w.rdb.HSet(t.Context(), "asynq:{"+job.Queue+"}:t:"+ids[3], "msg", "\xff").Err(); err != nil {
			t.Fatal(err)
		}
		want := []tasks.TaskLook{{}, {Fate: tasks.Archived}, {Fate: tasks.Missing}, {Fate: tasks.Unreadable}}
		look := func() {
			t.Helper()
			if got := w.db.Sweep.LookUp(t.Context(), job.Queue, ids); !slices.Equal(got, want) {
				t.Errorf("found %+v, want %+v", got, want)
			}
		}
		look()
		w.rdb.ScriptFlush(t.Context()) // Redis was restarted
		look()
		// Nobody is told that all tasks are missing because Redis does not answer.
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
		for _, l := range w.db.Sweep.LookUp(t.Context(), job.Queue, ids) {
			if l.Err == nil {
				t.Errorf("without Redis it says %+v", l)
			}
		}
	})
}

// Ten thousand tasks in hand are looked at in a few round trips.
func TestActiveTasksAreReadInPages(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t, "appendfsync no").URL()})
	const instances = 2500 // in jobs of 100
	var jobs []tasks.Job
	for n := 0; n < instances; n += 100 {
		list := make([]string, 100)
		for i := range list {
			list[i] = fmt.Sprint("phone-", n+i)
		}
		jobs = append(jobs, w.submit(t, list...))
	}
	// All of them are taken, as asynq takes them.
	for n := range instances {
		id := w.rdb.LMove(t.Context(), "asynq:{reset-0}:pending", "asynq:{reset-0}:active", "RIGHT", "LEFT").Val()
		if n == 1700 { // one of them cannot be read
			w.rdb.Del(t.Context(), "asynq:{reset-0}:t:"+id)
			w.rdb.Set(t.Context(), "asynq:{reset-0}:t:"+id, "no task", 0)
		}
	}
	active, err := w.db.Sweep.Active(t.Context(), "reset-0")
	if len(active) != instances-1 || err == nil {
		t.Errorf("%d tasks are in hand, %v", len(active), err)
	}
	deliveries := make([]tasks.Delivery, len(active))
	for i, task := range active {
		deliveries[i] = task.Delivery
	}
	d := jobs[0].Deliveries()[0]
	if _, err := w.db.Attempts.Begin(t.Context(), d, "0123456789abcdef", "k", time.Minute); err != nil {
		t.Fatal(err)
	}
	look := func() (alive int) {
		t.Helper()
		for i, hold := range w.db.Sweep.Holds(t.Context(), deliveries) {
			if hold.Err != nil || !hold.Open {
				t.Fatalf("%+v: %+v", deliveries[i], hold)
			}
			if hold.Alive {
				alive++
				if deliveries[i].ItemID != d.ItemID {
					t.Errorf("%s is alive", deliveries[i].ItemID)
				}
			}
		}
		return alive
	}
	if n := look(); n != 0 {
		t.Errorf("%d items are worked on by a dead worker", n)
	}
	w.rdb.Set(t.Context(), "reset:worker:{01234567}", "1", time.Minute)
	if n := look(); n != 1 {
		t.Errorf("%d items are worked on, want the one", n)
	}
}

// Two sweepers that look at the same time get different jobs, and those that come to nothing
// are due again.
func TestClaim(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		var jobs []tasks.Job
		for n := range 3 {
			jobs = append(jobs, w.submit(t, fmt.Sprint("phone-", n)))
		}
		claim := func(n int, want ...tasks.Job) []tasks.OpenJob {
			t.Helper()
			due, now, err := w.db.Sweep.Claim(t.Context(), n, time.Minute)
			if err != nil || len(due) != len(want) || time.Since(now).Abs() > time.Minute {
				t.Fatalf("claimed %v at %s, %v", due, now, err)
			}
			for i, job := range want {
				if due[i].ID != job.ID {
					t.Errorf("claimed %v, want %s", due[i], job.ID)
				}
			}
			return due
		}
		claim(10) // none is due
		for n, job := range jobs {
			w.rdb.ZAdd(t.Context(), "reset:open", redis.Z{Score: float64(n), Member: job.ID})
		}
		first := claim(2, jobs[0], jobs[1])
		claim(10, jobs[2])
		claim(10)
		if err := w.db.Sweep.Reschedule(t.Context(), first[0], time.UnixMilli(1)); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Sweep.Unlist(t.Context(), first[1]); err != nil {
			t.Fatal(err)
		}
		claim(10, jobs[0])
		if n := w.rdb.ZCard(t.Context(), "reset:open").Val(); n != 2 {
			t.Errorf("%d jobs are listed", n)
		}
	})
}
