package registry_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/wire"
	"batchreset/tasks/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var by = tasks.Actor{By: "user test"}

func operators(t *testing.T) *registry.Operators {
	t.Helper()
	all, _ := operatorsOf(t)
	return all
}

// operatorsOf is operators, with the client that they go through.
func operatorsOf(t *testing.T) (*registry.Operators, *wire.Client) {
	t.Helper()
	client, err := wire.Open(wire.Options{URL: redistest.Start(t, "appendfsync no").URL()})
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	return registry.NewOperators(client, registry.NewAudit(client, 0, nil, 0), codec.NewLeftOut(slog.New(slog.DiscardHandler)), nil), client
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
// What an admin gives back later does not give back the sessions of before, such as a stolen one.
func TestASessionThatHasEndedStaysEnded(t *testing.T) {
	t.Parallel()
	all := operators(t)
	for name, change := range map[string]func(name string) error{
		"role": func(name string) error {
			return errors.Join(second(all.SetRole(t.Context(), name, tasks.RoleViewer, by)), second(all.SetRole(t.Context(), name, tasks.RoleOperator, by)))
		},
		"factor": func(name string) error {
			return errors.Join(second(all.Enrol(t.Context(), name, "secret", nil, by)), second(all.Unenrol(t.Context(), name, by)))
		},
	} {
		o, elsewhere := add(t, all, name), tasks.Operator{Name: name, Role: tasks.RoleOperator, Issuer: "id.example"}
		must(t, all.AddSession(t.Context(), "old session of "+name, o, tasks.Visit{}))
		must(t, all.AddSession(t.Context(), "session of the issuer's "+name, elsewhere, tasks.Visit{}))
		must(t, change(name))
		if _, goesOn, err := all.Session(t.Context(), "old session of "+name); goesOn || err != nil {
			t.Errorf("%s: the session is there again, %v", name, err)
		}
		if _, goesOn, err := all.Session(t.Context(), "session of the issuer's "+name); !goesOn || err != nil {
			t.Errorf("%s: the session of an issuer's operator has ended, %v", name, err)
		}
	}
}

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

// visit logs somebody in.
func visit(t *testing.T, all *registry.Operators, secret string, o tasks.Operator) {
	t.Helper()
	must(t, all.AddSession(t.Context(), secret, o, tasks.Visit{From: "192.0.2.1", Agent: strings.Repeat("Mozilla ", 100)}))
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	t.Parallel()
	all, ctx := operators(t), t.Context()
	alice, bob := add(t, all, "alice"), add(t, all, "bob")
	visit(t, all, "a1", alice)
	visit(t, all, "a2", alice)
	visit(t, all, "b1", bob)
	carol := tasks.Operator{Name: "carol@corp.example", Role: tasks.RoleApprover, Issuer: "id.example", IssuerSettings: "v1"}
	visit(t, all, "c1", carol)
	if who, found, err := all.Session(ctx, "c1"); err != nil || !found || who != carol {
		t.Errorf("the issuer's: %+v, %t, %v", who, found, err)
	}
	list := func(names ...string) (ids []string) {
		t.Helper()
		found, err := all.Sessions(ctx, names...)
		must(t, err)
		for _, s := range found {
			if s.Since.IsZero() || s.LastUsed.IsZero() || s.Until.Sub(s.Since.Time) != 12*time.Hour || s.From != "192.0.2.1" || len(s.Agent) != 160 || s.ID == "" {
				t.Errorf("%+v", s)
			}
			ids = append(ids, s.Operator)
		}
		return ids
	}
	if got := list("alice", "bob", carol.Name, "nobody"); !slices.Equal(got, []string{"alice", "alice", "bob", carol.Name}) {
		t.Errorf("listed are those of %v", got)
	}
	// By an ID, which is no secret, and of this name only.
	id := all.SessionID("a1")
	if id == "a1" || strings.Contains(id, "a1") && len(id) < 16 {
		t.Errorf("ID %s", id)
	}
	for _, row := range []struct {
		name, id, but string
		ended         int
	}{
		{"bob", id, "", 0},
		{"alice", id, "", 1},
		{"alice", id, "", 0},
		{"alice", "", "a2", 0},
		{"alice", "", "", 1},
		{carol.Name, "", "", 1},
	} {
		if n, err := all.EndSessions(ctx, row.name, row.id, row.but, by); err != nil || n != row.ended {
			t.Errorf("%+v: %d, %v", row, n, err)
		}
	}
	if got := list("alice", "bob", carol.Name); !slices.Equal(got, []string{"bob"}) {
		t.Errorf("left are those of %v", got)
	}
	// What has ended otherwise is not listed.
	must(t, second(all.SetRole(ctx, "bob", tasks.RoleAdmin, by)))
	if got := list("bob"); got != nil {
		t.Errorf("after another role: %v", got)
	}
	last, err := all.LastLogins(ctx)
	if err != nil || len(last) != 3 || last[carol.Name].Issuer != "id.example" || last["alice"].At.IsZero() {
		t.Errorf("last log-ins %+v, %v", last, err)
	}
}

// A session that is used goes on for an hour from then; of uses within seconds one is written.
func TestAUsedSessionGoesOn(t *testing.T) {
	t.Parallel()
	all, client := operatorsOf(t)
	must(t, all.AddSession(t.Context(), "s", add(t, all, "alice"), tasks.Visit{}))
	sum := sha256.Sum256([]byte("s"))
	key := "reset:session:{" + hex.EncodeToString(sum[:]) + "}"
	for _, row := range []struct{ left, atLeast, atMost time.Duration }{
		{time.Minute, 59 * time.Minute, time.Hour},
		{59 * time.Minute, 59*time.Minute + 30*time.Second, time.Hour},
		{time.Hour - 2*time.Second, 0, time.Hour - 2*time.Second},
	} {
		must(t, client.PExpire(t.Context(), key, row.left).Err())
		if _, found, err := all.Session(t.Context(), "s"); err != nil || !found {
			t.Fatalf("%s: %t, %v", row.left, found, err)
		}
		if left := client.PTTL(t.Context(), key).Val(); left < row.atLeast || left > row.atMost {
			t.Errorf("used with %s left: %s are", row.left, left)
		}
	}
}

// A session of an older version is in no index until it is used.
func TestASessionOfAnOlderVersionGoesOnAndCanBeEnded(t *testing.T) {
	t.Parallel()
	all, client := operatorsOf(t)
	add(t, all, "alice")
	hash := func(text string) string { sum := sha256.Sum256([]byte(text)); return hex.EncodeToString(sum[:]) }
	must(t, client.HSet(t.Context(), "reset:session:{"+hash("old")+"}", "name", "alice", "of", hash("operator old"), "until", time.Now().Add(time.Hour).UnixMilli()).Err())
	if _, found, err := all.Session(t.Context(), "old"); err != nil || !found {
		t.Fatalf("found %t, %v", found, err)
	}
	if n, err := all.EndSessions(t.Context(), "alice", "", "", by); err != nil || n != 1 {
		t.Errorf("ended %d, %v", n, err)
	}
	if _, found, err := all.Session(t.Context(), "old"); err != nil || found {
		t.Errorf("after that: %t, %v", found, err)
	}
}

func TestTheLastAdminStays(t *testing.T) {
	t.Parallel()
	all, ctx := operators(t), t.Context()
	put := func(name string, role tasks.Role) {
		t.Helper()
		must(t, second(all.Add(ctx, tasks.Operator{Name: name, Role: role, PasswordHash: "x"}, by)))
	}
	put("alice", tasks.RoleAdmin)
	put("bob", tasks.RoleOperator)
	must(t, second(all.AddInvited(ctx, tasks.Operator{Name: "carol", Role: tasks.RoleAdmin}, "link", time.Hour, by))) // who may never come
	stays := func(what string, _ bool, err error) {
		t.Helper()
		if !errors.Is(err, tasks.ErrLastAdmin) {
			t.Errorf("%s: %v", what, err)
		}
	}
	found, err := all.Remove(ctx, "alice", by)
	stays("a removal", found, err)
	found, err = all.SetRole(ctx, "alice", tasks.RoleOperator, by)
	stays("another role", found, err)
	found, err = all.Invite(ctx, "alice", "link", time.Hour, by)
	stays("no password", found, err)
	must(t, second(all.SetPassword(ctx, "alice", "new", by)))
	// Two who remove each other at the same moment: one of them stays.
	for range 20 {
		put("dave", tasks.RoleAdmin)
		var g sync.WaitGroup
		for _, name := range []string{"alice", "dave"} {
			g.Go(func() {
				if _, err := all.Remove(ctx, name, by); err != nil && !errors.Is(err, tasks.ErrLastAdmin) {
					t.Error(err)
				}
			})
		}
		g.Wait()
		_, alice, err := all.Operator(ctx, "alice")
		_, dave, read := all.Operator(ctx, "dave")
		if err := errors.Join(err, read); err != nil || alice == dave {
			t.Fatalf("alice is there: %t, dave: %t, %v", alice, dave, err)
		}
		put("alice", tasks.RoleAdmin)
		must(t, second(all.Remove(ctx, "dave", by)))
	}
	must(t, second(all.Forced().Remove(ctx, "alice", by)))
	if welcomed, err := all.Welcome(ctx, "carol", "another", "x", by); err != nil || welcomed {
		t.Errorf("a wrong link: %t, %v", welcomed, err)
	}
	if welcomed, err := all.Welcome(ctx, "carol", "link", "x", by); err != nil || !welcomed {
		t.Errorf("the link: %t, %v", welcomed, err)
	}
	if welcomed, err := all.Welcome(ctx, "carol", "link", "y", by); err != nil || welcomed {
		t.Errorf("the link again: %t, %v", welcomed, err)
	}
	found, err = all.Remove(ctx, "carol", by)
	stays("now carol", found, err)
}

func TestTheSecretOfASecondFactorIsSealed(t *testing.T) {
	t.Parallel()
	client, err := wire.Open(wire.Options{URL: redistest.Start(t, "appendfsync no").URL()})
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	with := func(letters ...string) *registry.Operators {
		var keys *seal.Keys
		text := ""
		for _, letter := range letters {
			text += base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32))) + "\n"
		}
		if text != "" {
			keys, err = seal.Read([]byte(text))
			must(t, err)
		}
		return registry.NewOperators(client, registry.NewAudit(client, 0, nil, 0), codec.NewLeftOut(slog.New(slog.DiscardHandler)), keys)
	}
	kept := func() string { return client.HGet(t.Context(), "reset:operators", "alice").Val() }
	ctx, open := t.Context(), with()
	before := add(t, open, "alice")
	visit(t, open, "session", before)
	must(t, second(open.Enrol(ctx, "alice", "PLAINSECRET", []string{"code"}, by)))
	if _, found, err := open.Session(ctx, "session"); err != nil || found {
		t.Errorf("a session from before the second factor goes on: %t, %v", found, err)
	}
	if !strings.Contains(kept(), "PLAINSECRET") || strings.Contains(kept(), `"code"`) {
		t.Errorf("kept is %s", kept())
	}
	for _, letters := range [][]string{{"a"}, {"b", "a"}} {
		if done, err := with(letters...).SealAll(ctx); err != nil || done.All != 1 || done.Sealed != 1 || done.NotSealed != nil {
			t.Fatalf("%+v, %v", done, err)
		}
		if strings.Contains(kept(), "PLAINSECRET") {
			t.Errorf("kept is %s", kept())
		}
	}
	if secret, found, err := with("b").FactorSecret(ctx, "alice"); err != nil || !found || secret != "PLAINSECRET" {
		t.Errorf("opened %q, %t, %v", secret, found, err)
	}
	if _, _, err := open.FactorSecret(ctx, "alice"); !errors.Is(err, seal.ErrNotOpened) {
		t.Errorf("without a key: %v", err)
	}
	must(t, second(open.SetRole(ctx, "alice", tasks.RoleViewer, by))) // what else is kept stays
	if first, err := open.UseRecovery(ctx, "alice", "code"); err != nil || !first {
		t.Errorf("recovery %t, %v", first, err)
	}
	if left, err := open.RecoveryLeft(ctx, "alice"); err != nil || left != 0 {
		t.Errorf("left %d, %v", left, err)
	}
	must(t, second(open.Enrol(ctx, "alice", "OTHER", []string{"code"}, by))) // the same code of another enrolment
	if left, err := open.RecoveryLeft(ctx, "alice"); err != nil || left != 1 {
		t.Errorf("left of the next one %d, %v", left, err)
	}
	for _, row := range []struct {
		step  int64
		first bool
	}{{7, true}, {7, false}, {6, false}, {8, true}} {
		if first, err := open.UseStep(ctx, "alice", row.step); err != nil || first != row.first {
			t.Errorf("step %d: %t, %v", row.step, first, err)
		}
	}
	must(t, second(open.Unenrol(ctx, "alice", by)))
	if o, _, err := open.Operator(ctx, "alice"); err != nil || !o.SecondFactor.IsZero() || client.Exists(ctx, "reset:session:{people}:used:alice").Val() != 0 {
		t.Errorf("%+v, %v", o, err)
	}
}
