package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// ledger is a control plane that keeps account of every call and of the worker that
// made it: each worker has a URL of its own.
type ledger struct {
	mu     sync.Mutex
	calls  map[string]int // by item
	active map[string]int // by instance
	worst  int            // most calls at a time for one instance
	began  map[string]int // by worker
	ended  map[string]int
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ItemID string `json:"item_id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	worker, instance := r.PathValue("worker"), r.PathValue("instance")
	l.mu.Lock()
	l.calls[body.ItemID]++
	l.active[instance]++
	l.worst = max(l.worst, l.active[instance])
	l.began[worker]++
	l.mu.Unlock()
	// There is always something under way, and it goes on when the caller hangs up.
	harness.Pause(context.WithoutCancel(r.Context()), 50*time.Millisecond)
	l.mu.Lock()
	l.active[instance]--
	l.ended[worker]++
	l.mu.Unlock()
}

// by returns how many calls a worker has begun and ended.
func (l *ledger) by(worker string) (began, ended int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.began[worker], l.ended[worker]
}

func TestRollingRestartUnderLoad(t *testing.T) {
	t.Parallel()
	plane := &ledger{calls: map[string]int{}, active: map[string]int{}, began: map[string]int{}, ended: map[string]int{}}
	mux := http.NewServeMux()
	mux.Handle("POST /{worker}/{instance}", plane)
	phones := httptest.NewServer(mux)
	defer phones.Close()
	redis := redistest.Start(t).URL()
	token := strings.TrimSpace(command(t, map[string]string{"BATCHRESET_REDIS": redis}, "token", "add", "--tenant", "acme").OK(t).Out)

	const shutdownTimeout = 20 * time.Second
	var apis, workers [2]*process
	var addresses [2]struct{ api, ops string }
	var clients [2]atomic.Pointer[client.Client]
	startAPI := func(n int) {
		apis[n] = start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
		started := apis[n].logged("api started")
		addresses[n].api, _ = started["api"].(string)
		addresses[n].ops, _ = started["ops"].(string)
		c, err := client.New(addresses[n].api, token)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		clients[n].Store(c)
	}
	startWorker := func(n int) {
		workers[n] = start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--concurrency", "8", "--driver", "http",
			"--driver-url", fmt.Sprintf("%s/%d/{instance_id}", phones.URL, n), "--shutdown-timeout", shutdownTimeout.String())
		workers[n].logged("worker started")
	}
	for n := range 2 {
		startAPI(n)
		startWorker(n)
	}

	// The load: one caller of each api, who goes to the other one, under the same key,
	// when it does not accept a batch.
	var mu sync.Mutex
	accepted := map[string]bool{} // by job
	keys, failovers := 0, 0
	stop := make(chan struct{})
	var load errgroup.Group
	for submitter := range 2 {
		load.Go(func() error {
			for n := submitter; ; n += 2 {
				select {
				case <-stop:
					return nil
				case <-time.After(60 * time.Millisecond):
				}
				batch := nthBatch(n)
				var err error
				for try := range 20 {
					var a client.Accepted
					if a, err = clients[(n+try)%2].Load().Submit(t.Context(), batch); err == nil {
						mu.Lock()
						accepted[a.JobID] = true
						keys++
						failovers += min(try, 1)
						mu.Unlock()
						break
					}
					if answered, ok := errors.AsType[*client.Error](err); ok {
						return fmt.Errorf("a process that stops must not answer with an error: %w", answered)
					}
				}
				if err != nil {
					return err
				}
			}
		})
	}

	end := func(p *process) {
		t.Helper()
		select {
		case err := <-p.done:
			if err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
		case <-time.After(shutdownTimeout):
			t.Fatalf("%s does not stop", p.Name)
		}
	}
	for round := range 2 {
		for n := range 2 {
			// A batch that is on its way when the api stops is accepted all the same.
			key := fmt.Sprintf("slow-%d-%d", round, n)
			body := fmt.Sprintf(`{"instance_ids":["%s-0","%[1]s-1","%[1]s-2","%[1]s-3"]}`, key)
			slow := upload(t, addresses[n].api, len(body), "X-Auth-Token: "+token, "Idempotency-Key: "+key)
			apis[n].firstSignal(addresses[n].ops)
			mu.Lock()
			accepted[slow.finish(t, body)] = true
			keys++
			mu.Unlock()
			end(apis[n])
			startAPI(n)
			id := fmt.Sprint(n)
			harness.Eventually(t, patience, "a worker with calls under way", func() bool {
				began, ended := plane.by(id)
				return began > ended
			})
			if err := workers[n].Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			end(workers[n])
			began, ended := plane.by(id)
			if began != ended {
				t.Errorf("worker %d stopped with %d calls under way", n, began-ended)
			}
			startWorker(n)
			harness.Eventually(t, patience, "the new worker to take part", func() bool {
				now, _ := plane.by(id)
				return now > began
			})
		}
	}
	close(stop)
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}

	for id := range accepted {
		var job client.Job
		harness.Eventually(t, patience, "job "+id, func() bool {
			var err error
			if job, err = clients[0].Load().Job(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			return job.Final()
		})
		if job.Counts != (client.Counts{Succeeded: 4}) || len(job.Items) != 4 {
			t.Errorf("job %s: %+v", id, job)
		}
		for _, it := range job.Items {
			plane.mu.Lock()
			// On a busy machine an attempt may find that its process stood still: it sends nothing, and comes again.
			if it.Attempts < 1 || plane.calls[it.ItemID] != 1 {
				t.Errorf("item %s has %d attempts, the control plane saw %d calls", it.ItemID, it.Attempts, plane.calls[it.ItemID])
			}
			plane.mu.Unlock()
		}
	}
	plane.mu.Lock()
	defer plane.mu.Unlock()
	if len(accepted) != keys || len(plane.calls) != 4*keys {
		t.Errorf("%d keys became %d jobs, and %d items were called", keys, len(accepted), len(plane.calls))
	}
	if plane.worst != 1 {
		t.Errorf("%d resets of one instance at a time", plane.worst)
	}
	if failovers == 0 {
		t.Error("no batch met an api that was away")
	}
	t.Logf("%d jobs, %d of them accepted by the other api", keys, failovers)
	all := append(apis[:], workers[:]...)
	for _, p := range all { // at once: a stop takes the race detector a second
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	for _, p := range all {
		end(p)
	}
}

// request is one that an api waits for the body of.
type request struct {
	net.Conn
	answer *bufio.Reader
}

// upload sends the head of a submit, and returns when the api has begun to read the
// body, which does not come.
func upload(t *testing.T, server string, length int, header ...string) request {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(server, "http://")) //nolint:noctx // on loopback
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	r := request{c, bufio.NewReader(c)}
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	header = append(header, "Host: api", "Expect: 100-continue", fmt.Sprintf("Content-Length: %d", length))
	fmt.Fprintf(c, "POST /v1/instances/batch-reset HTTP/1.1\r\n%s\r\n\r\n", strings.Join(header, "\r\n"))
	a, err := http.ReadResponse(r.answer, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Body.Close(); err != nil || a.StatusCode != http.StatusContinue {
		t.Fatalf("answer %s, %v", a.Status, err)
	}
	return r
}

// finish sends the body and returns the job.
func (r request) finish(t *testing.T, body string) string {
	t.Helper()
	fmt.Fprint(r, body)
	a, err := http.ReadResponse(r.answer, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	var accepted struct {
		Data struct {
			Job string `json:"task_id"`
		}
	}
	if err := json.NewDecoder(a.Body).Decode(&accepted); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("answer %s, %v", a.Status, err)
	}
	return accepted.Data.Job
}

// firstSignal sends SIGTERM and waits until the process has noticed.
func (p *process) firstSignal(ops string) {
	p.t.Helper()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	harness.Eventually(p.t, patience, "the first signal to be noticed", func() bool {
		status, _ := get(p.t, ops+"/readyz")
		return status == http.StatusServiceUnavailable
	})
}

// secondSignal sends SIGTERM twice. The process must stay after the first one, for
// what is under way, and end at once with the second one.
func (p *process) secondSignal(ops string) {
	p.t.Helper()
	p.firstSignal(ops)
	select {
	case err := <-p.done:
		p.t.Fatalf("it did not wait for what is under way: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.done:
		if status, ok := p.State().Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
			p.t.Errorf("it ended with %v, not with the signal", err)
		}
	case <-time.After(2 * time.Second):
		p.t.Fatal("the second signal does not end it")
	}
	for entry := range p.log { // a program with the race detector stays for a second whatever happens
		if msg, _ := entry["msg"].(string); strings.HasSuffix(msg, " stopped") {
			p.t.Errorf("it logged %q: it did not wait for what is under way", msg)
		}
	}
}

func TestASecondSignalStopsAWorkerAtOnce(t *testing.T) {
	t.Parallel()
	upstream := &hanging{calls: map[string][]string{}, entered: make(chan struct{}, 1), release: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle("POST /{instance}", upstream)
	phones := httptest.NewServer(mux)
	defer phones.Close()
	defer close(upstream.release)
	server := redistest.Start(t)
	rdb := server.Client(t)
	api := start(t, "api", "--redis", server.URL(), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	environment := map[string]string{"BATCHRESET_REDIS": server.URL()}
	environment["BATCHRESET_SERVER"], _ = api.logged("api started")["api"].(string)
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
	flags := []string{
		"worker", "--redis", server.URL(), "--ops-listen", "127.0.0.1:0", "--driver", "http",
		"--driver-url", phones.URL + "/{instance_id}", "--driver-idempotent", "--max-attempts", "1", "--shutdown-timeout", "1m",
	}
	first := start(t, flags...)
	ops, _ := first.logged("worker starting")["ops"].(string)
	id := strings.TrimSpace(command(t, environment, "submit", "phone-1").OK(t).Out)
	<-upstream.entered
	first.secondSignal(ops)

	look := func() (job client.Job) {
		if err := json.Unmarshal([]byte(command(t, environment, "status", id, "--output", "json").OK(t).Out), &job); err != nil {
			t.Fatal(err)
		}
		return job
	}
	if it := look().Items[0]; it.State != "running" || it.Attempts != 1 {
		t.Errorf("item %+v", it)
	}
	// Another worker goes on. What would take it half a minute to notice: the first one has
	// shown no sign of life for long, and its turn as sweeper is over.
	for _, signs := range []string{"asynq:servers:*", "asynq:workers:*", "reset:worker:*", "reset:sweeper"} {
		for _, key := range rdb.Keys(t.Context(), signs).Val() {
			rdb.Del(t.Context(), key)
		}
	}
	second := start(t, flags...)
	var job client.Job
	harness.Eventually(t, patience, "the item to end", func() bool {
		job = look()
		return job.Final()
	})
	it := job.Items[0]
	upstream.mu.Lock()
	keys := upstream.calls[it.ItemID]
	upstream.mu.Unlock()
	if it.State != "succeeded" || it.Attempts != 2 || len(keys) != 2 || keys[0] != keys[1] {
		t.Errorf("calls under the keys %q, item %+v", keys, it)
	}
	second.stop()
	api.stop()
}

func TestASecondSignalStopsAnAPIAtOnce(t *testing.T) {
	t.Parallel()
	api := start(t, "api", "--redis", redistest.Start(t).URL(), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	started := api.logged("api started")
	server, _ := started["api"].(string)
	ops, _ := started["ops"].(string)
	upload(t, server, 2)
	api.secondSignal(ops)
}

// nthBatch is a batch of four under a key of its own. Now and then, four of them want the same instance.
func nthBatch(n int) client.Batch {
	batch := client.Batch{IdempotencyKey: fmt.Sprintf("batch-%d", n)}
	for i := range 4 {
		batch.InstanceIDs = append(batch.InstanceIDs, fmt.Sprintf("phone-%d-%d", n, i))
	}
	if n/4%8 == 0 {
		batch.InstanceIDs[0] = fmt.Sprintf("shared-%d", n/4)
	}
	return batch
}
