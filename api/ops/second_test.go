package ops_test

import (
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"batchreset/api/ops"
	"batchreset/tasks"
)

var (
	shownSecret   = regexp.MustCompile(`name="secret" value="([A-Z2-7]{32})"`)
	shownRecovery = regexp.MustCompile(`<li><code>([A-Z2-7]{4} [A-Z2-7]{4} [A-Z2-7]{4} [A-Z2-7]{4})</code></li>`)
)

// in logs somebody in with a password alone.
func (g guarded) in(t *testing.T, name string) *tab {
	t.Helper()
	b := g.newTab()
	if a := b.post(t, "/login", "name", name, "password", password); a.status != http.StatusSeeOther || a.location != "/" {
		t.Fatalf("login: %+v", a)
	}
	return b
}

func codeAt(t *testing.T, secret string, at time.Time) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, at)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// enrolled sets up a second factor in a browser.
func (b *tab) enrolled(t *testing.T) (secret, code string, recovery []string) {
	t.Helper()
	shown := b.get(t, "/me/second")
	found := shownSecret.FindStringSubmatch(shown.body)
	if found == nil || !strings.Contains(html.UnescapeString(shown.body), `src="data:image/png;base64,`) {
		t.Fatalf("page %d %s", shown.status, shown.body)
	}
	secret = found[1]
	code = codeAt(t, secret, time.Now())
	done := b.post(t, "/me/second", "secret", secret, "code", code[:3]+" "+code[3:], "password", password)
	for _, match := range shownRecovery.FindAllStringSubmatch(done.body, -1) {
		recovery = append(recovery, match[1])
	}
	if done.status != http.StatusOK || len(recovery) != 10 {
		t.Fatalf("set up: %d %s", done.status, done.body)
	}
	return secret, code, recovery
}

// half gives the right password in a new browser.
func (g guarded) half(t *testing.T) *tab {
	t.Helper()
	b := g.newTab()
	if a := b.post(t, "/login", "name", "vera", "password", password, "next", "/jobs"); a.status != http.StatusSeeOther || a.location != "/login/code?next=%2Fjobs" {
		t.Fatalf("login: %+v", a)
	}
	return b
}

func TestASecondFactor(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer})
	elsewhere, b := g.in(t, "vera"), g.in(t, "vera")
	// It takes the password, and a code of this secret.
	shown := shownSecret.FindStringSubmatch(b.get(t, "/me/second").body)[1]
	g.want(t, b.post(t, "/me/second", "secret", shown, "code", codeAt(t, shown, time.Now()), "password", "wrong horse battery"), http.StatusForbidden, "")
	g.want(t, b.post(t, "/me/second", "secret", shown, "code", codeAt(t, shown, time.Now().Add(time.Hour)), "password", password), http.StatusBadRequest, "")
	g.want(t, b.post(t, "/me/second", "secret", "AAAA", "code", "000000", "password", password), http.StatusBadRequest, "")
	if o, _, err := g.db.Operators.Operator(t.Context(), "vera"); err != nil || o.Enrolled != "" {
		t.Fatalf("%+v, %v", o, err)
	}
	secret, code, recovery := b.enrolled(t)
	g.want(t, b.get(t, "/"), http.StatusOK, "") // this session goes on
	g.want(t, elsewhere.get(t, "/"), http.StatusSeeOther, "")
	if a := b.get(t, "/me"); !strings.Contains(a.body, "10 recovery codes left") {
		t.Errorf("account %s", a.body)
	}

	h := g.half(t)
	g.want(t, h.get(t, "/"), http.StatusSeeOther, "") // not in yet
	if a := h.get(t, "/login/code?next=%2Fjobs"); a.status != http.StatusOK || !strings.Contains(a.body, "one-time-code") {
		t.Errorf("page %d %s", a.status, a.body)
	}
	half := h.cookies["__Host-batchreset-half"]
	if a := (&tab{g, map[string]string{"__Host-batchreset": half}}).get(t, "/"); a.status != http.StatusSeeOther {
		t.Errorf("half a log-in is a session: %d", a.status)
	}
	for what, text := range map[string]string{"used when it was set up": code, "wrong": "000000", "no code": "abc", "a recovery code of nobody": "AAAA AAAA AAAA AAAA"} {
		if a := h.post(t, "/login/code", "code", text, "next", "/jobs"); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "The code is wrong, or was used before") {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	next := codeAt(t, secret, time.Now().Add(30*time.Second))
	if a := h.post(t, "/login/code", "code", next, "next", "/jobs"); a.status != http.StatusSeeOther || a.location != "/jobs" {
		t.Fatalf("the next code: %+v", a)
	}
	g.want(t, h.get(t, "/"), http.StatusOK, "")
	// The step is over, and the code used.
	h.cookies["__Host-batchreset-half"] = half
	g.want(t, h.post(t, "/login/code", "code", next, "next", "/"), http.StatusUnauthorized, "")
	second := g.half(t)
	g.want(t, second.post(t, "/login/code", "code", next, "next", "/"), http.StatusUnauthorized, "")
	g.want(t, second.post(t, "/login/code", "code", strings.ToLower(recovery[3]), "next", "https://evil.example"), http.StatusSeeOther, "a recovery code was used")
	g.want(t, second.get(t, "/"), http.StatusOK, "")
	g = newGuardedOn(t, g, ops.Config{}) // which has not counted these tries
	b.g, second.g = g, g
	third := g.half(t)
	g.want(t, third.post(t, "/login/code", "code", recovery[3], "next", "/"), http.StatusUnauthorized, "")
	if a := second.get(t, "/me"); !strings.Contains(a.body, "9 recovery codes left") {
		t.Errorf("account %s", a.body)
	}
	for _, kept := range []string{strings.ReplaceAll(recovery[3], " ", "")} {
		if all := g.rdb.HGet(t.Context(), "reset:operators", "vera").Val(); strings.Contains(all, kept) {
			t.Errorf("Redis has a recovery code: %s", all)
		}
	}

	// To do without it takes both.
	g.want(t, b.post(t, "/me/second/off", "password", password, "code", "000000"), http.StatusUnauthorized, "")
	g.want(t, b.post(t, "/me/second/off", "password", "wrong horse battery", "code", recovery[5]), http.StatusForbidden, "")
	if a := b.post(t, "/me/second/off", "password", password, "code", recovery[4]); a.status != http.StatusSeeOther || a.location != "/me" {
		t.Errorf("off: %+v", a)
	}
	g.want(t, b.get(t, "/"), http.StatusOK, "")
	g.want(t, second.get(t, "/"), http.StatusSeeOther, "")
	g.in(t, "vera")
	var did []string
	for _, e := range g.trail(t) {
		did = append(did, string(e.Action)+" by "+e.By+": "+e.Detail)
	}
	if got := strings.Join(did, "\n"); got != "operator-totp by operator vera: vera as viewer\noperator-totp-reset by operator vera: vera as viewer" {
		t.Errorf("trail:\n%s", got)
	}
}

