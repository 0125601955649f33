package ops_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/api/browsertest"
	"batchreset/api/nginxtest"
	"batchreset/api/ops"
	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// closed is what nobody may see or do while there is no operator, nor a stranger ever.
var closed = [][2]string{
	{http.MethodGet, "/"},
	{http.MethodGet, "/jobs"},
	{http.MethodGet, "/tenants"},
	{http.MethodGet, "/audit"},
	{http.MethodGet, "/find?q=a"},
	{http.MethodGet, "/tenants/halt"},
	{http.MethodPost, "/tenants/halt"},
	{http.MethodPost, "/tenants/resume"},
	{http.MethodGet, "/operators"},
	{http.MethodGet, "/operators/add"},
	{http.MethodPost, "/operators/add"},
	{http.MethodPost, "/operators/remove"},
	{http.MethodGet, "/operators/sessions"},
	{http.MethodGet, "/me"},
	{http.MethodPost, "/me/password"},
	{http.MethodPost, "/me/second"},
	{http.MethodGet, "/asynq/"},
	{http.MethodGet, "/asynq/api/queues"},
	{http.MethodPost, pause},
	{http.MethodDelete, "/asynq/api/queues/reset-0"},
	{http.MethodGet, "/debug/pprof/"},
	{http.MethodGet, "/debug/pprof/cmdline"},
	{http.MethodGet, "/debug/pprof/heap"},
	{http.MethodPost, "/debug/pprof/symbol"},
}

// open is what everybody may see.
var open = []string{"/healthz", "/readyz", "/metrics", "/login", "/site/site.css", "/site/live.js"}

func (g guarded) wantClosed(t *testing.T, header ...string) {
	t.Helper()
	for _, request := range closed {
		if a := g.ask(t, request[0], request[1], nil, url.Values{"all": {"true"}}, header...); a.status != http.StatusForbidden {
			t.Errorf("%s %s with %v: %d", request[0], request[1], header, a.status)
		}
	}
	for _, path := range open {
		g.want(t, g.ask(t, http.MethodGet, path, nil, nil, header...), http.StatusOK, "")
	}
	if all, err := g.db.Policies.Policy(t.Context(), ""); err != nil || all.OperatorHalt != nil || g.paused(t) {
		t.Errorf("policy of all %+v, %v; paused %t", all, err, g.paused(t))
	}
}

func TestWithoutOperatorsNothingIsOpen(t *testing.T) {
	g := newGuardedAs(t, ops.Config{}, nil)
	g.wantClosed(t)
	if page := g.ask(t, http.MethodGet, "/", nil, nil); !strings.Contains(page.body, "There is no operator yet") || !strings.Contains(page.body, "standard output") {
		t.Errorf("the page does not say what to do: %s", page.body)
	}
}

func TestWhatAProxySendsIsNotFromHere(t *testing.T) {
	g := newGuarded(t, nil)
	g.want(t, g.ask(t, http.MethodGet, "/", nil, nil), http.StatusOK, "")
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "x-forwarded-proto", "X-Forwarded-Anything", "Via", "X-Real-IP", "X-Original-Forwarded-For", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP"} {
		g.wantClosed(t, header, "")
		g.wantClosed(t, header, "127.0.0.1")
	}
	g.wantClosed(t, "Host", "evil.example")
	g.wantClosed(t, "Host", "127.0.0.1.evil.example:9090")
	g.want(t, g.ask(t, http.MethodGet, "/", nil, nil, "Host", "localhost:9090"), http.StatusOK, "")
	g.want(t, g.ask(t, http.MethodGet, "/", nil, nil, "Host", "[::1]:9090"), http.StatusOK, "")
}

func TestSomebodyElsewhereIsNotHere(t *testing.T) {
	g := newGuarded(t, nil)
	for _, row := range []struct {
		listener, from string
		want           int
	}{
		{"127.0.0.1", "127.0.0.1:4711", http.StatusOK},
		{"10.0.0.5", "127.0.0.1:4711", http.StatusForbidden},
		{"127.0.0.1", "10.0.0.7:4711", http.StatusForbidden},
		{"127.0.0.1", "@", http.StatusForbidden},
	} {
		at := net.Addr(&net.TCPAddr{IP: net.ParseIP(row.listener), Port: 9090})
		r := httptest.NewRequestWithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, at), http.MethodGet, "/tenants", nil)
		r.Host, r.RemoteAddr = "localhost:9090", row.from
		w := httptest.NewRecorder()
		g.Config.Handler.ServeHTTP(w, r)
		if w.Code != row.want {
			t.Errorf("at %s from %s: %d, want %d", row.listener, row.from, w.Code, row.want)
		}
	}
}

