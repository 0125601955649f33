package ops_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"batchreset/api/browsertest"
	"batchreset/api/nginxtest"
	"batchreset/api/ops"
	"batchreset/tasks"
)

// TestBelowAPath goes to every page of the site as a browser does that finds it below a path
// behind nginx, which takes the path off, or does not. Without Path all but the dashboard
// works below any path that is taken off. nginx speaks TLS in one of them, as in most places.
func TestBelowAPath(t *testing.T) {
	for _, row := range []struct {
		name, path, at, pass string
		start                func(t testing.TB, server string) string
	}{
		{"taken off", "/tools/ops", "/tools/ops", "/", nginxtest.Start},
		{"left on", "/tools/ops", "/tools/ops", "", nginxtest.StartTLS},
		{"not told", "", "/elsewhere", "/", nginxtest.Start},
		{"none", "", "", "", nginxtest.Start},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := newGuardedAs(t, ops.Config{Path: row.path}, map[string]tasks.Role{"alice": tasks.RoleOperator})
			nginx := row.start(t, `location `+row.at+`/ { proxy_pass `+g.URL+row.pass+`; proxy_set_header Host $http_host; }`)
			browsertest.Script(t, "../..", "testdata/path.js", nginx+row.at, password, g.job)
		})
	}
}

// Whoever comes without the path, such as a probe, is answered too; and what comes with
// another one is no page.
func TestTheSiteWithAndWithoutItsPath(t *testing.T) {
	g := newGuardedAs(t, ops.Config{Path: "/ops"}, map[string]tasks.Role{"alice": tasks.RoleOperator})
	alice := g.login(t, "alice")
	for path, status := range map[string]int{
		"/healthz": http.StatusOK, "/ops/healthz": http.StatusOK, "/ops/metrics": http.StatusOK, "/ops/": http.StatusOK, "/jobs": http.StatusOK, "/ops/jobs": http.StatusOK,
		"/ops": http.StatusSeeOther, "/opsy/jobs": http.StatusNotFound, "/ops/ops/jobs": http.StatusNotFound, "/%6Fps/instances/a%2Fb": http.StatusNotFound,
	} {
		if a := g.ask(t, http.MethodGet, path, alice, nil); a.status != status {
			t.Errorf("%s: %d, want %d", path, a.status, status)
		}
	}
	if a := g.ask(t, http.MethodGet, "/ops", nil, nil); a.location != "/ops/" {
		t.Errorf("sent to %q", a.location)
	}
	// A session here is none at another site on the same host.
	if alice.Name != "__Host-batchreset.ops" || alice.Path != "/" {
		t.Errorf("cookie %+v", alice)
	}
	for path, want := range map[string]string{
		"/ops/jobs": "./login?next=%2Fjobs", "/jobs/7/cancel?x=y": "../../login?next=%2Fjobs%2F7%2Fcancel%3Fx%3Dy", "/ops/instances/a%2Fb": "../login?next=%2Finstances%2Fa%252Fb", "/": "./login?next=%2F",
	} {
		if a := g.ask(t, http.MethodGet, path, nil, nil); a.header.Get("Location") != want {
			t.Errorf("%s sends to %q, want %q", path, a.header.Get("Location"), want)
		}
	}
	a := g.ask(t, http.MethodPost, "/ops/login", nil, url.Values{"name": {"alice"}, "password": {password}, "next": {"/jobs/" + g.job}})
	if a.location != "/ops/jobs/"+g.job {
		t.Errorf("sent to %q", a.location)
	}
}

// HEAD has the status and the headers of GET, and no body.
func TestHeadAnswersLikeGet(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator})
	alice := g.login(t, "alice")
	for path, session := range map[string]*http.Cookie{
		"/healthz": nil, "/metrics": nil, "/site/site.css": nil, "/login": nil, "/": alice, "/jobs": alice, "/jobs/" + g.job: alice, "/jobs/7": alice,
		"/asynq": alice, "/asynq/api/queues": alice, "/nowhere": alice, "/tenants": nil,
	} {
		got, head := g.ask(t, http.MethodGet, path, session, nil), g.ask(t, http.MethodHead, path, session, nil)
		if head.status != got.status || head.body != "" || head.location != got.location || head.header.Get("Content-Type") != got.header.Get("Content-Type") {
			t.Errorf("%s: HEAD %+v, GET %d %v", path, head, got.status, got.header)
		}
	}
	if strings.Contains(g.log.String(), "request failed") {
		t.Errorf("log %s", g.log)
	}
}
