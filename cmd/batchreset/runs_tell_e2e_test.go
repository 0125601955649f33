package main

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"batchreset/api/client"
	"batchreset/cmd/harness"
)

// runEvent is what a receiver is told of a run.
type runEvent struct {
	Type string
	Data json.RawMessage
}

func (e runEvent) run(t *testing.T) (run client.Run) {
	t.Helper()
	if err := json.Unmarshal(e.Data, &run); err != nil {
		t.Errorf("%s: %v", e.Data, err)
	}
	return run
}

// events are those that a receiver was told of a run, in order, each once.
func (r *receiver) events(t *testing.T, run string) (all []runEvent) {
	t.Helper()
	hooks, _ := r.got()
	seen := map[string]bool{}
	for _, h := range hooks {
		var e runEvent
		if err := json.Unmarshal([]byte(h.Body), &e); err != nil || strings.Contains(h.Body, "phone-") {
			t.Errorf("told %s, %v", h.Body, err)
		}
		if !strings.HasPrefix(h.id(), run+"-"+strings.TrimPrefix(e.Type, "run.")+"-") {
			t.Errorf("%s has the ID %s", e.Type, h.id())
		}
		if !seen[h.id()] {
			all = append(all, e)
		}
		seen[h.id()] = true
	}
	return all
}

// A receiver is told of each thing that happens to a run, under one ID, whenever the workers are killed that tell.
func TestAReceiverIsToldWhatHappensToARun(t *testing.T) {
	t.Parallel()
	plane, url := newWiper(t)
	plane.fails = func(instance string) bool { return instance == "phone-00001" }
	s := newCampaign(t, url, "--webhook-allow-private")
	s.environment["BATCHRESET_WEBHOOK_ALLOW_PRIVATE"] = "true"
	r := newReceiver(t)
	r.open(t)
	secret := strings.TrimSpace(command(t, s.environment, "webhook", "add", "--tenant", "acme", "--url", "http://"+r.addr+"/hooks",
		"--events", "run.waiting_approval,run.decided,run.paused,run.finished").OK(t).Out)
	bob := strings.TrimSpace(command(t, s.environment, "token", "add", "--tenant", "acme", "--owner", "bob", "--scope", "read,approve").OK(t).Out)
	approver, err := client.New(s.environment["BATCHRESET_SERVER"], bob)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(approver.Close)
	made, err := s.client.Runs().Submit(t.Context(), client.RunRequest{InstanceIDs: phonesList(60), Canary: 2, Approval: true})
	if err != nil {
		t.Fatal(err)
	}
	// What happens is decided while there is no worker. The one that comes then lives until so many events are told.
	told := func(n int) runEvent {
		t.Helper()
		w := s.worker()
		harness.Eventually(t, patience, "the receiver to be told", func() bool { return len(r.events(t, made.ID)) == n })
		_ = w.Signal(syscall.SIGKILL)
		if err := <-w.done; err == nil {
			t.Error("a worker that was killed says that it has ended well")
		}
		return r.events(t, made.ID)[n-1]
	}
	if run := told(1).run(t); run.ID != made.ID || run.State != "waiting" || run.Stage != "approval" || run.Counts.Pending != 60 {
		t.Errorf("waiting: %s", run.Record)
	}
	if _, err := approver.Runs().Approve(t.Context(), made.ID, made.ListSHA256, "looked at it"); err != nil {
		t.Fatal(err)
	}
	paused := told(3).run(t)
	var decided struct {
		Run      client.Run
		Decision client.RunDecision
	}
	if err := json.Unmarshal(r.events(t, made.ID)[1].Data, &decided); err != nil || decided.Run.ID != made.ID {
		t.Errorf("decided: %+v, %v", decided, err)
	}
	if d := decided.Decision; d.Principal != "bob" || d.Decision != "approved" || d.Comment != "looked at it" {
		t.Errorf("decided: %+v", d)
	}
	if paused.State != "paused" || paused.Counts.Failed != 1 || !strings.HasPrefix(paused.Held.Reason, "the canary failed") {
		t.Errorf("paused: %s", paused.Record)
	}
	if _, err := s.client.Runs().Resume(t.Context(), made.ID, ""); err != nil {
		t.Fatal(err)
	}
	if run := told(4).run(t); run.State != "partial" || run.Counts.Succeeded != 59 || run.Counts.Failed != 1 || !run.Final() {
		t.Errorf("finished: %s", run.Record)
	}

	s.worker() // which has nothing more to tell
	options, err := redis.ParseURL(s.environment["BATCHRESET_REDIS"])
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(options)
	defer func() { _ = rdb.Close() }()
	harness.Eventually(t, patience, "the run to be looked at no more", func() bool {
		return errors.Is(rdb.ZScore(t.Context(), "reset:runs", made.ID).Err(), redis.Nil)
	})
	var topics []string
	for _, e := range r.events(t, made.ID) {
		topics = append(topics, e.Type)
	}
	if want := []string{"run.waiting_approval", "run.decided", "run.paused", "run.finished"}; !slices.Equal(topics, want) {
		t.Errorf("told %q", topics)
	}
	hooks, _ := r.got()
	wantSigned(t, secret, hooks)
}
