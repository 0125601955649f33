package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// binary is the program under test, built once with the race detector.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "batchreset-e2e")
	if err != nil {
		panic(err)
	}
	binary, err = harness.Build(context.Background(), "", dir, "-race", "-ldflags", "-X "+versionVariable+"="+versionUnderTest)
	if err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// process is a running batchreset.
type process struct {
	*harness.Process
	t    *testing.T
	log  chan map[string]any // lines of the log that the test has not read
	done chan error

	mu  sync.Mutex
	all strings.Builder // it has written, to both outputs
}

// Write takes what the process writes to its standard output.
func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Write(text)
}

// said is all that the process has written so far.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.String()
}

// start starts the binary as a process of its own. The test ends it.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startIn(t, nil, args...)
}

// startIn is start with more in the environment.
func startIn(t *testing.T, environment []string, args ...string) *process {
	t.Helper()
	return startCommand(t, environment, args[0], append([]string{binary}, args...)...)
}

// startCommand is startIn for a command line of any kind. An api in it stops at once.
func startCommand(t *testing.T, environment []string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, log: make(chan map[string]any, 1000), done: make(chan error, 1)}
	stderr, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Process, err = harness.Start(context.WithoutCancel(t.Context()), harness.Command{
		Name: name, Args: args, Env: append([]string{"BATCHRESET_DRAIN_DELAY=0"}, environment...), Dir: t.TempDir(),
		Stdout: p, Stderr: writer,
	})
	_ = writer.Close() // the process has its own
	if err != nil {
		_ = stderr.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill() // if the test did not come to stop
		if t.Failed() {
			said := p.said()
			t.Logf("what %s wrote last: %s", name, said[max(0, len(said)-4000):])
		}
	})
	go func() {
		lines := bufio.NewScanner(stderr)
		var races bytes.Buffer
		for lines.Scan() {
			fmt.Fprintln(p, lines.Text())
			var entry map[string]any
			if json.Unmarshal(lines.Bytes(), &entry) != nil {
				fmt.Fprintln(&races, lines.Text()) // the race detector and panics do not speak JSON
				continue
			}
			select {
			case p.log <- entry:
			default: // nobody reads that much
			}
		}
		_ = stderr.Close() // it was read to its end
		close(p.log)
		err := p.Wait()
		if races.Len() > 0 {
			err = errors.Join(err, errors.New(races.String()))
		}
		p.done <- err
	}()
	return p
}

// logged waits for a line of the log.
func (p *process) logged(msg string) map[string]any {
	p.t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case entry, ok := <-p.log:
			if !ok {
				p.t.Fatalf("the process ended before it logged %q: %v", msg, <-p.done)
			}
			if entry["msg"] == msg {
				return entry
			}
		case <-timeout:
			p.t.Fatalf("%q is not in the log", msg)
		}
	}
}

// stop asks the process to end, as a service manager does.
func (p *process) stop() {
	p.t.Helper()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.done:
		if err != nil {
			p.t.Errorf("%s: %v", p.Name, err)
		}
	case <-time.After(30 * time.Second):
		p.t.Fatalf("%s does not stop", p.Name)
	}
}

// patience is how long a test waits for something that takes a few seconds.
const patience = 90 * time.Second

// controlPlane is an upstream that is slow and fails one call in five. It
// remembers every call.
type controlPlane struct {
	mu     sync.Mutex
	calls  map[string]int // by item
	active map[string]int // by instance
	worst  int            // most calls at a time for one instance
	keys   map[string]int // by Idempotency-Key
}

func (c *controlPlane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		InstanceID string `json:"instance_id"`
		ItemID     string `json:"item_id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.PathValue("instance") != body.InstanceID {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	c.calls[body.ItemID]++
	c.keys[r.Header.Get("Idempotency-Key")]++
	c.active[body.InstanceID]++
	c.worst = max(c.worst, c.active[body.InstanceID])
	c.mu.Unlock()
	// Slow, as control planes are, and not interrupted when the caller hangs up.
	harness.Pause(context.WithoutCancel(r.Context()), rand.N(40*time.Millisecond))
	c.mu.Lock()
	c.active[body.InstanceID]--
	c.mu.Unlock()
	if rand.N(5) == 0 {
		w.Header().Set("Retry-After", "0") // it is the control plane itself that says so
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"error_code":"CPS.0003","error_msg":"internal error"}`)
	}
}

