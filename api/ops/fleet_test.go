package ops_test

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"batchreset/api/browsertest"
	"batchreset/tasks"
)

// register puts instances into the fleet.
func (g guarded) register(t *testing.T, instances ...tasks.Instance) {
	t.Helper()
	must(t, g.db.Fleet.Register(t.Context(), instances, tasks.Actor{By: "setup"}), g.rdb.Del(t.Context(), "reset:audit").Err())
}

func (g guarded) entry(t *testing.T, id string) tasks.Instance {
	t.Helper()
	fleet, err := g.db.Fleet.Registered(t.Context(), []string{id})
	must(t, err)
	return fleet[id]
}

// parts sends a form with a list: names and values by turns. A name that begins with @ is that of a file.
func (g guarded) parts(t *testing.T, path string, session *http.Cookie, fields ...string) answer {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(fields); i += 2 {
		create := w.CreateFormField
		name, isFile := strings.CutPrefix(fields[i], "@")
		if isFile {
			create = func(name string) (io.Writer, error) { return w.CreateFormFile(name, "fleet.csv") }
		}
		part, err := create(name)
		must(t, err)
		_, err = io.WriteString(part, fields[i+1])
		must(t, err)
	}
	must(t, w.Close())
	return g.post(t, path, w.FormDataContentType(), &b, session)
}

func (g guarded) decided(t *testing.T) (lines []string) {
	t.Helper()
	for _, e := range g.trail(t) {
		lines = append(lines, fmt.Sprintf("%s by %s %v: %s", e.Action, e.By, e.InstanceIDs, e.Reason))
	}
	return lines
}

func TestTheFleetIsSearched(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	vera := g.login(t, "vera")
	var all []tasks.Instance
	for i := range 130 {
		in := tasks.Instance{ID: fmt.Sprintf("phone-%03d", i), Tenant: "acme", Labels: map[string]string{"rack": fmt.Sprint(i % 10)}}
		if i%2 == 1 {
			in.Tenant, in.Driver = "globex", "lab"
		}
		all = append(all, in)
	}
	g.register(t, append(all, tasks.Instance{ID: "tablet-1", Tenant: "acme"})...)
	if _, _, err := g.db.Fleet.Protect(t.Context(), []string{"phone-008"}, tasks.Time{}, tasks.Actor{Reason: "legal <hold>"}); err != nil {
		t.Fatal(err)
	}
	list := g.ask(t, http.MethodGet, "/fleet", vera, nil)
	list.says(t, "131 instances are registered", "phone-000", "phone-049", "rack=3", "legal <hold>")
	if strings.Contains(list.body, "phone-050") || strings.Contains(list.body, "fleet/import") {
		t.Errorf("a page of a viewer: %s", list.text())
	}
	g.ask(t, http.MethodGet, "/fleet?cursor=phone-049", vera, nil).says(t, "phone-050", "phone-099")
	g.ask(t, http.MethodGet, "/fleet?cursor=phone-099", vera, nil).says(t, "phone-100", "tablet-1")
	g.ask(t, http.MethodGet, "/fleet?protected=true", vera, nil).says(t, "phone-008")
	for query, want := range map[string][2]string{
		"id=tab":                              {"tablet-1", "phone-"},
		"tenant=globex&label=rack%3D3":        {"phone-003", "phone-002"},
		"driver=default&id=phone-00":          {"phone-004", "phone-005"},
		"tenant=globex&driver=lab&id=phone-1": {"phone-129", "phone-128"},
		"tenant=nobody":                       {"None fits.", "phone-"},
	} {
		_, rows, _ := strings.Cut(g.ask(t, http.MethodGet, "/fleet?"+query, vera, nil).body, "<tbody>")
		if !strings.Contains(rows, want[0]) || strings.Contains(rows, want[1]) {
			t.Errorf("%s: %s", query, rows)
		}
	}
	for query, want := range map[string]string{
		"id=a/b": "field id", "tenant=a/b": "field tenant", "driver=Lab": "field driver", "label=rack": "field label", "cursor=a/b": "cursor is not one", "id=phone&cursor=a": "cursor is not one",
	} {
		a := g.ask(t, http.MethodGet, "/fleet?"+query, vera, nil)
		g.want(t, a, http.StatusBadRequest, "")
		a.says(t, want)
	}
}

