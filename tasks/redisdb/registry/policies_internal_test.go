package registry

import (
	"errors"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

func TestAPolicyIsReadPartByPart(t *testing.T) {
	look := decodePolicies(map[string]string{
		"#":                          "7",
		"* requests_per_second":      "50",
		"acme instances_per_hour":    "10",
		"acme max_failures":          "0",
		"acme halt":                  `{"since":"2026-01-02T03:04:05.000Z","reason":"fire"}`,
		"acme colour_of_a_later_one": "red",
		"globex own_halt":            `{"reason":"ours"}`,
		"initech halt":               `{"reason":"ours","own":true}`, // as workers of before see globex's
		"umbrella open_instances":    "many",
		"umbrella max_failures":      "3",
	})
	if look.revision != "7" || look.all.Tenant != "" || *look.all.RequestsPerSecond != 50 {
		t.Errorf("of all: revision %q, %+v", look.revision, look.all)
	}
	acme := look.tenants["acme"]
	if *acme.InstancesPerHour != 10 || *acme.MaxFailures != 0 || acme.OpenInstances != nil {
		t.Errorf("limits of acme: %+v", acme.Limits)
	}
	if acme.OperatorHalt == nil || acme.OperatorHalt.Reason != "fire" || acme.OwnHalt != nil {
		t.Errorf("halts of acme: %+v, %+v", acme.OperatorHalt, acme.OwnHalt)
	}
	if globex := look.tenants["globex"]; globex.OperatorHalt != nil || globex.OwnHalt == nil || globex.OwnHalt.Reason != "ours" {
		t.Errorf("halts of globex: %+v, %+v", globex.OperatorHalt, globex.OwnHalt)
	}
	if initech := look.tenants["initech"]; initech.OperatorHalt != nil {
		t.Errorf("a tenant's own halt is an operator's: %+v", initech.OperatorHalt)
	}
	if _, read := look.tenants["umbrella"]; read || len(look.broken) != 1 {
		t.Errorf("half of a policy holds: %+v, broken %v", look.tenants, look.broken)
	}
	if _, damage := errors.AsType[*codec.Damage](look.broken["umbrella"]); !damage {
		t.Errorf("got %v", look.broken["umbrella"])
	}
}

// A change of a fleet entry says in the report, and in the trail, what it does to the entry
// that is there.
func TestWhatAChangeDoesToAnEntry(t *testing.T) {
	now := tasks.FromMillis(1_800_000_000_000)
	later, latest := tasks.Time{Time: now.Add(time.Hour)}, tasks.Time{Time: now.Add(2 * time.Hour)}
	free := tasks.Instance{ID: "a", Tenant: "acme", Generation: 3}
	guarded, limited := free, free
	guarded.Protected = true
	limited.Protected, limited.Until = true, later
	for _, row := range []struct {
		name   string
		change tasks.FleetChange
		seen   tasks.Instance
		want   tasks.FleetReport
	}{
		{"a new one", tasks.FleetChange{Tenant: "acme"}, tasks.Instance{}, tasks.FleetReport{New: 1}},
		{"a new one, protected", tasks.FleetChange{Tenant: "acme", Protected: new(true)}, tasks.Instance{}, tasks.FleetReport{New: 1, Protected: 1}},
		{"nothing said", tasks.FleetChange{}, guarded, tasks.FleetReport{}},
		{"the same said", tasks.FleetChange{Tenant: "acme", Protected: new(true)}, guarded, tasks.FleetReport{}},
		{"another tenant, and the protection stays", tasks.FleetChange{Tenant: "globex"}, guarded, tasks.FleetReport{Moved: 1}},
		{"another user", tasks.FleetChange{Reassigned: true}, guarded, tasks.FleetReport{Reassigned: 1}},
		{"the same generation", tasks.FleetChange{Generation: 3}, guarded, tasks.FleetReport{}},
		{"another generation", tasks.FleetChange{Generation: 7}, guarded, tasks.FleetReport{Reassigned: 1}},
		{"an end of protection that had none", tasks.FleetChange{Protected: new(true), ProtectedUntil: &later}, guarded, tasks.FleetReport{Unprotected: 1}},
		{"a later end", tasks.FleetChange{Protected: new(true), ProtectedUntil: &latest}, limited, tasks.FleetReport{}},
		{"protection, and its end stays", tasks.FleetChange{Protected: new(true)}, limited, tasks.FleetReport{}},
		{"no end any more", tasks.FleetChange{Protected: new(true), ProtectedUntil: &tasks.Time{}}, limited, tasks.FleetReport{}},
		{"protection", tasks.FleetChange{Protected: new(true)}, free, tasks.FleetReport{Protected: 1}},
		{"the end of protection", tasks.FleetChange{Protected: new(false)}, guarded, tasks.FleetReport{Unprotected: 1}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := (step{change: row.change, seen: row.seen, after: row.change.Of(row.seen, tasks.Actor{}, now)}).effect(); got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}
