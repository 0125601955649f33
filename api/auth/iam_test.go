package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/cmd/harness/faketime"
	"batchreset/tasks"
)

// keystone stands in for a token service; it answers as Keystone 22 does, which TestKeystone sees.
type keystone struct {
	mu     sync.Mutex
	tokens map[string]keystoneToken
	own    int // tokens given to this service
	refuse bool
	answer func(w http.ResponseWriter) bool // instead of what would be said

	asked atomic.Int32 // about tokens of others
}

type keystoneToken struct {
	project, user string
	roles         []string
	expires       time.Time
}

func (k *keystone) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.answer != nil && k.answer(w) {
		return
	}
	say := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			panic(err) // maps and texts always encode
		}
	}
	if r.URL.Path != "/v3/auth/tokens" {
		say(http.StatusNotFound, nil)
		return
	}
	if r.Method == http.MethodPost {
		if k.refuse {
			say(http.StatusUnauthorized, nil)
			return
		}
		k.own++
		w.Header().Set("X-Subject-Token", fmt.Sprintf("own-%d", k.own))
		say(http.StatusCreated, map[string]any{"token": map[string]any{"expires_at": time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z")}})
		return
	}
	if r.Header.Get("X-Auth-Token") != fmt.Sprintf("own-%d", k.own) {
		say(http.StatusUnauthorized, nil)
		return
	}
	k.asked.Add(1)
	t, found := k.tokens[r.Header.Get("X-Subject-Token")]
	if !found {
		say(http.StatusNotFound, map[string]any{"error": map[string]any{"code": 404, "message": "Could not find token", "title": "Not Found"}})
		return
	}
	roles := []map[string]string{}
	for _, role := range t.roles {
		roles = append(roles, map[string]string{"id": "0", "name": role})
	}
	token := map[string]any{
		"expires_at": t.expires.UTC().Format("2006-01-02T15:04:05.000000Z"), "audit_ids": []string{"audit-1"}, "user": map[string]any{"id": "u1", "name": t.user}, "roles": roles,
	}
	if t.project != "" {
		token["project"] = map[string]any{"id": t.project, "name": "phones"}
	}
	say(http.StatusOK, map[string]any{"token": token})
}

func (k *keystone) change(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

type wall struct{}

func (wall) Now() time.Time { return time.Now() }

// newKeystone is a token service and an IAM that asks it, without a network, so that tests decide how
// time passes.
func newKeystone(t *testing.T) (*keystone, *IAM) {
	t.Helper()
	k := &keystone{tokens: map[string]keystoneToken{}}
	rules := IAMRules{Tenants: map[string]string{"p1": "acme"}, Roles: map[string][]tasks.Scope{"member": {tasks.ScopeSubmit, tasks.ScopeRead}, "boss": {tasks.ScopeRead, tasks.ScopeOperate}}}
	i := NewIAM("http://keystone.example:5000/v3/", IAMCredentials{User: "reset", Password: "secret", Project: "service"}, rules, wall{}, slog.New(slog.DiscardHandler))
	i.client.Transport = handlerTransport{k}
	return k, i
}

// handlerTransport answers requests with a handler.
type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

func TestATokenOfTheTokenService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, i := newKeystone(t)
		hour := time.Now().Add(time.Hour)
		k.tokens["good"] = keystoneToken{"p1", "alice", []string{"member", "boss", "unheard-of"}, hour}
		k.tokens["old"] = keystoneToken{"p1", "alice", []string{"member"}, time.Now().Add(-time.Second)}
		k.tokens["elsewhere"] = keystoneToken{"p2", "alice", []string{"member"}, hour}
		k.tokens["nowhere"] = keystoneToken{"", "alice", []string{"member"}, hour}
		token, err := i.Token(t.Context(), "good")
		if err != nil || token.Tenant != "acme" || token.Owner != "alice" || token.Kind != tasks.KindIAM || token.ID != "audit-1" || !token.ExpiresAt.Equal(hour.Truncate(time.Millisecond)) {
			t.Errorf("%+v, %v", token, err)
		}
		if got := fmt.Sprint(token.Scopes); got != "[submit read operate]" {
			t.Errorf("scopes %s", got)
		}
		if strings.Contains(token.Hash, "good") {
			t.Errorf("the handle tells the token: %s", token.Hash)
		}
		for secret, want := range map[string]tasks.Code{"old": tasks.TokenExpired, "elsewhere": tasks.Forbidden, "nowhere": tasks.Forbidden, "nobody's": tasks.BadToken} {
			if _, err := i.Token(t.Context(), secret); tasks.CodeOf(err) != want {
				t.Errorf("%s: %v, want %s", secret, err, want)
			}
		}
	})
}

