package registry_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var by = tasks.Actor{By: "user test"}

func operators(t *testing.T) *registry.Operators {
	t.Helper()
	client, err := wire.Open(wire.Options{URL: redistest.Start(t, "appendfsync no").URL()})
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	return registry.NewOperators(client, registry.NewAudit(client, 0, nil, 0), codec.NewLeftOut(slog.New(slog.DiscardHandler)), nil)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// add adds an operator with this name.
func add(t *testing.T, all *registry.Operators, name string) tasks.Operator {
	t.Helper()
	o := tasks.Operator{Name: name, Role: tasks.RoleOperator, PasswordHash: "old"}
	if added, err := all.Add(t.Context(), o, by); err != nil || !added {
		t.Fatalf("add %s: %t, %v", name, added, err)
	}
	return o
}

func TestWhatEndsTheSessionsOfAnOperator(t *testing.T) {
	t.Parallel()
	all := operators(t)
	type change func(ctx context.Context, name string) (found bool, err error)
	for _, row := range []struct {
		name string
		do   change
		ends bool
	}{
		{"another password", func(ctx context.Context, name string) (bool, error) { return all.SetPassword(ctx, name, "new", by) }, true},
		{"another role", func(ctx context.Context, name string) (bool, error) {
			return all.SetRole(ctx, name, tasks.RoleViewer, by)
		}, true},
		{"the role that it is", func(ctx context.Context, name string) (bool, error) {
			return all.SetRole(ctx, name, tasks.RoleOperator, by)
		}, false},
		{"a removal", func(ctx context.Context, name string) (bool, error) { return all.Remove(ctx, name, by) }, true},
		{"a log-out", func(ctx context.Context, name string) (bool, error) {
			return true, all.EndSession(ctx, "session of "+name, "127.0.0.1")
		}, true},
		{"a log-out of somebody else", func(ctx context.Context, _ string) (bool, error) {
			return true, all.EndSession(ctx, "another", "127.0.0.1")
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			name := row.name
			must(t, all.AddSession(t.Context(), "session of "+name, add(t, all, name), tasks.Visit{From: "127.0.0.1"}))
			if who, found, err := all.Session(t.Context(), "session of "+name); err != nil || !found || who.Name != name {
				t.Fatalf("before: %+v, %t, %v", who, found, err)
			}
			if found, err := row.do(t.Context(), name); err != nil || !found {
				t.Errorf("there is no %s: %t, %v", name, found, err)
			}
			if _, found, err := all.Session(t.Context(), "session of "+name); err != nil || found == row.ends {
				t.Errorf("after: the session goes on: %t, %v", found, err)
			}
		})
	}
	for name, do := range map[string]change{
		"password": func(ctx context.Context, name string) (bool, error) { return all.SetPassword(ctx, name, "new", by) },
		"role": func(ctx context.Context, name string) (bool, error) {
			return all.SetRole(ctx, name, tasks.RoleViewer, by)
		},
		"remove": func(ctx context.Context, name string) (bool, error) { return all.Remove(ctx, name, by) },
	} {
		if found, err := do(t.Context(), "nobody"); err != nil || found {
			t.Errorf("%s of nobody: %t, %v", name, found, err)
		}
	}
}

// Two people change an operator at the same moment: nobody comes back whom one of them
// removes, and neither change undoes the other.
func TestChangesOfAnOperatorAtTheSameTime(t *testing.T) {
	t.Parallel()
	all := operators(t)
	atOnce := func(do ...func() (bool, error)) {
		t.Helper()
		var g sync.WaitGroup
		for _, do := range do {
			g.Go(func() {
				if _, err := do(); err != nil {
					t.Error(err)
				}
			})
		}
		g.Wait()
	}
	ctx := t.Context()
	password := func() (bool, error) { return all.SetPassword(ctx, "alice", "new", by) }
	role := func() (bool, error) { return all.SetRole(ctx, "alice", tasks.RoleViewer, by) }
	remove := func() (bool, error) { return all.Remove(ctx, "alice", by) }
	for range 50 {
		add(t, all, "alice")
		atOnce(password, role)
		if o, _, err := all.Operator(ctx, "alice"); err != nil || o.PasswordHash != "new" || o.Role != tasks.RoleViewer {
			t.Fatalf("a change is lost: %+v with the password %s, %v", o, o.PasswordHash, err)
		}
		must(t, second(all.SetPassword(ctx, "alice", "old", by)))
		must(t, second(all.SetRole(ctx, "alice", tasks.RoleOperator, by)))
		atOnce(password, role, remove)
		if o, found, err := all.Operator(ctx, "alice"); err != nil || found {
			t.Fatalf("%+v is there again, %v", o, err)
		}
	}
}

func second(_ bool, err error) error { return err }
