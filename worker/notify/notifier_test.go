package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/worker/notify"
	"batchreset/worker/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is the part of each receiver's URL that nobody may see.
const secret = "T0-s3cret"

// world is what a notifier sees, on a Redis of its own, and the receiver that it tells. The clock is the test's.
type world struct {
	db  *redisdb.DB
	rdb *redis.Client
	log *bytes.Buffer
	*httptest.Server

	mu     sync.Mutex
	got    [][]byte
	header []http.Header
	status int
	now    time.Time

	paused      []tasks.Run
	census      tasks.Census
	censusErr   error
	unreachable map[string]tasks.Time
	full        bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server := redistest.Start(t)
	w := &world{log: new(bytes.Buffer), status: http.StatusOK, now: time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)}
	w.db, w.rdb = dbtest.Open(t, redisdb.Options{URL: server.URL()})
	w.Server = httptest.NewServer(http.HandlerFunc(func(a http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.got, w.header = append(w.got, body), append(w.header, r.Header)
		a.WriteHeader(w.status)
		_, _ = io.WriteString(a, r.URL.Path) // as some do: it has the secret
	}))
	t.Cleanup(w.Close)
	return w
}

// clocked is the real store with the test's clock.
type clocked struct {
	*redisdb.Alerts
	w *world
}

func (c clocked) Now() time.Time { return c.w.now }

func (w *world) ForPeople(context.Context, int) (waiting, paused tasks.SomeRuns, err error) {
	return waiting, tasks.SomeRuns{Runs: w.paused}, nil
}
func (w *world) Census(context.Context) (tasks.Census, error) { return w.census, w.censusErr }
func (w *world) Unreachable(context.Context) (map[string]tasks.Time, error) {
	return w.unreachable, nil
}
func (w *world) Accepting(context.Context) bool                 { return !w.full }
func (w *world) FullAt() int                                    { return 90 }
func (w *world) List(context.Context) ([]tasks.Endpoint, error) { return nil, nil }

// process is another process that tells the world's receiver.
func (w *world) process(t *testing.T, change ...func(*notify.Config)) *notify.Notifier {
	t.Helper()
	cfg := notify.Config{URLs: []string{w.URL + "/hooks/" + secret}, Format: notify.Slack, Site: "https://reset.example/ops"}
	for _, f := range change {
		f(&cfg)
	}
	sender := webhook.NewSender("batchreset/test", true, time.Now)
	t.Cleanup(sender.Close)
	return notify.New(cfg, clocked{w.db.Alerts, w}, notify.Sources{Runs: w, Census: w, Planes: w, Storage: w, Endpoints: w}, sender, slog.New(slog.NewTextHandler(w.log, nil)))
}

// after has some processes look once, a time later, and returns the texts that were sent.
func (w *world) after(t *testing.T, d time.Duration, all ...*notify.Notifier) (texts []string) {
	t.Helper()
	w.now = w.now.Add(d)
	w.got, w.header = nil, nil
	for _, n := range all {
		if err := n.Round(t.Context()); err != nil && w.censusErr == nil {
			t.Fatal(err)
		}
	}
	for _, body := range w.got {
		var message struct{ Text string }
		if err := json.Unmarshal(body, &message); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		texts = append(texts, message.Text)
	}
	return texts
}

// die has the one that tells die: its lock is over.
func (w *world) die(t *testing.T) {
	t.Helper()
	if n, err := w.rdb.Del(t.Context(), "reset:{alerts}:lead").Result(); err != nil || n != 1 {
		t.Fatalf("%d locks, %v", n, err)
	}
}

func (w *world) pauseRun() {
	w.paused = []tasks.Run{{
		ID: "0123456789abcdef0123456789abcdef", Name: "spring", Tenant: "acme", State: tasks.RunPaused,
		Held: tasks.Held{Reason: "paused by <!channel> @here: [look](https://evil.example) first"},
	}}
}

func want(t *testing.T, what string, got []string, parts ...string) {
	t.Helper()
	if len(got) != min(1, len(parts)) {
		t.Fatalf("%s: told %d times: %q", what, len(got), got)
	}
	for _, part := range parts {
		if !strings.Contains(got[0], part) {
			t.Errorf("%s: told %q, which lacks %q", what, got[0], part)
		}
	}
}

