package ops_test

import (
	"encoding/csv"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/api/ops"
	"batchreset/tasks"
)

func TestListsAsFiles(t *testing.T) {
	r, job, run := newFailed(t)
	alice := r.login(t, "alice")
	for _, row := range []struct {
		name, path   string
		rows         int
		column, want string // of the first row
	}{
		{"jobs of a tenant", "/jobs?tenant=globex", 1, "job_id", job},
		{"jobs that did not go well", "/jobs?state=partial", 2, "failed", "2"},
		{"runs", "/runs", 1, "run_id", run},
		{"instances of a run", "/runs/" + run + "/instances?state=unknown", 1, "instance_id", "line-2"},
		{"failures", "/failures/items?driver=default&code=CPS.0042", 2, "error_msg", "system busy"},
		{"failures of a tenant", "/failures/items?driver=default&code=CPS.0042&tenant=globex", 1, "instance_id", "loose-1"},
		{"the audit trail", "/audit?tenant=globex", 1, "action", "submit"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := r.ask(t, http.MethodGet, row.path+sign(row.path)+"format=csv", alice, nil)
			table, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
			must(t, err)
			if a.status != http.StatusOK || len(table) != row.rows+1 || !strings.Contains(a.header.Get("Content-Disposition"), ".csv") {
				t.Fatalf("%d: %s", a.status, a.body)
			}
			for n, head := range table[0] {
				if head == row.column && table[1][n] != row.want {
					t.Errorf("%s is %q, not %q", head, table[1][n], row.want)
				}
			}
			lines := strings.Split(strings.TrimSuffix(r.ask(t, http.MethodGet, row.path+sign(row.path)+"format=jsonl", alice, nil).body, "\n"), "\n")
			var record map[string]any
			if err := json.Unmarshal([]byte(lines[0]), &record); err != nil || len(lines) != row.rows {
				t.Errorf("%d lines, %v: %s", len(lines), err, lines[0])
			}
		})
	}
	if a := r.ask(t, http.MethodGet, "/jobs?format=xml", alice, nil); a.status != http.StatusBadRequest || !strings.Contains(a.body, "choose csv or jsonl") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// sign is what a parameter of a query follows.
func sign(path string) string {
	if strings.Contains(path, "?") {
		return "&"
	}
	return "?"
}

func TestAFileHasAllPagesOfAList(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer})
	for range 120 {
		_, err := g.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "globex", InstanceIDs: []string{"p"}, AllowUnregistered: true, Reason: "=1+1"})
		must(t, err)
	}
	a := g.ask(t, http.MethodGet, "/jobs?tenant=globex&format=csv", g.login(t, "vera"), nil)
	table, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	must(t, err)
	if len(table) != 121 || !strings.Contains(a.body, "'=1+1") {
		t.Errorf("%d rows: %.400s", len(table), a.body)
	}
}

func TestFiltersAreChips(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer})
	a := g.ask(t, http.MethodGet, "/jobs?tenant=acme&label="+url.QueryEscape("site=Köln <1>")+"&state=running", g.login(t, "vera"), nil)
	for _, want := range []string{`href="jobs?label=site%3DK%C3%B6ln&#43;%3C1%3E&amp;state=running"`, "Tenant: acme", "Label: site=Köln &lt;1&gt;"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("page without %s: %s", want, a.body)
		}
	}
}

// olderLink leads to the next page of a list.
var olderLink = regexp.MustCompile(`<p><a href="([^"]+)">(Older|Go on with)`)

func TestEveryListGoesOn(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer}).withRunner()
	vera := g.login(t, "vera")
	for range 60 {
		job, err := g.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "glo bex", InstanceIDs: []string{"p"}, AllowUnregistered: true, Labels: map[string]string{"a&b": "c=d"}})
		must(t, err)
		d := job.Deliveries()[0]
		_, err = g.db.Attempts.Begin(t.Context(), d, "t"+job.ID, "k", time.Minute)
		must(t, err)
		_, err = g.db.Attempts.Finish(t.Context(), d, "t"+job.ID, tasks.Outcome{Transition: tasks.Fail, Code: "A&B=C 1"}, true)
		must(t, err)
		run := g.make(t, 1, tasks.RunSubmission{Labels: map[string]string{"a&b": "c=d"}})
		must(t, g.db.RunDecisions.Cancel(t.Context(), run, tasks.Actor{}), g.goOn(t.Context(), run))
	}
	for range 200 {
		must(t, g.db.Policies.Halt(t.Context(), "acme", tasks.HaltedByOperator, tasks.Actor{}))
	}
	long := g.make(t, 400, tasks.RunSubmission{Name: "long"})
	label := url.QueryEscape("a&b=c=d")
	for _, path := range []string{
		"/jobs?label=" + label, "/runs?label=" + label, "/failures/items?driver=default&code=" + url.QueryEscape("A&B=C 1"), "/audit?tenant=acme", "/runs/" + long + "/instances?state=pending",
	} {
		first := g.ask(t, http.MethodGet, path, vera, nil)
		link := olderLink.FindStringSubmatch(first.body)
		if link == nil {
			t.Errorf("%s has no second page: %s", path, first.body)
			continue
		}
		second := g.ask(t, http.MethodGet, "/"+html.UnescapeString(link[1]), vera, nil)
		if rows := strings.Count(second.body, "<tr"); second.status != http.StatusOK || rows < 3 || second.body == first.body {
			t.Errorf("%s, %s: %d, %d rows", path, link[1], second.status, rows)
		}
	}
}

// listPage is a list of the site with some rows.
type listPage struct {
	path   string
	rows   int
	column string // of the table
	want   string // in the first row that has it
}

