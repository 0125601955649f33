package ops_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"batchreset/tasks"
)

// staff are operators of every role.
func staff() map[string]tasks.Role {
	return map[string]tasks.Role{"ada": tasks.RoleAdmin, "olga": tasks.RoleOperator, "paul": tasks.RoleApprover, "vera": tasks.RoleViewer}
}

// hidden are the fields of a page's forms that people do not see.
func (a answer) hidden() url.Values {
	values := url.Values{}
	for _, field := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`).FindAllStringSubmatch(a.body, -1) {
		values.Add(field[1], html.UnescapeString(field[2]))
	}
	return values
}

func (a answer) text() string {
	text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(a.body, " ")
	return html.UnescapeString(strings.Join(strings.Fields(text), " "))
}

func (a answer) says(t *testing.T, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(a.text(), want) && !strings.Contains(html.UnescapeString(a.body), want) {
			t.Errorf("status %d, and the page does not say %q: %s", a.status, want, a.text())
		}
	}
}

func TestLimitsAreSetInTheSite(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada, vera := g.login(t, "ada"), g.login(t, "vera")
	must(t, g.db.Policies.SetLimits(t.Context(), "", tasks.Limits{OpenInstances: new(5000)}, false, tasks.Actor{}),
		g.db.Policies.SetLimits(t.Context(), "acme", tasks.Limits{InstancesPerHour: new(50)}, false, tasks.Actor{}))
	g.rdb.Del(t.Context(), "reset:audit")

	look := g.ask(t, http.MethodGet, "/tenants/acme", vera, nil)
	look.says(t, "Tenant acme", "in any hour 50 its own 50", "have not ended 5,000 for all tenants –", "requests to the API 100 default –", "Accepted in the last hour without a run not counted no bound")
	if strings.Contains(look.body, "<input id=\"open_instances\"") || strings.Contains(look.body, "Halt acme") {
		t.Error("a viewer is shown what only others may do")
	}
	g.ask(t, http.MethodGet, "/tenants/~", vera, nil).says(t, "All tenants", "have not ended 5,000 set for all 5000")

	ask := g.ask(t, http.MethodGet, "/tenants/acme/limits?instances_per_hour=&open_instances=0&max_failures=3", ada, nil)
	ask.says(t, "Change the limits of acme?", "50 its own no bound as for all tenants", "5,000 for all tenants no bound", "no bound default 3")
	if strings.Contains(ask.text(), "Requests per second") {
		t.Error("it shows what does not change")
	}
	form := ask.hidden()
	form.Set("reason", "the <new> contract")
	g.want(t, g.ask(t, http.MethodPost, "/tenants/acme/limits", ada, form), http.StatusSeeOther, "")
	policy, all := g.limits(t, "acme")
	if policy.InstancesPerHour != nil || *policy.OpenInstances != 0 || *policy.MaxFailures != 3 || *all.OpenInstances != 5000 {
		t.Errorf("limits %+v", policy.Limits)
	}
	trail := g.trail(t)
	if len(trail) != 1 || trail[0].Action != tasks.ActionLimit || trail[0].Tenant != "acme" || trail[0].By != "operator ada" || trail[0].Reason != "the <new> contract" {
		t.Errorf("trail %+v", trail)
	}
	// The same form again: the limits are others by now.
	g.ask(t, http.MethodPost, "/tenants/acme/limits", ada, form).says(t, "Somebody else has changed these limits")

	all2 := g.ask(t, http.MethodGet, "/tenants/~/limits?open_instances=&approvers=2&approve_above=10", ada, nil)
	all2.says(t, "every tenant that has none of its own", "5,000 set for all 100,000 the default", "1 default 2")
	g.want(t, g.ask(t, http.MethodPost, "/tenants/~/limits", ada, all2.hidden()), http.StatusSeeOther, "")
	if _, all := g.limits(t, "acme"); all.OpenInstances != nil || *all.Approvers != 2 {
		t.Errorf("limits of all %+v", all.Limits)
	}
	// Names that are also those of pages, and names that would be another path.
	for _, name := range []string{"halt", "resume", ".."} {
		g.ask(t, http.MethodGet, "/tenants/~"+name, vera, nil).says(t, "Tenant "+name)
		must(t, g.db.Policies.SetLimits(t.Context(), name, tasks.Limits{MaxFailures: new(1)}, false, tasks.Actor{}))
	}
	if a := g.ask(t, http.MethodGet, "/tenants", vera, nil); !strings.Contains(a.body, `href="tenants/~halt"`) || !strings.Contains(a.body, `href="tenants/acme"`) || !strings.Contains(a.body, `href="tenants/~"`) {
		t.Errorf("list %s", a.body)
	}
}

func (g guarded) limits(t *testing.T, tenant string) (own, all tasks.Policy) {
	t.Helper()
	policies, err := g.db.Policies.List(t.Context())
	must(t, err)
	for _, p := range policies {
		switch p.Tenant {
		case tenant:
			own = p
		case "":
			all = p
		}
	}
	return own, all
}

func TestLimitsThatAreWrongAreRefused(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	seen := url.Values{"seen": {"{}"}}
	with := func(name, value string) url.Values {
		form := url.Values{"seen": seen["seen"]}
		form.Add(name, value)
		return form
	}
	for _, row := range []struct {
		name, method, path string
		form               url.Values
		status             int
		want               string
	}{
		{"a tenant that cannot be", http.MethodGet, "/tenants/a%2Fb", nil, http.StatusNotFound, "is not a tenant"},
		{"a question about nothing", http.MethodGet, "/tenants/acme/limits", nil, http.StatusBadRequest, "Nothing would change"},
		{"a question about a limit that is not known", http.MethodGet, "/tenants/acme/limits?open_instance=1", nil, http.StatusBadRequest, `did you mean "open_instances"`},
		{"a question with a limit twice", http.MethodGet, "/tenants/acme/limits?open_instances=1&open_instances=2", nil, http.StatusBadRequest, "open_instances is there 2 times"},
		{"a question about a text", http.MethodGet, "/tenants/acme/limits?open_instances=many", nil, http.StatusBadRequest, `open_instances must be a whole number, or empty, not "many"`},
		{"a field that is not known", http.MethodPost, "/tenants/acme/limits", with("openinstances", "1"), http.StatusBadRequest, "Unknown field"},
		{"a field twice", http.MethodPost, "/tenants/acme/limits", url.Values{"open_instances": {"1", "2"}}, http.StatusBadRequest, "open_instances is there 2 times"},
		{"a negative limit", http.MethodPost, "/tenants/acme/limits", with("max_failures", "-1"), http.StatusBadRequest, "max_failures must be from 0"},
		{"a limit that is too large", http.MethodPost, "/tenants/acme/limits", with("max_failures", "1000000001"), http.StatusBadRequest, "max_failures must be from 0"},
		{"no approver", http.MethodPost, "/tenants/acme/limits", with("approvers", "0"), http.StatusBadRequest, "approvers must be from 1 to 20"},
		{"too long a reason", http.MethodPost, "/tenants/acme/limits", with("reason", strings.Repeat("x", 257)), http.StatusBadRequest, "257 characters long"},
		{"no look before", http.MethodPost, "/tenants/acme/limits", url.Values{"max_failures": {"3"}}, http.StatusConflict, "Somebody else has changed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := g.ask(t, row.method, row.path, ada, row.form)
			g.want(t, a, row.status, "")
			a.says(t, strings.ReplaceAll(row.want, `"`, quoteOf(a)))
		})
	}
	for _, who := range []string{"vera", "paul", "olga"} {
		session := g.login(t, who)
		g.want(t, g.ask(t, http.MethodGet, "/tenants/acme/limits?max_failures=3", session, nil), http.StatusForbidden, "Only an admin may do this.")
		g.want(t, g.ask(t, http.MethodPost, "/tenants/acme/limits", session, with("max_failures", "3")), http.StatusForbidden, `"operator":"`+who+`"`)
	}
	if own, _ := g.limits(t, "acme"); own.Limits != (tasks.Limits{}) || len(g.trail(t)) != 0 {
		t.Errorf("limits %+v, trail %+v", own.Limits, g.trail(t))
	}
}

