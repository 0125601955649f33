package ops_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
)

// order sends what the dashboard sends when something is done with some tasks.
func (g guarded) order(t *testing.T, session *http.Cookie, method, path, body string) answer {
	t.Helper()
	return g.send(t, method, "/asynq/api/queues/reset-0/"+path, session, body, "Content-Type", "application/json")
}

func TestTheTrailNamesTheTasksOfTheDashboard(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator})
	alice := g.login(t, "alice")
	task := tasks.NewJobID() + "-0-1"
	list := fmt.Sprintf(`{"task_ids":[%q,"somebody's"]}`, task)
	for _, row := range []struct {
		method, path, body string
		want               []string
		stops              bool
	}{
		{http.MethodPost, "archived_tasks:batch_delete", list, []string{task, "somebody's"}, true},
		{http.MethodPost, "pending_tasks:batch_archive", list, []string{task, "somebody's"}, true},
		{http.MethodPost, "scheduled_tasks:batch_run", list, []string{task, "somebody's"}, false},
		{http.MethodPost, "active_tasks:batch_cancel", list, []string{task, "somebody's"}, true},
		{http.MethodPost, "groups/g/aggregating_tasks:batch_delete", list, []string{task, "somebody's"}, true},
		// What is done is what was read here, and not the other list.
		{http.MethodPost, "completed_tasks:batch_delete", `{"task_ids":["a"],"TASK_IDS":["b"]}`, []string{"b"}, true},
		{http.MethodPost, "active_tasks/" + task + ":cancel", "", []string{task}, true},
		{http.MethodPost, "archived_tasks:run_all", "", nil, false},
	} {
		if a := g.order(t, alice, row.method, row.path, row.body); a.status >= 300 {
			t.Fatalf("%s: %d %s", row.path, a.status, a.body)
		}
		trail := g.trail(t)
		e := trail[len(trail)-1]
		if e.Action != tasks.ActionDashboard || e.By != "operator alice" || !strings.HasSuffix(e.Detail, "/"+row.path) || !slices.Equal(e.TaskIDs, row.want) || e.Tasks != len(row.want) || e.Stops() != row.stops {
			t.Errorf("%s: %+v", row.path, e)
		}
	}
	// A job's trail has what was done with its tasks.
	job, _, _ := strings.Cut(task, "-")
	page := g.ask(t, http.MethodGet, "/audit?job="+job, alice, nil)
	if n := strings.Count(page.body, task); n < 6 {
		t.Errorf("the page has the task %d times: %s", n, page.body)
	}
}