// With nginx's defaults a request looks as if it came from here, for here.
func TestBehindNginxNobodyIsHere(t *testing.T) {
	for name, cfg := range map[string]ops.Config{"api and worker": {}, "dev": {OpenHere: true}} {
		t.Run(name, func(t *testing.T) {
			g := newGuardedAs(t, cfg, nil)
			direct := g.URL
			for _, headers := range []string{
				"", "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_http_version 1.1;", "proxy_set_header X-Real-IP $remote_addr; proxy_http_version 1.1;",
			} {
				g.URL = nginxtest.Start(t, "location / { proxy_pass "+direct+"; "+headers+" }")
				g.wantClosed(t)
			}
		})
	}
}

// invite makes a link's secret.
func (g guarded) invite(t *testing.T) string {
	t.Helper()
	secret := rand.Text()
	if invited, err := g.db.Operators.InviteFirst(t.Context(), secret, time.Hour); err != nil || !invited {
		t.Fatalf("%t, %v", invited, err)
	}
	return secret
}

// first fills in the form for the first operator.
func (g guarded) first(t *testing.T, secret, name, password, again string) answer {
	t.Helper()
	return g.ask(t, http.MethodPost, "/first-operator", nil, url.Values{"token": {secret}, "name": {name}, "password": {password}, "again": {again}})
}