// Two processes tell once when it begins, once when it ends, and again after four hours; one that begins anew, or takes over,
// tells nothing twice.
func TestEachIsToldOnce(t *testing.T) {
	w := newWorld(t)
	first, second := w.process(t), w.process(t)
	want(t, "nothing", w.after(t, 0, first, second))
	w.pauseRun()
	want(t, "it begins", w.after(t, 15*time.Second, second, first), `run "spring"`, "tenant acme is paused", "&lt;!channel&gt; @\u200bhere: [look]\u200b(https://evil.example) first", "https://reset.example/ops/runs/0123456789abcdef0123456789abcdef")
	want(t, "it lasts", w.after(t, 15*time.Second, first, second))
	w.die(t)
	want(t, "another leads", w.after(t, 15*time.Second, second, first))
	w.die(t)
	restarted := w.process(t)
	want(t, "a restart", w.after(t, 15*time.Second, restarted))
	want(t, "nearly four hours", w.after(t, 3*time.Hour+59*time.Minute, restarted))
	want(t, "four hours", w.after(t, time.Minute, restarted), "Still, since 2026-11-30 08:00Z: the run")
	want(t, "after that", w.after(t, 15*time.Second, restarted))

	w.paused = nil
	want(t, "gone for a moment", w.after(t, 15*time.Second, restarted))
	w.pauseRun()
	want(t, "there again", w.after(t, 15*time.Second, restarted))
	w.paused = nil
	want(t, "gone", w.after(t, 15*time.Second, restarted))
	w.die(t)
	want(t, "gone for good", w.after(t, time.Minute, first, restarted), "Over: the run")
	want(t, "and that is it", w.after(t, time.Minute, first))
	w.pauseRun()
	want(t, "another time", w.after(t, time.Hour, first), "is paused")
}

// What often lasts for seconds is told of once it has lasted a minute. What cannot be looked at is not over.
func TestWhatLastsAndWhatIsNotKnown(t *testing.T) {
	w := newWorld(t)
	n := w.process(t)
	holding := func(reason tasks.HoldReason, old time.Duration) tasks.Holding {
		return tasks.Holding{Reason: reason, Items: 7, Driver: "lab", Tenant: "acme", Since: tasks.Time{Time: w.now.Add(-old)}}
	}
	w.census.Holdings = []tasks.Holding{holding(tasks.HoldUnserved, 0), holding(tasks.HoldTenantHalt, time.Hour)}
	w.unreachable = map[string]tasks.Time{"depot": {Time: w.now}}
	w.full = true
	want(t, "seen first", w.after(t, 0, n))
	want(t, "after a minute", w.after(t, time.Minute, n), "driver lab; 7 items wait", "control plane of the driver depot", "90 %")
	want(t, "a halt of four hours", w.after(t, 3*time.Hour, n), "tenant acme: resets of the tenant are halted; 7 items wait, since 2026-11-30 07:00Z")
	w.census, w.censusErr = tasks.Census{}, errors.New("no answer")
	want(t, "not known", w.after(t, 30*time.Minute, n))
	want(t, "not known still", w.after(t, 5*time.Minute, n))
	w.censusErr, w.unreachable, w.full = nil, nil, false
	want(t, "gone", w.after(t, time.Second, n))
	got := w.after(t, time.Minute, n)
	want(t, "over", got, "Over: no living worker", "Over: no worker reaches", "Over: Redis", "Over: tenant acme")
	w.full = true
	want(t, "for a moment", w.after(t, 0, n))
	w.full = false
	want(t, "over before it was told", w.after(t, 15*time.Second, n))
	want(t, "so nothing is over", w.after(t, 2*time.Minute, n))
}

// A receiver that takes nothing is tried again, later each time; others are told meanwhile. No log has its secret.
func TestAReceiverThatTakesNothing(t *testing.T) {
	w := newWorld(t)
	other := newWorld(t)
	n := w.process(t, func(cfg *notify.Config) { cfg.URLs = append(cfg.URLs, other.URL) })
	w.status = http.StatusInternalServerError
	w.pauseRun()
	if w.after(t, 0, n); len(w.got) != 1 || len(other.got) != 1 {
		t.Fatalf("%d and %d were sent", len(w.got), len(other.got))
	}
	want(t, "too early", w.after(t, 14*time.Second, n))
	if w.after(t, time.Second, n); len(w.got) != 1 {
		t.Fatalf("%d were sent", len(w.got))
	}
	want(t, "half a minute later", w.after(t, 29*time.Second, n))
	w.status = http.StatusOK
	want(t, "taken at last", w.after(t, time.Second, n), "is paused")
	want(t, "once", w.after(t, time.Hour, n))
	if len(other.got) != 1 {
		t.Errorf("the other was told %d times", len(other.got))
	}
	w.Close()
	w.paused = nil
	w.after(t, time.Second, n)
	w.after(t, time.Minute, n) // there is nobody
	if log := w.log.String(); strings.Contains(log, secret) || !strings.Contains(log, "receiver=\"1 (127.0.0.1:") || !strings.Contains(log, "it answers 500") || !strings.Contains(log, "refused") {
		t.Errorf("log %s", log)
	}
	kept, err := w.rdb.Get(t.Context(), "reset:{alerts}").Result()
	if err != nil || strings.Contains(kept, secret) {
		t.Errorf("kept %s, %v", kept, err)
	}
}

