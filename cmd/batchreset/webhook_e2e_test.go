package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// hook is a request that a receiver got.
type hook struct {
	Secret  string            `json:"secret"` // to verify it with
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	taken   bool              // the receiver said 2xx
}

func (h hook) id() string { return h.Headers["webhook-id"] }

// receiver is an endpoint on an address of its own, which is down until it is opened.
type receiver struct {
	addr string

	mu    sync.Mutex
	hooks []hook
	slow  bool // it does not answer before the sender has gone
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return &receiver{addr: l.Addr().String()}
}

func (r *receiver) open(t *testing.T) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // until the test closes it
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

func (r *receiver) setSlow(slow bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slow = slow
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	h := hook{Headers: map[string]string{}, Body: string(body)}
	for name := range req.Header {
		h.Headers[strings.ToLower(name)] = req.Header.Get(name)
	}
	r.mu.Lock()
	h.taken = !r.slow
	r.hooks = append(r.hooks, h)
	r.mu.Unlock()
	if !h.taken {
		<-req.Context().Done()
	}
	w.WriteHeader(http.StatusNoContent)
}

// got returns the requests so far and the events that were taken.
func (r *receiver) got() (hooks []hook, taken map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken = map[string]bool{}
	for _, h := range r.hooks {
		if h.taken {
			taken[h.id()] = true
		}
	}
	return slices.Clone(r.hooks), taken
}

// verifyByLibrary has hooks verified by the JavaScript library of Standard Webhooks, and
// returns what it says of each.
func verifyByLibrary(t *testing.T, hooks []hook) []string {
	t.Helper()
	modules, err := filepath.Abs("../../.bin/npm/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "standardwebhooks")); err != nil {
		t.Fatalf("this test needs the packages of .ci/package.json: run 'make .bin/npm/installed' (%v)", err)
	}
	input, err := json.Marshal(hooks)
	if err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(t.Context(), "node", "testdata/verify.js")
	node.Env = append(os.Environ(), "NODE_PATH="+modules)
	node.Stdin = bytes.NewReader(input)
	out, err := node.CombinedOutput()
	said := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(said) != len(hooks) {
		t.Fatalf("node: %v\n%s", err, out)
	}
	return said
}

// signedWith sets the secret that hooks are verified with.
func signedWith(secret string, hooks []hook) []hook {
	hooks = slices.Clone(hooks)
	for i := range hooks {
		hooks[i].Secret = secret
	}
	return hooks
}

func wantSigned(t *testing.T, secret string, hooks []hook) {
	t.Helper()
	for i, said := range verifyByLibrary(t, signedWith(secret, hooks)) {
		if said != "ok" {
			t.Errorf("the library says of %s: %s", hooks[i].id(), said)
		}
	}
}

