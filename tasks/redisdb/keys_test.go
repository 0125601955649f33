package redisdb_test

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/tasks/seal"
)

func sealKeys(t *testing.T, names ...string) *seal.Keys {
	t.Helper()
	text := ""
	for _, name := range names {
		text += base64.StdEncoding.EncodeToString([]byte(strings.Repeat(name, 32))) + "\n"
	}
	keys, err := seal.Read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestAccessKeys(t *testing.T) {
	both(t, redisdb.Options{Seals: sealKeys(t, "a")}, func(t *testing.T, w world) {
		ctx := t.Context()
		access, secret := tasks.NewAccessKey()
		if len(access) != 20 || len(secret) != 40 {
			t.Errorf("%d and %d characters", len(access), len(secret))
		}
		n := tasks.Token{
			Tenant: "acme", Owner: "alice", Name: "fleet", Scopes: tasks.DefaultScopes,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}, InstanceLabels: map[string]string{"rack": "7 b"},
		}
		added, err := w.db.Tokens.AddKey(ctx, access, secret, n, time.Hour, tasks.Actor{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.db.Tokens.AccessKey(ctx, access, "192.0.2.0/24")
		if err != nil || got.Secret != secret || got.ID != access || got.Kind != tasks.KindKey || got.Owner != "alice" || got.Name != "fleet" ||
			!reflect.DeepEqual(got.Addresses, n.Addresses) || !reflect.DeepEqual(got.InstanceLabels, n.InstanceLabels) || !got.ExpiresAt.Equal(added.ExpiresAt.Time) {
			t.Fatalf("%+v, %v", got, err)
		}
		for _, secret := range []string{access, "key:" + access, secret} {
			if _, err := w.db.Tokens.Token(ctx, secret); tasks.CodeOf(err) != tasks.BadToken {
				t.Errorf("%s is good as a token: %v", secret, err)
			}
		}
		if kept := w.rdb.HGet(ctx, "reset:key:{"+access+"}", "secret").Val(); strings.Contains(kept, secret) || !seal.Sealed(kept) {
			t.Errorf("Redis keeps %q", kept)
		}
		if _, err := w.db.Tokens.AccessKey(ctx, "nobody", "x"); tasks.CodeOf(err) != tasks.BadToken || !strings.Contains(err.Error(), "ak:nobody,err:ak not exist") {
			t.Errorf("a key that never was: %v", err)
		}
		if first, err := w.db.Tokens.TakeSignature(ctx, []byte("mac"), time.Minute); !first || err != nil {
			t.Errorf("a signature: %t, %v", first, err)
		}
		if first, err := w.db.Tokens.TakeSignature(ctx, []byte("mac"), time.Minute); first || err != nil {
			t.Errorf("the same again: %t, %v", first, err)
		}
		// What a key is limited to must be understood.
		for field, spoiled := range map[string]string{"addresses": "10.0.0.0/8 elsewhere", "labels": "{"} {
			was := w.rdb.HGet(ctx, "reset:key:{"+access+"}", field).Val()
			w.rdb.HSet(ctx, "reset:key:{"+access+"}", field, spoiled)
			if _, err := w.db.Tokens.AccessKey(ctx, access, "x"); err == nil {
				t.Errorf("%s spoiled, and the key is good", field)
			}
			w.rdb.HSet(ctx, "reset:key:{"+access+"}", field, was)
		}
		if found, err := w.db.Tokens.Revoke(ctx, access, tasks.Actor{}); !found || err != nil {
			t.Fatal(found, err)
		}
		if got, err := w.db.Tokens.AccessKey(ctx, access, "x"); err != nil || got.Check(time.Now()) == nil {
			t.Errorf("revoked: %+v, %v", got, err)
		}
	})
}

func TestATokenIsRotated(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		old, err := w.db.Tokens.Add(ctx, "old", tasks.Token{Tenant: "acme", Owner: "alice", Scopes: []tasks.Scope{tasks.ScopeRead}}, 2*time.Hour, tasks.Actor{})
		if err != nil {
			t.Fatal(err)
		}
		renewed, err := w.db.Tokens.Rotate(ctx, old.ID, "new", time.Hour, tasks.Actor{})
		if err != nil || renewed.Owner != "alice" || len(renewed.Scopes) != 1 {
			t.Fatalf("%+v, %v", renewed, err)
		}
		if life := renewed.ExpiresAt.Sub(renewed.CreatedAt.Time); life != 2*time.Hour {
			t.Errorf("the new one lives %s", life)
		}
		was, err := w.db.Tokens.Token(ctx, "old")
		if left := time.Until(was.ExpiresAt.Time); err != nil || left > time.Hour || left < 59*time.Minute {
			t.Errorf("the old one: %s left, %v", left, err)
		}
		if _, err := w.db.Tokens.Token(ctx, "new"); err != nil {
			t.Errorf("the new one: %v", err)
		}
		// A long overlap does not lengthen a life, and none ends it.
		if _, err := w.db.Tokens.Rotate(ctx, old.ID, "newer", 100*time.Hour, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if again, err := w.db.Tokens.Token(ctx, "old"); err != nil || !again.ExpiresAt.Equal(was.ExpiresAt.Time) {
			t.Errorf("the old one ends at %s, not %s: %v", again.ExpiresAt, was.ExpiresAt, err)
		}
		if _, err := w.db.Tokens.Rotate(ctx, renewed.ID, "newest", 0, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Tokens.Token(ctx, "new"); tasks.CodeOf(err) != tasks.TokenExpired {
			t.Errorf("without an overlap: %v", err)
		}
		for _, id := range []string{renewed.ID, "ffffffffffffffff"} {
			if _, err := w.db.Tokens.Rotate(ctx, id, "x", 0, tasks.Actor{}); err == nil {
				t.Errorf("%s is rotated", id)
			}
		}
	})
}

// The overlap shortens the old one. What is made in its place again lives as long as the old one was to live.
func TestATokenIsRotatedTwice(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		for _, life := range []time.Duration{2160 * time.Hour, 0} {
			ctx, name := t.Context(), life.String()
			old, err := w.db.Tokens.Add(ctx, "old"+name, tasks.Token{Tenant: "acme", Scopes: tasks.DefaultScopes}, life, tasks.Actor{})
			if err != nil {
				t.Fatal(err)
			}
			for _, overlap := range []time.Duration{24 * time.Hour, time.Hour, time.Hour} {
				renewed, err := w.db.Tokens.Rotate(ctx, old.ID, rand.Text(), overlap, tasks.Actor{})
				if err != nil || renewed.Life != life || renewed.ExpiresAt.IsZero() != (life == 0) {
					t.Errorf("of %s: lives %s until %s, %v", name, renewed.Life, renewed.ExpiresAt, err)
				}
				if left := renewed.ExpiresAt.Sub(renewed.CreatedAt.Time); life > 0 && left != life {
					t.Errorf("of %s: expires after %s", name, left)
				}
			}
			if got, err := w.db.Tokens.Token(ctx, "old"+name); err != nil || time.Until(got.ExpiresAt.Time) > time.Hour {
				t.Errorf("of %s: the old one ends at %s, %v", name, got.ExpiresAt, err)
			}
		}
	})
}