// What was told is kept in a Redis that takes nothing more, and so nobody is told each time.
func TestAFullRedis(t *testing.T) {
	w := newWorld(t)
	n := w.process(t)
	w.full = true
	if err := w.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.rdb.Set(t.Context(), "x", "y", 0).Err(); err == nil {
		t.Fatal("it is not full")
	}
	want(t, "seen first", w.after(t, 0, n))
	want(t, "told", w.after(t, time.Minute, n), "Redis has used")
	w.die(t)
	want(t, "by another one not again", w.after(t, time.Minute, w.process(t)))
}

func TestWhatReceiversGet(t *testing.T) {
	w := newWorld(t)
	w.pauseRun()
	for i := range 30 {
		run := w.paused[0]
		run.ID = fmt.Sprintf("%032x", i)
		w.paused = append(w.paused, run)
	}
	t.Run("teams", func(t *testing.T) {
		w.after(t, 0, w.process(t, func(cfg *notify.Config) { cfg.Format = notify.Teams }))
		var message struct {
			Type        string
			Attachments []struct {
				ContentType string
				Content     struct {
					Type, Version string
					Body          []struct {
						Type, Text string
						Wrap       bool
					}
				}
			}
		}
		if err := json.Unmarshal(w.got[0], &message); err != nil || message.Type != "message" || len(message.Attachments) != 1 {
			t.Fatalf("%v: %s", err, w.got[0])
		}
		card := message.Attachments[0]
		if card.ContentType != "application/vnd.microsoft.card.adaptive" || card.Content.Type != "AdaptiveCard" || card.Content.Version != "1.4" {
			t.Errorf("%+v", card)
		}
		// A heading, 20 of 31, and how many more.
		if body := card.Content.Body; len(body) != 22 || body[1].Type != "TextBlock" || !body[1].Wrap || !strings.Contains(body[1].Text, "[Open](https://reset.example/ops/runs/") || !strings.Contains(body[21].Text, "And 11 more") {
			t.Errorf("%+v", body)
		}
	})
	w.die(t)
	w.rdb.Del(t.Context(), "reset:{alerts}")
	t.Run("webhook", func(t *testing.T) {
		key := tasks.NewEndpointSecret()
		w.after(t, 0, w.process(t, func(cfg *notify.Config) { cfg.Format, cfg.Secret = notify.Webhook, key }))
		verifier, err := standardwebhooks.NewWebhook(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(w.got[0], w.header[0]); err != nil {
			t.Error(err)
		}
		var event struct {
			Type string
			Data struct {
				Alerts []struct{ ID, Change, Kind, About, Tenant, Text, URL string }
			}
		}
		if err := json.Unmarshal(w.got[0], &event); err != nil || event.Type != "operator.alerts" || len(event.Data.Alerts) != 31 {
			t.Fatalf("%v: %s", err, w.got[0])
		}
		a := event.Data.Alerts[30]
		if a.Change != "began" || a.Kind != "run_paused" || a.Tenant != "acme" || a.URL != "https://reset.example/ops/runs/"+a.About || !strings.HasPrefix(a.ID, "run_paused-"+a.About+"-") {
			t.Errorf("%+v", a)
		}
	})
}

// With the sources that there are: a run that waits, one that is paused, and an endpoint that took nothing for long.
func TestWhatIsSeenInRedis(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now()
	ctx := t.Context()
	s := tasks.RunSubmission{Tenant: "acme", InstanceIDs: []string{"phone-1", "phone-2"}, AllowUnregistered: true, AskApproval: true, Options: tasks.RunOptions{MaxParallel: 10}, Approval: tasks.ApprovalRule{Approvers: 1, Expiry: time.Hour}}
	waiting, err := w.db.Runs.Create(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := w.db.Endpoints.Add(ctx, tasks.NewEndpoint("acme", "https://acme.example/hooks/"+secret, tasks.Topics), tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.Endpoints.Report(ctx, endpoint, tasks.Report{At: tasks.FromMillis(time.Now().UnixMilli()), Gone: true, Status: http.StatusGone, Error: "gone"}); err != nil {
		t.Fatal(err)
	}
	sender := webhook.NewSender("batchreset/test", true, time.Now)
	t.Cleanup(sender.Close)
	sources := notify.Sources{Runs: w.db.Runs, Census: w.db.Census, Planes: w.db.Workers, Storage: w.db.Storage, Endpoints: w.db.Endpoints}
	n := notify.New(notify.Config{URLs: []string{w.URL}, Format: notify.Slack}, w.db.Alerts, sources, sender, slog.New(slog.DiscardHandler))
	got := w.after(t, 0, n)
	want(t, "both", got, "run "+waiting.ID+" of the tenant acme waits for approval: nothing of its 2 instances begins", "endpoint "+endpoint.ID+" (acme.example) of the tenant acme is disabled")
	if strings.Contains(got[0], secret) {
		t.Errorf("told %s", got[0])
	}
	if lines := strings.Split(got[0], "\n"); len(lines) != 3 || slices.Contains(lines, "") {
		t.Errorf("lines %q", lines)
	}
}

func TestATest(t *testing.T) {
	w := newWorld(t)
	names, results := w.process(t).Test(t.Context())
	if len(names) != 1 || results[0] != nil || !strings.Contains(string(w.got[0]), "This is a test") || strings.Contains(names[0], secret) {
		t.Errorf("%v %v %s", names, results, w.got)
	}
	w.status = http.StatusForbidden
	if _, results := w.process(t).Test(t.Context()); results[0] == nil || strings.Contains(results[0].Error(), secret) {
		t.Errorf("%v", results)
	}
}

// The users of deploy/redis/users.acl that an api and a worker have may look at everything and tell it.
func TestTheUsersOfRedisMayTell(t *testing.T) {
	server := redistest.StartWithUsers(t, "../../deploy/redis/users.acl")
	w := newWorld(t)
	var log bytes.Buffer
	for _, user := range []string{"api", "worker"} {
		db, _ := dbtest.Open(t, redisdb.Options{URL: server.URLOf(user), Roles: []redisdb.Role{redisdb.Role(user)}})
		sender := webhook.NewSender("batchreset/test", true, time.Now)
		t.Cleanup(sender.Close)
		sources := notify.Sources{Runs: db.Runs, Census: db.Census, Planes: db.Workers, Storage: db.Storage, Endpoints: db.Endpoints}
		n := notify.New(notify.Config{URLs: []string{w.URL}, Format: notify.Slack}, db.Alerts, sources, sender, slog.New(slog.NewTextHandler(&log, nil)))
		if err := n.Round(t.Context()); err != nil {
			t.Errorf("%s: %v", user, err)
		}
		if _, leads, err := db.Alerts.Lead(t.Context(), "somebody else", time.Minute); leads || err != nil {
			t.Errorf("%s: another one leads: %t, %v", user, leads, err)
		}
		_, rdb := dbtest.Open(t, redisdb.Options{URL: server.URLOf("operator")})
		rdb.Del(t.Context(), "reset:{alerts}:lead")
	}
}

// In a Redis Cluster the lock and what was told are in one slot.
func TestInACluster(t *testing.T) {
	cluster := redistest.StartCluster(t)
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: cluster.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	states := tasks.AlertStates{"a b": {Alert: tasks.Alert{Kind: "a", About: "b"}, Told: tasks.Tell{"x": tasks.FromMillis(1)}}}
	if leads, err := db.Alerts.Keep(t.Context(), "one", time.Minute, states); !leads || err != nil {
		t.Fatal(leads, err)
	}
	if got, leads, err := db.Alerts.Lead(t.Context(), "one", time.Minute); !leads || err != nil || len(got["a b"].Told) != 1 {
		t.Error(got, leads, err)
	}
	if leads, err := db.Alerts.Keep(t.Context(), "two", time.Minute, nil); leads || err != nil {
		t.Error("another one has written it", err)
	}
}
