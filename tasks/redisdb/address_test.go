package redisdb_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// address gives instance phone-1 an address.
func (w world) address(t *testing.T, address string, labels map[string]string) {
	t.Helper()
	if err := w.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-1", Tenant: "acme", Address: address, Labels: labels}}, importer); err != nil {
		t.Fatal(err)
	}
}

func TestAnAttemptGoesToTheAddressOfTheFleet(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		w.address(t, "10.0.0.1:5555", map[string]string{"rack": "7"})
		job := w.submit(t, "phone-1")
		d, begun := w.begin(t, job, 0, "t1")
		if begun.Address != "10.0.0.1:5555" || !maps.Equal(begun.Labels, map[string]string{"rack": "7"}) {
			t.Errorf("began with %+v", begun)
		}
		// It moves between the beginning and the last look.
		w.address(t, "10.0.0.2:5555", nil)
		if err := w.db.Attempts.Send(t.Context(), d, "t1", begun.Address); !errors.Is(err, tasks.Moved) {
			t.Errorf("may send: %v", err)
		}
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed}, true); err != nil {
			t.Fatal(err)
		}
		_, begun = w.begin(t, job, 0, "t2")
		if begun.Address != "10.0.0.2:5555" || len(begun.Labels) > 0 {
			t.Errorf("began again with %+v", begun)
		}
		if err := w.db.Attempts.Send(t.Context(), d, "t2", begun.Address); err != nil {
			t.Errorf("may not send: %v", err)
		}
		if it := w.read(t, job.ID).Items[0]; it.Address != "10.0.0.2:5555" || len(it.History) != 1 || it.History[0].Address != "10.0.0.1:5555" {
			t.Errorf("item %+v", it)
		}
	})
}

func TestACallInDoubtIsNotLookedForElsewhere(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		w.address(t, "10.0.0.1:5555", nil)
		job := w.submit(t, "phone-1")
		d, begun := w.begin(t, job, 0, "t1")
		if err := w.db.Attempts.Send(t.Context(), d, "t1", begun.Address); err != nil {
			t.Fatal(err)
		}
		// Its worker is dead, and nobody knows what has become of the call.
		w.address(t, "10.0.0.2:5555", nil)
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t2", "key-2", time.Minute); !errors.Is(err, tasks.Moved) {
			t.Fatalf("begun again: %v", err)
		}
		ended, err := w.db.Attempts.Abandon(t.Context(), d, tasks.NoLongerAllowed, string(tasks.Moved), 0)
		if err != nil || ended.State != tasks.ItemUnknown {
			t.Errorf("ended as %+v, %v", ended, err)
		}
	})
}

func TestACallInDoubtGoesOnAtItsAddress(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		w.address(t, "10.0.0.1:5555", nil)
		job := w.submit(t, "phone-1")
		d, begun := w.begin(t, job, 0, "t1")
		if err := w.db.Attempts.Send(t.Context(), d, "t1", begun.Address); err != nil {
			t.Fatal(err)
		}
		w.address(t, "10.0.0.1:5555", map[string]string{"rack": "8"})
		if _, begun := w.begin(t, job, 0, "t2"); !begun.Ambiguous || begun.Address != "10.0.0.1:5555" || begun.Labels["rack"] != "8" {
			t.Errorf("begun again with %+v", begun)
		}
	})
}

func TestAnImportOfAddressesIsInTheTrail(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		w.address(t, "a", map[string]string{"rack": "7"})
		one, none := "b", ""
		for _, row := range []struct {
			change tasks.FleetChange
			report tasks.FleetReport
			want   tasks.Instance
		}{
			{tasks.FleetChange{ID: "phone-1"}, tasks.FleetReport{}, tasks.Instance{Address: "a", Labels: map[string]string{"rack": "7"}}},
			{tasks.FleetChange{ID: "phone-1", Address: &one}, tasks.FleetReport{Readdressed: 1}, tasks.Instance{Address: "b", Labels: map[string]string{"rack": "7"}}},
			{tasks.FleetChange{ID: "phone-1", Address: &one, Labels: map[string]string{}}, tasks.FleetReport{}, tasks.Instance{Address: "b"}},
			{tasks.FleetChange{ID: "phone-1", Address: &none}, tasks.FleetReport{Readdressed: 1}, tasks.Instance{}},
		} {
			report, err := w.db.Fleet.Import(t.Context(), []tasks.FleetChange{row.change}, false, importer)
			if err != nil || report != row.report {
				t.Errorf("%+v: %+v, %v", row.change, report, err)
			}
			fleet, err := w.db.Fleet.Registered(t.Context(), []string{"phone-1"})
			if in := fleet["phone-1"]; err != nil || in.Address != row.want.Address || !maps.Equal(in.Labels, row.want.Labels) {
				t.Errorf("%+v: %+v, %v", row.change, in, err)
			}
		}
		entries, _, err := w.db.Audit.Recent(t.Context(), tasks.AuditFilter{Action: tasks.ActionReaddress}, "", 10)
		if err != nil || len(entries) != 2 {
			t.Errorf("%+v, %v", entries, err)
		}
	})
}