func TestALinkMakesTheFirstOperator(t *testing.T) {
	t.Parallel()
	g := newGuardedAs(t, ops.Config{}, nil)
	used, other := g.invite(t), g.invite(t)
	link := strings.TrimPrefix(login.FirstOperatorLink(g.URL, used), g.URL)
	for range 2 { // a program may have looked at it first
		if page := g.ask(t, http.MethodGet, link, nil, nil); page.status != http.StatusOK || !strings.Contains(page.body, used) {
			t.Fatalf("the form: %+v", page)
		}
	}
	for _, key := range g.rdb.Keys(t.Context(), "*first*").Val() {
		if got := g.rdb.ZRange(t.Context(), key, 0, -1).String(); strings.Contains(got, used) {
			t.Errorf("the secret is in Redis: %s", got)
		}
		if left := g.rdb.PTTL(t.Context(), key).Val(); left <= 0 || left > time.Hour {
			t.Errorf("%s stays for %s", key, left)
		}
	}
	g.want(t, g.ask(t, http.MethodGet, "/first-operator?token=guessed", nil, nil), http.StatusGone, "")
	g.want(t, g.ask(t, http.MethodGet, "/first-operator", nil, nil), http.StatusGone, "")
	g.want(t, g.first(t, "guessed", "alice", password, password), http.StatusGone, "")
	for _, row := range [][4]string{
		{"al ice", password, password, "is not a name"},
		{"", password, password, "is not a name"},
		{"alice", "eleven char", "eleven char", "at least 12"},
		{"alice", password, "another", "The passwords differ"},
	} {
		if a := g.first(t, used, row[0], row[1], row[2]); a.status != http.StatusBadRequest || !strings.Contains(a.body, row[3]) {
			t.Errorf("%v: %+v", row, a)
		}
	}
	if len(g.trail(t)) != 0 {
		t.Errorf("trail %+v", g.trail(t))
	}

	in := g.first(t, used, "alice", password, password)
	if in.status != http.StatusSeeOther || in.location != "/" || in.cookie == nil {
		t.Fatalf("the first operator: %+v", in)
	}
	if home := g.ask(t, http.MethodGet, "/", in.cookie, nil); !strings.Contains(home.body, "alice (admin)") {
		t.Errorf("is not logged in: %.300s", home.body)
	}
	if trail := g.trail(t); len(trail) != 1 || trail[0].Action != tasks.ActionAddOperator || trail[0].Detail != "alice as admin" || trail[0].From != "127.0.0.1" {
		t.Errorf("trail %+v", trail)
	}
	g.login(t, "alice")

	// No link works from now on, not even once there is no operator any more.
	for _, secret := range []string{used, other} {
		if a := g.ask(t, http.MethodGet, "/first-operator?token="+secret, nil, nil); a.location != "/login" {
			t.Errorf("with an operator the link leads to %+v", a)
		}
	}
	if a := g.first(t, other, "mallory", password, password); a.location != "/login" || a.cookie != nil {
		t.Errorf("a second operator: %+v", a)
	}
	if invited, err := g.db.Operators.InviteFirst(t.Context(), rand.Text(), time.Hour); invited || err != nil {
		t.Errorf("a link beside an operator: %t, %v", invited, err)
	}
	if _, err := g.db.Operators.Forced().Remove(t.Context(), "alice", tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{used, other} {
		g.want(t, g.first(t, secret, "mallory", password, password), http.StatusGone, "")
	}
	if strings.Contains(g.log.String(), used) || strings.Contains(g.log.String(), other) {
		t.Errorf("a secret is in the log:\n%s", g.log)
	}
}

func TestALinkIsGoodForAWhile(t *testing.T) {
	g := newGuardedAs(t, ops.Config{}, nil)
	old, fresh := g.invite(t), g.invite(t)
	key := g.rdb.Keys(t.Context(), "reset:first:*").Val()[0]
	ends := float64(time.Now().Add(-time.Second).UnixMilli())
	for _, hash := range g.rdb.ZRange(t.Context(), key, 0, -1).Val() {
		g.rdb.ZAddXX(t.Context(), key, redis.Z{Score: ends, Member: hash})
	}
	g.want(t, g.ask(t, http.MethodGet, "/first-operator?token="+old, nil, nil), http.StatusGone, "")
	if added, err := g.db.Operators.AddFirstOperator(t.Context(), fresh, tasks.Operator{Name: "mallory"}, tasks.Actor{}); added || err != nil {
		t.Errorf("added %t, %v", added, err)
	}
	third := g.invite(t)
	if n := g.rdb.ZCard(t.Context(), key).Val(); n != 1 {
		t.Errorf("%d links are kept", n)
	}
	g.want(t, g.ask(t, http.MethodGet, "/first-operator?token="+third, nil, nil), http.StatusOK, "")
}

// An operator who was added by command ends every link.
func TestAnOperatorEndsTheLinks(t *testing.T) {
	g := newGuardedAs(t, ops.Config{}, nil)
	secret := g.invite(t)
	_, err := g.db.Operators.Add(t.Context(), tasks.Operator{Name: "alice", Role: tasks.RoleOperator, PasswordHash: "x"}, tasks.Actor{})
	_, removed := g.db.Operators.Remove(t.Context(), "alice", tasks.Actor{})
	if err := errors.Join(err, removed); err != nil {
		t.Fatal(err)
	}
	g.want(t, g.first(t, secret, "mallory", password, password), http.StatusGone, "")
}

// Several processes print a link each; several people open them.
func TestOnlyOneBecomesTheFirstOperator(t *testing.T) {
	g := newGuardedAs(t, ops.Config{}, nil)
	secrets := []string{g.invite(t), g.invite(t)}
	var added sync.Map
	var wait sync.WaitGroup
	for n, name := range []string{"alice", "bob", "carol", "dave", "erin", "frank"} {
		wait.Go(func() {
			o := tasks.Operator{Name: name, Role: tasks.RoleOperator, PasswordHash: name}
			done, err := g.db.Operators.AddFirstOperator(t.Context(), secrets[n%2], o, tasks.Actor{By: name})
			if err != nil {
				t.Error(err)
			}
			if done {
				added.Store(name, true)
			}
		})
	}
	wait.Wait()
	operators, err := g.db.Operators.List(t.Context())
	if err != nil || len(operators) != 1 {
		t.Fatalf("operators %+v, %v", operators, err)
	}
	winner := operators[0].Name
	added.Range(func(name, _ any) bool {
		if name != winner {
			t.Errorf("%s was told to be added, too", name)
		}
		return true
	})
	if trail := g.trail(t); len(trail) != 1 || trail[0].By != winner {
		t.Errorf("%s was added, trail %+v", winner, trail)
	}
	// The answer may be lost, and the client library asks again.
	o := tasks.Operator{Name: winner, Role: tasks.RoleOperator, PasswordHash: winner}
	if again, err := g.db.Operators.AddFirstOperator(t.Context(), "used", o, tasks.Actor{}); !again || err != nil {
		t.Errorf("the same again: %t, %v", again, err)
	}
}

func TestTheFirstOperatorInABrowser(t *testing.T) {
	g := newGuardedAs(t, ops.Config{}, nil)
	_, port, err := net.SplitHostPort(g.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	browsertest.Script(t, "../..", "testdata/first.js", g.URL, "http://ops.example:"+port, g.invite(t), password)
}
