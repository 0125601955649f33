package ops_test

import (
	"context"
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"batchreset/api/browsertest"
	"batchreset/tasks"
)

// Tokens of attempts, as workers make them: the first half is the worker's ID.
const (
	tokenOfA = "AAAAAAAA22222222"
	tokenOfB = "BBBBBBBB33333333"
)

var tags = regexp.MustCompile(`<[^>]*>|\s+`)

// textOf is a page without its HTML.
func textOf(body string) string {
	return strings.Join(strings.Fields(html.UnescapeString(tags.ReplaceAllString(body, " "))), " ")
}

// inOrder wants texts, one after the other.
func inOrder(t *testing.T, text string, parts ...string) {
	t.Helper()
	rest := text
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Errorf("%q is not there, or not after what came before, in %s", part, text)
			return
		}
		rest = after
	}
}

// storied is a job with one instance, an attempt at which was refused, one lost, and one succeeded; in between somebody had
// it tried again.
func (g guarded) storied(t *testing.T) tasks.Job {
	t.Helper()
	job, err := g.db.Records.Submit(t.Context(), tasks.Submission{
		Tenant: "acme", InstanceIDs: []string{"phone-7", "phone-8"}, AllowUnregistered: true, Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	})
	must(t, err)
	begin := func(n int, token string) tasks.Delivery {
		job, err := g.db.Jobs.Job(t.Context(), job.ID)
		must(t, err)
		for _, d := range job.Deliveries() {
			if d.ItemID == tasks.ItemID(job.ID, n) {
				_, err := g.db.Attempts.Begin(t.Context(), d, token, "k", time.Minute)
				must(t, err)
				return d
			}
		}
		t.Fatalf("item %d is not open", n)
		return tasks.Delivery{}
	}
	end := func(d tasks.Delivery, o tasks.Outcome) {
		_, err := g.db.Attempts.Finish(t.Context(), d, tokenOfA, o, true)
		must(t, err)
	}
	end(begin(0, tokenOfA), tasks.Outcome{Transition: tasks.Retry, Code: "CPS.0003", Message: "Not <now>.", Steps: "s120 c340"})
	end(begin(0, tokenOfA), tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005", Message: "Phone not found.", Evidence: "boot 1", Steps: "s20 l90"})
	end(begin(1, tokenOfA), tasks.Outcome{Transition: tasks.Succeed, Steps: "s20"})
	must(t, g.db.Records.Retry(t.Context(), job.ID, []tasks.ItemState{tasks.ItemFailed}, tasks.Actor{}))
	begin(0, tokenOfB)
	d := begin(0, tokenOfA) // B has died
	must(t, g.db.Attempts.Send(t.Context(), d, tokenOfA, ""))
	end(d, tasks.Outcome{Transition: tasks.Succeed, Evidence: "boot 2", Steps: "s10 l50"})
	return job
}

func TestTheTimelineOfAnItem(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer})
	vera := g.login(t, "vera")
	job := g.storied(t)
	page := func(path string) string {
		t.Helper()
		a := g.ask(t, http.MethodGet, path, vera, nil)
		if a.status != http.StatusOK {
			t.Errorf("%s: %d", path, a.status)
		}
		return a.body
	}
	story := page("/jobs/" + job.ID + "/items/0")
	inOrder(t, textOf(story),
		"State succeeded", "Attempts 4", "Trace 4bf92f3577b34da6a3ce929d0e0e4736",
		"The item waited for its turn.",
		"Attempt 1 retrying", "CPS.0003 Not <now>.", "Worker AAAAAAAA", "Locked the instance and began", "≈", "Could send its reset +120 ms", "Saved its first checkpoint +340 ms", "Ended +",
		"The item waited for its next try.",
		"Attempt 2 failed", "CPS.0005", "Could send its reset +20 ms", "Looked at the instance for the last time +90 ms",
		"Somebody had the job tried again.",
		"Attempt 3 lost", "nothing was sent", "Worker BBBBBBBB",
		"Its worker had died",
		"Attempt 4 succeeded", "Seen: boot 2", "Worker AAAAAAAA", "Could send its reset +10 ms", "Looked at the instance for the last time +50 ms", "Ended",
	)
	for _, want := range []string{`<a href="workers/AAAAAAAA">`, `<a href="https://traces.example/4bf92f3577b34da6a3ce929d0e0e4736">`, "Not &lt;now&gt;."} {
		if !strings.Contains(story, want) {
			t.Errorf("it does not have %s", want)
		}
	}
	if strings.Contains(story, "asynq/queues") || strings.Contains(story, "data-live") {
		t.Error("it has ended, and shows a task or is refreshed")
	}
	// An item that succeeded at once has no more than its times.
	inOrder(t, textOf(page("/jobs/"+job.ID+"/items/1")), "Attempt 1 succeeded", "Worker not kept", "Locked the instance and began", "Ended +")
	// Of the job of the bench, one item has failed with an old worker's token, and one waits.
	inOrder(t, textOf(page("/jobs/"+g.job+"/items/0")), "State failed", "Attempt 1 failed", "CPS.0005 Phone <not> found.", "Worker not kept")
	waits := page("/jobs/" + g.job + "/items/1")
	inOrder(t, textOf(waits), "State pending", "Attempts 0", "The job was made. The item waited for its turn.")
	if !strings.Contains(waits, "data-live") || !strings.Contains(waits, "asynq/queues/reset-") {
		t.Error("it is not refreshed, or does not lead to its task")
	}
	// And while it runs.
	at, err := g.db.Jobs.Job(t.Context(), g.job)
	must(t, err)
	d := at.Deliveries()[0]
	_, err = g.db.Attempts.Begin(t.Context(), d, tokenOfB, "k", time.Minute)
	must(t, err)
	inOrder(t, textOf(page("/jobs/"+g.job+"/items/1")), "State running", "Attempt 1 running", "It has sent nothing yet.", "Worker BBBBBBBB")
	must(t, g.db.Attempts.Send(t.Context(), d, tokenOfB, ""), g.db.Attempts.Checkpoint(t.Context(), d, tokenOfB, "order 7"))
	inOrder(t, textOf(page("/jobs/"+g.job+"/items/1")), "Its reset may have been sent. It has saved a checkpoint.")
	_, err = g.db.Attempts.Finish(t.Context(), d, tokenOfB, tasks.Outcome{Transition: tasks.Retry, Delay: time.Hour, Code: "CPS.0003"}, true)
	must(t, err)
	inOrder(t, textOf(page("/jobs/"+g.job+"/items/1")), "State retrying", "Next try due", "Attempt 1 retrying", "It waits for its next try.")

	for path, status := range map[string]int{
		"/jobs/" + job.ID + "/items/2": http.StatusNotFound, "/jobs/" + job.ID + "/items/-1": http.StatusNotFound, "/jobs/" + job.ID + "/items/01": http.StatusNotFound,
		"/jobs/" + job.ID + "/items/x": http.StatusNotFound, "/jobs/" + tasks.NewJobID() + "/items/0": http.StatusNotFound,
	} {
		if a := g.ask(t, http.MethodGet, path, vera, nil); a.status != status {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	if a := g.ask(t, http.MethodGet, "/jobs/"+job.ID+"/items/0", nil, nil); a.status == http.StatusOK {
		t.Error("a stranger sees it")
	}
	// The ways to it.
	for path, want := range map[string]string{
		"/jobs/" + job.ID: "jobs/" + job.ID + "/items/0", "/instances/phone-7": "jobs/" + job.ID + "/items/0", "/failures/items?driver=default&code=CPS.0005": "jobs/" + g.job + "/items/0",
	} {
		if !strings.Contains(page(path), `<a href="`+want+`"`) {
			t.Errorf("%s does not lead to it", path)
		}
	}
	for item, want := range map[string]string{tasks.ItemID(job.ID, 1): "/jobs/" + job.ID + "/items/1", tasks.ItemID(job.ID, 9): "/jobs/" + job.ID} {
		if a := g.ask(t, http.MethodGet, "/find?q="+item, vera, nil); !strings.HasSuffix(a.location, want) {
			t.Errorf("a search for %s leads to %s", item, a.location)
		}
	}
}

func TestATimelineSaysWhatIsNotKept(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer})
	vera := g.login(t, "vera")
	job, err := g.db.Jobs.Job(t.Context(), g.job)
	must(t, err)
	d := job.Deliveries()[0]
	for range 22 {
		_, err := g.db.Attempts.Begin(context.WithoutCancel(t.Context()), d, tokenOfA, "k", time.Minute)
		must(t, err)
		_, err = g.db.Attempts.Finish(t.Context(), d, tokenOfA, tasks.Outcome{Transition: tasks.Retry, Code: "CPS.0003"}, true)
		must(t, err)
	}
	a := g.ask(t, http.MethodGet, "/jobs/"+g.job+"/items/1", vera, nil)
	inOrder(t, textOf(a.body), "Attempts 22", "2 of the attempts are not kept", "Attempt 3 retrying", "Attempt 22 retrying")
}

func TestATimelineInABrowser(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer})
	job := g.storied(t)
	browsertest.Script(t, "../..", "testdata/timeline.js", g.URL, password, job.ID, g.job)
}
