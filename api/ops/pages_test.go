package ops_test

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/api/browsertest"
	"batchreset/tasks"
)

func TestPagesSayWhatIsWrong(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator})
	alice := g.login(t, "alice")
	for _, row := range []struct {
		name, method, path string
		form               url.Values
		status             int
		want               string
	}{
		{"a job that is none", http.MethodGet, "/jobs/7", nil, http.StatusNotFound, "There is no such job"},
		{"a job that is gone", http.MethodGet, "/jobs/" + tasks.NewJobID(), nil, http.StatusNotFound, "There is no such job"},
		{"a retry of a job that runs", http.MethodPost, "/jobs/" + g.job + "/retry", url.Values{"state": {"failed"}}, http.StatusConflict, "nothing to retry"},
		{"a cancel with a field that is not known", http.MethodPost, "/jobs/" + g.job + "/cancel", url.Values{"Reason": {"x"}}, http.StatusBadRequest, "Unknown field"},
		{"a cancel with a reason twice", http.MethodPost, "/jobs/" + g.job + "/cancel", url.Values{"reason": {"x", "y"}}, http.StatusBadRequest, "field reason is there 2 times"},
		{"a retry with states in the query", http.MethodPost, "/jobs/" + g.job + "/retry?state=unknown", url.Values{"state": {"failed"}}, http.StatusBadRequest, "has a query"},
		{"a halt of two tenants", http.MethodPost, "/tenants/halt", url.Values{"tenant": {"acme", "globex"}}, http.StatusBadRequest, "field tenant is there 2 times"},
		{"a halt of nearly all", http.MethodPost, "/tenants/halt", url.Values{"tenant": {"acme"}, "All": {"true"}}, http.StatusBadRequest, "Unknown field"},
		{"a retry of nothing", http.MethodPost, "/jobs/" + g.job + "/retry", url.Values{}, http.StatusBadRequest, "Choose which instances"},
		{"a retry of what succeeded", http.MethodPost, "/jobs/" + g.job + "/retry", url.Values{"state": {"failed", "succeeded"}}, http.StatusBadRequest, `succeeded\", which is none of failed, unknown or cancelled`},
		{"a retry of the same twice", http.MethodPost, "/jobs/" + g.job + "/retry", url.Values{"state": {"failed", "failed"}}, http.StatusBadRequest, `failed\" twice`},
		{"a cancel with too long a reason", http.MethodPost, "/jobs/" + g.job + "/cancel", url.Values{"reason": {strings.Repeat("x", 257)}}, http.StatusBadRequest, "257 characters long"},
		{"a list that somebody cut off", http.MethodGet, "/jobs?tenant=acme&cursor=7", nil, http.StatusBadRequest, "cursor is not one"},
		{"jobs in a state that is none", http.MethodGet, "/jobs?state=done", nil, http.StatusBadRequest, `no state "done"`},
		{"jobs with a label that is none", http.MethodGet, "/jobs?label=site", nil, http.StatusBadRequest, "name=value"},
		{"jobs since a time that is none", http.MethodGet, "/jobs?since=yesterday", nil, http.StatusBadRequest, "Created from must be a time"},
		{"jobs until a time that is none", http.MethodGet, "/jobs?until=24h", nil, http.StatusBadRequest, "Created before must be a time"},
		{"failures of a kind that is none", http.MethodGet, "/failures/items?driver=x&code=y", nil, http.StatusOK, "None whose record is still kept"},
		{"failures that somebody cut off", http.MethodGet, "/failures/items?driver=x&code=y&cursor=z", nil, http.StatusBadRequest, "cursor is not one"},
		{"failures of a time that is none", http.MethodGet, "/failures?window=1y", nil, http.StatusBadRequest, `no window "1y"`},
		{"an instance that nobody knows", http.MethodGet, "/instances/nobody", nil, http.StatusOK, "not registered"},
		{"an instance that cannot be", http.MethodGet, "/instances/a%2Fb", nil, http.StatusNotFound, "characters other than"},
		{"a list of nobody", http.MethodGet, "/jobs?tenant=nobody", nil, http.StatusOK, "None fits."},
		{"a halt of a tenant that cannot be", http.MethodPost, "/tenants/halt", url.Values{"tenant": {"a/b"}}, http.StatusBadRequest, "is not a tenant"},
		{"a halt of nobody", http.MethodPost, "/tenants/halt", url.Values{"reason": {"x"}}, http.StatusBadRequest, "choose a tenant, or all"},
		{"a halt of one and all", http.MethodPost, "/tenants/halt", url.Values{"tenant": {"acme"}, "all": {"true"}}, http.StatusBadRequest, "not both"},
		{"the question for a halt of nobody", http.MethodGet, "/tenants/halt", nil, http.StatusBadRequest, "choose a tenant, or all"},
		{"a reason that is too long", http.MethodPost, "/tenants/halt", url.Values{"all": {"true"}, "reason": {strings.Repeat("x", 257)}}, http.StatusBadRequest, "257 characters long"},
		{"an audit trail that somebody cut off", http.MethodGet, "/audit?cursor=7", nil, http.StatusBadRequest, "cursor is not one"},
		{"an audit trail of nothing", http.MethodGet, "/audit?instance=nobody", nil, http.StatusOK, "Nothing."},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := g.ask(t, row.method, row.path, alice, row.form)
			if body := html.UnescapeString(a.body); a.status != row.status || !strings.Contains(body, row.want) {
				t.Errorf("%d: %s", a.status, body)
			}
		})
	}
	if trail := g.trail(t); len(trail) != 0 {
		t.Errorf("trail %+v", trail)
	}
	if policy, err := g.db.Policies.Policy(t.Context(), "acme"); err != nil || policy.Halt() != nil {
		t.Errorf("policy %+v, %v", policy, err)
	}
	page := g.ask(t, http.MethodGet, "/jobs/"+g.job, alice, nil)
	if want := `<a href="https://traces.example/4bf92f3577b34da6a3ce929d0e0e4736">`; !strings.Contains(page.body, want) {
		t.Errorf("page without %s: %s", want, page.body)
	}
	// What callers wrote is text, not HTML.
	if !strings.Contains(page.body, "Phone &lt;not&gt; found.") || !strings.Contains(page.body, "Köln &lt;1&gt;") {
		t.Errorf("page %s", page.body)
	}
}

