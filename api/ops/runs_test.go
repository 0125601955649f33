package ops_test

import (
	"context"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/api/browsertest"
	"batchreset/tasks"
	"batchreset/worker"
)

// runsOf goes on with runs as a worker would, when it is told to.
type runsOf struct {
	guarded
	runner *worker.Runner
}

func (g guarded) withRunner() runsOf {
	return runsOf{g, worker.NewRunner(worker.RunnerStore{
		Runs: g.db.Runs, RunProgress: g.db.RunProgress, RunNotices: g.db.Notices, RunHalts: g.db.Policies, RunJobs: g.db.Records, RunFleet: g.db.Fleet,
	}, slog.New(slog.DiscardHandler))}
}

// make makes a run of n phones, which bob has asked for unless the submission says otherwise.
func (r runsOf) make(t *testing.T, n int, s tasks.RunSubmission) string {
	t.Helper()
	s.Tenant, s.AllowUnregistered, s.By = "acme", true, "token 7"
	if s.Principal == "" {
		s.Principal = "bob"
	}
	for i := range n {
		s.InstanceIDs = append(s.InstanceIDs, fmt.Sprintf("%s-%d", strings.ReplaceAll(strings.ToLower(s.Name), " ", "-"), i))
	}
	if s.Options.MaxParallel == 0 {
		s.Options.MaxParallel = tasks.DefaultMaxParallel
	}
	if err := s.Options.Check(n); err != nil {
		t.Fatal(err)
	}
	run, err := r.db.Runs.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return run.ID
}