// quoteOf is how an answer has a quotation mark: JSON escapes it.
func quoteOf(a answer) string {
	if strings.HasPrefix(a.body, "{") {
		return `\"`
	}
	return `"`
}

// A Redis user that may not write something is not asked for it.
func TestWhatRedisDoesNotLetTheSiteDo(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	// A user who may do all but write what admins manage: the site's own connections become it.
	acl := func(rule ...any) {
		t.Helper()
		must(t, g.rdb.Do(t.Context(), append([]any{"ACL", "SETUSER", "default"}, rule...)...).Err())
	}
	acl("resetkeys", "%R~*", "~reset:audit", "~reset:session:*", "~asynq:*")
	t.Cleanup(func() { _ = g.rdb.Do(t.Context(), "ACL", "SETUSER", "default", "allkeys").Err() })
	for path, command := range managedPaths {
		a := g.ask(t, http.MethodGet, path, ada, nil)
		g.want(t, a, http.StatusForbidden, "")
		a.says(t, "This process's Redis user may not do this: use the command 'batchreset "+command)
	}
	if trail := g.trail(t); len(trail) != 0 {
		t.Errorf("trail %+v", trail)
	}
}

// managedPaths are pages that ask before something is changed, and the command that does the same.
var managedPaths = map[string]string{
	"/tenants/acme/limits?max_failures=3": "tenant limit'",
	"/callers/new":                        "token'",
	"/callers/7/revoke":                   "token'",
	"/fleet/import":                       "fleet'",
	"/instances/phone-1/change":           "fleet'",
	"/instances/phone-1/protect":          "fleet protect'",
	"/webhooks/new":                       "webhook'",
	"/webhooks/ep_1/disable":              "webhook'",
}
