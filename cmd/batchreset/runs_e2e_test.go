package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// wiper is a control plane that honours keys: it counts what it really wipes.
type wiper struct {
	mu    sync.Mutex
	wiped map[string]int  // by instance
	keys  map[string]bool // that it has seen
	fails func(instance string) bool
	waits func(ctx context.Context) // before it wipes
}

// count is how many instances were wiped.
func (w *wiper) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.wiped)
}

func (w *wiper) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	instance := r.PathValue("instance")
	if w.waits != nil {
		w.waits(r.Context())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fails != nil && w.fails(instance) {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	if key := r.Header.Get("Idempotency-Key"); !w.keys[key] {
		w.keys[key] = true
		w.wiped[instance]++
	}
}

func newWiper(t *testing.T) (*wiper, string) {
	t.Helper()
	w := &wiper{wiped: map[string]int{}, keys: map[string]bool{}}
	mux := http.NewServeMux()
	mux.Handle("POST /{instance}", w)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return w, server.URL + "/{instance_id}"
}

// campaign is an api, and what starts workers and commands for it.
type campaign struct {
	environment map[string]string
	api         *process
	ops         string // of the api
	worker      func() *process
	client      *client.Client
}

func newCampaign(t *testing.T, driver string, flags ...string) campaign {
	t.Helper()
	url := redistest.Start(t).URL()
	api := start(t, "api", "--redis", url, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	s := campaign{environment: map[string]string{"BATCHRESET_REDIS": url}, api: api}
	started := api.logged("api started")
	s.environment["BATCHRESET_SERVER"], _ = started["api"].(string)
	s.ops, _ = started["ops"].(string)
	s.environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, s.environment, "token", "add", "--tenant", "acme").OK(t).Out)
	s.worker = func() *process {
		return start(t, append([]string{
			"worker", "--redis", url, "--ops-listen", "127.0.0.1:0", "--driver", "http", "--driver-url", driver, "--driver-idempotent",
		}, flags...)...)
	}
	c, err := client.New(s.environment["BATCHRESET_SERVER"], s.environment["BATCHRESET_TOKEN"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	s.client = c
	return s
}

func phonesList(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("phone-%05d", i)
	}
	return list
}

func watchCounts(ctx context.Context, t *testing.T, c *client.Client, id string) client.Run {
	t.Helper()
	return watchCountsFor(ctx, t, 3*time.Minute, c, id)
}

// watchCountsFor reads a run until it has ended. The counts must add up each time they are answered, and what has
// ended must not become less.
func watchCountsFor(ctx context.Context, t *testing.T, limit time.Duration, c *client.Client, id string) (last client.Run) {
	t.Helper()
	final, polls, failed := 0, 0, 0
	harness.Eventually(t, limit, "the run to end", func() bool {
		polls++
		run, err := c.Runs().Get(ctx, id)
		if err != nil { // the api may be away
			failed++
			return false
		}
		n := run.Counts
		ended := n.Succeeded + n.Failed + n.Unknown + n.Cancelled
		if ended+n.Pending+n.Running+n.Retrying != run.Total || ended < final {
			t.Errorf("the counts are %+v of %d, after %d had ended", n, run.Total, final)
		}
		last, final = run, ended
		return run.Final()
	})
	t.Logf("the counts added up in %d polls; %d more had no answer", polls-failed, failed)
	return last
}

// A canary that fails keeps everything else from beginning, until somebody resumes the run.
func TestACanaryThatFailsKeepsTheRestSafe(t *testing.T) {
	t.Parallel()
	plane, url := newWiper(t)
	plane.fails = func(instance string) bool { return instance == "phone-00001" }
	s := newCampaign(t, url, "--concurrency", "50")
	s.worker()
	made, err := s.client.Runs().Submit(t.Context(), client.RunRequest{InstanceIDs: phonesList(200), Canary: 3})
	if err != nil {
		t.Fatal(err)
	}
	state := func(want string) (run client.Run) {
		t.Helper()
		harness.Eventually(t, patience, "the run to be "+want, func() bool {
			if run, err = s.client.Runs().Get(t.Context(), made.ID); err != nil {
				t.Fatal(err)
			}
			return run.State == want
		})
		return run
	}
	run := state("paused")
	if !strings.Contains(run.Held.Reason, "the canary failed") || len(run.Failures) != 1 || run.Counts.Pending != 197 {
		t.Errorf("run %s", run.Record)
	}
	command(t, s.environment, "run", "resume", made.ID).OK(t)
	run = state("partial")
	if run.Counts.Succeeded != 199 || run.Counts.Failed != 1 {
		t.Errorf("run %s", run.Record)
	}
	plane.mu.Lock()
	defer plane.mu.Unlock()
	if len(plane.wiped) != 199 {
		t.Errorf("%d were wiped", len(plane.wiped))
	}
}

// Pause and cancel hold within a second, for what waits in queues, too.
func TestABrakeOnARun(t *testing.T) {
	t.Parallel()
	plane, url := newWiper(t)
	s := newCampaign(t, url, "--driver-rate", "40", "--concurrency", "2")
	s.worker()
	made, err := s.client.Runs().Submit(t.Context(), client.RunRequest{InstanceIDs: phonesList(1000)})
	if err != nil {
		t.Fatal(err)
	}
	wiped := plane.count
	harness.Eventually(t, patience, "some to be reset", func() bool { return wiped() > 20 })
	if run, err := s.client.Runs().Pause(t.Context(), made.ID); err != nil || run.State != "paused" {
		t.Fatalf("run %s, %v", run.Record, err)
	}
	harness.Pause(t.Context(), time.Second)
	after := wiped()
	harness.Pause(t.Context(), 2*time.Second)
	if now := wiped(); now != after {
		t.Errorf("%d were reset a second after the pause, and %d later", after, now)
	}
	if _, err := s.client.Runs().Resume(t.Context(), made.ID, ""); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, patience, "it to go on", func() bool { return wiped() > after+20 })
	if _, err := s.client.Runs().Cancel(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	run := watchCounts(t.Context(), t, s.client, made.ID)
	if n := wiped(); run.State != "partial" || run.Counts.Succeeded != n || run.Counts.Cancelled != 1000-n || n == 1000 {
		t.Errorf("%d were reset: %s", n, run.Record)
	}
	// A job of a run is not retried by itself.
	jobs := command(t, s.environment, "jobs", "--output", "jsonl").OK(t).Out
	var job client.Job
	if err := json.Unmarshal([]byte(strings.SplitN(jobs, "\n", 2)[0]), &job); err != nil {
		t.Fatal(err)
	}
	command(t, s.environment, "retry", job.ID, "--state", "cancelled").WantError(t, "belongs to run "+made.ID)
}

// Who waits for a run outlasts the api: a long poll is answered when it stops, a stream is taken up again.
func TestARunIsFollowedAcrossARestartOfTheAPI(t *testing.T) {
	t.Parallel()
	_, url := newWiper(t)
	s := newCampaign(t, url)
	made, err := s.client.Runs().Submit(t.Context(), client.RunRequest{InstanceIDs: phonesList(5)})
	if err != nil {
		t.Fatal(err)
	}
	polled := make(chan string, 1)
	go func() {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.environment["BATCHRESET_SERVER"]+"/v1/runs/"+made.ID, nil)
		if err != nil {
			panic(err)
		}
		r.Header.Set("X-Auth-Token", s.environment["BATCHRESET_TOKEN"])
		r.Header.Set("Prefer", "wait=50")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			polled <- err.Error()
			return
		}
		body, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		polled <- fmt.Sprint(answer.StatusCode, answer.Header.Get("Preference-Applied"), string(body))
	}()
	watched := make(chan terminaltest.Result, 1)
	go func() { watched <- command(t, s.environment, "run", "watch", made.ID, "--output", "json") }()
	harness.Eventually(t, patience, "both to wait", func() bool {
		_, metrics := get(t, s.ops+"/metrics")
		return strings.Contains(metrics, `batchreset_waiting_requests{kind="poll"} 1`) && strings.Contains(metrics, `batchreset_waiting_requests{kind="stream"} 1`)
	})
	s.api.stop()
	if got := <-polled; !strings.HasPrefix(got, "200wait=50{") || !strings.Contains(got, `"pending":5`) {
		t.Errorf("the long poll is answered %s", got)
	}
	start(t, "api", "--redis", s.environment["BATCHRESET_REDIS"], "--ops-listen", "127.0.0.1:0", "--fleet", "open",
		"--listen", strings.TrimPrefix(s.environment["BATCHRESET_SERVER"], "http://"))
	s.worker()
	if out := (<-watched).OK(t).Out; !strings.Contains(out, `"succeeded":5`) && !strings.Contains(out, `"succeeded": 5`) {
		t.Errorf("run watch: %s", out)
	}
}
