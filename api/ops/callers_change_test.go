package ops_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynqmon"

	"batchreset/api/ops"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/seal"
)

var secretOf = regexp.MustCompile(`<code id="secret">([^<]+)</code>`)

// secret is the one that a page shows.
func (a answer) secret(t *testing.T) string {
	t.Helper()
	found := secretOf.FindStringSubmatch(a.body)
	if a.status != http.StatusOK || found == nil {
		t.Fatalf("status %d, and no secret: %s", a.status, a.text())
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("a secret that may be kept: Cache-Control %q", got)
	}
	return found[1]
}

// notKept fails if a secret is in Redis as it is, in the log, or in the trail.
func (g guarded) notKept(t *testing.T, secret string) {
	t.Helper()
	if strings.Contains(g.log.String(), secret) {
		t.Error("the secret is in the log")
	}
	for _, entry := range g.rdb.XRange(t.Context(), "reset:audit", "-", "+").Val() {
		for _, value := range entry.Values {
			if text, _ := value.(string); strings.Contains(text, secret) {
				t.Error("the secret is in the trail")
			}
		}
	}
}

func TestATokenIsMadeOnce(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	g.ask(t, http.MethodGet, "/callers/new?kind=token&tenant=acme", ada, nil).says(t, "New token", `name="tenant" maxlength="64" value="acme"`, `value="submit" checked`, `value="90"`)
	ask := g.ask(t, http.MethodGet, "/callers/ask?kind=token&tenant=acme&owner=alice&name=nightly&days=30&scope=read&scope=approve&address=10.2.0.0/16,+192.0.2.7&instance_label=rack%3D7%3Bsite%3Dlab", ada, nil)
	ask.says(t, "Make a token for acme?", "read, approve", "from 10.2.0.0/16, from 192.0.2.7/32, for rack=7, for site=lab", "It expires at about")
	form := ask.hidden()
	form.Set("reason", "for <CI>")
	made := g.ask(t, http.MethodPost, "/callers/make", ada, form)
	secret := made.secret(t)
	made.says(t, "it is shown this once")
	token, err := g.db.Tokens.Token(t.Context(), secret)
	must(t, err)
	if token.Tenant != "acme" || token.Owner != "alice" || token.Name != "nightly" || len(token.Scopes) != 2 || len(token.Addresses) != 2 || token.InstanceLabels["site"] != "lab" {
		t.Errorf("token %+v", token)
	}
	if life := token.ExpiresAt.Sub(token.CreatedAt.Time); life != 30*24*time.Hour {
		t.Errorf("it lives %s", life)
	}
	trail := g.trail(t)
	if len(trail) != 1 || trail[0].Action != tasks.ActionAddToken || trail[0].By != "operator ada" || trail[0].Reason != "for <CI>" || trail[0].Detail != "token "+token.ID+" for read,approve, of alice, named nightly" {
		t.Errorf("trail %+v", trail)
	}
	g.notKept(t, secret)
	// A browser that loads the page again sends the form again.
	again := g.ask(t, http.MethodPost, "/callers/make", ada, form)
	g.want(t, again, http.StatusConflict, "")
	again.says(t, "This form was sent before, and nothing is done twice.")
	if all, err := g.db.Tokens.List(t.Context()); err != nil || len(all) != 1 || len(g.trail(t)) != 1 || strings.Contains(again.body, secret) {
		t.Errorf("tokens %+v, %v; trail %+v", all, err, g.trail(t))
	}
	if a := g.ask(t, http.MethodGet, "/callers/make", ada, nil); a.location != "/callers" {
		t.Errorf("its address leads to %q", a.location)
	}
	list := g.ask(t, http.MethodGet, "/callers", ada, nil)
	list.says(t, token.ID, "callers/"+token.ID+"/rotate")
	if strings.Contains(list.body, secret) {
		t.Error("the list has the secret")
	}
	if list := g.ask(t, http.MethodGet, "/callers", g.login(t, "olga"), nil); strings.Contains(list.body, "/rotate") || strings.Contains(list.body, "callers/new") {
		t.Error("an operator is shown what only admins may do")
	}
}