func TestAReceiverThatIsDownThenSlowThenFineIsToldOfEveryFinish(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t).URL()
	api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	server, _ := api.logged("api started")["api"].(string)
	worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "simulator",
		"--simulator-latency", "10ms", "--simulator-failure-rate", "0.4", "--max-attempts", "1", "--webhook-allow-private")
	worker.logged("worker started")
	environment := map[string]string{"BATCHRESET_REDIS": redis, "BATCHRESET_SERVER": server, "BATCHRESET_WEBHOOK_ALLOW_PRIVATE": "true"}
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)

	r := newReceiver(t)
	added := command(t, environment, "webhook", "add", "--tenant", "acme", "--url", "http://"+r.addr+"/hooks", "--events", "job.finished,job.item_failed").OK(t)
	secret := strings.TrimSpace(added.Out)
	endpoint := func() (e tasks.Endpoint) {
		t.Helper()
		out := command(t, environment, "webhook", "list", "--tenant", "acme", "--output", "jsonl").OK(t).Out
		if err := json.Unmarshal([]byte(out), &e); err != nil || strings.Contains(out, "whsec_") { // more than one is none
			t.Fatalf("list %s, %v", out, err)
		}
		return e
	}
	inspector := inspect(t, redis)
	// Waiting for their time, which is in minutes and hours, are so many notices; so many of
	// them were tried before.
	waiting := func() (all, tried int) {
		list, _ := inspector.ListRetryTasks(redisdb.WebhookQueue, asynq.PageSize(1000))
		for _, task := range list {
			if task.Retried > 0 {
				tried++
			}
		}
		return len(list), tried
	}
	// run sends those at once that were tried so often at most, as the dashboard can.
	run := func(tries int) {
		list, _ := inspector.ListRetryTasks(redisdb.WebhookQueue, asynq.PageSize(1000))
		for _, task := range list {
			if task.Retried <= tries {
				_ = inspector.RunTask(redisdb.WebhookQueue, task.ID) // unless its time has just come
			}
		}
	}

	// Down.
	var ids []string
	for n := range 12 {
		args := []string{"submit"}
		for i := range 3 {
			args = append(args, fmt.Sprintf("phone-%d-%d", n, i))
		}
		ids = append(ids, strings.TrimSpace(command(t, environment, args...).OK(t).Out))
	}
	want := map[string]string{} // what is told, by the body's type
	for _, id := range ids {
		var job client.Job
		harness.Eventually(t, patience, "the job ends", func() bool {
			out := command(t, environment, "status", id, "--output", "json").OK(t).Out
			if err := json.Unmarshal([]byte(out), &job); err != nil {
				t.Fatal(err)
			}
			return tasks.JobState(job.State).Final()
		})
		want[id+"-finished-3"] = "job.finished"
		for _, it := range job.Items {
			if it.State == "failed" {
				want[it.ItemID+"-failed-1"] = "job.item_failed"
			}
		}
	}
	if len(want) == len(ids) {
		t.Fatal("no item has failed: the test tests less than it should")
	}
	harness.Eventually(t, patience, "a notice of each event was tried", func() bool {
		run(0)
		_, tried := waiting()
		return tried == len(want)
	})
	if e := endpoint(); e.Last == nil || !strings.Contains(e.Last.Error, "refused") || e.FailingSince.IsZero() || !e.DisabledAt.IsZero() {
		t.Errorf("an endpoint that is down: %+v", e)
	}

	// Slow.
	r.setSlow(true)
	r.open(t)
	run(9)
	harness.Eventually(t, patience, "the sender has waited long enough", func() bool {
		e := endpoint()
		return e.Last != nil && e.Last.Error == "no answer within 15s"
	})
	slow, taken := r.got()
	if len(slow) == 0 || len(taken) != 0 {
		t.Errorf("%d requests to a slow receiver, %d taken", len(slow), len(taken))
	}
	wantSigned(t, secret, slow)

	// Fine, and with a new secret.
	r.setSlow(false)
	id := endpoint().ID
	newer := strings.TrimSpace(command(t, environment, "webhook", "rotate", id).OK(t).Out)
	harness.Eventually(t, patience, "every event is told", func() bool {
		run(9)
		_, taken := r.got()
		return len(taken) == len(want)
	})
	hooks, taken := r.got()
	for event, topic := range want {
		i := slices.IndexFunc(hooks, func(h hook) bool { return h.id() == event && h.taken })
		if !taken[event] || !strings.HasPrefix(hooks[i].Body, `{"type":"`+topic+`",`) {
			t.Errorf("%s %s is not told", topic, event)
		}
	}
	fine := hooks[len(slow):]
	wantSigned(t, secret, fine)
	wantSigned(t, newer, fine)
	for _, said := range verifyByLibrary(t, signedWith("whsec_"+strings.Repeat("A", 43)+"=", fine[:1])) {
		if said == "ok" {
			t.Error("the library takes any secret")
		}
	}
	if e := endpoint(); e.Last.Error != "" || e.Last.Status != http.StatusNoContent || !e.FailingSince.IsZero() {
		t.Errorf("an endpoint that is fine: %+v", e)
	}
	if out := command(t, environment, "webhook", "test", id).OK(t).Out; !strings.HasPrefix(out, "status 204 after ") {
		t.Errorf("test says %q", out)
	}
	harness.Eventually(t, patience, "nothing is left", func() bool {
		all, _ := waiting()
		return all == 0
	})
	t.Logf("%d events, %d requests, of which %d to a slow receiver", len(want), len(hooks), len(slow))
	worker.stop()
	api.stop()
}

// inspect looks at asynq as its dashboard does.
func inspect(t *testing.T, redis string) *asynq.Inspector {
	t.Helper()
	db, err := redisdb.Open(context.WithoutCancel(t.Context()), redisdb.Options{URL: redis})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db.Redis.NewInspector()
}