// What the token service says of somebody is kept with their jobs, and shown.
func TestNamesOfTheTokenService(t *testing.T) {
	k, i := newKeystone(t)
	hour := time.Now().Add(time.Hour)
	for name, want := range map[string]tasks.Code{
		"": tasks.OK /* then the ID */, strings.Repeat("a", 128): tasks.OK, strings.Repeat("a", 129): tasks.Forbidden,
		"李雷 (ops)": tasks.OK, "alice\nbob": tasks.Forbidden, "alice\u202e": tasks.Forbidden, "\x1b[31malice": tasks.Forbidden,
	} {
		secret := fmt.Sprintf("of %x", name)
		k.tokens[secret] = keystoneToken{"p1", name, []string{"member"}, hour}
		if _, err := i.Token(t.Context(), secret); tasks.CodeOf(err) != want {
			t.Errorf("%.20q: %v, want %s", name, err, want)
		}
	}
	for _, id := range []string{"", "a\nb", strings.Repeat("a", 129)} {
		who := identity{ExpiresAt: hour, AuditIDs: []string{id}}
		who.User.Name, who.Project.ID = "alice", "p1"
		token, err := i.tokenOf(who, "secret")
		if err != nil || len(token.ID) != 16 {
			t.Errorf("audit ID %.20q: %+v, %v", id, token, err)
		}
	}
}

func TestOneQuestionForManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, i := newKeystone(t)
		k.tokens["good"] = keystoneToken{"p1", "alice", []string{"member"}, time.Now().Add(time.Hour)}
		many := func(secret string) {
			var g sync.WaitGroup
			for range 1000 {
				g.Go(func() { _, _ = i.Token(t.Context(), secret) })
			}
			g.Wait()
		}
		asked := func(what string, want int32) {
			t.Helper()
			if got := k.asked.Swap(0); got != want {
				t.Errorf("%s: asked %d times, want %d", what, got, want)
			}
		}
		many("good")
		asked("1,000 callers", 1)
		faketime.Pass(iamFresh - time.Second)
		many("good")
		asked("within the minute", 0)
		k.change(func() { delete(k.tokens, "good") }) // revoked
		faketime.Pass(time.Second)
		if _, err := i.Token(t.Context(), "good"); tasks.CodeOf(err) != tasks.BadToken {
			t.Errorf("revoked: %v", err)
		}
		asked("after the minute", 1)
		many("good")
		asked("refused", 0)
		k.change(func() {
			k.tokens["good"] = keystoneToken{"p1", "alice", []string{"member"}, time.Now().Add(15 * time.Second)}
		})
		faketime.Pass(iamRefused)
		many("good")
		asked("after ten seconds", 1)
		faketime.Pass(15 * time.Second)
		if _, err := i.Token(t.Context(), "good"); tasks.CodeOf(err) != tasks.TokenExpired {
			t.Errorf("it has expired since it was asked about: %v", err)
		}
	})
}