// Secrets are sealed when they are met, and by the command that seals all.
func TestSecretsAreSealed(t *testing.T) {
	server := redistest.Start(t)
	open := func(seals *seal.Keys) *redisdb.DB {
		t.Helper()
		db, err := redisdb.Open(t.Context(), redisdb.Options{URL: server.URL(), Seals: seals})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	ctx, plain := t.Context(), open(nil)
	access, secret := tasks.NewAccessKey()
	if _, err := plain.Tokens.AddKey(ctx, access, secret, tasks.Token{Tenant: "acme", Scopes: tasks.DefaultScopes}, 0, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	e, err := plain.Endpoints.Add(ctx, tasks.NewEndpoint("acme", "https://acme.example/", tasks.Topics), tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	reads := func(what string, db *redisdb.DB, want error) {
		t.Helper()
		key, err := db.Tokens.AccessKey(ctx, access, "x")
		if !errors.Is(err, want) || err == nil && key.Secret != secret {
			t.Errorf("%s: the key's secret is %q, %v", what, key.Secret, err)
		}
		end, err := db.Endpoints.Endpoint(ctx, "acme", e.ID)
		if !errors.Is(err, want) || err == nil && end.Secret != e.Secret {
			t.Errorf("%s: the endpoint's secret is %q, %v", what, end.Secret, err)
		}
	}
	first := open(sealKeys(t, "a"))
	reads("not sealed yet", first, nil)
	reads("without the key of what was sealed when it was met", plain, seal.ErrNotOpened)
	reads("another key", open(sealKeys(t, "b")), seal.ErrNotOpened)

	second := open(sealKeys(t, "b", "a"))
	if err := second.Endpoints.RotateSecret(ctx, e, "whsec_bmV3", time.Hour, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	old := e.Secret
	e.Secret = "whsec_bmV3"
	if end, err := second.Endpoints.Endpoint(ctx, "acme", e.ID); err != nil || end.OldSecret != old {
		t.Errorf("the secret before is %q, %v", end.OldSecret, err)
	}
	if done, err := second.Tokens.SealAll(ctx); done.All != 1 || done.Sealed != 1 || done.NotSealed != nil || err != nil {
		t.Errorf("keys: %+v, %v", done, err)
	}
	if done, err := second.Endpoints.SealAll(ctx); done.All != 2 || done.Sealed != 0 || done.NotSealed != nil || err != nil { // they were met
		t.Errorf("endpoints' secrets: %+v, %v", done, err)
	}
	reads("the new key alone", open(sealKeys(t, "b")), nil)
	reads("the old key alone", first, seal.ErrNotOpened)
	if _, err := first.Endpoints.List(ctx); err != nil {
		t.Errorf("a list needs no key: %v", err)
	}
	if err := plain.Endpoints.Remove(ctx, e, tasks.Actor{}); err != nil {
		t.Errorf("to remove needs no key: %v", err)
	}
}

// An api whose Redis user may only read keys, as deploy/redis/users.acl has it, works with them.
func TestAnAccessKeyWithTheRightsOfTheAPI(t *testing.T) {
	server := redistest.StartWithUsers(t, "../../deploy/redis/users.acl")
	open := func(user string, seals *seal.Keys, roles ...redisdb.Role) *redisdb.DB {
		t.Helper()
		db, err := redisdb.Open(t.Context(), redisdb.Options{URL: server.URLOf(user), Roles: roles, Seals: seals})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	operator, api, worker := open("operator", nil), open("api", sealKeys(t, "a"), redisdb.RoleAPI), open("worker", nil, redisdb.RoleWorker)
	access, secret := tasks.NewAccessKey()
	if _, err := operator.Tokens.AddKey(t.Context(), access, secret, tasks.Token{Tenant: "acme", Scopes: tasks.DefaultScopes}, 0, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if key, err := api.Tokens.AccessKey(t.Context(), access, "192.0.2.0/24"); err != nil || key.Secret != secret {
		t.Errorf("%+v, %v", key, err) // it is not sealed: the api may not
	}
	err := errors.Join(
		api.Tokens.WrongSignature(t.Context(), access, "192.0.2.0/24"), api.Tokens.RightSignature(t.Context(), access, "192.0.2.0/24"),
		api.Tokens.NoteUse(t.Context(), map[string]tasks.Time{"key:" + access: tasks.FromMillis(1)}), worker.Fleet.IndexTenants(t.Context()),
	)
	if _, taken := api.Tokens.TakeSignature(t.Context(), []byte("mac"), time.Minute); err != nil || taken != nil {
		t.Error(err, taken)
	}
	if listed, err := operator.Tokens.List(t.Context()); err != nil || len(listed) != 1 || listed[0].LastUsedAt.UnixMilli() != 1 {
		t.Errorf("%+v, %v", listed, err)
	}
	if _, _, err := api.Fleet.InstancesOf(t.Context(), "acme", 0, 10); err != nil {
		t.Error(err)
	}
	if _, err := api.Jobs.OpenInstances(t.Context(), "acme", []string{"phone-1"}); err != nil {
		t.Error(err)
	}
}
