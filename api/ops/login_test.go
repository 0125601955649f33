package ops_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/hibiken/asynqmon"
	"github.com/redis/go-redis/v9"
	"golang.org/x/crypto/bcrypt"

	"batchreset/api/browsertest"
	"batchreset/api/ops"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

const password = "correct horse battery"

// guarded is an operators' site with a queue, on a Redis of its own.
type guarded struct {
	*httptest.Server
	job string
	db  *redisdb.DB
	rdb *redis.Client
	log *logged
}

// logged is a log that many write to.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// newGuarded makes the site with operators by name. Without any it is open to this machine.
func newGuarded(t *testing.T, operators map[string]tasks.Role) guarded {
	t.Helper()
	return newGuardedAs(t, ops.Config{OpenHere: true}, operators)
}

// newGuardedAs is newGuarded with other settings.
func newGuardedAs(t *testing.T, cfg ops.Config, operators map[string]tasks.Role) guarded {
	t.Helper()
	server := redistest.Start(t)
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := redis.ParseURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(parsed)
	t.Cleanup(func() { _ = errors.Join(db.Close(), rdb.Close()) })
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for name, role := range operators {
		if _, err := db.Operators.Add(t.Context(), tasks.Operator{Name: name, Role: role, PasswordHash: string(hash)}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	// A job with one item that failed and two that wait.
	job, err := db.Records.Submit(t.Context(), tasks.Submission{
		Tenant: "acme", InstanceIDs: []string{"phone-1", "phone-2", "phone-3"}, AllowUnregistered: true, Reason: "recall", Labels: map[string]string{"site": "Köln <1>"},
		Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	})
	if err != nil {
		t.Fatal(err)
	}
	d := job.Deliveries()[0]
	if _, err := db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Attempts.Finish(t.Context(), d, "t", tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005", Message: "Phone <not> found."}, true); err != nil {
		t.Fatal(err)
	}
	client := asynq.NewClientFromRedisClient(rdb)
	if _, err := client.EnqueueContext(t.Context(), asynq.NewTask("x", nil), asynq.Queue("reset-0")); err != nil {
		t.Fatal(err)
	}
	g := guarded{job: job.ID, db: db, rdb: rdb, log: new(logged)}
	rdb.Del(t.Context(), "reset:audit")
	cfg.Redis, cfg.Store, cfg.TraceURL = asynqmon.Options{RedisConnOpt: db.Redis}, storeOf(db), "https://traces.example/{trace_id}"
	cfg.Webhooks = sender{db}
	cfg.Log = slog.New(slog.NewJSONHandler(g.log, nil))
	g.Server = httptest.NewServer(ops.New(cfg))
	t.Cleanup(g.Close)
	return g
}

// trail is what was decided.
func (g guarded) trail(t *testing.T) []tasks.AuditEntry {
	t.Helper()
	return slices.DeleteFunc(g.wholeTrail(t), func(e tasks.AuditEntry) bool {
		return e.Action == tasks.ActionLogin || e.Action == tasks.ActionFailedLogin || e.Action == tasks.ActionLogout
	})
}

func (g guarded) wholeTrail(t *testing.T) (found []tasks.AuditEntry) {
	t.Helper()
	if err := g.db.Audit.Trail(t.Context(), tasks.AuditFilter{}, func(e tasks.AuditEntry) error {
		found = append(found, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// answer is what a request came to.
type answer struct {
	status   int
	location string       // where a browser goes from here
	cookie   *http.Cookie // that was set
	header   http.Header
	body     string
}

// ask sends a request as a browser with the cookie would. Redirects are not followed.
func (g guarded) ask(t *testing.T, method, path string, session *http.Cookie, form url.Values, header ...string) answer {
	t.Helper()
	if form != nil {
		header = append(header, "Content-Type", "application/x-www-form-urlencoded")
	}
	return g.send(t, method, path, session, form.Encode(), header...)
}

func (g guarded) send(t *testing.T, method, path string, session *http.Cookie, text string, header ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if session != nil {
		r.AddCookie(&http.Cookie{Name: session.Name, Value: session.Value})
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	a := answer{status: response.StatusCode, header: response.Header, body: string(body)}
	if to, err := response.Location(); err == nil {
		a.location = to.RequestURI()
	}
	if cookies := response.Cookies(); len(cookies) > 0 {
		a.cookie = cookies[0]
	}
	return a
}

func (g guarded) login(t *testing.T, name string) *http.Cookie {
	t.Helper()
	a := g.ask(t, http.MethodPost, "/login", nil, url.Values{"name": {name}, "password": {password}})
	if a.status != http.StatusSeeOther || a.cookie == nil {
		t.Fatalf("login: %+v", a)
	}
	return a.cookie
}

func (g guarded) want(t *testing.T, a answer, status int, logs string) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %.200s", a.status, status, a.body)
	}
	if logs != "" && !strings.Contains(g.log.String(), logs) {
		t.Errorf("%q is not in the log:\n%s", logs, g.log)
	}
}

const pause = "/asynq/api/queues/reset-0:pause"

func (g guarded) paused(t *testing.T) bool {
	t.Helper()
	info, err := g.db.Redis.NewInspector().GetQueueInfo("reset-0")
	if err != nil {
		t.Fatal(err)
	}
	return info.Paused
}

func TestLogin(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator})
	page := g.ask(t, http.MethodGet, "/asynq/queues/reset-0?tab=1", nil, nil)
	g.want(t, page, http.StatusSeeOther, "")
	if page.location != "/login?next=%2Fasynq%2Fqueues%2Freset-0%3Ftab%3D1" {
		t.Errorf("sent to %s", page.location)
	}
	form := url.Values{"name": {"alice"}, "password": {password}, "next": {"/asynq/queues/reset-0?tab=1"}}
	in := g.ask(t, http.MethodPost, "/login", nil, form)
	if in.status != http.StatusSeeOther || in.location != "/asynq/queues/reset-0?tab=1" {
		t.Fatalf("login: %+v", in)
	}
	c := in.cookie
	if c.Name != "__Host-batchreset" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 0 {
		t.Errorf("cookie %+v", c)
	}
	for _, key := range g.rdb.Keys(t.Context(), "*").Val() {
		if strings.Contains(key, c.Value) {
			t.Errorf("the session's secret is in Redis: %s", key)
		}
	}
	home := g.ask(t, http.MethodGet, "/", c, nil)
	g.want(t, home, http.StatusOK, `"msg":"login","operator":"alice"`)
	if !strings.Contains(home.body, "alice (operator)") || !strings.Contains(home.body, "Profiles") {
		t.Errorf("home page %s", home.body)
	}
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin",
	} {
		if got := home.header.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	g.want(t, g.ask(t, http.MethodPost, pause, c, nil), http.StatusNoContent, "")
	if !g.paused(t) || len(g.trail(t)) != 1 || g.trail(t)[0].By != "operator alice" {
		t.Errorf("paused %t, trail %+v", g.paused(t), g.trail(t))
	}
	out := g.ask(t, http.MethodPost, "/logout", c, nil)
	if out.status != http.StatusSeeOther || out.cookie == nil || out.cookie.MaxAge >= 0 {
		t.Errorf("logout: %+v", out)
	}
	g.want(t, g.ask(t, http.MethodGet, "/", c, nil), http.StatusSeeOther, "")
}

func TestWhoIsRefused(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator, "vera": tasks.RoleViewer})
	alice, vera := g.login(t, "alice"), g.login(t, "vera")
	refused := func(name string, status int, logs, method, path string, session *http.Cookie, header ...string) {
		t.Run(name, func(t *testing.T) {
			g.want(t, g.ask(t, method, path, session, nil, header...), status, logs)
			if g.paused(t) {
				t.Error("the queue is paused all the same")
			}
		})
	}
	crossSite := []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}
	refused("a form on another site", http.StatusForbidden, "it comes from another site", http.MethodPost, pause, alice, crossSite...)
	refused("a login from another site", http.StatusForbidden, `"path":"/login"`, http.MethodPost, "/login", nil, crossSite...)
	refused("no cookie", http.StatusUnauthorized, "Log in first", http.MethodPost, pause, nil)
	refused("a cookie that nobody has given", http.StatusUnauthorized, "", http.MethodPost, pause, &http.Cookie{Name: alice.Name, Value: "guessed"})
	refused("a viewer who changes something", http.StatusForbidden, `"operator":"vera","reason":"Viewers may look, not change."`, http.MethodPost, pause, vera)
	refused("a viewer who deletes something", http.StatusForbidden, "", http.MethodDelete, "/asynq/api/queues/reset-0", vera)
	for _, path := range []string{"/jobs/" + g.job + "/cancel", "/jobs/" + g.job + "/retry", "/tenants/halt", "/tenants/resume"} {
		refused("a viewer at "+path, http.StatusForbidden, `"path":"`+path+`"`, http.MethodPost, path, vera)
		refused("a viewer who is asked at "+path, http.StatusForbidden, "", http.MethodGet, path, vera)
		refused("nobody at "+path, http.StatusUnauthorized, "", http.MethodPost, path, nil)
		refused("another site at "+path, http.StatusForbidden, "", http.MethodPost, path, alice, crossSite...)
	}
	if job, err := g.db.Jobs.Job(t.Context(), g.job); err != nil || job.Counts.Pending != 2 {
		t.Errorf("the job was changed: %+v, %v", job, err)
	}
	refused("a viewer at the profiles", http.StatusForbidden, "", http.MethodGet, "/debug/pprof/", vera)
	refused("nobody at the profiles", http.StatusSeeOther, "", http.MethodGet, "/debug/pprof/", nil)
	refused("nobody at the API, by script", http.StatusUnauthorized, "", http.MethodGet, "/asynq/api/queues", nil, "Sec-Fetch-Dest", "empty")
	g.want(t, g.ask(t, http.MethodGet, "/asynq/api/queues", vera, nil), http.StatusOK, "")
	if a := g.ask(t, http.MethodGet, "/asynq/", vera, nil); !strings.Contains(a.body, "READ_ONLY") {
		t.Errorf("asynqmon does not say that it is read-only: %.300s", a.body)
	}

	g.rdb.Del(t.Context(), g.rdb.Keys(t.Context(), "reset:session:*").Val()...) // as if their time were over
	refused("an expired session", http.StatusUnauthorized, "", http.MethodPost, pause, alice)
	if trail := g.trail(t); len(trail) != 0 {
		t.Errorf("trail %+v", trail)
	}
	for _, open := range []string{"/healthz", "/readyz", "/metrics", "/login", "/site/site.css"} {
		g.want(t, g.ask(t, http.MethodGet, open, nil, nil), http.StatusOK, "")
	}
}