func TestAnInstanceIsProtectedChangedAndRemoved(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada, olga := g.login(t, "ada"), g.login(t, "olga")
	g.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme", Driver: "lab", Address: "10.0.0.1", Labels: map[string]string{"rack": "7"}}, tasks.Instance{ID: "phone-2", Tenant: "acme", Driver: "lab", Address: "10.0.0.2"})
	// Who may act may protect, and no more.
	page := g.ask(t, http.MethodGet, "/instances/phone-1", olga, nil)
	page.says(t, "instances/phone-1/protect")
	if strings.Contains(page.body, "/change") || strings.Contains(page.body, "/remove") {
		t.Error("an operator is shown what only admins may do")
	}
	g.ask(t, http.MethodGet, "/instances/phone-1/protect", olga, nil).says(t, "Protect 1 instance", "phone-1", "Of tenant acme.")
	until := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Minute)
	g.want(t, g.ask(t, http.MethodPost, "/instances/phone-1/protect", olga, url.Values{"until": {until.Format("2006-01-02T15:04")}, "reason": {"case 4711"}}), http.StatusSeeOther, "")
	if in := g.entry(t, "phone-1"); !in.Protected || in.Reason != "case 4711" || in.By != "operator olga" || !in.Until.Equal(until) {
		t.Errorf("entry %+v", in)
	}
	shorter := g.ask(t, http.MethodPost, "/instances/phone-1/protect", olga, url.Values{"until": {until.Add(-time.Hour).Format("2006-01-02T15:04")}})
	g.want(t, shorter, http.StatusConflict, "")
	shorter.says(t, "protected for longer already, and unchanged")
	g.ask(t, http.MethodGet, "/instances/phone-1/unprotect", olga, nil).says(t, "be reset again?", "case 4711")
	g.want(t, g.ask(t, http.MethodPost, "/instances/phone-1/unprotect", olga, url.Values{"reason": {"closed"}}), http.StatusSeeOther, "")
	g.ask(t, http.MethodGet, "/instances/phone-1/unprotect", olga, nil).says(t, "is not protected")

	g.ask(t, http.MethodGet, "/instances/phone-1/change", ada, nil).says(t, `value="acme"`, `value="lab"`, `value="10.0.0.1"`, `value="rack=7"`)
	const same = "tenant=acme&driver=lab&address=10.0.0.1&labels=rack%3D7"
	g.ask(t, http.MethodGet, "/instances/phone-1/ask?"+same, ada, nil).says(t, "Nothing would change")
	taken := g.ask(t, http.MethodGet, "/instances/phone-1/ask?"+strings.Replace(same, "10.0.0.1", "10.0.0.2", 1), ada, nil)
	g.want(t, taken, http.StatusBadRequest, "")
	taken.says(t, "would be the same device as instance phone-2")
	ask := g.ask(t, http.MethodGet, "/instances/phone-1/ask?tenant=globex&driver=&address=10.0.0.9&labels=", ada, nil)
	ask.says(t, "moved to another tenant , another driver or address , other labels .", "acme globex", "lab default", "10.0.0.1 10.0.0.9", "No living worker has the driver default", "Generation 1 2")
	form := ask.hidden()
	form.Set("reason", "sold")
	g.want(t, g.ask(t, http.MethodPost, "/instances/phone-1/change", ada, form), http.StatusSeeOther, "")
	if in := g.entry(t, "phone-1"); in.Tenant != "globex" || in.Driver != "" || in.Address != "10.0.0.9" || len(in.Labels) != 0 || in.Generation != 2 {
		t.Errorf("entry %+v", in)
	}
	// What was looked at is not so any more.
	again := g.ask(t, http.MethodPost, "/instances/phone-1/change", ada, form)
	g.want(t, again, http.StatusConflict, "")
	again.says(t, "has changed since it was looked at")
	// One that is not registered yet.
	ask = g.ask(t, http.MethodGet, "/instances/phone-9/ask?tenant=acme&driver=&address=&labels=", ada, nil)
	ask.says(t, "Register 1 instance", "new")
	g.want(t, g.ask(t, http.MethodPost, "/instances/phone-9/change", ada, ask.hidden()), http.StatusSeeOther, "")
	g.ask(t, http.MethodGet, "/instances/phone-9/remove", ada, nil).says(t, "Take 1 instance, phone-9 , out of the fleet?")
	g.want(t, g.ask(t, http.MethodPost, "/instances/phone-9/remove", ada, url.Values{"reason": {"broken"}}), http.StatusSeeOther, "")
	g.want(t, g.ask(t, http.MethodPost, "/instances/phone-9/remove", ada, url.Values{}), http.StatusNotFound, "")
	want := []string{
		"fleet-protect by operator olga [phone-1]: case 4711", "fleet-protect by operator olga [phone-1]: ", "fleet-unprotect by operator olga [phone-1]: closed",
		"fleet-register by operator ada [phone-1]: sold", "fleet-address by operator ada [phone-1]: sold", "fleet-move by operator ada [phone-1]: sold",
		"fleet-register by operator ada [phone-9]: ", "fleet-remove by operator ada [phone-9]: broken",
	}
	if got := g.decided(t); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("trail\n%s", strings.Join(got, "\n"))
	}
}

