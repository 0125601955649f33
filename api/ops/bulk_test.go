package ops_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
)

var targetField = regexp.MustCompile(`name="target" value="([^"]+)"`)

// targets are what a preview would send.
func targets(page string) (values []string) {
	for _, match := range targetField.FindAllStringSubmatch(page, -1) {
		values = append(values, match[1])
	}
	return values
}

// newFailed makes a job of tenant acme and a run, in each of which one phone failed with CPS.0005, one with CPS.0042, one is
// unknown, and one succeeded.
func newFailed(t *testing.T) (r runsOf, job, run string) {
	t.Helper()
	r = newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator, "vera": tasks.RoleViewer}).withRunner()
	outcome := func(nth int) tasks.Outcome {
		switch nth {
		case 0:
			return tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005", Message: "Phone not found."}
		case 1:
			return tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0042", Message: "system busy"}
		case 2:
			return tasks.Outcome{Transition: tasks.LoseTrack, Code: tasks.TimedOut, Message: "timed out"}
		}
		return tasks.Outcome{Transition: tasks.Succeed}
	}
	loose, err := r.db.Records.Submit(t.Context(), tasks.Submission{
		Tenant: "globex", InstanceIDs: []string{"loose-0", "loose-1", "loose-2", "loose-3"}, AllowUnregistered: true,
	})
	must(t, err)
	for n, d := range loose.Deliveries() {
		_, err := r.db.Attempts.Begin(t.Context(), d, fmt.Sprint("t", n), "k", time.Minute)
		must(t, err)
		_, err = r.db.Attempts.Finish(t.Context(), d, fmt.Sprint("t", n), outcome(n), true)
		must(t, err)
	}
	run = r.make(t, 4, tasks.RunSubmission{Name: "line"})
	must(t, r.goOn(t.Context(), run), r.end(t.Context(), run, 4, outcome))
	for _, id := range []string{loose.ID} {
		ended, err := r.db.Jobs.Job(t.Context(), id)
		must(t, err, r.db.Failures.IndexFailures(t.Context(), ended))
	}
	ended, err := r.db.Jobs.Job(t.Context(), tasks.PartJobID(run, 0))
	must(t, err, r.db.Failures.IndexFailures(t.Context(), ended))
	if counts := r.get(t, run).Counts; counts != (tasks.Counts{Succeeded: 1, Failed: 2, Unknown: 1}) {
		t.Fatalf("run %+v", counts)
	}
	return r, loose.ID, run
}

func TestACodeIsRetriedAndNothingElse(t *testing.T) {
	r, job, run := newFailed(t)
	alice := r.login(t, "alice")
	page := r.ask(t, http.MethodGet, "/bulk?action=retry&preview=1&code=CPS.0042", alice, nil)
	text := html.UnescapeString(page.body)
	for _, want := range []string{"2 instances in 2 jobs and runs", "loose-1", "line-1"} {
		if !strings.Contains(text, want) {
			t.Errorf("preview without %q: %s", want, text)
		}
	}
	for _, other := range []string{"loose-0", "loose-2", "line-0", "line-2"} {
		if strings.Contains(text, other) {
			t.Errorf("preview has %s", other)
		}
	}
	form := url.Values{"action": {"retry"}, "state": {"failed"}, "code": {"CPS.0042"}, "reason": {"busy is over"}, "target": targets(page.body)}
	done := r.ask(t, http.MethodPost, "/bulk", alice, form)
	if done.status != http.StatusOK || !strings.Contains(done.body, "2 jobs and runs retried") {
		t.Fatalf("%d %s", done.status, done.body)
	}
	got, err := r.db.Jobs.Job(t.Context(), job)
	must(t, err)
	if got.Counts != (tasks.Counts{Pending: 1, Failed: 1, Unknown: 1, Succeeded: 1}) || got.Items[1].State != tasks.ItemPending {
		t.Errorf("job %+v", got.Counts)
	}
	if again := r.get(t, run); again.Round != 2 || again.Counts != (tasks.Counts{Pending: 1, Failed: 1, Unknown: 1, Succeeded: 1}) || again.Failures[0].Code != "CPS.0005" {
		t.Errorf("run %+v, %+v", again.Counts, again.Failures)
	}
	var about []string
	for _, e := range r.trail(t) {
		about = append(about, fmt.Sprintf("%s %s %s", e.Action, e.Reason, strings.Join(e.InstanceIDs, " ")))
	}
	if !slices.Contains(about, "retry busy is over loose-1") {
		t.Errorf("trail %q", about)
	}
	// The run goes on with that instance, and its first round still counts for the others.
	must(t, r.goOn(t.Context(), run), r.end(t.Context(), run, 1, succeeds))
	if again := r.get(t, run); again.State != tasks.RunPartial || again.Counts != (tasks.Counts{Failed: 1, Unknown: 1, Succeeded: 2}) {
		t.Errorf("run %s, %+v", again.State, again.Counts)
	}
	// What is asked once more is refused: it is not as it was.
	if twice := r.ask(t, http.MethodPost, "/bulk", alice, form); !strings.Contains(twice.body, "2 could not be") || !strings.Contains(twice.body, "changed since the preview") {
		t.Errorf("%d %s", twice.status, twice.body)
	}
}