func TestAnAccessKeyIsMadeReplacedAndRevoked(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	const query = "/callers/ask?kind=access-key&tenant=acme&days=0&scope=submit"
	ask := g.ask(t, http.MethodGet, query, ada, nil)
	ask.says(t, "Make an access key for acme?", "It never expires.", "without --secret-key-file")
	first := g.ask(t, http.MethodPost, "/callers/make", ada, ask.hidden())
	secret := first.secret(t)
	all, err := g.db.Tokens.List(t.Context())
	must(t, err)
	id := all[0].ID
	first.says(t, id)
	key, err := g.db.Tokens.AccessKey(t.Context(), id, "")
	if err != nil || key.Secret != secret {
		t.Errorf("key %+v, %v", key, err)
	}
	g.notKept(t, secret)

	ask = g.ask(t, http.MethodGet, "/callers/"+id+"/rotate", ada, nil)
	ask.says(t, "in place of this one?", id, `value="24"`)
	form := ask.hidden()
	form.Set("overlap", "2")
	second := g.ask(t, http.MethodPost, "/callers/"+id+"/rotate", ada, form)
	second.says(t, "It takes the place of "+id, "2h0m0s")
	if second.secret(t) == secret {
		t.Error("it is the old secret")
	}
	old, err := g.db.Tokens.AccessKey(t.Context(), id, "")
	if left := time.Until(old.ExpiresAt.Time); err != nil || left > 2*time.Hour || left < 2*time.Hour-time.Minute {
		t.Errorf("the old one is good for %s, %v", left, err)
	}
	g.ask(t, http.MethodPost, "/callers/"+id+"/rotate", ada, form).says(t, "This form was sent before")

	g.ask(t, http.MethodGet, "/callers/"+id+"/revoke", ada, nil).says(t, "Revoke this access key, at once and for good?", id)
	revoke := url.Values{"reason": {"it leaked"}}
	g.want(t, g.ask(t, http.MethodPost, "/callers/"+id+"/revoke", ada, revoke), http.StatusSeeOther, "")
	if old, err := g.db.Tokens.AccessKey(t.Context(), id, ""); err != nil || old.RevokedAt.IsZero() {
		t.Errorf("old %+v, %v", old, err)
	}
	g.ask(t, http.MethodGet, "/callers/"+id+"/revoke", ada, nil).says(t, "was revoked before")
	g.ask(t, http.MethodGet, "/callers/"+id+"/rotate", ada, nil).says(t, "has ended: make a new one")
	rotate := g.ask(t, http.MethodPost, "/callers/"+id+"/rotate", ada, url.Values{"form": {tasks.NewFormID()}, "overlap": {"0"}})
	g.want(t, rotate, http.StatusConflict, "")
	g.want(t, g.ask(t, http.MethodPost, "/callers/nobody/revoke", ada, revoke), http.StatusNotFound, "")
	var actions []string
	for _, e := range g.trail(t) {
		actions = append(actions, string(e.Action)+" "+e.Reason)
	}
	if got := strings.Join(actions, ","); got != "token-add ,token-rotate ,token-revoke it leaked" {
		t.Errorf("trail %s", got)
	}
}

// With the key of a secret file Redis has no secret as it is.
func TestTheSiteSealsSecrets(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	seals, err := seal.Read([]byte("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"))
	must(t, err)
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: "redis://" + g.rdb.Options().Addr, Seals: seals})
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	site := httptest.NewServer(ops.New(ops.Config{Redis: asynqmon.Options{RedisConnOpt: db.Redis}, Store: storeOf(db), Log: slog.New(slog.NewJSONHandler(g.log, nil))}))
	t.Cleanup(site.Close)
	g.Server = site
	ada := g.login(t, "ada")
	ask := g.ask(t, http.MethodGet, "/callers/ask?kind=access-key&tenant=acme&days=1&scope=submit", ada, nil)
	if strings.Contains(ask.body, "secret-key-file") {
		t.Errorf("it says that it does not seal: %s", ask.text())
	}
	secret := g.ask(t, http.MethodPost, "/callers/make", ada, ask.hidden()).secret(t)
	keys := g.rdb.Keys(t.Context(), "reset:key:*").Val()
	if len(keys) != 1 {
		t.Fatalf("keys %v", keys)
	}
	if kept := g.rdb.HGet(t.Context(), keys[0], "secret").Val(); kept == "" || strings.Contains(kept, secret) {
		t.Errorf("Redis has %q", kept)
	}
}