const list = `instance_id,tenant,protected,driver,labels
phone-1,globex,,,
phone-2,acme,false,,rack=8
phone-3,acme,,,
phone-3,acme,,,
phone-4,acme,true,lab,
`

func TestAListIsPreviewedAndImported(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	g.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme"}, tasks.Instance{ID: "phone-2", Tenant: "acme", Protected: true, Protection: tasks.Protection{Reason: "demo"}}, tasks.Instance{ID: "phone-3", Tenant: "acme"})
	preview := g.parts(t, "/fleet/import/preview", ada, "@file", list, "list", "")
	g.want(t, preview, http.StatusOK, "")
	preview.says(t, "Change 3 instances of the fleet?", "The list names 4 instances; 1 identical rows were left out",
		"protection ended or made shorter 1 moved to another tenant 1 other labels 1 protection begun 1 new 1 as it is 1",
		"phone-1 acme, driver default globex, driver default, generation 2", "phone-2 acme, driver default, protected acme, driver default, rack=8", "phone-4 not registered acme, driver lab, protected",
		"No living worker has the driver lab")
	if len(g.trail(t)) != 0 || g.entry(t, "phone-4").Tenant != "" {
		t.Error("a preview has changed something")
	}
	form := preview.hidden()
	apply := func(form url.Values) answer {
		return g.parts(t, "/fleet/import", ada, "list", form.Get("list"), "seen", form.Get("seen"), "reason", "ticket 42")
	}
	// Somebody else changes an entry meanwhile.
	must(t, errOf(g.db.Fleet.Unprotect(t.Context(), []string{"phone-2"}, tasks.Actor{})))
	late := apply(form)
	g.want(t, late, http.StatusConflict, "")
	late.says(t, "has changed since it was looked at. Nothing was changed")
	if g.entry(t, "phone-4").Tenant != "" {
		t.Error("it was imported all the same")
	}
	g.rdb.Del(t.Context(), "reset:audit")
	again := g.parts(t, "/fleet/import/preview", ada, "list", list).hidden()
	done := apply(again)
	g.want(t, done, http.StatusOK, "")
	done.says(t, "The list is imported", "new 1", "moved to another tenant 1")
	if one, two, four := g.entry(t, "phone-1"), g.entry(t, "phone-2"), g.entry(t, "phone-4"); one.Tenant != "globex" || two.Labels["rack"] != "8" || !four.Protected || four.By != "operator ada" {
		t.Errorf("entries %+v %+v %+v", one, two, four)
	}
	trail := g.trail(t)
	if len(trail) != 2 || trail[0].Action != tasks.ActionRegister || len(trail[0].InstanceIDs) != 4 || trail[0].Reason != "ticket 42" || trail[1].Action != tasks.ActionMove {
		t.Errorf("trail %+v", trail)
	}
	// The answer, loaded again.
	g.want(t, apply(again), http.StatusConflict, "")
	g.parts(t, "/fleet/import/preview", ada, "list", list).says(t, "Nothing would change", "as it is 4")
	// Another list than the one that was looked at.
	other := g.parts(t, "/fleet/import/preview", ada, "list", "instance_id,tenant\nphone-5,acme\n").hidden()
	other.Set("list", again.Get("list"))
	g.want(t, apply(other), http.StatusConflict, "")
}