func TestAPreviewTakesUnknownInstancesOnlyByName(t *testing.T) {
	r, _, run := newFailed(t)
	alice := r.login(t, "alice")
	for query, want := range map[string]string{
		"tenant=globex":               "2 instances in 1 job or run",
		"tenant=globex&state=unknown": "1 instance in 1 job or run",
		"run=" + run:                  "2 instances in 1 job or run",
		"run=" + run + "&state=failed&state=unknown": "3 instances in 1 job or run",
		"tenant=nobody":                "Nothing fits",
		"since=2020-01-01T00:00":       "4 instances in 2 jobs and runs",
		"until=2020-01-01T00:00":       "Nothing fits",
		"code=CPS.0005&tenant=acme":    "1 instance in 1 job or run",
		"code=CPS.0005&driver=default": "2 instances in 2 jobs and runs",
		"code=CPS.0005&driver=other":   "Nothing fits",
		// What was typed beside a run counts, too.
		"run=" + run + "&tenant=acme":                  "2 instances in 1 job or run",
		"run=" + run + "&tenant=globex":                "Nothing fits",
		"run=" + run + "&label=rack=7":                 "Nothing fits",
		"run=" + run + "&since=2020-01-01T00:00":       "2 instances in 1 job or run",
		"run=" + run + "&until=2020-01-01T00:00":       "Nothing fits",
		"run=" + run + "&code=CPS.0005&driver=another": "those of other drivers than <code>another</code> in the same jobs and runs, too",
	} {
		page := r.ask(t, http.MethodGet, "/bulk?action=retry&preview=1&"+query, alice, nil)
		if page.status != http.StatusOK || !strings.Contains(page.body, want) {
			t.Errorf("%s: %d, without %q: %s", query, page.status, want, page.body)
		}
	}
}

func TestManyAreCancelled(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator}).withRunner()
	alice := g.login(t, "alice")
	run := g.make(t, 40, tasks.RunSubmission{Name: "line"})
	must(t, g.goOn(t.Context(), run))
	page := g.ask(t, http.MethodGet, "/bulk?action=cancel&preview=1&tenant=acme", alice, nil)
	if !strings.Contains(page.body, "42 instances in 2 jobs and runs") {
		t.Fatalf("%d %s", page.status, page.body)
	}
	gone := "job " + tasks.NewJobID() + " 1"
	done := g.ask(t, http.MethodPost, "/bulk", alice, url.Values{"action": {"cancel"}, "reason": {"wrong list"}, "target": append(targets(page.body), gone)})
	if !strings.Contains(done.body, "2 jobs and runs cancelled") || !strings.Contains(done.body, "1 could not be") || !strings.Contains(done.body, "not kept any more") {
		t.Errorf("%d %s", done.status, done.body)
	}
	job, err := g.db.Jobs.Job(t.Context(), g.job)
	must(t, err, g.goOn(t.Context(), run), g.goOn(t.Context(), run)) // its jobs first, then what follows from them
	if job.Counts != (tasks.Counts{Failed: 1, Cancelled: 2}) || g.get(t, run).State != tasks.RunCancelled {
		t.Errorf("job %+v, run %s", job.Counts, g.get(t, run).State)
	}
}

