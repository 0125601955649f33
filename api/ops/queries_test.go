package ops_test

import (
	"html"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"batchreset/api/ops"
)

// freePages take any parameter: other people's code, what monitoring asks for, files, and where an issuer sends browsers.
var freePages = regexp.MustCompile(`^(/asynq|/debug/pprof|/healthz$|/readyz$|/metrics$|/site/|/login/issuer/callback$)`)

func TestEveryPageRefusesAnUnknownParameter(t *testing.T) {
	t.Parallel()
	g, _, _ := newIssued(t)
	alice := g.login(t, "alice")
	pages := ops.Pages(storeOf(g.db))
	if len(pages) < 70 {
		t.Fatalf("%d pages", len(pages))
	}
	for _, route := range pages {
		if freePages.MatchString(route) {
			continue
		}
		path := regexp.MustCompile(`:[a-z]+`).ReplaceAllString(route, "x")
		for query, want := range map[string]string{"surprise=1": `"surprise"`, "sort=a&sort=b": "sort"} {
			a := g.ask(t, http.MethodGet, path+"?"+query, alice, nil)
			if body := html.UnescapeString(a.body); a.status != http.StatusBadRequest || !strings.Contains(body, want) && !strings.Contains(body, `\"surprise\"`) {
				t.Errorf("%s?%s: %d %.300s", route, query, a.status, body)
			}
		}
	}
	for route := range ops.Queries() {
		if !slices.Contains(pages, route) {
			t.Errorf("%s has parameters, and is no page", route)
		}
	}
}

func TestAWrongQueryIsNamed(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	for query, want := range map[string]string{
		"/jobs?stat=failed":                      `Unknown parameter "stat"; did you mean "state"?`,
		"/jobs?state=faild":                      `There is no state "faild"; did you mean "failed"?`,
		"/jobs?state=failed&state=running":       "The parameter state is there 2 times.",
		"/jobs?tenant=acme&tenant=globex":        "The parameter tenant is there 2 times.",
		"/jobs?State=failed":                     `Unknown parameter "State"; did you mean "state"?`,
		"/runs?state=nonsense":                   `There is no state "nonsense": choose `,
		"/runs/" + g.job + "/instances?state=ok": `There is no state "ok": choose `,
		"/audit?action=none":                     `There is no action "none".`,
		"/audit?action=halts":                    `There is no action "halts"; did you mean "halt"?`,
		"/failures?window=1y":                    `There is no window "1y"; did you mean "1h"?`,
		"/failures/items?driver=x&windows=1h":    `Unknown parameter "windows"; did you mean "window"?`,
		"/fleet?protected=yes":                   `There is no protected "yes": it can be true only.`,
		"/tenants/halt?all=yes":                  `There is no all "yes": it can be true only.`,
		"/tenants/halt?all=true&own=true":        `Unknown parameter "own"`,
		"/tenants/resume?tenant=acme&own=yes":    `There is no own "yes"`,
		"/bulk?action=wipe":                      `There is no action "wipe": choose retry or cancel.`,
		"/callers/new?kind=password":             `There is no kind "password"`,
		"/callers?cursor=7":                      `Unknown parameter "cursor"`,
		"/approvals?format=":                     `There is no format "": choose csv or jsonl.`,
		"/login?nxt=/jobs":                       `Unknown parameter "nxt"; did you mean "next"?`,
	} {
		a := g.ask(t, http.MethodGet, query, ada, nil)
		if body := html.UnescapeString(a.body); a.status != http.StatusBadRequest || !strings.Contains(body, want) {
			t.Errorf("%s: %d, want %s: %s", query, a.status, want, a.text())
		}
	}
	// What is empty is not chosen: forms send all of their fields.
	if a := g.ask(t, http.MethodGet, "/jobs?state=&tenant=&sort=Jobs.Tenant.up", ada, nil); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.text())
	}
	// Who is not logged in is told nothing but to do so.
	if a := g.ask(t, http.MethodGet, "/jobs?stat=failed", nil, nil); a.status != http.StatusSeeOther {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// linkWithQuery is a link of a page to another one, with its query.
var linkWithQuery = regexp.MustCompile(`href="([a-z][^":]*\?[^"]*)"`)

// What a page leads to takes what the link says.
func TestLinksSayWhatPagesTake(t *testing.T) {
	t.Parallel()
	r, job, run := newFailed(t)
	alice := r.login(t, "alice")
	links := map[string]bool{}
	for _, path := range []string{
		"/", "/jobs?tenant=globex&state=partial", "/jobs/" + job, "/runs?state=succeeded", "/runs/" + run, "/runs/" + run + "/instances", "/failures", "/tenants", "/tenants/acme",
		"/failures/items?driver=default&code=CPS.0042&tenant=globex&run=" + run, "/instances/line-1", "/fleet", "/callers", "/webhooks", "/operators", "/me", "/audit", "/approvals", "/workers", "/control-planes",
	} {
		a := r.ask(t, http.MethodGet, path, alice, nil)
		if a.status != http.StatusOK {
			t.Errorf("%s: %d", path, a.status)
		}
		for _, m := range linkWithQuery.FindAllStringSubmatch(a.body, -1) {
			links["/"+html.UnescapeString(m[1])] = true
		}
	}
	if len(links) < 30 {
		t.Errorf("%d links", len(links))
	}
	for _, link := range slices.Sorted(maps.Keys(links)) {
		if a := r.ask(t, http.MethodGet, link, alice, nil); a.status == http.StatusBadRequest {
			t.Errorf("%s: %s", link, a.text())
		}
		if _, err := url.Parse(link); err != nil {
			t.Error(err)
		}
	}
}