func TestABatchThatIsDeletedIsTheOneInTheTrail(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator})
	alice := g.login(t, "alice")
	client := asynq.NewClientFromRedisClient(g.rdb)
	var ids []string
	for n := range 250 {
		ids = append(ids, fmt.Sprintf("%q", fmt.Sprint("task-", n)))
		if _, err := client.EnqueueContext(t.Context(), asynq.NewTask("x", nil), asynq.Queue("reset-0"), asynq.TaskID(fmt.Sprint("task-", n)), asynq.ProcessIn(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	a := g.order(t, alice, http.MethodPost, "scheduled_tasks:batch_delete", `{"task_ids":[`+strings.Join(ids[:249], ",")+`,"`+strings.Repeat("x", 5000)+`"]}`)
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	info, err := g.db.Redis.NewInspector().GetQueueInfo("reset-0")
	if err != nil || info.Scheduled != 1 {
		t.Errorf("%d tasks are left, %v", info.Scheduled, err)
	}
	trail := g.trail(t)
	if e := trail[len(trail)-1]; e.Tasks != 250 || len(e.TaskIDs) != 100 || e.TaskIDs[99] != "task-99" {
		t.Errorf("entry %+v", e)
	}
	// What cannot be read is not passed on.
	for _, body := range []string{"", "[]", `{"task_ids":[7]}`, `{"task_ids":["a"],"more":1}`} {
		if a := g.order(t, alice, http.MethodPost, "scheduled_tasks:batch_delete", body); a.status != http.StatusBadRequest || !strings.Contains(a.body, "list of tasks") {
			t.Errorf("%.30s: %d %s", body, a.status, a.body)
		}
	}
	if again := g.trail(t); len(again) != len(trail) {
		t.Errorf("trail %+v", again[len(trail):])
	}
}

func TestLogInsAreInTheTrail(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator, "vera": tasks.RoleViewer})
	try := func(name, word string) {
		t.Helper()
		if a := g.ask(t, http.MethodPost, "/login", nil, url.Values{"name": {name}, "password": {word}}); a.status != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	try("alice", "a wrong password")
	try("hunter2", "alice") // the password in the wrong field stays out of the trail
	alice := g.login(t, "alice")
	for range 2 { // the second time there is nothing to end
		g.want(t, g.ask(t, http.MethodPost, "/logout", alice, url.Values{}), http.StatusSeeOther, "")
	}
	vera := g.login(t, "vera")
	if a := g.ask(t, http.MethodPost, "/login", vera, url.Values{"name": {"alice"}, "password": {password}}); a.status != http.StatusSeeOther {
		t.Fatalf("%+v", a)
	}
	var got []string
	for _, e := range g.wholeTrail(t) {
		if e.From != "127.0.0.1" || e.At.IsZero() {
			t.Errorf("%+v", e)
		}
		got = append(got, fmt.Sprintf("%s by %s %s", e.Action, e.By, e.Detail))
	}
	want := []string{
		"login-failed by dashboard as alice", "login-failed by dashboard as nobody who is known",
		"login by operator alice as operator", "logout by operator alice as operator",
		"login by operator vera as viewer", "logout by operator vera as viewer", "login by operator alice as operator",
	}
	if !slices.Equal(got, want) {
		t.Errorf("trail\n%s", strings.Join(got, "\n"))
	}
}

// What turns the direction of the writing, and what is not seen, stands as its number on
// every page where text of others is.
func TestPagesShowWhatIsNotSeen(t *testing.T) {
	const trap = "in\u202evoice\u2066\u200b\x1b"
	g := newGuarded(t, nil)
	job, err := g.db.Records.Submit(t.Context(), tasks.Submission{
		Tenant: "acme", InstanceIDs: []string{"trapped"}, AllowUnregistered: true, Reason: trap, RequestID: trap, Labels: map[string]string{trap: trap}, By: trap,
	})
	if err != nil {
		t.Fatal(err)
	}
	d := job.Deliveries()[0]
	if _, err := g.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := g.db.Attempts.Finish(t.Context(), d, "t", tasks.Outcome{Transition: tasks.Fail, Code: "X." + trap, Message: trap}, true); err != nil {
		t.Fatal(err)
	}
	if err := g.db.Policies.Halt(t.Context(), "acme", tasks.HaltedByTenant, tasks.Actor{Reason: trap}); err != nil {
		t.Fatal(err)
	}
	run := g.withRunner().make(t, 1, tasks.RunSubmission{Name: trap, Reason: trap, RequestID: trap, Labels: map[string]string{trap: trap}, Principal: trap})
	query := url.QueryEscape(trap)
	for path, shows := range map[string]bool{
		"/": true, "/jobs": true, "/jobs/" + job.ID: true, "/jobs/" + job.ID + "/retry": false, "/failures": true, "/failures/items?code=" + url.QueryEscape("X."+trap): true,
		"/instances/trapped": true, "/tenants": true, "/audit": true, "/audit?tenant=" + query: true, "/jobs?tenant=" + query: true, "/login?next=/" + query: true,
		"/runs": true, "/runs/" + run: true, "/runs/" + run + "/cancel": true, "/runs/" + run + "/instances": true, "/runs?tenant=" + query: true,
		"/runs/" + run + "/instances?code=" + query: true,
		// What is said of a mistake quotes it already.
		"/jobs?state=" + query: false, "/instances/" + url.PathEscape(trap): false, "/tenants/halt?tenant=" + query: false,
	} {
		a := g.ask(t, http.MethodGet, path, nil, nil)
		if at := strings.IndexAny(a.body, "\u202e\u2066\u200b\x1b"); at >= 0 {
			t.Errorf("%s has what is not seen: %q", path, a.body[max(0, at-80):min(len(a.body), at+40)])
		}
		if shows && !strings.Contains(a.body, "in[U+202E]voice[U+2066][U+200B]") {
			t.Errorf("%s does not show it: %s", path, a.body)
		}
	}
}