func TestBatchesThroughSeparateProcesses(t *testing.T) {
	t.Parallel()
	upstream := &controlPlane{calls: map[string]int{}, active: map[string]int{}, keys: map[string]int{}}
	mux := http.NewServeMux()
	mux.Handle("POST /phones/{instance}/reset", upstream)
	phones := httptest.NewServer(mux)
	defer phones.Close()

	redis := redistest.Start(t).URL()
	api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	server, _ := api.logged("api started")["api"].(string)
	worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "http",
		"--driver-url", phones.URL+"/phones/{instance_id}/reset", "--concurrency", "100", "--max-attempts", "12")
	worker.logged("worker started")

	const instances = 3200
	fleet, list := "instance_id,tenant\n", ""
	for n := range instances {
		fleet += fmt.Sprintf("phone-%04d,acme\n", n)
		list += fmt.Sprintf("phone-%04d\n", n)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"fleet.csv": fleet, "list.txt": list} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	environment := map[string]string{"BATCHRESET_REDIS": redis, "BATCHRESET_SERVER": server}
	command(t, environment, "fleet", "import", filepath.Join(dir, "fleet.csv")).OK(t)
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)

	result := filepath.Join(dir, "result.csv")
	command(t, environment, "submit", "--file", filepath.Join(dir, "list.txt"), "--result", result).OK(t)
	rows, err := readRows(result)
	if err != nil || len(rows) != instances {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	upstream.mu.Lock()
	defer upstream.mu.Unlock()
	calls, attempts, jobs := 0, 0, map[string]bool{}
	for _, row := range rows {
		n, err := strconv.Atoi(row["attempts"])
		seen := upstream.calls[row["item_id"]]
		if err != nil || row["state"] != "succeeded" || seen < 1 || seen > n { // fewer, where the machine stood still before it was sent
			t.Errorf("row %v; the control plane saw %d calls; %v", row, seen, err)
		}
		calls, attempts = calls+seen, attempts+n
		jobs[row["job_id"]] = true
	}
	if len(jobs) != instances/32 {
		t.Errorf("%d jobs, want %d", len(jobs), instances/32)
	}
	if upstream.worst != 1 {
		t.Errorf("%d resets of one instance at a time", upstream.worst)
	}
	if calls <= instances || len(upstream.keys) != calls {
		t.Errorf("%d calls under %d driver keys: every definite failure must bring a new one", calls, len(upstream.keys))
	}
	t.Logf("%d instances, %d attempts, %d calls", instances, attempts, calls)
	worker.stop()
	api.stop()
}

// hanging is a control plane whose first call for each item never answers.
type hanging struct {
	mu      sync.Mutex
	calls   map[string][]string // keys by item
	entered chan struct{}
	release chan struct{}
}

