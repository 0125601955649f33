package ops_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/api/browsertest"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// serve has a living worker with the driver of a queue, which takes nothing: the tasks are in other queues.
func (g guarded) serve(t *testing.T, queue string, slots int) {
	t.Helper()
	server := g.db.Redis.NewServer(asynq.Config{Queues: map[string]int{queue: 1}, Concurrency: slots, LogLevel: asynq.FatalLevel})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	driver, _ := tasks.DriverOf(queue)
	harness.Eventually(t, 10*time.Second, "a worker with the driver", func() bool {
		served, err := g.db.Queues.Served(t.Context())
		return err == nil && served[driver]
	})
}

// pageWith waits for a page that has all the texts: numbers are shared for two seconds.
func (g guarded) pageWith(t *testing.T, path string, want ...string) string {
	t.Helper()
	body := ""
	missing := ""
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		_, body = get(t, g.URL+path)
		missing = ""
		for _, text := range want {
			if !strings.Contains(body, text) {
				missing = text
			}
		}
		if missing == "" {
			return body
		}
	}
	t.Fatalf("%s lacks %q:\n%s", path, missing, body)
	return ""
}

func TestWhatIsHeldIsSeen(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, nil)
	g.serve(t, "reset-99", 7)
	g.pageWith(t, "/", "<b>2 waiting</b>", "<b>0 held</b>", "in 1 open job<")
	if err := g.db.Policies.Halt(t.Context(), "acme", tasks.HaltedByOperator, tasks.Actor{By: "alice", Reason: "recall of <x>"}); err != nil {
		t.Fatal(err)
	}
	const why = "resets of the tenant are halted: recall of &lt;x&gt;"
	t.Run("on the overview, with where it ends", func(t *testing.T) {
		g.pageWith(t, "/", "<b>0 waiting</b><span>could begin now</span>", "<b>2 held</b>", `id="held"`, why, `href="tenants/resume?tenant=acme"`)
	})
	t.Run("on the page of a job", func(t *testing.T) {
		g.pageWith(t, "/jobs/"+g.job, "<b>Held:</b> 2 instances of acme: "+why+", since <time ")
	})
	t.Run("on the page of an instance, if that waits", func(t *testing.T) {
		g.pageWith(t, "/instances/phone-2", "<b>Held:</b> "+why)
		if _, body := get(t, g.URL+"/instances/phone-1"); strings.Contains(body, "<b>Held:</b>") {
			t.Error("one that has failed is held")
		}
	})
	t.Run("with the tenant", func(t *testing.T) {
		g.pageWith(t, "/tenants", "0 wait, 0 run, <b>2 held</b>")
	})
	t.Run("and an autoscaler does not scale for it", func(t *testing.T) {
		status, body := get(t, g.URL+"/scale")
		var got map[string]int
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
			t.Fatal(status, body, err)
		}
		want := map[string]int{"items_waiting": 0, "items_running": 0, "items_held": 2, "items_open": 0, "worker_slots": 7}
		for name, n := range want {
			if v, there := got[name]; v != n || !there || len(got) != len(want) {
				t.Errorf("%v, want %v", got, want)
			}
		}
	})
	if err := g.db.Policies.Resume(t.Context(), "acme", tasks.HaltedByOperator, tasks.Actor{By: "alice"}); err != nil {
		t.Fatal(err)
	}
	t.Run("and not once it has ended", func(t *testing.T) {
		if body := g.pageWith(t, "/", "<b>0 held</b>", "<b>2 waiting</b>"); strings.Contains(body, `id="held"`) {
			t.Error("the list is there")
		}
		if _, body := get(t, g.URL+"/jobs/"+g.job); strings.Contains(body, "Held:") {
			t.Error("the job is held")
		}
	})
}

func TestARunThatIsHeldSaysWhy(t *testing.T) {
	t.Parallel()
	r := newGuarded(t, nil).withRunner()
	r.serve(t, "reset-99", 1)
	id := r.make(t, 5, tasks.RunSubmission{Name: "Recall"})
	if err := r.goOn(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := r.db.Policies.Halt(t.Context(), "", tasks.HaltedByOperator, tasks.Actor{By: "alice", Reason: "smoke"}); err != nil {
		t.Fatal(err)
	}
	r.pageWith(t, "/runs/"+id, "<b>Held:</b> 5 instances of acme: resets of all tenants are halted: smoke, since <time ", `href="tenants/resume?all=true"`)
}

func TestScaleOfADriver(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, nil)
	g.serve(t, "reset-99", 3)
	g.serve(t, "reset-lab-99", 4)
	for query, want := range map[string]string{
		"":                           `{"items_waiting":2,"items_running":0,"items_held":0,"items_open":2,"worker_slots":7}`,
		"?driver=default":            `{"items_waiting":2,"items_running":0,"items_held":0,"items_open":2,"worker_slots":3}`,
		"?driver=lab":                `{"items_waiting":0,"items_running":0,"items_held":0,"items_open":0,"worker_slots":4}`,
		"?driver=lab&driver=default": `{"items_waiting":2,"items_running":0,"items_held":0,"items_open":2,"worker_slots":7}`,
		"?driver=lab&driver=lab":     `{"items_waiting":0,"items_running":0,"items_held":0,"items_open":0,"worker_slots":4}`,
		"?driver=not-there":          `{"items_waiting":0,"items_running":0,"items_held":0,"items_open":0,"worker_slots":0}`,
	} {
		if status, body := get(t, g.URL+"/scale"+query); status != http.StatusOK || strings.TrimSpace(body) != want {
			t.Errorf("%s: %d %s, want %s", query, status, body, want)
		}
	}
	for _, query := range []string{"?drivers=lab", "?driver=lab&x=1", "?driver=", "?driver=lab&driver=", "?" + strings.Repeat("driver=lab&", 101), "?driver=La%20b"} {
		if status, body := get(t, g.URL+"/scale"+query); status != http.StatusBadRequest || !strings.Contains(body, `"error_msg"`) {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
}

func TestWhatIsHeldInABrowser(t *testing.T) {
	r := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator, "vera": tasks.RoleViewer}).withRunner()
	r.serve(t, "reset-99", 4)
	run := r.make(t, 500, tasks.RunSubmission{Name: "Recall 7", Options: tasks.RunOptions{MaxParallel: 64}})
	if err := r.goOn(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	for _, s := range []tasks.Submission{
		{Tenant: "globex", InstanceIDs: []string{"g1", "g2"}, Drivers: map[string]string{"g1": "lab", "g2": "lab"}},
		{Tenant: "globex", InstanceIDs: []string{"g3"}, NotBefore: tasks.Time{Time: r.db.Redis.Now().Add(time.Hour)}},
	} {
		s.AllowUnregistered = true
		if _, err := r.db.Records.Submit(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.db.Tokens.Add(t.Context(), "token-of-acme", tasks.Token{Tenant: "acme", Scopes: tasks.DefaultScopes}, 0, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if err := r.db.Policies.Halt(t.Context(), "acme", tasks.HaltedByOperator, tasks.Actor{By: "alice", Reason: "recall"}); err != nil {
		t.Fatal(err)
	}
	browsertest.Script(t, "../..", "testdata/held.js", r.URL, password, r.job, run)
}
