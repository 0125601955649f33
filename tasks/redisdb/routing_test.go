package redisdb_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// drive gives phone-1 a driver.
func (w world) drive(t *testing.T, driver string) {
	t.Helper()
	if err := w.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-1", Tenant: "acme", Driver: driver}}, importer); err != nil {
		t.Fatal(err)
	}
}

// inQueue are the instances of the tasks that wait in a queue.
func (w world) inQueue(t *testing.T, queue string) (instances []string) {
	t.Helper()
	waiting, err := w.db.Redis.NewInspector().ListPendingTasks(queue)
	if err != nil && !strings.Contains(err.Error(), "not found") {
		t.Fatal(err)
	}
	for _, info := range waiting {
		d, err := tasks.DecodeDelivery(info.Payload)
		if err != nil {
			t.Fatal(err)
		}
		instances = append(instances, d.InstanceID)
	}
	return instances
}

func TestAJobMayMixDrivers(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		w.drive(t, "lab")
		job := w.submitTo(t, map[string]string{"phone-1": "lab"}, "phone-1", "phone-2")
		if job.Queue != "reset-0" || job.Items[0].Driver != "lab" || job.Items[1].Driver != "" {
			t.Errorf("job %+v", job)
		}
		if got := w.read(t, job.ID); got.Items[0].Driver != "lab" || got.Items[0].InstanceID != "phone-1" || got.Items[1].Driver != "" {
			t.Errorf("record %+v", got.Items)
		}
		if got := w.inQueue(t, "reset-lab-0"); !slices.Equal(got, []string{"phone-1"}) {
			t.Errorf("lab has %v", got)
		}
		if got := w.inQueue(t, "reset-0"); !slices.Equal(got, []string{"phone-2"}) {
			t.Errorf("default has %v", got)
		}
		// What happens to the item leaves its driver as it is.
		d, _ := w.begin(t, job, 0, "t1")
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Retry, Code: "CPS.0003", Failure: true}, true); err != nil {
			t.Fatal(err)
		}
		if it := w.read(t, job.ID).Items[0]; it.Driver != "lab" || it.State != tasks.ItemRetrying {
			t.Errorf("item %+v", it)
		}
	})
}

func TestQueuesOfADriver(t *testing.T) {
	both(t, redisdb.Options{Queues: 2}, func(t *testing.T, w world) {
		w.submitTo(t, map[string]string{"phone-1": "lab"}, "phone-1", "phone-2")
		for driver, want := range map[string]string{"default": "reset-0 reset-1", "lab": "reset-lab-0 reset-lab-1", "other": "reset-other-0 reset-other-1"} {
			if queues, err := w.db.Queues.Of(t.Context(), driver); err != nil || strings.Join(queues, " ") != want {
				t.Errorf("%s: %v, %v", driver, queues, err)
			}
		}
		all, err := w.db.Queues.Queues(t.Context())
		if err != nil || len(all) != 3 {
			t.Errorf("%v, %v", all, err)
		}
	})
}

func TestAnInstanceThatGetsAnotherDriverGoesThere(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		w.drive(t, "lab")
		job := w.submitTo(t, map[string]string{"phone-1": "lab"}, "phone-1")
		d := job.Deliveries()[0]
		if err := w.db.Sweep.Reroute(t.Context(), d); !errors.Is(err, tasks.InPlace) {
			t.Errorf("before: %v", err)
		}
		w.drive(t, "attic")
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t1", "key", time.Minute); !errors.Is(err, tasks.Rerouted) {
			t.Fatalf("begun: %v", err)
		}
		if err := w.db.Sweep.Reroute(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if got := w.inQueue(t, "reset-attic-0"); !slices.Equal(got, []string{"phone-1"}) {
			t.Errorf("attic has %v", got)
		}
		if it := w.read(t, job.ID).Items[0]; it.Driver != "attic" || it.Delivery != 2 || it.Attempts != 0 {
			t.Errorf("item %+v", it)
		}
		// The old task is refused, the new one goes on.
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t1", "key", time.Minute); !errors.Is(err, tasks.Rerouted) {
			t.Errorf("the old task: %v", err)
		}
		if err := w.db.Sweep.Reroute(t.Context(), d); !errors.Is(err, tasks.OldDelivery) {
			t.Errorf("the old task, again: %v", err)
		}
		d = w.read(t, job.ID).Deliveries()[0]
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t2", "key", time.Minute); err != nil {
			t.Fatal(err)
		}
		// It moves on while it is about to be reset.
		w.drive(t, "")
		if err := w.db.Attempts.Send(t.Context(), d, "t2", ""); !errors.Is(err, tasks.Rerouted) {
			t.Errorf("may send: %v", err)
		}
		if err := w.db.Sweep.Reroute(t.Context(), d); !errors.Is(err, tasks.AttemptAlive) && err != nil {
			t.Errorf("while it runs: %v", err)
		}
	})
}

func TestAJobSaysWhyItWaits(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		for _, reason := range []string{"no living worker has the driver lab", "no living worker has the driver attic", ""} {
			before := w.read(t, job.ID)
			if err := w.db.Sweep.Hold(t.Context(), job.ID, reason); err != nil {
				t.Fatal(err)
			}
			after := w.read(t, job.ID)
			if after.Held.Reason != reason || after.Held.Since.IsZero() != (reason == "") || after.Tag() == before.Tag() {
				t.Errorf("held %+v, tags %s %s", after.Held, before.Tag(), after.Tag())
			}
			if err := w.db.Sweep.Hold(t.Context(), job.ID, reason); err != nil || w.read(t, job.ID).Tag() != after.Tag() {
				t.Errorf("the same reason again is a change, %v", err)
			}
		}
		if err := w.db.Sweep.Hold(t.Context(), strings.Repeat("0", 32), "x"); err != nil {
			t.Error(err)
		}
		if n := w.rdb.Exists(t.Context(), "reset:{"+strings.Repeat("0", 32)+"}").Val(); n != 0 {
			t.Error("a job was made")
		}
	})
}

// A driver that is asked about another one's call would look at another phone, or go on from a
// checkpoint that is not its own.
func TestACallInDoubtIsNotAskedAboutByAnotherDriver(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		w.drive(t, "farm")
		job := w.submitTo(t, map[string]string{"phone-1": "farm"}, "phone-1")
		d, _ := w.begin(t, job, 0, "t1")
		if err := w.db.Attempts.Send(t.Context(), d, "t1", ""); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Attempts.Checkpoint(t.Context(), d, "t1", "job 1"); err != nil {
			t.Fatal(err)
		}
		w.drive(t, "other")
		if err := w.db.Sweep.Reroute(t.Context(), d); !errors.Is(err, tasks.Moved) {
			t.Fatalf("rerouted: %v", err)
		}
		if it := w.read(t, job.ID).Items[0]; it.Driver != "farm" || it.Checkpoint != "job 1" {
			t.Errorf("item %+v", it)
		}
		ended, err := w.db.Attempts.Abandon(t.Context(), d, tasks.NoLongerAllowed, "moved", 0)
		if err != nil || ended.State != tasks.ItemUnknown {
			t.Errorf("ended as %+v, %v", ended, err)
		}
	})
}
