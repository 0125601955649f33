package ops_test

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"batchreset/api/browsertest"
	"batchreset/api/ops"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestOperatorsAreManagedOnTheSite(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleAdmin, "olga": tasks.RoleOperator})
	alice, olga := g.in(t, "alice"), g.in(t, "olga")
	// Everybody sees who there is; only an admin changes it.
	if a := olga.get(t, "/operators"); a.status != http.StatusOK || !strings.Contains(a.body, "alice") || strings.Contains(a.body, "operators/add") || strings.Contains(a.body, "operators/remove") {
		t.Errorf("the page for others: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/operators/add", "/operators/role?name=alice", "/operators/password?name=alice", "/operators/remove?name=alice", "/operators/second?name=alice", "/operators/sessions", "/operators/sessions/end?name=alice"} {
		g.want(t, olga.get(t, path), http.StatusForbidden, "Only an admin may do this")
		g.want(t, alice.get(t, path), map[bool]int{true: http.StatusForbidden, false: http.StatusOK}[strings.Contains(path, "password") || strings.Contains(path, "second")], "") // not of oneself
	}
	for _, path := range []string{"add", "role", "password", "remove", "second", "sessions/end"} {
		g.want(t, olga.post(t, "/operators/"+path, "name", "alice"), http.StatusForbidden, "")
	}

	for what, fields := range map[string][]string{
		"a bad name":             {"name", "a b", "role", "viewer", "password", password, "again", password, "reason", ""},
		"a short password":       {"name", "vera", "role", "viewer", "password", "short", "again", "short", "reason", ""},
		"two passwords":          {"name", "vera", "role", "viewer", "password", password, "again", password + "x", "reason", ""},
		"no role":                {"name", "vera", "role", "boss", "password", password, "again", password, "reason", ""},
		"a field that is no one": {"name", "vera", "role", "viewer", "password", password, "again", password, "reason", "", "admin", "true"},
		"a long reason":          {"name", "vera", "role", "viewer", "password", password, "again", password, "reason", strings.Repeat("x", 257)},
	} {
		if a := alice.post(t, "/operators/add", fields...); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d", what, a.status)
		}
	}
	g.want(t, alice.post(t, "/operators/add", "name", "vera", "role", "viewer", "password", password, "again", password, "reason", "new here"), http.StatusSeeOther, "")
	g.want(t, alice.post(t, "/operators/add", "name", "vera", "role", "admin", "password", password, "again", password, "reason", ""), http.StatusConflict, "")
	vera := g.in(t, "vera")
	g.want(t, vera.get(t, "/operators"), http.StatusOK, "")

	g.want(t, alice.post(t, "/operators/role", "name", "vera", "role", "approver", "reason", ""), http.StatusSeeOther, "")
	g.want(t, vera.get(t, "/"), http.StatusSeeOther, "") // the session has ended
	vera = g.in(t, "vera")
	if a := vera.get(t, "/me"); !strings.Contains(a.body, "approver") {
		t.Errorf("account %s", a.body)
	}
	const other = "another horse battery"
	g.want(t, alice.post(t, "/operators/password", "name", "vera", "password", other, "again", other, "reason", ""), http.StatusSeeOther, "")
	g.want(t, vera.get(t, "/"), http.StatusSeeOther, "")
	g.want(t, g.newTab().post(t, "/login", "name", "vera", "password", other), http.StatusSeeOther, "")

	for _, form := range [][]string{{"/operators/remove", "name", "alice", "reason", ""}, {"/operators/role", "name", "alice", "role", "viewer", "reason", ""}} {
		if a := alice.post(t, form[0], form[1:]...); a.status != http.StatusConflict || !strings.Contains(a.body, "the only admin") {
			t.Errorf("%v: %d %s", form, a.status, a.body)
		}
	}
	g.want(t, alice.post(t, "/operators/remove", "name", "nobody", "reason", ""), http.StatusNotFound, "")
	g.want(t, alice.post(t, "/operators/remove", "name", "vera", "reason", "left"), http.StatusSeeOther, "")
	if a := alice.get(t, "/operators"); strings.Contains(a.body, "vera") {
		t.Errorf("operators %s", a.body)
	}
	var did []string
	for _, e := range g.trail(t) {
		did = append(did, fmt.Sprintf("%s by %s: %s (%s)", e.Action, e.By, e.Detail, e.Reason))
	}
	if got := strings.Join(did, "\n"); got != `operator-add by operator alice: vera as viewer (new here)
operator-role by operator alice: vera as approver ()
operator-passwd by operator alice: vera as approver ()
operator-remove by operator alice: vera (left)` {
		t.Errorf("trail:\n%s", got)
	}
}