func TestALostSecondFactor(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleAdmin, "bob": tasks.RoleOperator})
	bob, alice := g.in(t, "bob"), g.in(t, "alice")
	bob.enrolled(t)
	if a := alice.get(t, "/operators"); !strings.Contains(a.body, "operators/second?name=bob") {
		t.Errorf("operators %s", a.body)
	}
	g.want(t, alice.get(t, "/operators/second?name=bob"), http.StatusOK, "")
	g.want(t, alice.post(t, "/operators/second", "name", "bob", "reason", "lost his phone"), http.StatusSeeOther, "")
	g.want(t, bob.get(t, "/"), http.StatusSeeOther, "")
	g.in(t, "bob")
	alice.enrolled(t)
	g.want(t, alice.post(t, "/operators/second", "name", "alice", "reason", ""), http.StatusForbidden, "") // that takes her password
	if _, err := g.db.Operators.Unenrol(t.Context(), "alice", tasks.Actor{}); err != nil {                 // what the command does
		t.Fatal(err)
	}
	g.in(t, "alice")
}

func TestWhoTriesCodes(t *testing.T) {
	g := newGuardedAs(t, ops.Config{}.Frozen(), map[string]tasks.Role{"vera": tasks.RoleViewer})
	b := g.in(t, "vera")
	secret, _, recovery := b.enrolled(t)
	stranger := g.half(t) // who knows the password
	for n := range 10 {
		if a := stranger.post(t, "/login/code", "code", "000000", "next", "/"); a.status != http.StatusUnauthorized {
			t.Fatalf("try %d: %d", n, a.status)
		}
	}
	if a := stranger.post(t, "/login/code", "code", codeAt(t, secret, time.Now().Add(30*time.Second)), "next", "/"); a.status != http.StatusTooManyRequests || !strings.Contains(a.body, "Too many codes were tried") {
		t.Errorf("after that: %d %s", a.status, a.body)
	}
	// The operator's own device has tries of its own.
	own := g.newTab()
	for name, value := range b.cookies {
		if strings.HasPrefix(name, "__Host-batchreset-device-") {
			own.cookies[name] = value
		}
	}
	g.want(t, own.post(t, "/login", "name", "vera", "password", password), http.StatusSeeOther, "")
	g.want(t, own.post(t, "/login/code", "code", codeAt(t, secret, time.Now().Add(30*time.Second)), "next", "/"), http.StatusSeeOther, "")
	g.want(t, own.get(t, "/"), http.StatusOK, "")
	// And so has a recovery code.
	g.want(t, stranger.post(t, "/login/code", "code", recovery[0], "next", "/"), http.StatusSeeOther, "")
}