func TestWhatIsWrongWithManyAtATime(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator, "vera": tasks.RoleViewer})
	alice, id := g.login(t, "alice"), tasks.NewJobID()
	for _, row := range []struct {
		name, method, path string
		form               url.Values
		status             int
		want               string
	}{
		{"no filter", http.MethodGet, "/bulk?preview=1", nil, http.StatusBadRequest, "Say of what"},
		{"another action", http.MethodGet, "/bulk?action=wipe", nil, http.StatusBadRequest, `no action "wipe"`},
		{"a state that succeeded", http.MethodGet, "/bulk?state=succeeded&preview=1&tenant=acme", nil, http.StatusBadRequest, `no state "succeeded": choose failed, unknown or cancelled`},
		{"a run that is none", http.MethodGet, "/bulk?run=7&preview=1", nil, http.StatusBadRequest, "not the ID of a run"},
		{"a run that is gone", http.MethodGet, "/bulk?run=" + id + "&preview=1", nil, http.StatusBadRequest, "There is no run"},
		{"a cancel of a code", http.MethodGet, "/bulk?action=cancel&code=x&preview=1", nil, http.StatusBadRequest, "has no error code"},
		{"a label that is none", http.MethodGet, "/bulk?label=x&preview=1", nil, http.StatusBadRequest, "The label"},
		{"a run and a label that is none", http.MethodGet, "/bulk?run=" + id + "&label=x&preview=1", nil, http.StatusBadRequest, "The label"},
		{"a filter that is not known", http.MethodGet, "/bulk?tennant=acme&since=2020-01-01T00:00&preview=1", nil, http.StatusBadRequest, "did you mean"},
		{"a filter twice", http.MethodGet, "/bulk?tenant=acme&tenant=globex&preview=1", nil, http.StatusBadRequest, "2 times"},
		{"a time that is none", http.MethodGet, "/bulk?since=now&preview=1", nil, http.StatusBadRequest, "must be a time"},
		{"no target", http.MethodPost, "/bulk", url.Values{"action": {"cancel"}, "reason": {"x"}}, http.StatusBadRequest, "names no job"},
		{"a target twice", http.MethodPost, "/bulk", url.Values{"action": {"cancel"}, "target": {"job " + id + " 1", "run " + id + " 1"}}, http.StatusBadRequest, "named twice"},
		{"a target that is none", http.MethodPost, "/bulk", url.Values{"action": {"cancel"}, "target": {"phone-1"}}, http.StatusBadRequest, "not a job or a run"},
		{"no state", http.MethodPost, "/bulk", url.Values{"action": {"retry"}, "target": {"job " + id + " 1"}}, http.StatusBadRequest, "Choose which instances"},
		{"no action", http.MethodPost, "/bulk", url.Values{"target": {"job " + id + " 1"}}, http.StatusBadRequest, "no action"},
		{"a field that is not known", http.MethodPost, "/bulk", url.Values{"targets": {"x"}}, http.StatusBadRequest, "Unknown field"},
		{"a reason twice", http.MethodPost, "/bulk", url.Values{"reason": {"x", "y"}}, http.StatusBadRequest, "2 times"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := g.ask(t, row.method, row.path, alice, row.form)
			if body := html.UnescapeString(a.body); a.status != row.status || !strings.Contains(body, row.want) {
				t.Errorf("%d: %s", a.status, body)
			}
		})
	}
	vera := g.login(t, "vera")
	if a := g.ask(t, http.MethodGet, "/bulk", vera, nil); a.status != http.StatusForbidden {
		t.Errorf("a viewer: %d", a.status)
	}
	if a := g.ask(t, http.MethodPost, "/bulk", vera, url.Values{"action": {"cancel"}, "target": {"job " + g.job + " 1"}}); a.status != http.StatusForbidden {
		t.Errorf("a viewer: %d", a.status)
	}
	if trail := g.trail(t); len(trail) != 0 {
		t.Errorf("trail %+v", trail)
	}
}