// Nobody is let in by what was known before, or by an answer that is not understood.
func TestATokenServiceThatIsAwayLetsNobodyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, i := newKeystone(t)
		k.tokens["good"] = keystoneToken{"p1", "alice", []string{"member"}, time.Now().Add(24 * time.Hour)}
		works := func(what string) {
			t.Helper()
			faketime.Pass(iamFresh)
			if _, err := i.Token(t.Context(), "good"); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		away := func(what string, answer func(w http.ResponseWriter) bool) {
			t.Helper()
			works("before " + what)
			k.change(func() { k.answer = answer })
			faketime.Pass(iamFresh)
			if _, err := i.Token(t.Context(), "good"); tasks.CodeOf(err) != tasks.IAMAway {
				t.Errorf("%s: %v", what, err)
			}
			k.change(func() { k.answer = nil })
			works("after " + what)
		}
		status := func(status int, body string) func(w http.ResponseWriter) bool {
			return func(w http.ResponseWriter) bool { w.WriteHeader(status); _, _ = w.Write([]byte(body)); return true }
		}
		away("500", status(500, "oops"))
		away("503", status(503, ""))
		away("403", status(403, `{"error":{"code":403}}`))
		away("a page", status(200, "<html>"))
		away("an empty answer", status(200, ""))
		away("another document", status(200, `{"user":{"name":"alice"}}`))
		away("a token without an end", status(200, `{"token":{"project":{"id":"p1"}}}`))
		away("a redirect", func(w http.ResponseWriter) bool {
			w.Header().Set("Location", "http://elsewhere.example/")
			w.WriteHeader(http.StatusFound)
			return true
		})

		works("before our own token ends")
		k.change(func() { k.own += 10 }) // as if it was revoked
		works("once our own token has ended")
		k.change(func() { k.own, k.refuse = k.own+10, true })
		faketime.Pass(iamFresh)
		if _, err := i.Token(t.Context(), "good"); tasks.CodeOf(err) != tasks.IAMAway {
			t.Errorf("our own credentials are refused: %v", err)
		}
	})
}

// Who waits with a token is asked about again, and sent away when it has been revoked. While the token
// service is away they are told nothing new, and others are.
func TestThoseWhoWaitWithATokenOfTheTokenService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, i := newKeystone(t)
		defer i.Close()
		k.tokens["good"] = keystoneToken{"p1", "alice", []string{"member"}, time.Now().Add(time.Hour)}
		token, err := i.Token(t.Context(), "good")
		if err != nil {
			t.Fatal(err)
		}
		callers := New(Config{IAM: i}, ourTokens{}, wall{}, slog.New(slog.DiscardHandler))
		handles := []string{token.Hash, iamHandle + "0000", "ours"}
		known := func() (held, doubtful bool) {
			t.Helper()
			found, err := callers.Known(t.Context(), handles)
			synctest.Wait() // whoever was asked has answered
			doubt, _ := errors.AsType[InDoubt](err)
			if err != nil && doubt == nil || found["ours"].Tenant != "acme" || len(doubt) > 1 {
				t.Fatalf("%+v, %v", found, err)
			}
			return found[token.Hash].Tenant == "acme", doubt[token.Hash] != nil
		}
		wants := func(what string, wantHeld, wantDoubt bool) {
			t.Helper()
			if held, doubt := known(); held != wantHeld || doubt != wantDoubt {
				t.Errorf("%s: holds %t, in doubt %t", what, held, doubt)
			}
		}
		wants("at once", true, false)
		faketime.Pass(2 * iamFresh)
		wants("after two minutes nobody has asked", false, true)
		wants("it was asked about", true, false)
		k.change(func() {
			k.answer = func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusBadGateway); return true }
		})
		faketime.Pass(iamFresh + time.Second)
		wants("away for a moment", true, false)
		faketime.Pass(iamGrace)
		wants("away", false, true)
		k.change(func() { k.answer = nil })
		known()
		wants("back", true, false)
		k.change(func() { delete(k.tokens, "good") })
		faketime.Pass(iamFresh)
		known()
		wants("revoked", false, false)
	})
}

// ourTokens are a store that has one token.
type ourTokens struct{ Store }

func (ourTokens) TokensByHash(context.Context, []string) (map[string]tasks.Token, error) {
	return map[string]tasks.Token{"ours": {Tenant: "acme"}}, nil
}