// TestEveryListAsAFile goes over all lists: the rows are those of the page, a viewer may have them, and no secret is in them.
func TestEveryListAsAFile(t *testing.T) {
	t.Parallel()
	r, _, run := newFailed(t)
	r.register(t, tasks.Instance{ID: "line-1", Tenant: "acme"}, tasks.Instance{ID: "line-2", Tenant: "acme"})
	hash := func(name string) string {
		o, _, err := r.db.Operators.Operator(t.Context(), name)
		must(t, err)
		return o.PasswordHash
	}
	token, err := r.db.Tokens.Add(t.Context(), "the-token", tasks.Token{Tenant: "acme", Owner: "bob", Scopes: tasks.DefaultScopes}, 0, tasks.Actor{})
	must(t, err)
	access, key := tasks.NewAccessKey()
	_, err = r.db.Tokens.AddKey(t.Context(), access, key, tasks.Token{Tenant: "globex", Scopes: tasks.DefaultScopes}, 0, tasks.Actor{})
	must(t, err)
	endpoint, err := r.db.Endpoints.Add(t.Context(), tasks.NewEndpoint("acme", "https://hooks.example/in?key=hidden", tasks.Topics), tasks.Actor{})
	must(t, err, r.db.Policies.Halt(t.Context(), "acme", tasks.HaltedByOperator, tasks.Actor{Reason: "=smoke"}))
	wait := r.make(t, 12, tasks.RunSubmission{Name: "Wait", Approval: tasks.ApprovalRule{Approvers: 2, Expiry: 24 * time.Hour}})
	r.reports(t, aWorker, nil)
	vera := r.login(t, "vera")
	r.shows(t, vera, "/workers", http.StatusOK, aWorker)
	r.shows(t, vera, "/control-planes", http.StatusOK, "lab")
	secrets := []string{hash("vera"), hash("alice"), "the-token", token.Hash, key, endpoint.Secret, "hidden", vera.Value}
	pages := []listPage{
		{"/jobs", 3, "tenant", "acme"},
		{"/runs", 2, "name", "Wait"},
		{"/runs/" + run + "/instances", 4, "job_id", tasks.PartJobID(run, 0)},
		{"/failures/items?driver=default&code=CPS.0042", 2, "error_code", "CPS.0042"},
		{"/failures", 3, "last_error_msg", "system busy"},
		{"/failures?tenant=globex", 3, "instances", "1"},
		{"/failures?tenant=nobody", 0, "", ""},
		{"/audit?tenant=globex", 1, "action", "token-add"},
		{"/fleet", 2, "instance_id", "line-1"},
		{"/callers", 2, "tenant", "acme"},
		{"/callers?tenant=globex", 1, "id", access},
		{"/tenants", 3, "halt_reason", "'=smoke"},
		{"/workers", 1, "id", aWorker},
		{"/control-planes", 1, "driver", "lab"},
		{"/webhooks", 1, "endpoint_id", endpoint.ID},
		{"/webhooks?tenant=globex", 0, "", ""},
		{"/operators", 2, "role", "operator"},
		{"/approvals", 1, "run_id", wait},
	}
	for route, known := range ops.Queries() {
		tested := slices.ContainsFunc(pages, func(p listPage) bool {
			path, _, _ := strings.Cut(p.path, "?")
			return path == strings.ReplaceAll(route, ":run", run)
		})
		if slices.Contains(known, "format") && !tested {
			t.Errorf("%s is a list that is not tested", route)
		}
	}
	for _, page := range pages {
		t.Run(page.path, func(t *testing.T) { r.asFiles(t, vera, page, secrets) })
	}
}

// asFiles has a list in both formats.
func (g guarded) asFiles(t *testing.T, as *http.Cookie, page listPage, secrets []string) {
	t.Helper()
	files := map[string]answer{}
	path, _, _ := strings.Cut(page.path[1:], "?")
	shown := html.UnescapeString(g.ask(t, http.MethodGet, page.path, as, nil).body)
	for _, format := range []string{"csv", "jsonl"} {
		a := g.ask(t, http.MethodGet, page.path+sign(page.path)+"format="+format, as, nil)
		if a.status != http.StatusOK || !strings.HasSuffix(a.header.Get("Content-Disposition"), "."+format) || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %v %s", format, a.status, a.header, a.body)
		}
		if !regexp.MustCompile(`href="` + regexp.QuoteMeta(path) + `\?[^"]*format=` + format).MatchString(shown) {
			t.Errorf("the page does not lead to its list as %s", format)
		}
		for _, secret := range secrets {
			if strings.Contains(a.body, secret) {
				t.Errorf("%s has the secret %q: %s", format, secret, a.body)
			}
		}
		files[format] = a
	}
	table, err := csv.NewReader(strings.NewReader(files["csv"].body)).ReadAll()
	must(t, err)
	if len(table) != page.rows+1 {
		t.Fatalf("%d rows, want %d: %s", len(table)-1, page.rows, files["csv"].body)
	}
	at := slices.Index(table[0], page.column)
	if page.rows > 0 && (at < 0 || !slices.ContainsFunc(table[1:], func(row []string) bool { return row[at] == page.want })) {
		t.Errorf("no %s is %q: %s", page.column, page.want, files["csv"].body)
	}
	lines := strings.Count(files["jsonl"].body, "\n")
	for line := range strings.Lines(files["jsonl"].body) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil || len(record) < 3 {
			t.Errorf("%v: %s", err, line)
		}
	}
	if lines != page.rows {
		t.Errorf("%d lines, want %d", lines, page.rows)
	}
	if a := g.ask(t, http.MethodGet, page.path+sign(page.path)+"format=xml", as, nil); a.status != http.StatusBadRequest || !strings.Contains(a.body, "choose csv or jsonl") {
		t.Errorf("format xml: %d %s", a.status, a.body)
	}
}
