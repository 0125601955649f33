package redisdb_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

var importer = tasks.Actor{By: "user test"}

func (w world) fleet(t *testing.T) string {
	t.Helper()
	var all []string
	if err := w.db.Fleet.All(t.Context(), func(in tasks.Instance) error {
		all = append(all, fmt.Sprintf("%s %s %t", in.ID, in.Tenant, in.Protected))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, ", ")
}

func TestAnImportChangesWhatItSaysAndNothingElse(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		if err := w.db.Fleet.Register(t.Context(), []tasks.Instance{
			{ID: "a", Tenant: "acme", Protected: true}, {ID: "b", Tenant: "acme"}, {ID: "c", Tenant: "globex", Protected: true},
		}, importer); err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			name    string
			changes []tasks.FleetChange
			report  tasks.FleetReport
			fleet   string
			trail   string
		}{
			{
				"a tenant alone",
				[]tasks.FleetChange{{ID: "a", Tenant: "acme"}, {ID: "b", Tenant: "acme"}, {ID: "d", Tenant: "acme"}},
				tasks.FleetReport{New: 1},
				"a acme true, b acme false, c globex true, d acme false", "fleet-register acme [a b d] ",
			},
			{
				"protection alone",
				[]tasks.FleetChange{{ID: "b", Protected: new(true)}, {ID: "c", Protected: new(true)}},
				tasks.FleetReport{Protected: 1},
				"a acme true, b acme true, c globex true, d acme false", "fleet-register  [b c] 2 of them protected",
			},
			{
				"nothing",
				[]tasks.FleetChange{{ID: "a"}},
				tasks.FleetReport{},
				"a acme true, b acme true, c globex true, d acme false", "fleet-register acme [a] ",
			},
			{
				"everything",
				[]tasks.FleetChange{
					{ID: "a", Tenant: "acme", Protected: new(false)},
					{ID: "b", Tenant: "globex", Protected: new(false)},
					{ID: "c", Tenant: "initech"},
					{ID: "d", Tenant: "globex"},
				},
				tasks.FleetReport{Moved: 3, Unprotected: 2},
				"a acme false, b globex false, c initech true, d globex false",
				"fleet-register  [a b c d] 0 of them protected; fleet-unprotect  [a b] by an import; " +
					"fleet-move globex [b d] by an import, from acme; fleet-move initech [c] by an import, from globex",
			},
		} {
			t.Run(row.name, func(t *testing.T) {
				w.rdb.Del(t.Context(), "reset:audit")
				report, err := w.db.Fleet.Import(t.Context(), row.changes, false, importer)
				if err != nil || report != row.report {
					t.Errorf("report %+v, %v", report, err)
				}
				if got := w.fleet(t); got != row.fleet {
					t.Errorf("the fleet is %s", got)
				}
				var trail []string
				for _, e := range w.trail(t, tasks.AuditFilter{}) {
					trail = append(trail, fmt.Sprintf("%s %s %v %s", e.Action, e.Tenant, e.InstanceIDs, e.Detail))
				}
				if got := strings.Join(trail, "; "); got != row.trail {
					t.Errorf("the trail is %s", got)
				}
			})
		}
		w.rdb.Del(t.Context(), "reset:audit")
		before := w.fleet(t)
		_, err := w.db.Fleet.Import(t.Context(), []tasks.FleetChange{{ID: "a", Protected: new(true)}, {ID: "e"}}, false, importer)
		if err == nil || !strings.Contains(err.Error(), "instance e is not registered yet, and tenant is missing") {
			t.Errorf("a new one without a tenant: %v", err)
		}
		if got := w.fleet(t); got != before || w.trail(t, tasks.AuditFilter{}) != nil {
			t.Errorf("after a refusal the fleet is %s", got)
		}
	})
}

// Somebody protects an instance while an import changes it. No import that does not say so
// ends that, and one that does has it in the trail.
func TestAProtectionDuringImports(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		const rounds = 40
		for n := range rounds {
			id := fmt.Sprintf("phone-%d", n)
			if err := w.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: id, Tenant: "acme"}}, importer); err != nil {
				t.Fatal(err)
			}
			w.rdb.Del(t.Context(), "reset:audit")
			explicit := n%2 == 1
			var all sync.WaitGroup
			ended := make([]int, 4)
			for i := range ended {
				all.Go(func() {
					c := tasks.FleetChange{ID: id, Tenant: []string{"acme", "globex"}[i%2]}
					if explicit {
						c.Protected = new(false)
					}
					report, err := w.db.Fleet.Import(t.Context(), []tasks.FleetChange{c}, false, importer)
					if err != nil {
						t.Error(err)
					}
					ended[i] = report.Unprotected
				})
			}
			all.Go(func() {
				if missing, _, err := w.db.Fleet.Protect(t.Context(), []string{id}, tasks.Time{}, importer); err != nil || missing != nil {
					t.Error(missing, err)
				}
			})
			all.Wait()
			fleet, err := w.db.Fleet.Registered(t.Context(), []string{id})
			if err != nil {
				t.Fatal(err)
			}
			told := len(w.trail(t, tasks.AuditFilter{Action: tasks.ActionUnprotect}))
			sum := ended[0] + ended[1] + ended[2] + ended[3]
			switch protected := fleet[id].Protected; {
			case !explicit && (!protected || sum+told > 0):
				t.Errorf("round %d: an import that does not speak of protection ended it", n)
			case explicit && protected != (sum == 0), explicit && told < sum:
				t.Errorf("round %d: protected %t after %d ends and %d entries", n, protected, sum, told)
			}
		}
	})
}

// The counter of assignments ends where a batch can still name it, and an export can be imported again.
func TestTheLastGeneration(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		last := tasks.FleetChange{ID: "phone-1", Tenant: "acme", Generation: tasks.MaxGeneration}
		if _, err := w.db.Fleet.Import(t.Context(), []tasks.FleetChange{last}, false, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []tasks.FleetChange{{ID: "phone-1", Reassigned: true}, {ID: "phone-1", Tenant: "beta"}} {
			if _, err := w.db.Fleet.Import(t.Context(), []tasks.FleetChange{c}, false, tasks.Actor{}); err == nil || !strings.Contains(err.Error(), "last generation") {
				t.Errorf("%+v: %v", c, err)
			}
		}
		if fleet, err := w.db.Fleet.Registered(t.Context(), []string{"phone-1"}); err != nil || fleet["phone-1"].Generation != tasks.MaxGeneration || fleet["phone-1"].Tenant != "acme" {
			t.Errorf("%+v, %v", fleet, err)
		}
	})
}