func (r runsOf) get(t *testing.T, id string) tasks.Run {
	t.Helper()
	run, err := r.db.Runs.Run(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// goOn has the runner go on with a run until nothing changes.
func (r runsOf) goOn(ctx context.Context, id string) error {
	for before := int64(-1); ; {
		run, err := r.db.Runs.Stored(ctx, id)
		if err != nil || run.Revision == before {
			return err
		}
		before = run.Revision
		if err := r.db.RunProgress.Hurry(ctx, id); err != nil {
			return err
		}
		hurried, err := r.rdb.ZScore(ctx, "reset:runs", id).Result()
		if errors.Is(err, redis.Nil) { // it has ended
			return nil
		}
		// Until a runner has looked: for a moment, a clock that was just set can say that the run is not due.
		for next := hurried; err == nil && next == hurried; next, err = r.rdb.ZScore(ctx, "reset:runs", id).Result() {
			if err := r.runner.Round(ctx); err != nil {
				return err
			}
		}
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
}

// end ends attempts at what is open of a run, up to n of them, as outcome says, and then has the runner go on.
func (r runsOf) end(ctx context.Context, id string, n int, outcome func(nth int) tasks.Outcome) error {
	run, err := r.db.Runs.Stored(ctx, id)
	if err != nil {
		return err
	}
	nth := 0
	for part := range run.Parts {
		if _, open := run.Open[part]; !open {
			continue
		}
		job, err := r.db.Jobs.Job(ctx, tasks.PartJobID(id, part))
		if err != nil {
			return err
		}
		for _, d := range job.Deliveries() {
			if nth == n {
				return nil
			}
			token := "token-" + d.ItemID
			if _, err := r.db.Attempts.Begin(ctx, d, token, "key", time.Minute); err != nil {
				return err
			}
			if _, err := r.db.Attempts.Finish(ctx, d, token, outcome(nth), true); err != nil {
				return err
			}
			nth++
		}
	}
	return r.goOn(ctx, id)
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func succeeds(int) tasks.Outcome { return tasks.Outcome{Transition: tasks.Succeed} }

// failsAt has the first ones fail, in two ways, and one of them end as unknown.
func failsAt(first int) func(int) tasks.Outcome {
	return func(nth int) tasks.Outcome {
		switch {
		case nth == 0:
			return tasks.Outcome{Transition: tasks.LoseTrack, Code: tasks.TimedOut, Message: "No answer after 30 s, and the <control> plane cannot be looked at."}
		case nth < first && nth%3 == 0:
			return tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0042", Message: "system busy", Failure: true}
		case nth < first:
			return tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005", Message: "Phone <not> found.", Failure: true}
		}
		return succeeds(nth)
	}
}

func budget(t *testing.T, text string) tasks.Budget {
	t.Helper()
	b, err := tasks.ParseBudget(text)
	must(t, err)
	return b
}

// scene has a run in each state that a page looks different in.
type scene struct {
	runsOf
	waiting, waves, paused, ended string
}

func newScene(t *testing.T) scene {
	t.Helper()
	s := scene{runsOf: newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator, "bob": tasks.RoleOperator, "vera": tasks.RoleViewer}).withRunner()}
	ctx := t.Context()
	s.ended = s.make(t, 64, tasks.RunSubmission{Name: "Lab 4", Reason: "new <image>"})
	must(t, s.goOn(ctx, s.ended), s.end(ctx, s.ended, 64, failsAt(8)))
	s.paused = s.make(t, 400, tasks.RunSubmission{Name: "Warehouse", Options: tasks.RunOptions{MaxParallel: 64, MaxFailures: budget(t, "2%")}, Labels: map[string]string{"site": "Köln"}})
	must(t, s.goOn(ctx, s.paused), s.end(ctx, s.paused, 64, failsAt(5)), s.goOn(ctx, s.paused))
	s.waves = s.make(t, 3000, tasks.RunSubmission{Name: "Recall 7", Reason: "CVE-2026-1234", Options: tasks.RunOptions{
		MaxParallel: 320, Canary: 10, Growth: 2, MaxFailures: budget(t, "2%"),
	}})
	for range 4 { // the canary, and the waves 1 to 3
		must(t, s.goOn(ctx, s.waves))
		if s.get(t, s.waves).Wave == 3 {
			break
		}
		must(t, s.end(ctx, s.waves, 3000, succeeds))
	}
	must(t, s.end(ctx, s.waves, 37, succeeds))
	s.waiting = s.make(t, 4312, tasks.RunSubmission{
		Name: "Quarter end", Reason: "leased phones go back", Approval: tasks.ApprovalRule{Approvers: 2, Expiry: 24 * time.Hour},
		Options: tasks.RunOptions{Canary: 20, Growth: 3, MaxParallel: 640, Soak: tasks.Duration(10 * time.Minute), MaxFailures: budget(t, "25")},
	})
	must(t, s.db.RunDecisions.Approve(ctx, s.waiting, s.get(t, s.waiting).ListSHA256, tasks.Actor{By: "token 9", Principal: "carol", Reason: "list is that of ticket 42"}))
	if run := s.get(t, s.waves); run.Stage != "wave 3" || run.Counts.Succeeded != 107 {
		t.Fatalf("stage %q, %+v", run.Stage, run.Counts)
	}
	if run := s.get(t, s.paused); run.State != tasks.RunPaused {
		t.Fatalf("it is %s: %+v", run.State, run.Counts)
	}
	if run := s.get(t, s.ended); run.State != tasks.RunPartial {
		t.Fatalf("it is %s: %+v", run.State, run.Counts)
	}
	return s
}

func TestRunsInABrowser(t *testing.T) {
	s := newScene(t)
	var mu sync.Mutex
	step := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if err := s.end(r.Context(), s.waves, 3000, succeeds); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	t.Cleanup(step.Close)
	before := len(s.trail(t))
	browsertest.Script(t, "../..", "testdata/runs.js", s.URL, password, s.waiting, s.waves, s.paused, s.ended, step.URL)
	var decided []string
	for _, e := range s.trail(t)[before:] {
		decided = append(decided, fmt.Sprintf("%s by %s, who is %s: %s", e.Action, e.By, e.Principal, e.Reason))
	}
	want := []string{
		"run-approve by operator alice, who is alice: looked at the list",
		"run-pause by operator alice, who is alice: to be safe",
		"run-resume by operator alice, who is alice: ",
		"run-resume by operator alice, who is alice: the rest is another model",
		"run-retry by operator alice, who is alice: ",
		"run-cancel by operator alice, who is alice: wrong list",
	}
	if strings.Join(decided, "\n") != strings.Join(want, "\n") {
		t.Errorf("trail:\n%s", strings.Join(decided, "\n"))
	}
}

func TestPagesOfRunsSayWhatIsWrong(t *testing.T) {
	s := newScene(t)
	alice, bob, vera := s.login(t, "alice"), s.login(t, "bob"), s.login(t, "vera")
	list := s.get(t, s.waiting).ListSHA256
	before := len(s.trail(t))
	for _, row := range []struct {
		name, method, path string
		session            *http.Cookie
		form               url.Values
		status             int
		want               string
	}{
		{"a run that is none", http.MethodGet, "/runs/7", vera, nil, http.StatusNotFound, "There is no such run"},
		{"a run that is gone", http.MethodGet, "/runs/" + tasks.NewJobID(), vera, nil, http.StatusNotFound, "There is no such run"},
		{"instances of a run that is gone", http.MethodGet, "/runs/" + tasks.NewJobID() + "/instances", vera, nil, http.StatusNotFound, "There is no such run"},
		{"the pause of a run that is gone", http.MethodPost, "/runs/" + tasks.NewJobID() + "/pause", alice, url.Values{}, http.StatusNotFound, "There is no such run"},
		{"runs in a state that is none", http.MethodGet, "/runs?state=done", vera, nil, http.StatusBadRequest, `no state "done"`},
		{"runs with a label that is none", http.MethodGet, "/runs?label=site", vera, nil, http.StatusBadRequest, "name=value"},
		{"runs since a time that is none", http.MethodGet, "/runs?since=now", vera, nil, http.StatusBadRequest, "Created from must be a time"},
		{"a list that somebody cut off", http.MethodGet, "/runs?cursor=%3F", vera, nil, http.StatusBadRequest, "cursor is not one"},
		{"instances that somebody cut off", http.MethodGet, "/runs/" + s.ended + "/instances?cursor=%3F", vera, nil, http.StatusBadRequest, "cursor is not one"},
		{"instances in a state that is none", http.MethodGet, "/runs/" + s.ended + "/instances?state=gone", vera, nil, http.StatusBadRequest, `There is no state "gone"`},
		{"instances with a code that none has", http.MethodGet, "/runs/" + s.ended + "/instances?code=X", vera, nil, http.StatusOK, "None."},
		{"an approval by who asked for it", http.MethodPost, "/runs/" + s.waiting + "/approve", bob, url.Values{"list_sha256": {list}, "comment": {"mine"}}, http.StatusForbidden, "bob has asked for this run"},
		{"the question for it", http.MethodGet, "/runs/" + s.waiting + "/approve", bob, nil, http.StatusConflict, "you have asked for it"},
		{"an approval of another list", http.MethodPost, "/runs/" + s.waiting + "/approve", alice, url.Values{"list_sha256": {tasks.ListHash([]string{"a"})}, "comment": {"x"}}, http.StatusConflict, "is not the hash of this run's list"},
		{"an approval of no list", http.MethodPost, "/runs/" + s.waiting + "/approve", alice, url.Values{"comment": {"x"}}, http.StatusBadRequest, "which list it is about"},
		{"a rejection of no list", http.MethodPost, "/runs/" + s.waiting + "/reject", alice, url.Values{"comment": {"x"}}, http.StatusBadRequest, "which list it is about"},
		{"an approval without a comment", http.MethodPost, "/runs/" + s.waiting + "/approve", alice, url.Values{"list_sha256": {list}}, http.StatusBadRequest, "must say why"},
		{"an approval with a field that is not known", http.MethodPost, "/runs/" + s.waiting + "/approve", alice, url.Values{"list_sha256": {list}, "comment": {"x"}, "force": {"true"}}, http.StatusBadRequest, "Unknown field"},
		{"an approval of what runs", http.MethodPost, "/runs/" + s.waves + "/approve", alice, url.Values{"list_sha256": {s.get(t, s.waves).ListSHA256}, "comment": {"x"}}, http.StatusConflict, "it is running"},
		{"the question for it", http.MethodGet, "/runs/" + s.waves + "/approve", alice, nil, http.StatusConflict, "the run is running"},
		{"a retry of what runs", http.MethodPost, "/runs/" + s.waves + "/retry", alice, url.Values{"state": {"failed"}}, http.StatusConflict, "it is running"},
		{"a retry of nothing", http.MethodPost, "/runs/" + s.ended + "/retry", alice, url.Values{}, http.StatusBadRequest, "Choose which instances"},
		{"a retry of what succeeded", http.MethodPost, "/runs/" + s.ended + "/retry", alice, url.Values{"state": {"succeeded"}}, http.StatusBadRequest, "which is none of failed, unknown or cancelled"},
		{"a retry of what is not there", http.MethodPost, "/runs/" + s.ended + "/retry", alice, url.Values{"state": {"cancelled"}}, http.StatusConflict, "no instance to retry"},
		{"a resume with a budget that is none", http.MethodPost, "/runs/" + s.paused + "/resume", alice, url.Values{"max_failures": {"101%"}}, http.StatusBadRequest, "The new budget must be"},
		{"a resume that would not last", http.MethodPost, "/runs/" + s.paused + "/resume", alice, url.Values{"max_failures": {"3%"}}, http.StatusConflict, "would pause again at once"},
		{"a resume of what runs", http.MethodPost, "/runs/" + s.waves + "/resume", alice, url.Values{}, http.StatusConflict, "it is running"},
		{"a pause of what has ended", http.MethodPost, "/runs/" + s.ended + "/pause", alice, url.Values{}, http.StatusConflict, "it is partial"},
		{"a cancel with too long a reason", http.MethodPost, "/runs/" + s.waves + "/cancel", alice, url.Values{"reason": {strings.Repeat("x", 257)}}, http.StatusBadRequest, "257 characters long"},
		{"a pause with states in the query", http.MethodPost, "/runs/" + s.waves + "/pause?state=failed", alice, url.Values{}, http.StatusBadRequest, "has a query"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := s.ask(t, row.method, row.path, row.session, row.form)
			if body := html.UnescapeString(a.body); a.status != row.status || !strings.Contains(body, row.want) {
				t.Errorf("%d: %s", a.status, body)
			}
		})
	}
	if trail := s.trail(t)[before:]; len(trail) != 0 {
		t.Errorf("trail %+v", trail)
	}
	// What callers wrote is text, not HTML.
	if page := s.ask(t, http.MethodGet, "/runs/"+s.ended, vera, nil); !strings.Contains(page.body, "Phone &lt;not&gt; found.") || !strings.Contains(page.body, "new &lt;image&gt;") {
		t.Errorf("page %s", page.body)
	}
}

func TestWhoMayNotDecideAboutARun(t *testing.T) {
	s := newScene(t)
	alice, vera := s.login(t, "alice"), s.login(t, "vera")
	crossSite := []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}
	for _, action := range []string{"pause", "resume", "cancel", "retry", "approve", "reject"} {
		path := "/runs/" + s.waiting + "/" + action
		form := url.Values{"list_sha256": {s.get(t, s.waiting).ListSHA256}, "comment": {"x"}}
		s.want(t, s.ask(t, http.MethodPost, path, vera, form), http.StatusForbidden, `"path":"`+path+`"`)
		s.want(t, s.ask(t, http.MethodGet, path, vera, nil), http.StatusForbidden, "")
		s.want(t, s.ask(t, http.MethodPost, path, nil, form), http.StatusUnauthorized, "")
		s.want(t, s.ask(t, http.MethodPost, path, alice, form, crossSite...), http.StatusForbidden, "from another site")
	}
	if run := s.get(t, s.waiting); run.State != tasks.RunWaiting || len(run.Approval.Decisions) != 1 {
		t.Errorf("run %+v", run)
	}
}