func (h *hanging) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var body struct {
		ItemID string `json:"item_id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	h.mu.Lock()
	h.calls[body.ItemID] = append(h.calls[body.ItemID], r.Header.Get("Idempotency-Key"))
	first := len(h.calls[body.ItemID]) == 1
	h.mu.Unlock()
	if first {
		h.entered <- struct{}{}
		<-h.release
	}
}

func TestAWorkerThatIsKilledInTheMiddle(t *testing.T) {
	for _, row := range []struct {
		name  string
		flags []string
		state string
		code  string
		calls int
	}{
		{"is replaced, and the call repeated under its key where that is harmless", []string{"--driver-idempotent"}, "succeeded", "", 2},
		{"leaves an item unknown where a call cannot be repeated", nil, "unknown", "RESET.1002", 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			upstream := &hanging{calls: map[string][]string{}, entered: make(chan struct{}, 1), release: make(chan struct{})}
			mux := http.NewServeMux()
			mux.Handle("POST /phones/{instance}/reset", upstream)
			phones := httptest.NewServer(mux)
			defer phones.Close()
			defer close(upstream.release)
			traces := &traceCollector{}
			otlp := httptest.NewServer(traces)
			defer otlp.Close()
			redis := redistest.Start(t).URL()
			api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open", "--otlp-endpoint", otlp.URL)
			server, _ := api.logged("api started")["api"].(string)
			flags := append([]string{
				"worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "http",
				"--driver-url", phones.URL + "/phones/{instance_id}/reset", "--max-attempts", "1", "--otlp-endpoint", otlp.URL,
			}, row.flags...)
			first := start(t, flags...)
			first.logged("worker started")
			environment := map[string]string{"BATCHRESET_REDIS": redis, "BATCHRESET_SERVER": server}
			environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
			id := strings.TrimSpace(command(t, environment, "submit", "phone-1").OK(t).Out)
			<-upstream.entered
			first.Kill()
			if err := <-first.done; err == nil {
				t.Error("a killed worker exits with 0")
			}
			killed := time.Now()
			second := start(t, flags...)
			watched := command(t, environment, "watch", id, "--output", "json")
			if row.state == "succeeded" {
				watched.OK(t)
			}
			var got struct{ Jobs []client.Job }
			if err := json.Unmarshal([]byte(watched.Out), &got); err != nil {
				t.Fatal(err)
			}
			it := got.Jobs[0].Items[0]
			if it.State != row.state || it.Code != row.code || it.Attempts != 2 {
				t.Errorf("item %+v", it)
			}
			if d := time.Since(killed); d > time.Minute {
				t.Errorf("it took %s to go on", d)
			}
			upstream.mu.Lock()
			keys := upstream.calls[it.ItemID]
			upstream.mu.Unlock()
			if len(keys) != row.calls || keys[0] != keys[len(keys)-1] {
				t.Errorf("calls under the keys %q", keys)
			}
			second.stop()
			api.stop()
			traces.wantTakenOver(t)
		})
	}
}

func TestDevFromGreetingToFinishedJob(t *testing.T) {
	t.Parallel()
	dev := exec.Command(binary, "dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--simulator-latency", "10ms") //nolint:noctx // ended below
	out, err := dev.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Process.Kill() })
	greeting := ""
	curl := regexp.MustCompile(`curl -s (\S+) -H 'X-Auth-Token: (\S+)' -d '(.*)'`)
	lines := bufio.NewScanner(out)
	for !curl.MatchString(greeting) && lines.Scan() {
		greeting += lines.Text() + "\n"
	}
	found := curl.FindStringSubmatch(greeting)
	if found == nil {
		t.Fatalf("no curl line in the greeting:\n%s", greeting)
	}
	for _, want := range []string{"nothing survives a restart", "demo-token", "/asynq"} {
		if !strings.Contains(greeting, want) {
			t.Errorf("the greeting lacks %q:\n%s", want, greeting)
		}
	}
	base := strings.TrimSuffix(found[1], "/v1/instances/batch-reset")
	call := func(method, url, body string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Auth-Token", found[2])
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl -d sends
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	answer := call(http.MethodPost, found[1], found[3])
	if !strings.HasPrefix(answer, `{"error_code":"0","error_msg":"ok","data":{"task_id":"`) {
		t.Fatalf("answer %s", answer)
	}
	id := regexp.MustCompile(`[0-9a-f]{32}`).FindString(answer)
	deadline := time.After(20 * time.Second)
	for {
		query := call(http.MethodGet, base+"/v1/instances/tasks/"+id, "")
		if strings.Count(query, `"status":2`) == 2 {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("not done: %s", query)
		case <-time.After(20 * time.Millisecond):
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := dev.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	if err := dev.Wait(); err != nil {
		t.Errorf("dev: %v", err)
	}
}
