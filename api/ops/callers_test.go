package ops_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"batchreset/api/browsertest"
	"batchreset/tasks"
)

func TestThePageOfCallers(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, nil)
	add := func(secret string, n tasks.Token, ttl time.Duration) tasks.Token {
		t.Helper()
		n.Scopes = []tasks.Scope{tasks.ScopeSubmit, tasks.ScopeRead}
		token, err := g.db.Tokens.Add(t.Context(), secret, n, ttl, tasks.Actor{})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	revoked := add("one", tasks.Token{Tenant: "acme", Owner: "mallory"}, 0)
	if _, err := g.db.Tokens.Revoke(t.Context(), revoked.ID, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	add("two", tasks.Token{
		Tenant: "globex", Owner: "alice", Name: "nightly", Addresses: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")},
		InstanceLabels: map[string]string{"rack": "7", "site": "<lab>"},
	}, time.Hour)
	used := add("three", tasks.Token{Tenant: "acme"}, 0)
	if err := g.db.Tokens.NoteUse(t.Context(), map[string]tasks.Time{used.Hash: tasks.FromMillis(1_790_000_000_000)}); err != nil {
		t.Fatal(err)
	}
	access, secret := tasks.NewAccessKey()
	if _, err := g.db.Tokens.AddKey(t.Context(), access, secret, tasks.Token{Tenant: "acme", Scopes: tasks.DefaultScopes}, 90*24*time.Hour, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	a := g.ask(t, http.MethodGet, "/callers", nil, nil)
	for _, want := range []string{
		access, "access key", "mallory", "nightly", "from 10.2.0.0/16, for rack=7, for site=&lt;lab&gt;", ">ends soon<", ">revoked<", "never expires", "2026-09-21 14:13:20Z",
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(a.body, secret) {
		t.Error("the page shows a secret")
	}
	if strings.Index(a.body, revoked.ID) < strings.Index(a.body, "nightly") {
		t.Error("what has ended comes first")
	}
	if a := g.ask(t, http.MethodGet, "/callers?tenant=globex", nil, nil); strings.Contains(a.body, access) || !strings.Contains(a.body, "nightly") {
		t.Error("one tenant's has another's, or not its own")
	}
	if a := g.ask(t, http.MethodGet, "/callers?tenant=nobody", nil, nil); !strings.Contains(a.body, "None.") {
		t.Error("nobody's are some")
	}
	page := browsertest.Open(t, g.URL+"/callers", "callers")
	if len(page.Console) > 0 {
		t.Errorf("on the console: %v", page.Console)
	}
}