func TestAJobAndAFailureInABrowser(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer})
	job, err := g.db.Jobs.Job(t.Context(), g.job)
	if err != nil {
		t.Fatal(err)
	}
	deliveries := job.Deliveries()
	var mu sync.Mutex
	step := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		d := deliveries[0]
		deliveries = deliveries[1:]
		_, err := g.db.Attempts.Begin(r.Context(), d, "t", "k", time.Minute)
		if err == nil {
			_, err = g.db.Attempts.Finish(r.Context(), d, "t", tasks.Outcome{Transition: tasks.Succeed}, true)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	t.Cleanup(step.Close)
	ctx, stop := context.WithCancel(t.Context())
	written := make(chan error, 1)
	go func() { written <- g.db.Activity.WriteActivity(ctx) }()
	browsertest.Script(t, "../..", "testdata/live.js", g.URL, password, g.job, step.URL)
	stop()
	if err := <-written; err != nil {
		t.Error(err)
	}
}

func TestFindLeadsToWhatIsMeant(t *testing.T) {
	g := newGuarded(t, nil)
	run := g.withRunner().make(t, 1, tasks.RunSubmission{RequestID: "order-66"})
	token := tasks.Token{Tenant: "globex", Scopes: tasks.DefaultScopes}
	token, err := g.db.Tokens.Add(t.Context(), "secret", token, 0, tasks.Actor{})
	must(t, err, g.db.Policies.Halt(t.Context(), "initech", tasks.HaltedByOperator, tasks.Actor{}))
	owned, err := g.db.Tokens.Add(t.Context(), "other secret", tasks.Token{Tenant: "hooli", Owner: "gavin", Scopes: tasks.DefaultScopes}, 0, tasks.Actor{})
	must(t, err)
	listed := g.withRunner().make(t, 40, tasks.RunSubmission{Name: "to come", Approval: tasks.ApprovalRule{Approvers: 1, Expiry: time.Hour}})
	for q, want := range map[string]string{
		g.job[:8]: "/jobs/" + g.job, strings.ToUpper(g.job[:12]): "/jobs/" + g.job, run[:8] + "…": "/runs/" + run, run[:31]: "/runs/" + run,
		"Gavin": "/callers?tenant=hooli", "to-come-39": "/instances/to-come-39",
		run: "/runs/" + run, "": "/", " phone-1 ": "/instances/phone-1", g.job: "/jobs/" + g.job, g.job + "-2": "/jobs/" + g.job + "/items/2",
		"globex": "/jobs?tenant=globex", "initech": "/jobs?tenant=initech", token.ID: "/callers?tenant=globex",
		"order-66": "/runs/" + run, "4bf92f3577b34da6a3ce929d0e0e4736": "/jobs/" + g.job,
		"cps.0005": "/failures/items?code=CPS.0005&driver=default&window=31d",
	} {
		a := g.ask(t, http.MethodGet, "/find?"+url.Values{"q": {q}}.Encode(), nil, nil)
		if a.status != http.StatusSeeOther || a.location != want {
			t.Errorf("%q: %d, %s", q, a.status, a.location)
		}
	}
	if page := g.ask(t, http.MethodGet, "/callers?tenant=hooli", nil, nil); !strings.Contains(page.body, `id="caller-`+owned.ID) {
		t.Errorf("page %s", page.body)
	}
	g.ask(t, http.MethodGet, "/instances/to-come-39", nil, nil).says(t, "none yet run to come pending", "in the list of this run, which is waiting, and waits for its turn", "runs/"+listed)
	r := g.withRunner()
	must(t, g.db.RunDecisions.Approve(t.Context(), listed, r.get(t, listed).ListSHA256, tasks.Actor{By: "token 9", Principal: "carol"}), r.goOn(t.Context(), listed))
	if page := g.ask(t, http.MethodGet, "/instances/to-come-39", nil, nil); strings.Contains(page.body, "waits for its turn") || !strings.Contains(page.body, "runs/"+listed) {
		t.Errorf("it is in a job now: %s", page.text())
	}
	for _, q := range []string{"a/b", "phone-9", tasks.NewJobID(), "<b>", g.job[:7], "to-come-40", tasks.NewJobID()[:8], "o-come-39"} {
		a := g.ask(t, http.MethodGet, "/find?"+url.Values{"q": {q}}.Encode(), nil, nil)
		if a.status != http.StatusNotFound || !strings.Contains(a.body, "Nothing is called “"+html.EscapeString(q)) {
			t.Errorf("%q: %d, %s", q, a.status, a.body)
		}
	}
	// A name can be that of several things.
	_, err = g.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"globex"}, AllowUnregistered: true})
	must(t, err)
	if a := g.ask(t, http.MethodGet, "/find?q=globex", nil, nil); a.status != http.StatusOK || !strings.Contains(a.body, "2 things are called") || !strings.Contains(a.body, `href="instances/globex"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestTheOverviewSaysWhatStandsStill(t *testing.T) {
	g := newGuarded(t, nil)
	if err := g.db.Policies.Halt(t.Context(), "", tasks.HaltedByOperator, tasks.Actor{Reason: "to <be> safe"}); err != nil {
		t.Fatal(err)
	}
	a := g.ask(t, http.MethodGet, "/", nil, nil)
	for _, want := range []string{"all tenants</a> since", "to &lt;be&gt; safe", "No worker is running", "There is no login yet", "Append-only file", "reset-0"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the page lacks %q: %s", want, a.body)
		}
	}
}

func TestTenantsAndWhatTheyUse(t *testing.T) {
	g := newGuarded(t, nil)
	for _, tenant := range []string{"globex", "acme", "initech"} {
		if _, err := g.db.Tokens.Add(t.Context(), tenant, tasks.Token{Tenant: tenant, Scopes: tasks.DefaultScopes}, 0, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.db.Policies.SetLimits(t.Context(), "acme", tasks.Limits{InstancesPerHour: new(50)}, false, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"a", "b"}, AllowUnregistered: true}); err != nil {
		t.Fatal(err)
	}
	rows := func() (rows []string) {
		a := g.ask(t, http.MethodGet, "/tenants", nil, nil)
		_, body, _ := strings.Cut(a.body, "<tbody>")
		for row := range strings.SplitSeq(body, "<tr>") {
			row = regexp.MustCompile(`(?s)<td class="now">.*?</td>`).ReplaceAllString(row, " ") // what the census says, of which other tests are
			row = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(row, " ")
			if fields := strings.Fields(row); len(fields) > 9 {
				rows = append(rows, strings.Join(append(fields[:2], fields[4:10]...), " "))
			}
		}
		return rows
	}
	// Another job of acme is there from the start.
	want := []string{"all on tenants none – – 100000 –", "acme on 50 2 0 – 4 –", "globex on – – – – 0 –", "initech on – – – – 0 –"}
	if got := rows(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("rows\n%s", strings.Join(got, "\n"))
	}
	for n := range 250 {
		if _, err := g.db.Tokens.Add(t.Context(), fmt.Sprint("many", n), tasks.Token{Tenant: fmt.Sprint("many", n), Scopes: tasks.DefaultScopes}, 0, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(rows()); got != 2+200 {
		t.Errorf("%d rows", got)
	}
	if a := g.ask(t, http.MethodGet, "/tenants", nil, nil); !strings.Contains(a.body, "52 more have a token") {
		t.Errorf("page %s", a.body)
	}
}

func TestAPageWithoutRedisSaysSo(t *testing.T) {
	g := newGuarded(t, nil)
	if err := g.db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/", "/runs", "/runs/" + g.job, "/approvals", "/jobs", "/failures", "/instances/a", "/tenants", "/tenants/acme", "/fleet", "/callers", "/webhooks",
		"/audit", "/workers", "/workers/AAAABBB2", "/control-planes",
	} {
		if a := g.ask(t, http.MethodGet, path, nil, nil); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "Redis does not answer") || !strings.Contains(a.body, "<nav") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}