func TestLoginInABrowser(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator, "vera": tasks.RoleViewer})
	browsertest.Script(t, "../..", "testdata/login.js", g.URL, password, g.job)
	var decided []string
	for _, e := range g.trail(t) {
		decided = append(decided, fmt.Sprintf("%s by %s for %s: %v %s", e.Action, e.By, e.Tenant, e.InstanceIDs, e.Reason))
	}
	want := []string{
		"cancel by operator alice for acme: [phone-2 phone-3] wrong list",
		"retry by operator alice for acme: [phone-2 phone-3] ",
		"halt by operator alice for acme: [] to be safe",
		"resume by operator alice for acme: [] checked",
	}
	if strings.Join(decided, "\n") != strings.Join(want, "\n") {
		t.Errorf("trail:\n%s", strings.Join(decided, "\n"))
	}
}

func TestASessionEndsWithItsOperator(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator, "bob": tasks.RoleOperator, "carol": tasks.RoleOperator})
	alice, bob, carol := g.login(t, "alice"), g.login(t, "bob"), g.login(t, "carol")
	_, err := g.db.Operators.SetPassword(t.Context(), "alice", "another", tasks.Actor{})
	for _, name := range []string{"bob", "carol"} {
		_, removed := g.db.Operators.Remove(t.Context(), name, tasks.Actor{})
		err = errors.Join(err, removed)
	}
	bobAgain, _, read := g.db.Operators.Operator(t.Context(), "alice")
	bobAgain.Name, bobAgain.Role = "bob", tasks.RoleViewer
	_, added := g.db.Operators.Add(t.Context(), bobAgain, tasks.Actor{})
	if err := errors.Join(err, read, added); err != nil {
		t.Fatal(err)
	}
	for _, session := range []*http.Cookie{alice, bob, carol} {
		g.want(t, g.ask(t, http.MethodGet, "/", session, nil), http.StatusSeeOther, "")
	}
}