var shownLink = regexp.MustCompile(`<code class="secret">(http[^<]+)</code>`)

// link is the path of the link that a page shows.
func (a answer) link(t *testing.T, base string) string {
	t.Helper()
	found := shownLink.FindStringSubmatch(a.body)
	if a.status != http.StatusOK || found == nil {
		t.Fatalf("no link: %d %s", a.status, a.body)
	}
	text := html.UnescapeString(found[1])
	if !strings.HasPrefix(text, base+"/welcome?") {
		t.Errorf("the link is %s", text)
	}
	return strings.TrimPrefix(text, base)
}

func (b *tab) choose(t *testing.T, link, password string) answer {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	return b.post(t, "/welcome", "name", u.Query().Get("name"), "token", u.Query().Get("token"), "password", password, "again", password)
}

func TestALinkToChooseAPassword(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleAdmin})
	alice, b := g.in(t, "alice"), g.newTab()
	link := alice.post(t, "/operators/add", "name", "bob", "role", "operator", "password", "", "again", "", "reason", "").link(t, g.URL)
	g.want(t, b.post(t, "/login", "name", "bob", "password", password), http.StatusUnauthorized, "")
	if a := alice.get(t, "/operators"); !strings.Contains(a.body, "invited") {
		t.Errorf("operators %s", a.body)
	}
	g.want(t, b.get(t, link), http.StatusOK, "")
	g.want(t, b.get(t, link), http.StatusOK, "")
	g.want(t, b.get(t, strings.Replace(link, "name=bob", "name=alice", 1)), http.StatusGone, "")
	g.want(t, b.get(t, link+"x"), http.StatusGone, "")
	g.want(t, b.choose(t, link, "short"), http.StatusBadRequest, "")
	if a := b.choose(t, link, password); a.status != http.StatusSeeOther || a.location != "/" {
		t.Errorf("chosen: %+v", a)
	}
	if a := b.get(t, "/"); !strings.Contains(a.body, "bob (operator)") {
		t.Errorf("home %d %s", a.status, a.body)
	}
	g.want(t, g.newTab().choose(t, link, "another horse battery"), http.StatusGone, "")
	g.in(t, "bob")
	// In place of a password that is there, it ends that at once, and asks for a second factor all the same.
	b.enrolled(t)
	link = alice.post(t, "/operators/password", "name", "bob", "password", "", "again", "", "reason", "forgot it").link(t, g.URL)
	g.want(t, b.get(t, "/"), http.StatusSeeOther, "")
	g.want(t, g.newTab().post(t, "/login", "name", "bob", "password", password), http.StatusUnauthorized, "")
	if a := b.choose(t, link, "another horse battery"); a.status != http.StatusSeeOther || !strings.HasPrefix(a.location, "/login/code") {
		t.Errorf("chosen: %+v", a)
	}
	if text := g.log.String(); strings.Contains(text, "token=") || strings.Contains(text, link[strings.LastIndex(link, "=")+1:]) {
		t.Errorf("the log has the link:\n%s", text)
	}
}