// Where nobody logs in, everybody on the machine may stop a run, and nobody approves one.
func TestNobodyWhoIsNotKnownApproves(t *testing.T) {
	r := newGuarded(t, nil).withRunner()
	id := r.make(t, 40, tasks.RunSubmission{Approval: tasks.ApprovalRule{Approvers: 1, Expiry: time.Hour}})
	form := url.Values{"list_sha256": {r.get(t, id).ListSHA256}, "comment": {"x"}}
	page := r.ask(t, http.MethodGet, "/runs/"+id, nil, nil)
	if !strings.Contains(page.body, "Nobody is logged in here") || strings.Contains(page.body, "Approve 40") {
		t.Errorf("page %s", page.body)
	}
	for _, action := range []string{"approve", "reject"} {
		r.want(t, r.ask(t, http.MethodGet, "/runs/"+id+"/"+action, nil, nil), http.StatusConflict, "")
		r.want(t, r.ask(t, http.MethodPost, "/runs/"+id+"/"+action, nil, form), http.StatusForbidden, "Nobody is logged in")
	}
	r.want(t, r.ask(t, http.MethodPost, "/runs/"+id+"/cancel", nil, url.Values{}), http.StatusSeeOther, "")
	if run := r.get(t, id); !run.Cancelled || len(run.Approval.Decisions) > 0 {
		t.Errorf("run %+v", run)
	}
	if trail := r.trail(t); trail[len(trail)-1].By != "dashboard" || trail[len(trail)-1].Principal != "" {
		t.Errorf("trail %+v", trail)
	}
}