// When Redis fails in the middle, nobody says that nothing was made.
func TestATokenOfWhichNobodyKnows(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	form := g.ask(t, http.MethodGet, "/callers/ask?kind=token&tenant=acme&days=1&scope=read", ada, nil).hidden()
	g.rdb.Set(t.Context(), "reset:tokens", "not an index", 0)
	a := g.ask(t, http.MethodPost, "/callers/make", ada, form)
	g.want(t, a, http.StatusServiceUnavailable, `"msg":"request failed","path":"/callers/make"`)
	a.says(t, "It is not known whether the token was made.")
	g.rdb.Del(t.Context(), "reset:tokens")
	g.want(t, g.ask(t, http.MethodPost, "/callers/make", ada, form), http.StatusConflict, "")
}

func TestCallersThatAreWrongAreRefused(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	good := func(change ...string) url.Values {
		form := url.Values{"kind": {"token"}, "tenant": {"acme"}, "days": {"30"}, "scope": {"read"}, "form": {tasks.NewFormID()}}
		for i := 0; i < len(change); i += 2 {
			form[change[i]] = strings.Split(change[i+1], "|")
		}
		return form
	}
	for _, row := range []struct {
		name string
		form url.Values
		want string
	}{
		{"a kind that is none", good("kind", "jwt"), "kind must be"},
		{"no tenant", good("tenant", ""), "tenant is missing"},
		{"a tenant that cannot be", good("tenant", "a/b"), "is not a tenant"},
		{"an owner that cannot be", good("owner", "al ice"), "field owner"},
		{"a name that cannot be", good("name", "a b"), "field name"},
		{"an approver without an owner", good("scope", "approve"), "owner: is missing"},
		{"no scope", good("scope", "x"), "scope must be of submit,read,cancel,operate,approve"},
		{"a scope twice", good("scope", "read|read"), "scope has"},
		{"days that are a text", good("days", "a week"), "days must be a whole number"},
		{"days that are negative", good("days", "-1"), "days must be a whole number"},
		{"an address that is none", good("address", "10.2.0.0/16,here"), "address must be a network"},
		{"a network with bits", good("address", "10.2.0.1/16"), "address 10.2.0.1/16 has bits beyond its length"},
		{"a label that is none", good("instance_label", "rack"), "instance_label must be like name=value"},
		{"labels twice", good("instance_label", `{"a":"1","a":"2"}`), "instance_label must be a JSON object"},
		{"a field twice", good("tenant", "acme|globex"), "tenant is there 2 times"},
		{"a field that is not known", good("tenants", "acme"), "; did you mean"},
		{"no form", good("form", ""), "field form is missing"},
		{"too long a reason", good("reason", strings.Repeat("x", 257)), "257 characters"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := g.ask(t, http.MethodPost, "/callers/make", ada, row.form)
			g.want(t, a, http.StatusBadRequest, "")
			a.says(t, row.want)
			if row.form.Get("form") == "" || row.form.Has("reason") {
				return // which are not asked for before
			}
			row.form.Del("form")
			g.ask(t, http.MethodGet, "/callers/ask?"+row.form.Encode(), ada, nil).says(t, row.want)
		})
	}
	for _, who := range []string{"vera", "paul", "olga"} {
		session := g.login(t, who)
		for _, path := range []string{"/callers/new", "/callers/ask?tenant=acme", "/callers/x/rotate", "/callers/x/revoke"} {
			g.want(t, g.ask(t, http.MethodGet, path, session, nil), http.StatusForbidden, "Only an admin may do this.")
		}
		for _, path := range []string{"/callers/make", "/callers/x/rotate", "/callers/x/revoke"} {
			g.want(t, g.ask(t, http.MethodPost, path, session, good()), http.StatusForbidden, `"operator":"`+who+`"`)
		}
	}
	if all, err := g.db.Tokens.List(t.Context()); err != nil || len(all) != 0 || len(g.trail(t)) != 0 {
		t.Errorf("tokens %+v, %v; trail %+v", all, err, g.trail(t))
	}
}