func TestOnesOwnPassword(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer})
	const other = "another horse battery"
	b, elsewhere := g.in(t, "vera"), g.in(t, "vera")
	g.want(t, b.get(t, "/me/password"), http.StatusOK, "")
	g.want(t, b.post(t, "/me/password", "old", "wrong horse battery", "password", other, "again", other), http.StatusForbidden, "")
	g.want(t, b.post(t, "/me/password", "old", password, "password", other, "again", other+"x"), http.StatusBadRequest, "")
	g.want(t, b.post(t, "/me/password", "old", password, "password", "short", "again", "short"), http.StatusBadRequest, "")
	g.want(t, elsewhere.get(t, "/"), http.StatusOK, "")
	if a := b.post(t, "/me/password", "old", password, "password", other, "again", other); a.status != http.StatusSeeOther || a.location != "/me" {
		t.Errorf("changed: %+v", a)
	}
	g.want(t, b.get(t, "/"), http.StatusOK, "")
	g.want(t, elsewhere.get(t, "/"), http.StatusSeeOther, "")
	g.want(t, g.newTab().post(t, "/login", "name", "vera", "password", other), http.StatusSeeOther, "")
	// Guesses at it are bounded as those at the log-in are.
	tries := 0
	for ; tries < 30 && b.post(t, "/me/password", "old", "wrong horse battery", "password", password, "again", password).status == http.StatusForbidden; tries++ {
	}
	if tries > 10 {
		t.Errorf("%d wrong passwords were tried", tries)
	}
	if e := g.trail(t); len(e) != 1 || e[0].Action != tasks.ActionOperatorPassword || e[0].By != "operator vera" {
		t.Errorf("trail %+v", e)
	}
}

func TestSessionsOnTheSite(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleAdmin, "vera": tasks.RoleViewer})
	alice, one, two, three := g.in(t, "alice"), g.in(t, "vera"), g.in(t, "vera"), g.in(t, "vera")
	ids := func(b *tab, path string) []string {
		t.Helper()
		a := b.get(t, path)
		for name, value := range b.cookies {
			if value != "1" && strings.Contains(a.body, value) {
				t.Errorf("%s has the cookie %s", path, name)
			}
		}
		var found []string
		for _, m := range regexp.MustCompile(`sessions/end\?id=([0-9a-f]{16})(?:&amp;name=vera)?"`).FindAllStringSubmatch(a.body, -1) {
			found = append(found, m[1])
		}
		return found
	}
	mine := ids(one, "/me")
	if all := ids(alice, "/operators/sessions"); len(mine) != 3 || len(all) != 3 || len(ids(alice, "/operators/sessions?name=vera")) != 3 {
		t.Fatalf("vera sees %v, an admin %v", mine, all)
	}
	// Of oneself: one by one, or all others. Nobody ends somebody else's here.
	g.want(t, one.get(t, "/me/sessions/end?id="+mine[1]), http.StatusOK, "")
	g.want(t, one.get(t, "/me/sessions/end?id=0000000000000000"), http.StatusNotFound, "")
	g.want(t, one.get(t, "/me/sessions/end"), http.StatusOK, "")
	aliceID := g.db.Operators.SessionID(alice.cookies["__Host-batchreset"])
	g.want(t, one.post(t, "/me/sessions/end", "id", aliceID), http.StatusSeeOther, "")
	g.want(t, alice.get(t, "/"), http.StatusOK, "")
	g.want(t, one.post(t, "/me/sessions/end", "id", g.db.Operators.SessionID(two.cookies["__Host-batchreset"])), http.StatusSeeOther, "")
	g.want(t, two.get(t, "/"), http.StatusSeeOther, "")
	g.want(t, three.get(t, "/"), http.StatusOK, "")
	g.want(t, one.post(t, "/me/sessions/end", "id", ""), http.StatusSeeOther, "")
	g.want(t, three.get(t, "/"), http.StatusSeeOther, "")
	g.want(t, one.get(t, "/"), http.StatusOK, "")
	// An admin ends all.
	g.want(t, alice.get(t, "/operators/sessions/end?name=vera"), http.StatusOK, "")
	g.want(t, alice.post(t, "/operators/sessions/end", "name", "vera", "id", "", "reason", "a lost laptop"), http.StatusSeeOther, "")
	g.want(t, one.get(t, "/"), http.StatusSeeOther, "")
	g.want(t, alice.get(t, "/operators/sessions/end?name=vera"), http.StatusNotFound, "")
	trail := g.trail(t)
	if len(trail) != 3 || trail[2].Action != tasks.ActionEndSession || trail[2].Detail != "every session of vera" || trail[2].Reason != "a lost laptop" || trail[1].Detail != "every other session of vera" {
		t.Errorf("trail %+v", trail)
	}
}