func TestWithoutOperatorsTheSiteIsForItsMachine(t *testing.T) {
	g := newGuarded(t, nil)
	home := g.ask(t, http.MethodGet, "/", nil, nil)
	g.want(t, home, http.StatusOK, "")
	if !strings.Contains(home.body, "There is no login yet") {
		t.Errorf("home page %s", home.body)
	}
	g.want(t, g.ask(t, http.MethodPost, pause, nil, nil), http.StatusNoContent, "")
	trail := g.trail(t)
	last := trail[len(trail)-1]
	if !g.paused(t) || last.Action != tasks.ActionDashboard || last.By != "dashboard" || last.From != "127.0.0.1" || last.Detail != "POST "+pause {
		t.Errorf("entry %+v", last)
	}
	resume := strings.Replace(pause, ":pause", ":resume", 1)
	g.rdb.Set(t.Context(), "reset:audit", "not a stream", 0)
	g.want(t, g.ask(t, http.MethodPost, resume, nil, nil), http.StatusServiceUnavailable, "")
	if !g.paused(t) {
		t.Error("resumed without an entry in the trail")
	}
	g.rdb.Del(t.Context(), "reset:audit")
	g.want(t, g.ask(t, http.MethodPost, resume, nil, nil), http.StatusNoContent, "")
	g.rdb.Set(t.Context(), "reset:audit", "not a stream", 0)
	g.want(t, g.ask(t, http.MethodPost, pause, nil, nil), http.StatusNoContent, "")
	if !g.paused(t) {
		t.Error("without an entry in the trail it could not be stopped")
	}
	g.rdb.Del(t.Context(), "reset:audit")
	// What the dashboard refuses was not decided.
	g.want(t, g.ask(t, http.MethodPost, "/asynq/api/queues", nil, nil), http.StatusMethodNotAllowed, "")
	if trail := g.trail(t); len(trail) != 0 {
		t.Errorf("trail %+v", trail)
	}
	// A name of another site that leads to this machine.
	g.want(t, g.ask(t, http.MethodGet, "/asynq/", nil, nil, "Host", "evil.example"), http.StatusForbidden, "for its own machine alone")
}