func TestAListCanBeAllOfATenant(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	g.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme"}, tasks.Instance{ID: "phone-2", Tenant: "acme"}, tasks.Instance{ID: "phone-3", Tenant: "globex"},
		tasks.Instance{ID: "phone-4", Tenant: "acme", Protected: true, Protection: tasks.Protection{Reason: "legal hold"}})
	const one = "instance_id,tenant\nphone-1,acme\n"
	preview := func() answer {
		return g.parts(t, "/fleet/import/preview", ada, "list", one, "remove_from", "acme")
	}
	refused := preview()
	g.want(t, refused, http.StatusConflict, "")
	refused.says(t, "Tenant acme has protected instances that the list does not name (1), among them phone-4")
	must(t, errOf(g.db.Fleet.Unprotect(t.Context(), []string{"phone-4"}, tasks.Actor{})))
	looked := preview()
	looked.says(t, "Change 2 instances of the fleet?", "Instances of tenant acme that it does not name are removed", "removed 2", "2 removed phone-2 phone-4")
	form := looked.hidden()
	apply := func() answer {
		return g.parts(t, "/fleet/import", ada, "list", form.Get("list"), "seen", form.Get("seen"), "remove_from", form.Get("remove_from"), "removed", form.Get("removed"), "reason", "stocktaking")
	}
	// Another one comes meanwhile, which nobody has looked at.
	must(t, g.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-5", Tenant: "acme"}}, tasks.Actor{}))
	late := apply()
	g.want(t, late, http.StatusConflict, "")
	late.says(t, "The tenant has other instances than when the list was looked at")
	form = preview().hidden()
	g.rdb.Del(t.Context(), "reset:audit")
	apply().says(t, "The list is imported", "removed 3")
	for id, want := range map[string]string{"phone-1": "acme", "phone-2": "", "phone-3": "globex", "phone-4": "", "phone-5": ""} {
		if got := g.entry(t, id).Tenant; got != want {
			t.Errorf("%s is of %q, want %q", id, got, want)
		}
	}
	if got := strings.Join(g.decided(t), "\n"); got != "fleet-register by operator ada [phone-1]: stocktaking\nfleet-remove by operator ada [phone-2 phone-4 phone-5]: stocktaking" {
		t.Errorf("trail\n%s", got)
	}
}

func errOf(_ any, err error) error { return err }

