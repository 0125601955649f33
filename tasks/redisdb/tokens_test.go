package redisdb_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestTokens(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		added, err := w.db.Tokens.Add(ctx, "secret-1", tasks.Token{Tenant: "acme", Scopes: []tasks.Scope{tasks.ScopeRead}}, 0, tasks.Actor{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.db.Tokens.Token(ctx, "secret-1")
		if err != nil || got.Tenant != "acme" || !slices.Equal(got.Scopes, []tasks.Scope{tasks.ScopeRead}) || got.ID != added.ID {
			t.Fatalf("got %+v, %v", got, err)
		}
		if _, err := w.db.Tokens.Token(ctx, "secret-2"); tasks.CodeOf(err) != tasks.BadToken {
			t.Errorf("a token that never was: %v", err)
		}

		if _, err := w.db.Tokens.Add(ctx, "short", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, time.Millisecond, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err = w.db.Tokens.Token(ctx, "short"); err != nil {
				break
			}
		}
		if tasks.CodeOf(err) != tasks.TokenExpired {
			t.Errorf("an expired token: %v", err)
		}

		if found, err := w.db.Tokens.Revoke(ctx, added.ID, tasks.Actor{}); err != nil || !found {
			t.Fatalf("revoke: %t, %v", found, err)
		}
		if _, err := w.db.Tokens.Token(ctx, "secret-1"); tasks.CodeOf(err) != tasks.TokenExpired {
			t.Errorf("a revoked token: %v", err)
		}
		if found, err := w.db.Tokens.Revoke(ctx, "0000000000000000", tasks.Actor{}); err != nil || found {
			t.Errorf("revoked what is not there: %t, %v", found, err)
		}
		list, err := w.db.Tokens.List(ctx)
		if err != nil || len(list) != 2 || list[0].RevokedAt.IsZero() {
			t.Errorf("list %+v, %v", list, err)
		}
	})
}

func TestTheSecretOfATokenIsNotStored(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		const secret = "brt_very-secret"
		if _, err := w.db.Tokens.Add(t.Context(), secret, tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, time.Hour, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		for _, key := range w.rdb.Keys(t.Context(), "*").Val() {
			content := key
			if w.rdb.Type(t.Context(), key).Val() == "hash" {
				content += fmt.Sprint(w.rdb.HGetAll(t.Context(), key).Val())
			}
			if strings.Contains(content, secret) {
				t.Errorf("the secret is in %s", key)
			}
		}
	})
}

func TestFleet(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		var fleet []tasks.Instance
		for n := range 600 { // more than a page
			fleet = append(fleet, tasks.Instance{ID: fmt.Sprintf("phone-%03d", n), Tenant: "acme", Protected: n == 7})
		}
		if err := w.db.Fleet.Register(ctx, fleet, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		var listed []tasks.Instance
		if err := w.db.Fleet.All(ctx, func(in tasks.Instance) error {
			if in.Protected != !in.Since.IsZero() || in.Generation != 1 {
				t.Errorf("listed %+v", in)
			}
			in.Protection, in.Generation = tasks.Protection{}, 0
			listed = append(listed, in)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(listed, fleet) {
			t.Errorf("%d instances listed, %d registered, or they differ", len(listed), len(fleet))
		}
		if missing, err := w.db.Fleet.Unregister(ctx, []string{"phone-007"}, tasks.Actor{}); err != nil || missing != nil {
			t.Errorf("unregister: %v missing, %v", missing, err)
		}
		known, err := w.db.Fleet.Registered(ctx, []string{"phone-006", "phone-007", "phone-x"})
		if err != nil || len(known) != 1 || known["phone-006"].Tenant != "acme" {
			t.Errorf("registered: %v, %v", known, err)
		}
	})
}
