package main

import (
	"fmt"
	"net/http"
	neturl "net/url"
	"regexp"
	"strings"
	"testing"

	"batchreset/api/nginxtest"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

var firstLink = regexp.MustCompile(`(http://\S+)/first-operator\?token=(\S+)`)

// firstLinkOf waits for the link that makes the first operator.
func firstLinkOf(t *testing.T, p *process) (site, secret string) {
	t.Helper()
	var found []string
	harness.Eventually(t, patience, "a link is printed", func() bool {
		found = firstLink.FindStringSubmatch(p.said())
		return found != nil
	})
	return found[1], found[2]
}

// askSite sends a request to the operators' site and returns the status, and the session.
func askSite(t *testing.T, method, url, session string, form neturl.Values) (status int, cookie string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Cookie", session)
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	for _, c := range response.Cookies() {
		if c.Name == "__Host-batchreset" {
			cookie = c.Name + "=" + c.Value
		}
	}
	return response.StatusCode, cookie
}

func TestTheFirstOperatorOfRealProcesses(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t).URL()
	startAPI := func() *process {
		p := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
		p.logged("api started")
		return p
	}
	api := startAPI()
	worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "simulator")
	worker.logged("worker starting")
	apiSite, apis := firstLinkOf(t, api)
	workerSite, workers := firstLinkOf(t, worker)

	proxied := nginxtest.Start(t, "location / { proxy_pass "+apiSite+"; }")
	for _, site := range []string{apiSite, workerSite, proxied} {
		for path, want := range map[string]int{"/": 403, "/debug/pprof/heap": 403, "/asynq/api/queues": 403, "/healthz": 200, "/metrics": 200, "/login": 200} {
			if status, _ := askSite(t, http.MethodGet, site+path, "", nil); status != want {
				t.Errorf("GET %s: %d, want %d", site+path, status, want)
			}
		}
		if status, _ := askSite(t, http.MethodPost, site+"/tenants/halt", "", neturl.Values{"all": {"true"}}); status != http.StatusForbidden {
			t.Errorf("a stranger halts all tenants at %s: %d", site, status)
		}
	}

	const password = "correct horse battery"
	form := neturl.Values{"name": {"alice"}, "password": {password}, "again": {password}, "token": {apis}}
	status, session := askSite(t, http.MethodPost, workerSite+"/first-operator", "", form) // any process knows it
	if status != http.StatusSeeOther || session == "" {
		t.Fatalf("the first operator: %d", status)
	}
	form.Set("name", "mallory")
	form.Set("token", workers)
	if status, other := askSite(t, http.MethodPost, workerSite+"/first-operator", "", form); other != "" {
		t.Errorf("a second one: %d", status)
	}
	for _, site := range []string{apiSite, workerSite, proxied} {
		if status, _ := askSite(t, http.MethodGet, site+"/debug/pprof/cmdline", session, nil); status != http.StatusOK {
			t.Errorf("alice at %s: %d", site, status)
		}
	}
	again := startAPI()
	for _, p := range []*process{api, worker, again} {
		p.stop()
		for entry := range p.log {
			if text := fmt.Sprint(entry); strings.Contains(text, apis) || strings.Contains(text, workers) {
				t.Errorf("the log has a link: %s", text)
			}
		}
	}
	if firstLink.MatchString(again.said()) {
		t.Errorf("a link is printed beside an operator:\n%s", again.said())
	}
}