func TestListsThatAreWrongAreRefused(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	g.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme"})
	for _, row := range []struct {
		name   string
		fields []string
		status int
		want   string
	}{
		{"nothing", []string{"list", " "}, http.StatusBadRequest, "There is no list"},
		{"two lists", []string{"list", list, "@file", list}, http.StatusBadRequest, "There are two lists"},
		{"a field that is not known", []string{"List", list}, http.StatusBadRequest, "Unknown field"},
		{"a field twice", []string{"list", list, "list", list}, http.StatusBadRequest, "list is there 2 times"},
		{"a column that is not known", []string{"list", "instance_id,tennant\na,b\n"}, http.StatusBadRequest, "line 1: unknown column"},
		{"a cell that is wrong", []string{"list", "instance_id,tenant\nphone-2,acme\nphone-3,a/b\n"}, http.StatusBadRequest, "line 3: tenant"},
		{"two entries that differ", []string{"list", "instance_id,tenant\nphone-2,acme\nphone-2,globex\n"}, http.StatusBadRequest, "line 3: instance phone-2 is in line 2 already"},
		{"a new instance of nobody", []string{"list", "instance_id\nphone-1\nphone-2\n"}, http.StatusBadRequest, "line 3: instance phone-2 is not registered yet, and tenant is missing"},
		{"no instance", []string{"list", "instance_id,tenant\n"}, http.StatusBadRequest, "names no instance"},
		{"a list that is too long", []string{"list", strings.Repeat("x", 8<<20+1)}, http.StatusBadRequest, "may have 8 MiB"},
		{"a form that is too long", []string{"list", strings.Repeat("x", 12<<20)}, http.StatusRequestEntityTooLarge, "may have 12 MiB"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := g.parts(t, "/fleet/import/preview", ada, row.fields...)
			g.want(t, a, row.status, "")
			a.says(t, row.want)
		})
	}
	for name, fields := range map[string][]string{
		"no preview": {"list", "aW5zdGFuY2VfaWQ"}, "not ours": {"list", "!", "seen", strings.Repeat("0", 64)}, "too long a reason": {"reason", strings.Repeat("x", 257)}, "a field of another form": {"file", ""},
	} {
		if a := g.parts(t, "/fleet/import", ada, fields...); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, a.status, a.text())
		}
	}
	g.want(t, g.ask(t, http.MethodPost, "/fleet/import", ada, url.Values{"list": {"x"}}), http.StatusBadRequest, "")
	for _, who := range []string{"vera", "paul", "olga"} {
		session := g.login(t, who)
		for _, path := range []string{"/fleet/import", "/fleet/import/preview"} {
			g.want(t, g.parts(t, path, session, "list", list), http.StatusForbidden, "Only an admin may do this.")
		}
		for _, path := range []string{"/fleet/import", "/instances/phone-1/change", "/instances/phone-1/ask?tenant=x", "/instances/phone-1/remove"} {
			g.want(t, g.ask(t, http.MethodGet, path, session, nil), http.StatusForbidden, "")
		}
		for _, path := range []string{"/instances/phone-1/change", "/instances/phone-1/remove"} {
			g.want(t, g.ask(t, http.MethodPost, path, session, url.Values{}), http.StatusForbidden, "")
		}
		if who != "olga" {
			for _, path := range []string{"/instances/phone-1/protect", "/instances/phone-1/unprotect"} {
				g.want(t, g.ask(t, http.MethodPost, path, session, url.Values{}), http.StatusForbidden, "")
			}
		}
	}
	for form, want := range map[string]string{
		"until=2020-01-01T00:00": "until is in the past", "until=tomorrow": "until must be a time", "reason=" + strings.Repeat("x", 257): "257 characters", "unil=x": "Unknown field", "reason=a&reason=b": "reason is there 2 times",
	} {
		values, err := url.ParseQuery(form)
		must(t, err)
		a := g.ask(t, http.MethodPost, "/instances/phone-1/protect", ada, values)
		g.want(t, a, http.StatusBadRequest, "")
		a.says(t, want)
	}
	for path, want := range map[string]string{
		"/instances/phone-1/ask?tenant=a/b": "field tenant", "/instances/phone-1/ask?tenant=acme&driver=Lab": "field driver", "/instances/phone-1/ask?tenant=acme&labels=x": "field labels", "/instances/phone-1/ask?Tenant=acme": "Unknown parameter",
	} {
		a := g.ask(t, http.MethodGet, path, ada, nil)
		g.want(t, a, http.StatusBadRequest, "")
		a.says(t, want)
	}
	g.want(t, g.ask(t, http.MethodPost, "/instances/phone-1/change", ada, url.Values{"tenant": {"acme"}}), http.StatusBadRequest, "")
	g.want(t, g.ask(t, http.MethodGet, "/instances/nobody/protect", ada, nil), http.StatusNotFound, "")
	if trail := g.trail(t); len(trail) != 0 {
		t.Errorf("trail %+v", trail)
	}
}

