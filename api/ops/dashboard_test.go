package ops_test

import (
	"net/http"
	"strings"
	"testing"

	"batchreset/api/browsertest"
	"batchreset/api/nginxtest"
	"batchreset/api/ops"
	"batchreset/tasks"
)

// TestTheDashboardIsWrapped tells a story of asynq's dashboard below a path: items can be told apart, a change asks first, it
// is dark, and leads back.
func TestTheDashboardIsWrapped(t *testing.T) {
	g := newGuardedAs(t, ops.Config{Path: "/ops"}, map[string]tasks.Role{"alice": tasks.RoleOperator, "vera": tasks.RoleViewer})
	nginx := nginxtest.Start(t, `location /ops/ { proxy_pass `+g.URL+`/; proxy_set_header Host $http_host; }`)
	browsertest.Script(t, "../..", "testdata/asynq.js", nginx+"/ops", password, g.job)
}

// Only the page has a frame: the files of the dashboard are its own.
func TestTheFrameOfTheDashboard(t *testing.T) {
	g := newGuardedAs(t, ops.Config{Path: "/ops"}, map[string]tasks.Role{"vera": tasks.RoleViewer})
	vera := g.login(t, "vera")
	for _, path := range []string{"/asynq", "/ops/asynq/", "/ops/asynq/queues/reset-0/tasks/x"} {
		a := g.ask(t, http.MethodGet, path, vera, nil)
		for _, want := range []string{`<script src="/ops/site/asynq.js"></script></head>`, `<body><div id="batchreset">`, `action="/ops/logout"`, "vera (viewer)", "<title>Queues · batchreset</title>"} {
			if !strings.Contains(a.body, want) {
				t.Errorf("%s lacks %s: %.3000s", path, want, a.body)
			}
		}
		if at, own := strings.Index(a.body, "asynq.js"), strings.Index(a.body, "/static/js/"); at > own {
			t.Errorf("%s: our script is at %d, the dashboard's at %d", path, at, own)
		}
		if a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, a.header)
		}
	}
	for _, path := range []string{"/asynq/manifest.json", "/asynq/favicon.ico", "/asynq/api/queues"} {
		if a := g.ask(t, http.MethodGet, path, vera, nil); a.status != http.StatusOK || strings.Contains(a.body, "batchreset\"") {
			t.Errorf("%s: %d %.200s", path, a.status, a.body)
		}
	}
}
