package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// planeCall is a call of a plane that remembers.
type planeCall struct {
	item, instance, key string
	begin, end          time.Time // end is zero while it goes on
}

// planeWithMemory remembers each call, and does not answer those about instances that are held before they are let go.
type planeWithMemory struct {
	mu    sync.Mutex
	calls []*planeCall
	held  map[string]chan struct{} // by instance
}

func (p *planeWithMemory) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var body struct {
		ItemID string `json:"item_id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	c := &planeCall{item: body.ItemID, instance: r.PathValue("instance"), key: r.Header.Get("Idempotency-Key"), begin: time.Now()}
	p.mu.Lock()
	p.calls = append(p.calls, c)
	held := p.held[c.instance]
	p.mu.Unlock()
	if held != nil {
		<-held
	}
	p.mu.Lock()
	c.end = time.Now()
	p.mu.Unlock()
}

// hold has the calls about an instance wait, from now on.
func (p *planeWithMemory) hold(instance string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[instance] = make(chan struct{})
}

// letGo answers the calls about an instance, from now on.
func (p *planeWithMemory) letGo(instance string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.held[instance])
	delete(p.held, instance)
}

// of are the calls about an instance so far.
func (p *planeWithMemory) of(instance string) (calls []planeCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if c.instance == instance {
			calls = append(calls, *c)
		}
	}
	return calls
}

// sideBySide are the instances of which two calls under different keys went on at the same time.
func (p *planeWithMemory) sideBySide() (instances []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, a := range p.calls {
		for _, b := range p.calls[:i] {
			if a.instance == b.instance && a.key != b.key && (b.end.IsZero() || a.begin.Before(b.end)) && (a.end.IsZero() || b.begin.Before(a.end)) {
				instances = append(instances, a.instance)
			}
		}
	}
	return instances
}

// since are the instances that were called after a time.
func (p *planeWithMemory) since(t time.Time) (instances []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if c.begin.After(t) {
			instances = append(instances, c.instance)
		}
	}
	return instances
}

// restored is a service whose Redis is put back to an older state while it runs.
type restored struct {
	*testing.T
	plane       *planeWithMemory
	hooks       *receiver
	rdb         redis.UniversalClient
	environment map[string]string
	client      *client.Client
	workers     []*process
	jobs        map[string]string // by what they are
}

func (s *restored) script(args ...string) string {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), filepath.Join("../../deploy/redis", args[0]), args[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.Fatalf("%v: %v\n%s", args, err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

func (s *restored) submit(name string, b client.Batch) {
	s.Helper()
	b.IdempotencyKey = name
	a, err := s.client.Submit(s.Context(), b)
	if err != nil {
		s.Fatal(err)
	}
	s.jobs[name] = a.JobID
}

func (s *restored) job(name string) (client.Job, error) {
	return s.client.Job(s.Context(), s.jobs[name])
}

// succeeds waits until the item of a job with one item has succeeded.
func (s *restored) succeeds(name string) {
	s.Helper()
	last := ""
	if harness.Until(s.Context(), patience, func(context.Context) error {
		job, err := s.job(name)
		if err != nil {
			return err
		}
		if last = fmt.Sprintf("%+v", job.Items); job.Items[0].State != "succeeded" {
			harness.Pause(s.Context(), 50*time.Millisecond)
			return errors.New("not yet")
		}
		return nil
	}) != nil {
		s.Fatalf("%s has not succeeded: %s", name, last)
	}
}

// approver is a client of somebody who may approve runs.
func (s *restored) approver(owner string) *client.Client {
	s.Helper()
	token := strings.TrimSpace(command(s.T, s.environment, "token", "add", "--tenant", "acme", "--owner", owner, "--scope", "read,approve").OK(s.T).Out)
	c, err := client.New(s.environment["BATCHRESET_SERVER"], token)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(c.Close)
	return c
}

func (s *restored) called(instance string) {
	s.Helper()
	harness.Eventually(s, patience, "a call of "+instance, func() bool { return len(s.plane.of(instance)) > 0 })
}

func (s *restored) told(name string) {
	s.Helper()
	harness.Eventually(s, patience, "the end of "+name+" to be told", func() bool {
		hooks, _ := s.hooks.got()
		return slices.ContainsFunc(hooks, func(h hook) bool { return strings.Contains(h.Body, s.jobs[name]) })
	})
}

// halted says why everything is halted, if it is.
func (s *restored) halted() string {
	return s.rdb.HGet(s.Context(), "reset:policies", "* halt").Val()
}

// newRestored has api and two workers on the Redis of a URL. The plane does not answer about the instances that are held.
func newRestored(t *testing.T, url string, rdb redis.UniversalClient, held ...string) *restored {
	t.Helper()
	s := &restored{
		T: t, plane: &planeWithMemory{held: map[string]chan struct{}{}}, hooks: newReceiver(t), rdb: rdb, jobs: map[string]string{},
	}
	for _, instance := range held {
		s.plane.hold(instance)
	}
	s.hooks.open(t)
	mux := http.NewServeMux()
	mux.Handle("POST /{instance}", s.plane)
	phones := httptest.NewServer(mux)
	t.Cleanup(phones.Close)
	t.Cleanup(func() { // before the server waits for them
		for _, instance := range slices.Collect(maps.Keys(s.plane.held)) {
			s.plane.letGo(instance)
		}
	})
	api := start(t, "api", "--redis", url, "--queues", "1", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	s.environment = map[string]string{"BATCHRESET_REDIS": url}
	s.environment["BATCHRESET_SERVER"], _ = api.logged("api started")["api"].(string)
	for range 2 {
		s.workers = append(s.workers, start(t, "worker", "--redis", url, "--queues", "1", "--ops-listen", "127.0.0.1:0", "--driver", "http",
			"--driver-url", phones.URL+"/{instance_id}", "--driver-idempotent", "--webhook-allow-private"))
	}
	for _, w := range s.workers {
		w.logged("worker started")
	}
	token := strings.TrimSpace(command(t, s.environment, "token", "add", "--tenant", "acme", "--owner", "alice").OK(t).Out)
	s.environment["BATCHRESET_TOKEN"] = token
	var err error
	if s.client, err = client.New(s.environment["BATCHRESET_SERVER"], token); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	command(t, s.environment, "webhook", "add", "--tenant", "acme", "--webhook-allow-private", "--url", "http://"+s.hooks.addr).OK(t)
	return s
}

// TestRestoreUnderRunningWorkers puts a snapshot back while api and workers run: with deploy/redis/restore, and without
// the halt that it writes. deploy/redis/README.md has the table of what the test asserts.
func TestRestoreUnderRunningWorkers(t *testing.T) {
	for name, byHand := range map[string]bool{"with the halt of deploy/redis/restore": false, "without a halt": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			restoreUnderRunningWorkers(t, byHand)
		})
	}
}

func restoreUnderRunningWorkers(t *testing.T, byHand bool) {
	dir := t.TempDir()
	server := redistest.Setup{Dir: dir}.Start(t)
	dir = filepath.Join(dir, "redis-1")
	s := newRestored(t, server.URL(), server.Client(t), "across-1", "across-2", "later-2")
	bobs := s.approver("bob")

	s.submit("before", client.Batch{InstanceIDs: []string{"before-1"}})
	s.succeeds("before")
	s.told("before")
	s.submit("across", client.Batch{InstanceIDs: []string{"across-1"}})
	s.submit("across ended", client.Batch{InstanceIDs: []string{"across-2"}})
	s.called("across-1")
	s.called("across-2")
	soonAfter := time.Now().Add(4 * time.Second)
	s.submit("later ended", client.Batch{InstanceIDs: []string{"later-1"}, NotBefore: soonAfter})
	s.submit("later", client.Batch{InstanceIDs: []string{"later-2"}, NotBefore: soonAfter})
	s.submit("cancelled", client.Batch{InstanceIDs: []string{"cancelled-1"}, NotBefore: time.Now().Add(time.Hour)})
	run, err := s.client.Runs().Submit(t.Context(), client.RunRequest{InstanceIDs: []string{"run-1", "run-2"}, Approval: true})
	if err != nil || run.State != "waiting" {
		t.Fatalf("run %+v, %v", run, err)
	}
	host, port, _ := strings.Cut(server.Addr, ":")
	snapshot := s.script("backup", t.TempDir(), "-h", host, "-p", port)
	if calls := slices.Concat(s.plane.of("later-1"), s.plane.of("later-2")); len(calls) > 0 {
		t.Fatalf("the machine is so slow that the snapshot has %+v", calls)
	}
	counted := func() (beats int) {
		for _, key := range s.rdb.Keys(t.Context(), "reset:worker:*:beats").Val() {
			n, _ := s.rdb.Get(t.Context(), key).Int()
			beats += n
		}
		return beats
	}
	atSnapshot := counted()

	// Work goes on.
	s.plane.letGo("across-2")
	s.succeeds("across ended")
	s.succeeds("later ended")
	s.told("later ended")
	s.called("later-2")
	if _, err := s.client.Cancel(t.Context(), s.jobs["cancelled"]); err != nil {
		t.Fatal(err)
	}
	if _, err := bobs.Runs().Approve(t.Context(), run.ID, run.ListSHA256, "looked at it"); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, patience, "the run to end", func() bool {
		now, err := s.client.Runs().Get(t.Context(), run.ID)
		return err == nil && now.State == "succeeded"
	})
	s.submit("forgotten", client.Batch{InstanceIDs: []string{"forgotten-1"}})
	s.succeeds("forgotten")
	s.told("forgotten")
	command(t, s.environment, "halt", "--tenant", "other", "--reason", "decided after the snapshot").OK(t)
	bobsToken := s.tokenOf("bob")
	command(t, s.environment, "token", "revoke", bobsToken).OK(t)
	if _, err := bobs.WhoAmI(t.Context()); err == nil {
		t.Error("a revoked token is good")
	}
	if byHand { // the workers must know that more is missing than a crash could lose
		harness.Eventually(t, patience, "signs of life", func() bool { return counted() >= atSnapshot+2*5+1 })
	}

	server.Kill()
	args := []string{"restore", snapshot, dir}
	if byHand {
		args = append(args, "--no-halt")
	}
	t.Log(s.script(args...))
	if byHand { // a machine that is fast enough does this between two signs of life
		for _, w := range s.workers {
			w.logged("sign of life not written")
		}
	}
	server.Restart(t)
	back := time.Now()
	harness.Eventually(t, patience, "the halt", func() bool { return s.halted() != "" })
	why := map[bool]string{false: "restored from the snapshot batchreset-", true: "Redis has gone back in time by "}[byHand]
	if !strings.Contains(s.halted(), why) {
		t.Errorf("everything is halted because of %s", s.halted())
	}
	if byHand {
		for _, w := range s.workers {
			w.logged("everything is halted: resets since then may be repeated")
		}
		if out := command(t, s.environment, "audit", "--action", "halt").OK(t).Out; !strings.Contains(out, "worker ") || !strings.Contains(out, "gone back in time") {
			t.Errorf("the trail has\n%s", out)
		}
	}
	if out := command(t, s.environment, "tenant", "list").OK(t).Out; !strings.Contains(out, "HALTED") {
		t.Errorf("tenant list says\n%s", out)
	}

	// What the record has forgotten, it has forgotten; what goes on, ends.
	s.plane.letGo("across-1")
	s.plane.letGo("later-2")
	s.succeeds("across") // by the attempt that was begun before the snapshot
	for name, state := range map[string]string{"before": "succeeded", "across ended": "running", "later ended": "pending", "later": "pending", "cancelled": "pending"} {
		if job, err := s.job(name); err != nil || job.Items[0].State != state {
			t.Errorf("after the restore %s is %+v, %v; want %s", name, job.Items, err, state)
		}
	}
	if _, err := s.job("forgotten"); !isStatus(err, http.StatusNotFound) {
		t.Errorf("a job that was accepted after the snapshot: %v", err)
	}
	if now, err := s.client.Runs().Get(t.Context(), run.ID); err != nil || now.State != "waiting" || len(now.Approval.Decisions) != 0 {
		t.Errorf("the run is %+v, %v", now, err)
	}
	if s.rdb.HExists(t.Context(), "reset:policies", "other halt").Val() {
		t.Error("a halt of after the snapshot holds")
	}
	if _, err := bobs.WhoAmI(t.Context()); err != nil {
		t.Errorf("a token that was revoked after the snapshot: %v", err)
	}
	// An operator decides again what was decided since, and lets everything go on.
	command(t, s.environment, "token", "revoke", bobsToken).OK(t)
	if _, err := s.client.Cancel(t.Context(), s.jobs["cancelled"]); err != nil {
		t.Fatal(err)
	}
	if again := s.plane.since(back); len(again) > 0 {
		t.Errorf("%v were reset before anybody had looked", again)
	}
	// As if the attempt's time, and with it the lock, were over.
	s.rdb.Del(t.Context(), "reset:lock:{across-2}")
	command(t, s.environment, "resume", "--all").OK(t)

	acrossEnded := 1
	again := []string{"later ended", "later"}
	if !byHand { // which takes 20 s, so that the other one is spared it
		acrossEnded = 2 // under one key, which the record still has
		again = append(again, "across ended")
	}
	for _, name := range again {
		s.succeeds(name)
		s.told(name)
	}
	s.told("across")
	for _, row := range []struct {
		instance string
		calls    int
		sameKey  bool
	}{
		{"before-1", 1, true},
		{"across-1", 1, true},
		{"across-2", acrossEnded, true},
		{"later-1", 2, false},
		{"later-2", 2, false},
		{"cancelled-1", 0, true},
		{"forgotten-1", 1, true},
		{"run-1", 1, true},
		{"run-2", 1, true},
	} {
		calls := s.plane.of(row.instance)
		if len(calls) != row.calls || row.calls == 2 && (calls[0].key == calls[1].key) != row.sameKey {
			t.Errorf("%s has the calls %+v, want %d, under the same key: %t", row.instance, calls, row.calls, row.sameKey)
		}
	}
	for name := range s.jobs {
		want := client.Counts{Succeeded: 1}
		switch {
		case name == "forgotten", name == "across ended" && byHand: // is gone, has not ended yet
			continue
		case name == "cancelled":
			want = client.Counts{Cancelled: 1}
		}
		if job, err := s.job(name); err != nil || job.Counts != want {
			t.Errorf("%s has the counts %+v, %v", name, job.Counts, err)
		}
	}
	s.consistent()
	for _, w := range s.workers {
		w.stop()
	}
}

// tokenOf is the ID of somebody's token.
func (s *restored) tokenOf(owner string) string {
	s.Helper()
	for line := range strings.Lines(command(s.T, s.environment, "token", "list").OK(s.T).Out) {
		if strings.Contains(line, owner) {
			return strings.Fields(line)[0]
		}
	}
	s.Fatal("no token of " + owner)
	return ""
}

func isStatus(err error, status int) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.HTTPStatus == status
}

// TestRestoreRefusesWhatWouldDoHarm leaves the folder as it was.
func TestRestoreRefusesWhatWouldDoHarm(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	server := redistest.Setup{Dir: folder}.Start(t)
	rdb := server.Client(t)
	host, port, _ := strings.Cut(server.Addr, ":")
	s := &restored{T: t}
	empty := s.script("backup", t.TempDir(), "-h", host, "-p", port)
	if err := rdb.Set(t.Context(), "reset:x", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	good := s.script("backup", t.TempDir(), "-h", host, "-p", port)
	folder = filepath.Join(folder, "redis-1")
	refuse := func(want string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "../../deploy/redis/"+args[0], args[1:]...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v, and it says %s; want %q", args, err, out, want)
		}
	}
	refuse("stop Redis first", "restore", good, folder)
	refuse("is no folder", "backup", folder+"/nowhere")
	refuse("Redis does not answer", "backup", t.TempDir(), "-h", "127.0.0.1", "-p", "1")
	server.Kill()
	cut := filepath.Join(t.TempDir(), "cut.rdb")
	if err := os.WriteFile(cut, []byte(readFile(t, good))[:len(readFile(t, good))/2], 0o600); err != nil {
		t.Fatal(err)
	}
	refuse("is damaged", "restore", cut, folder)
	refuse("of the snapshot is empty", "restore", empty, folder)
	refuse("of the snapshot is empty", "restore", good, folder, "--db", "3")
	refuse("there is no file", "restore", good+"x", folder)
	refuse("is not known", "restore", good, folder, "--nohalt")
	server.Restart(t)
	if err := rdb.Get(t.Context(), "reset:x").Err(); err != nil {
		t.Errorf("what was refused has changed the folder: %v", err)
	}
	if left, err := filepath.Glob(folder + "/[br]e[fs]*"); err != nil || len(left) > 0 { // before-…, restore.…
		t.Errorf("left are %v, %v", left, err)
	}
}