// An admin makes a token, and imports a list.
func TestManagingInABrowser(t *testing.T) {
	g := newGuarded(t, staff())
	runs := g.withRunner()
	runs.make(t, 12, tasks.RunSubmission{Name: "Quarter end", Reason: "leased phones go back", Approval: tasks.ApprovalRule{Approvers: 2, Expiry: 24 * time.Hour}})
	e, err := g.db.Endpoints.Add(t.Context(), tasks.NewEndpoint("acme", "https://acme.example/hooks", tasks.Topics), tasks.Actor{})
	must(t, err, errOf(g.db.Endpoints.Report(t.Context(), e, tasks.Report{EventID: "e", Topic: tasks.TopicRunFinished, Status: 503, Error: "status 503", TookMillis: 42})))
	g.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme"}, tasks.Instance{ID: "phone-2", Tenant: "acme", Protected: true, Protection: tasks.Protection{Reason: "demo"}})
	browsertest.Script(t, "../..", "testdata/manage.js", g.URL, password)
	var actions []string
	for _, e := range g.trail(t) {
		actions = append(actions, string(e.Action)+" "+e.Reason)
	}
	if got := strings.Join(actions, ","); got != "token-add for CI,fleet-register ticket 42,fleet-unprotect ticket 42,fleet-move ticket 42" {
		t.Errorf("trail %s", got)
	}
	tokens, err := g.db.Tokens.List(t.Context())
	if err != nil || len(tokens) != 1 {
		t.Errorf("tokens %+v, %v", tokens, err)
	}
	if in := g.entry(t, "phone-1"); in.Tenant != "globex" {
		t.Errorf("entry %+v", in)
	}
}

func TestAnEntryWhoseLabelsLookLikeOthersStaysAsItIs(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	labels := map[string]string{"rack": "7;site=lab"}
	g.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme", Labels: labels})
	form := g.ask(t, http.MethodGet, "/instances/phone-1/change", ada, nil)
	shown := regexp.MustCompile(`name="labels" [^>]*value="([^"]*)"`).FindStringSubmatch(form.body)
	if shown == nil {
		t.Fatal(form.body)
	}
	same := url.Values{"tenant": {"acme"}, "driver": {"lab"}, "address": {""}, "labels": {html.UnescapeString(shown[1])}}
	asked := g.ask(t, http.MethodGet, "/instances/phone-1/ask?"+same.Encode(), ada, nil)
	g.want(t, asked, http.StatusOK, "")
	done := asked.hidden()
	done.Set("reason", "ticket 42")
	g.want(t, g.ask(t, http.MethodPost, "/instances/phone-1/change", ada, done), http.StatusSeeOther, "")
	if in := g.entry(t, "phone-1"); in.Driver != "lab" || !maps.Equal(in.Labels, labels) {
		t.Errorf("entry %+v", in)
	}
}

func TestTheFleetAsAFileIsAListOfIt(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	g.register(t,
		tasks.Instance{ID: "-phone-1", Tenant: "acme", Driver: "lab", Address: "=1+1", Labels: map[string]string{"rack": "7", "site": "k 1"}},
		tasks.Instance{ID: "phone-2", Tenant: "acme", Labels: map[string]string{"rack": "7;site=lab"}},
		tasks.Instance{ID: "phone-3", Tenant: "globex"})
	_, _, err := g.db.Fleet.Protect(t.Context(), []string{"phone-2"}, tasks.Time{Time: time.Now().Add(time.Hour).Truncate(time.Second)}, tasks.Actor{By: "operator olga", Reason: "+demo"})
	must(t, err)
	file := g.ask(t, http.MethodGet, "/fleet?format=csv", ada, nil)
	g.want(t, file, http.StatusOK, "")
	g.parts(t, "/fleet/import/preview", ada, "@file", file.body).says(t, "Nothing would change", "as it is 3")
	// What is protected since is not in an old file, and stays so.
	_, _, err = g.db.Fleet.Protect(t.Context(), []string{"phone-3"}, tasks.Time{}, tasks.Actor{By: "operator olga"})
	must(t, err)
	g.parts(t, "/fleet/import/preview", ada, "@file", file.body).says(t, "Nothing would change", "as it is 3")
}
