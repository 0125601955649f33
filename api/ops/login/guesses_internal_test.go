package login

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"batchreset/tasks"
)

// called are those whose turn it is, by their names.
func called(all map[string]*turn) (names []string) {
	for name, t := range all {
		if len(t.called) == 1 && <-t.called {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestTurnsGoToWhoHasTriedLeast(t *testing.T) {
	q := &turns{free: 1}
	if err := q.wait(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	all := map[string]*turn{}
	for n := range 3 {
		all[fmt.Sprintf("flood %d", n)] = q.join(n)
	}
	all["alice"], all["bob"] = q.join(0), q.join(0)
	var order []string
	for range all {
		q.done()
		order = append(order, called(all)...)
	}
	if want := []string{"bob", "alice", "flood 0", "flood 1", "flood 2"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	if q.done(); q.free != 1 || len(q.waiting) != 0 {
		t.Errorf("in the end %d are free, %d wait", q.free, len(q.waiting))
	}
}

func TestACrowdKeepsOutWhoHasTriedMost(t *testing.T) {
	q := &turns{}
	worst := q.join(3)
	all := map[string]*turn{}
	for n := range maxWaiting {
		all[fmt.Sprint(n)] = q.join(2)
	}
	if len(worst.called) != 1 || <-worst.called || len(q.waiting) != maxWaiting {
		t.Errorf("who has tried most is not sent away, %d wait", len(q.waiting))
	}
	if err := q.wait(t.Context(), 4); err == nil {
		t.Error("one more who has tried more often waits")
	}
	alice := q.join(0)
	q.done()
	if len(alice.called) != 1 || !<-alice.called {
		t.Error("it is not the turn of who has not tried yet")
	}
}

func TestWhoGoesAwayTakesNobodysTurn(t *testing.T) {
	q := &turns{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.wait(ctx, 0); err == nil || len(q.waiting) != 0 {
		t.Errorf("%v, %d wait", err, len(q.waiting))
	}
	// Called and gone at the same moment: either it is heard, or the turn is passed on.
	for range 100 {
		q := &turns{free: 1}
		if q.wait(ctx, 0) == nil {
			q.done()
		}
		if q.free != 1 {
			t.Fatal("a turn is lost")
		}
	}
}

const rightPassword = "correct horse battery"

// hashed is an operator with rightPassword.
func hashed(t *testing.T, name string) tasks.Operator {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(rightPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return tasks.Operator{Name: name, Role: tasks.RoleOperator, PasswordHash: string(hash)}
}

func TestAnOperatorsDeviceWaitsForNoStranger(t *testing.T) {
	alice := hashed(t, "alice")
	at := time.Now()
	g := newGuesses(func() time.Time { return at })
	for range hashingAtOnce { // by strangers, whose hashing never ends
		if err := g.strangers.wait(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if refused := g.check(ctx, g.from("192.0.2.1"), alice.Name, alice, rightPassword); refused != crowded {
		t.Errorf("elsewhere: %+v", refused)
	}
	known := guess{device: "d"}
	if refused := g.check(t.Context(), known, alice.Name, alice, rightPassword); refused != nil {
		t.Errorf("on the device: %+v", refused)
	}
	for range 4 {
		if refused := g.check(t.Context(), known, alice.Name, alice, "another horse battery"); refused != wrongLogin {
			t.Errorf("a wrong password there: %+v", refused)
		}
	}
	if refused := g.check(t.Context(), known, alice.Name, alice, rightPassword); refused != tooManyTries {
		t.Errorf("a sixth try there: %+v", refused)
	}
}

// A name that does not exist costs as much as one that does.
func TestNobodysPasswordIsLookedAt(t *testing.T) {
	t.Parallel()
	if cost, err := bcrypt.Cost([]byte(nobodysHash)); err != nil || cost != passwordCost {
		t.Errorf("cost %d, %v", cost, err)
	}
	g := newGuesses(time.Now)
	if refused := g.check(t.Context(), g.from("192.0.2.1"), "nobody", tasks.Operator{}, rightPassword); refused != wrongLogin {
		t.Errorf("%+v", refused)
	}
}

// at is a clock that stands still.
type at struct{ time.Time }

func (a at) Now() time.Time { return a.Time }

func doorAt(path string, now time.Time) *Door {
	return &Door{cfg: Config{Path: path, Clock: at{now}}}
}

// Only the operator's name, and the hash of the present password, make a device the operator's.
func TestADeviceIsOfOnePassword(t *testing.T) {
	now := time.Now()
	here := doorAt("", now)
	alice, bob, earlier, nobody := hashed(t, "alice"), hashed(t, "bob"), hashed(t, "alice"), tasks.Operator{Name: "alice"}
	value := here.newDevice(alice).Value
	for _, row := range []struct {
		name, value string
		operator    tasks.Operator
		at          time.Time
		known       bool
	}{
		{"their own", value, alice, now, true},
		{"their own, in the end", value, alice, now.Add(deviceLife - time.Minute), true},
		{"too old", value, alice, now.Add(deviceLife), false},
		{"of another operator", value, bob, now, false},
		{"of an earlier password", here.newDevice(earlier).Value, alice, now, false},
		{"of nobody, who has no password", here.newDevice(nobody).Value, nobody, now, false},
		{"made longer", "9" + value, alice, now, false},
		{"with another seal", value[:len(value)-4] + "AAAA", alice, now, false},
		{"nothing", "", alice, now, false},
		{"a dot", ".", alice, now, false},
		{"no dot", "x", alice, now, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := &http.Request{Header: http.Header{}}
			r.AddCookie(&http.Cookie{Name: here.deviceCookie(row.operator.Name), Value: row.value})
			if got := doorAt("", row.at).device(r, row.operator) != ""; got != row.known {
				t.Errorf("known %t, want %t", got, row.known)
			}
		})
	}
	if c := doorAt("/ops", now).newDevice(alice); c.Name == here.deviceCookie("alice") || !bringsDevice(&http.Request{Header: http.Header{"Cookie": {c.String()}}}) {
		t.Errorf("another site of this host has the cookie %s, too, or does not know it", c.Name)
	}
}
