package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// judge is a control plane whose resets fail from one on. By its own count it knows when a budget was
// exceeded, and what began after that: before anybody was told.
type judge struct {
	mu           sync.Mutex
	succeeds     func(nth int, instance string) bool // nth from 1
	budget       tasks.Budget
	began        map[string]int // calls by instance
	ended, fails int
	exceeded     time.Time
	endedThen    int
	after        int           // calls since then
	lastAfter    time.Duration // how long after
}

// ServeHTTP takes a while, as a reset does.
func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	instance := r.PathValue("instance")
	good := j.begin(instance)
	harness.Pause(r.Context(), 20*time.Millisecond)
	j.end(good)
	if !good {
		w.WriteHeader(http.StatusBadRequest)
	}
}

func (j *judge) begin(instance string) (good bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.began[instance]++
	if !j.exceeded.IsZero() {
		j.after++
		j.lastAfter = time.Since(j.exceeded)
	}
	return j.succeeds(len(j.began), instance)
}

func (j *judge) end(good bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended++
	if !good {
		j.fails++
	}
	if j.exceeded.IsZero() && j.budget.Exceeded(j.fails, j.ended) {
		j.exceeded, j.endedThen = time.Now(), j.ended
	}
}

// reset makes it ready for another run.
func (j *judge) reset(budget tasks.Budget, succeeds func(nth int, instance string) bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.budget, j.succeeds, j.began = budget, succeeds, map[string]int{}
	j.ended, j.fails, j.after, j.exceeded, j.lastAfter = 0, 0, 0, time.Time{}, 0
}

// calls is how many it was asked for, and for how many instances.
func (j *judge) calls() (calls, instances int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, n := range j.began {
		calls += n
	}
	return calls, len(j.began)
}

// pausesItself submits a run, waits until it has paused and what was under way has ended, and sees that nothing
// else begins. Then it cancels the run, so that the next one has the workers for itself.
func (s campaign) pausesItself(t *testing.T, plane *judge, r client.RunRequest) client.Run {
	t.Helper()
	made, err := s.client.Runs().Submit(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var run client.Run
	defer func() {
		if t.Failed() {
			t.Logf("the run was %s", run.Record)
		}
	}()
	harness.Eventually(t, 2*time.Minute, "the run to pause", func() bool {
		if run, err = s.client.Runs().Get(t.Context(), made.ID); err != nil {
			t.Fatal(err)
		}
		return run.State == "paused" && run.Counts.Running == 0
	})
	before, instances := plane.calls()
	harness.Pause(t.Context(), time.Second) // for what should not begin
	if calls, _ := plane.calls(); calls != before || calls != instances {
		t.Errorf("%d calls for %d instances, and %d once the run had paused", before, instances, calls-before)
	}
	if n := run.Counts; n.Succeeded+n.Failed != before || n.Pending+n.Retrying != run.Total-before { // it retries what was not sent because of the pause
		t.Errorf("%d began: %s", before, run.Record)
	}
	if _, err := s.client.Runs().Cancel(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, patience, "the run to end", func() bool {
		run, err := s.client.Runs().Get(t.Context(), made.ID)
		return err == nil && run.Final()
	})
	return run
}

// How much begins that should not have, had everybody known at once: no more than was open. And of a run whose canary
// fails nothing else.
func TestWhatBeginsAfterTooManyFailed(t *testing.T) {
	t.Parallel()
	plane := &judge{}
	mux := http.NewServeMux()
	mux.Handle("POST /{instance}", plane)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s := newCampaign(t, server.URL+"/{instance_id}", "--concurrency", "100")
	s.worker()
	budget, err := tasks.ParseBudget("2%")
	if err != nil {
		t.Fatal(err)
	}
	table := []string{"max_parallel  ended when exceeded  began after  the last of them after"}
	for _, parallel := range []int{32, 320, 3200} {
		plane.reset(budget, func(nth int, _ string) bool { return nth <= 200 })
		run := s.pausesItself(t, plane, client.RunRequest{InstanceIDs: phonesList(2*parallel + 1000), MaxParallel: parallel, MaxFailures: client.Budget(budget.String())})
		table = append(table, fmt.Sprintf("%12d  %19d  %11d  %22s", parallel, plane.endedThen, plane.after, plane.lastAfter.Round(time.Millisecond)))
		if !strings.Contains(run.Held.Reason, "too many failed") || plane.exceeded.IsZero() || plane.after > parallel {
			t.Errorf("%d began after the budget was exceeded, with %d open at a time: %s", plane.after, parallel, run.Record)
		}
	}
	plane.reset(tasks.Budget{}, func(_ int, instance string) bool { return instance != "phone-00007" })
	run := s.pausesItself(t, plane, client.RunRequest{InstanceIDs: phonesList(1000), Canary: 10})
	for instance := range plane.began {
		if instance > "phone-00009" {
			t.Errorf("%s is not of the canary", instance)
		}
	}
	if !strings.Contains(run.Held.Reason, "the canary failed") || len(plane.began) != 10 {
		t.Errorf("%d began: %s", len(plane.began), run.Record)
	}
	table = append(table, fmt.Sprintf("a canary of 10 that fails: %d began, %d beyond it", len(plane.began), len(plane.began)-10))
	t.Log("a budget of 2%:\n" + strings.Join(table, "\n"))
}
