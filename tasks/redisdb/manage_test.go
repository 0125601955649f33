package redisdb_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// What the users of deploy/redis/users.acl may manage, and that the site of an api with the user operator may do all.
func TestWhoMayManage(t *testing.T) {
	t.Parallel()
	server := redistest.StartWithUsers(t, "../../deploy/redis/users.acl")
	all := []tasks.Managed{tasks.ManagedLimits, tasks.ManagedCallers, tasks.ManagedFleet, tasks.ManagedProtection, tasks.ManagedWebhooks}
	for _, row := range []struct {
		user string
		role redisdb.Role
		may  []tasks.Managed
	}{
		{"api", redisdb.RoleAPI, []tasks.Managed{tasks.ManagedLimits}},
		{"worker", redisdb.RoleWorker, []tasks.Managed{tasks.ManagedLimits, tasks.ManagedProtection}},
		{"operator", redisdb.RoleAPI, all},
	} {
		db, err := redisdb.Open(t.Context(), redisdb.Options{URL: server.URLOf(row.user), Roles: []redisdb.Role{row.role}})
		if err != nil {
			t.Fatalf("%s: %v", row.user, err)
		}
		for _, what := range all {
			if may, err := db.MayManage(t.Context(), what); err != nil || may != slices.Contains(row.may, what) {
				t.Errorf("%s, %s: %t, %v", row.user, what, may, err)
			}
		}
		if _, err := db.MayManage(t.Context(), "everything"); err == nil {
			t.Errorf("%s may manage what is not known", row.user)
		}
		if _, _, err := db.Fleet.Search(t.Context(), tasks.FleetFilter{}, "", 10); err != nil {
			t.Errorf("%s: search: %v", row.user, err)
		}
		if row.user == "operator" {
			if _, err := db.Tokens.Add(t.Context(), "secret", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 0, tasks.Actor{}); err != nil {
				t.Error(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// To look what may be managed changes nothing, whatever the names are that there are.
func TestALookAtRightsChangesNothing(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		if err := w.db.Fleet.Register(ctx, []tasks.Instance{{ID: "-", Tenant: "-"}}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Policies.SetLimits(ctx, "-", tasks.Limits{MaxFailures: new(1)}, false, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		before := w.rdb.Keys(ctx, "*").Val()
		for _, what := range []tasks.Managed{tasks.ManagedLimits, tasks.ManagedCallers, tasks.ManagedFleet, tasks.ManagedProtection, tasks.ManagedWebhooks} {
			if may, err := w.db.MayManage(ctx, what); err != nil || !may {
				t.Errorf("%s: %t, %v", what, may, err)
			}
		}
		after := w.rdb.Keys(ctx, "*").Val()
		slices.Sort(before)
		slices.Sort(after)
		if !slices.Equal(before, after) {
			t.Errorf("keys %v, were %v", after, before)
		}
		if found, _, err := w.db.Fleet.InstancesOf(ctx, "-", 0, 10); err != nil || len(found) != 1 {
			t.Errorf("instances %+v, %v", found, err)
		}
	})
}

func TestAFormIsSentOnce(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		id := tasks.NewFormID()
		for _, want := range []bool{true, false, false} {
			if first, err := w.db.Operators.UseForm(t.Context(), id); err != nil || first != want {
				t.Errorf("%t, %v", first, err)
			}
		}
		if first, err := w.db.Operators.UseForm(t.Context(), tasks.NewFormID()); err != nil || !first {
			t.Errorf("another form: %t, %v", first, err)
		}
	})
}

func TestTheFleetIsSearchedInParts(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		var instances []tasks.Instance
		for i := range 1203 {
			in := tasks.Instance{ID: fmt.Sprintf("phone-%04d", i), Tenant: "acme"}
			if i%400 == 0 {
				in.Tenant, in.Driver = "globex", "lab"
			}
			instances = append(instances, in)
		}
		if err := w.db.Fleet.Register(ctx, instances, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		for _, indexed := range []bool{false, true} {
			if indexed {
				if err := w.db.Fleet.IndexTenants(ctx); err != nil {
					t.Fatal(err)
				}
			}
			for _, row := range []struct {
				filter tasks.FleetFilter
				limit  int
				want   int
			}{
				{tasks.FleetFilter{}, 100, 1203},
				{tasks.FleetFilter{}, 1203, 1203},
				{tasks.FleetFilter{Prefix: "phone-01"}, 7, 100},
				{tasks.FleetFilter{Tenant: "globex"}, 1, 4},
				{tasks.FleetFilter{Driver: "lab"}, 4, 4},
				{tasks.FleetFilter{Driver: "lab", Prefix: "phone-08"}, 4, 1},
				{tasks.FleetFilter{Tenant: "nobody"}, 10, 0},
				{tasks.FleetFilter{Protected: true}, 10, 0},
			} {
				seen, cursor := map[string]bool{}, ""
				for page := 0; ; page++ {
					found, next, err := w.db.Fleet.Search(ctx, row.filter, cursor, row.limit)
					if err != nil || len(found) > row.limit || page > 1300 {
						t.Fatalf("%+v: %d, %v", row.filter, len(found), err)
					}
					for _, in := range found {
						if seen[in.ID] || !row.filter.Match(in) {
							t.Errorf("%+v: %+v", row.filter, in)
						}
						seen[in.ID] = true
					}
					if cursor = next; cursor == "" {
						break
					}
				}
				if len(seen) != row.want {
					t.Errorf("indexed %t, %+v: %d, want %d", indexed, row.filter, len(seen), row.want)
				}
			}
		}
		if n, err := w.db.Fleet.Size(ctx); err != nil || n != 1203 {
			t.Errorf("size %d, %v", n, err)
		}
		if _, _, err := w.db.Fleet.Search(ctx, tasks.FleetFilter{}, "a/b", 1); tasks.CodeOf(err) != tasks.BadRequest {
			t.Errorf("a cursor that is none: %v", err)
		}
	})
}

func TestAnImportIsWhatWasSeen(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		if err := w.db.Fleet.Register(ctx, []tasks.Instance{{ID: "phone-0", Tenant: "acme"}, {ID: "phone-1", Tenant: "acme", Protected: true}}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		var changes []tasks.FleetChange
		for i := range 700 { // in two parts
			changes = append(changes, tasks.FleetChange{ID: fmt.Sprintf("phone-%d", i), Tenant: "globex"})
		}
		changes[1].Protected = new(false)
		plan, err := w.db.Fleet.Plan(ctx, changes, false, 20, tasks.Actor{})
		if err != nil {
			t.Fatal(err)
		}
		var parts []string
		for _, part := range plan.Parts {
			parts = append(parts, fmt.Sprintf("%s %d/%d", part.Effect, len(part.First), part.Count))
		}
		if got := strings.Join(parts, ", "); got != "protection ended or made shorter 1/1, moved to another tenant 2/2, new 20/698" {
			t.Errorf("plan %s", got)
		}
		if n, err := w.db.Fleet.Size(ctx); err != nil || n != 2 {
			t.Errorf("a plan has registered: %d, %v", n, err)
		}
		again, err := w.db.Fleet.Plan(ctx, changes, false, 20, tasks.Actor{})
		if err != nil || again.Seen != plan.Seen {
			t.Errorf("the same plan differs: %v", err)
		}
		for what, other := range map[string][]tasks.FleetChange{"fewer": changes[:699], "another": append(slices.Clone(changes[:699]), tasks.FleetChange{ID: "phone-699", Tenant: "acme"})} {
			if _, err := w.db.Fleet.ImportSeen(ctx, other, false, plan.Seen, tasks.Actor{}); tasks.CodeOf(err) != tasks.JobFinal {
				t.Errorf("%s: %v", what, err)
			}
		}
		// Somebody ends a protection meanwhile: that is another entry now.
		if _, err := w.db.Fleet.Unprotect(ctx, []string{"phone-1"}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Fleet.ImportSeen(ctx, changes, false, plan.Seen, tasks.Actor{}); tasks.CodeOf(err) != tasks.JobFinal {
			t.Errorf("after a change: %v", err)
		}
		if n, err := w.db.Fleet.Size(ctx); err != nil || n != 2 {
			t.Errorf("a refused import has registered: %d, %v", n, err)
		}
		plan, err = w.db.Fleet.Plan(ctx, changes, false, 20, tasks.Actor{})
		if err != nil {
			t.Fatal(err)
		}
		report, err := w.db.Fleet.ImportSeen(ctx, changes, false, plan.Seen, tasks.Actor{})
		if err != nil || report.New != 698 || report.Moved != 2 {
			t.Errorf("report %+v, %v", report, err)
		}
		_, err = w.db.Fleet.Plan(ctx, []tasks.FleetChange{{ID: "phone-x"}}, false, 1, tasks.Actor{})
		if e, is := errors.AsType[*tasks.EntryError](err); !is || e.ID != "phone-x" {
			t.Errorf("a new one of nobody: %v", err)
		}
	})
}

func TestAnEndpointIsChangedAndDisabled(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		e := w.endpoint(t, "ep_1", tasks.TopicJobFinished)
		if err := w.db.Endpoints.Change(ctx, e, "https://acme.example/new", []tasks.Topic{tasks.TopicRunPaused}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Endpoints.Report(ctx, e, tasks.Report{EventID: "e", Status: 200, TookMillis: 7}); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Endpoints.Disable(ctx, e, "it moves", tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		got := w.again(t, e)
		if got.URL != "https://acme.example/new" || !slices.Equal(got.Topics, []tasks.Topic{tasks.TopicRunPaused}) || got.DisabledAt.IsZero() || got.DisabledReason != "it moves" || got.Wants(tasks.TopicRunPaused) {
			t.Errorf("got %+v", got)
		}
		if got.Last == nil || got.Last.TookMillis != 7 {
			t.Errorf("last %+v", got.Last)
		}
		if err := w.db.Endpoints.Remove(ctx, e, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"change": w.db.Endpoints.Change(ctx, e, "https://acme.example/", tasks.Topics, tasks.Actor{}), "disable": w.db.Endpoints.Disable(ctx, e, "", tasks.Actor{}),
		} {
			if !errors.Is(err, tasks.ErrNoEndpoint) {
				t.Errorf("%s of one that is gone: %v", what, err)
			}
		}
		if left := w.rdb.Keys(ctx, "reset:webhook:*").Val(); len(left) != 0 {
			t.Errorf("left %v", left)
		}
		byEndpoint, all, err := w.db.Notices.Waiting(ctx)
		if err != nil || !all || len(byEndpoint) != 0 {
			t.Errorf("waiting %v, %t, %v", byEndpoint, all, err)
		}
	})
}