// With the documented Redis users a site may not write operators. It says so, and what to do.
func TestASiteThatMustNotWriteOperators(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleAdmin, "bob": tasks.RoleViewer})
	ctx := t.Context()
	if err := g.rdb.Do(ctx, "ACL", "SETUSER", "api", "on", ">secret", "%R~reset:*", "~reset:session:*", "~reset:audit", "~asynq:*", "&*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	db, err := redisdb.Open(ctx, redisdb.Options{URL: "redis://api:secret@" + g.rdb.Options().Addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	g.db = db
	g = newGuardedOn(t, g, ops.Config{})
	alice := g.in(t, "alice")
	const other = "another horse battery"
	for _, form := range [][]string{
		{"/operators/add", "name", "vera", "role", "viewer", "password", other, "again", other, "reason", ""},
		{"/operators/role", "name", "bob", "role", "admin", "reason", ""},
		{"/operators/password", "name", "bob", "password", other, "again", other, "reason", ""},
		{"/operators/remove", "name", "bob", "reason", ""},
		{"/me/password", "old", password, "password", other, "again", other},
	} {
		if a := alice.post(t, form[0], form[1:]...); a.status != http.StatusConflict || !strings.Contains(a.body, "must not write operators") {
			t.Errorf("%s: %d %s", form[0], a.status, a.body)
		}
	}
	g.want(t, alice.get(t, "/operators/sessions"), http.StatusOK, "")
	if trail := g.trail(t); len(trail) != 0 {
		t.Errorf("trail %+v", trail)
	}
	// With the rights that deploy/README.md names, it does all that.
	if err := g.rdb.Do(ctx, "ACL", "SETUSER", "api", "~reset:operators", "~reset:first:*").Err(); err != nil {
		t.Fatal(err)
	}
	g.want(t, alice.post(t, "/operators/add", "name", "vera", "role", "viewer", "password", other, "again", other, "reason", ""), http.StatusSeeOther, "")
	g.want(t, alice.post(t, "/operators/role", "name", "vera", "role", "admin", "reason", ""), http.StatusSeeOther, "")
	g.want(t, alice.post(t, "/operators/remove", "name", "vera", "reason", ""), http.StatusSeeOther, "")
	alice.post(t, "/operators/password", "name", "bob", "password", "", "again", "", "reason", "").link(t, g.URL)
	alice.enrolled(t)
}

func TestOperatorsInABrowser(t *testing.T) {
	issuer := newStandIn(t)
	g := newGuardedAs(t, ops.Config{Issuer: issuer.config(new(moving))}, map[string]tasks.Role{"alice": tasks.RoleAdmin, "vera": tasks.RoleViewer})
	codes := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ahead, err := time.ParseDuration(r.URL.Query().Get("ahead") + "s")
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write([]byte(codeAt(t, r.URL.Query().Get("secret"), time.Now().Add(ahead)))) // to a page that goes on or fails
	}))
	t.Cleanup(codes.Close)
	b := g.newTab()
	b.get(t, b.authorize(t, "/"))
	browsertest.Script(t, "../..", "testdata/operators.js", g.URL, password, codes.URL)
}