func TestARejectedRun(t *testing.T) {
	s := newScene(t)
	alice := s.login(t, "alice")
	form := url.Values{"list_sha256": {s.get(t, s.waiting).ListSHA256}, "comment": {"wrong <list>"}}
	s.want(t, s.ask(t, http.MethodPost, "/runs/"+s.waiting+"/reject", alice, form), http.StatusSeeOther, "")
	page := s.ask(t, http.MethodGet, "/runs/"+s.waiting, alice, nil)
	for _, want := range []string{"wrong &lt;list&gt;", `state rejected">rejected`, "4,312 cancelled"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %q: %s", want, page.body)
		}
	}
	for _, not := range []string{"/retry", "/cancel", "/approve", `class="waves"`, "data-live"} {
		if strings.Contains(page.body, not) {
			t.Errorf("the page has %s", not)
		}
	}
	a := s.ask(t, http.MethodGet, "/runs?state=rejected", alice, nil)
	if !strings.Contains(a.body, "Quarter end") || strings.Contains(a.body, "Recall 7") {
		t.Errorf("list %s", a.body)
	}
}

// A page of a long run reads its record and the jobs that are open, not the run.
func TestPagesOfALongRunAreSmall(t *testing.T) {
	r := newGuarded(t, nil).withRunner()
	id := r.make(t, 100_000, tasks.RunSubmission{Options: tasks.RunOptions{MaxParallel: 64}})
	must(t, r.goOn(t.Context(), id), r.end(t.Context(), id, 64, failsAt(40)))
	for path, limit := range map[string]int{"/runs": 16 << 10, "/runs/" + id: 16 << 10, "/runs/" + id + "/instances": 128 << 10, "/runs/" + id + "/instances?state=failed": 128 << 10} {
		before := r.commands(t)
		a := r.ask(t, http.MethodGet, path, nil, nil)
		if used := r.commands(t) - before; a.status != http.StatusOK || used > 120 || len(a.body) > limit {
			t.Errorf("%s: %d, %d commands, %d bytes", path, a.status, used, len(a.body))
		}
	}
	page := r.ask(t, http.MethodGet, "/runs/"+id, nil, nil)
	for _, want := range []string{"All 26", "Cancel 99,936 instances that have not begun", "100,000 instances ended"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %q: %s", want, page.body)
		}
	}
	// Pages lead on to the end of what is asked for.
	seen := 0
	for query := "state=failed"; query != ""; {
		a := r.ask(t, http.MethodGet, "/runs/"+id+"/instances?"+query, nil, nil)
		seen += strings.Count(a.body, `class="state failed"`)
		_, more, _ := strings.Cut(a.body, `/instances?cursor=`)
		if query, _, _ = strings.Cut(more, `"`); query != "" {
			query = "cursor=" + html.UnescapeString(query)
		}
	}
	if seen != 39 {
		t.Errorf("%d failed", seen)
	}
}

// commands is how many commands Redis was sent.
func (g guarded) commands(t *testing.T) (n int) {
	t.Helper()
	stats := g.rdb.Info(t.Context(), "stats").Val()
	_, text, found := strings.Cut(stats, "total_commands_processed:")
	if _, err := fmt.Sscan(text, &n); !found || err != nil {
		t.Fatalf("%v in %s", err, stats)
	}
	return n
}
