//go:build engine

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/worker/docker/enginetest"
)

// phonesOfEach is how many phones each driver has.
const phonesOfEach = 4

// containers are phones of a real Docker engine.
type containers struct {
	t      *testing.T
	engine *enginetest.Engine
	first  map[string]string // ID by name

	mu     sync.Mutex
	wipes  []string            // phones that a helper has begun to wipe
	resets map[string][]string // IDs of the containers of resets that were started, by name
}

func startContainers(t *testing.T) *containers {
	t.Helper()
	e, err := enginetest.Start(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	})
	c := &containers{t: t, engine: e, first: map[string]string{}, resets: map[string][]string{}}
	for n := range phonesOfEach {
		name := fmt.Sprintf("box-%d", n)
		var made struct{ ID string }
		c.call(http.MethodPost, "/containers/create?name="+name, map[string]any{
			"Image": enginetest.PhoneImage, "Cmd": []string{"phone.boot=500ms"},
			"HostConfig": map[string]any{
				"Binds": []string{c.folder(name) + ":/data"}, "NetworkMode": "none", "RestartPolicy": map[string]any{"Name": "always"},
			},
		}, &made)
		c.call(http.MethodPost, "/containers/"+made.ID+"/start", nil, nil)
		c.first[name] = made.ID
		harness.Eventually(t, patience, "the phone has its data", func() bool { return exists(filepath.Join(c.folder(name), "system")) })
		if err := os.WriteFile(c.photo(name), []byte("private"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.follow()
	return c
}

func (c *containers) folder(name string) string { return filepath.Join(c.engine.Dir, "phones", name) }

func (c *containers) photo(name string) string { return filepath.Join(c.folder(name), "photo") }

func (c *containers) call(method, path string, body, into any) {
	c.t.Helper()
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		sent = bytes.NewReader(text)
	}
	var answer bytes.Buffer
	err := c.engine.Call(c.t.Context(), method, path, sent, &answer)
	if err == nil && into != nil {
		err = json.Unmarshal(answer.Bytes(), into)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// follow notes what the engine starts, until the test ends.
func (c *containers) follow() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	query := url.Values{"since": {fmt.Sprint(time.Now().Unix())}, "filters": {`{"type":["container"],"event":["start"]}`}}
	events, writer := io.Pipe()
	var both sync.WaitGroup
	both.Go(func() {
		_ = writer.CloseWithError(c.engine.Call(ctx, http.MethodGet, "/events?"+query.Encode(), nil, writer)) // ends with the context's error
	})
	both.Go(func() {
		for decoder := json.NewDecoder(events); ; {
			var event struct {
				Actor struct {
					ID         string
					Attributes map[string]string
				}
			}
			if decoder.Decode(&event) != nil {
				return
			}
			name, labels := event.Actor.Attributes["name"], event.Actor.Attributes
			c.mu.Lock()
			if _, helper := labels["batchreset.wipe"]; helper {
				c.wipes = append(c.wipes, name)
			} else if labels["batchreset.reset"] != "" {
				c.resets[name] = append(c.resets[name], event.Actor.ID)
			}
			c.mu.Unlock()
		}
	})
	c.t.Cleanup(func() { cancel(); both.Wait() })
}

func (c *containers) begun() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.wipes)
}

// mustBeReset wants each phone in one new container, which was started once, with fresh data.
func (c *containers) mustBeReset() {
	c.t.Helper()
	var all []struct{ ID string }
	c.call(http.MethodGet, "/containers/json?all=1", nil, &all)
	if len(all) != phonesOfEach {
		c.t.Errorf("the engine has the containers %v", all)
	}
	for name, first := range c.first {
		var now struct {
			ID    string
			State struct{ Running bool }
		}
		c.call(http.MethodGet, "/containers/"+name+"/json", nil, &now)
		c.mu.Lock()
		resets := slices.Clone(c.resets[name])
		c.mu.Unlock()
		if now.ID == first || !now.State.Running || !slices.Equal(resets, []string{now.ID}) {
			c.t.Errorf("%s was %s and is %+v; resets have started %v", name, first, now, resets)
		}
		if exists(c.photo(name)) || !exists(filepath.Join(c.folder(name), "system")) {
			c.t.Errorf("%s has no fresh data", name)
		}
	}
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// labProgram resets the phones of a folder: a phone is wiped by a line with its name and the key in the
// file wiped, and has booted when it has a file of its own. A key that was seen wipes nothing again.
const labProgram = `import fcntl, json, os, sys, time
asked = json.loads(sys.stdin.readline())
phone, key = asked["address"], asked["driver_key"]
def say(**line):
    print(json.dumps(line), flush=True)
with open("wiped", "a+") as wiped:
    def times():
        wiped.seek(0)
        return [line.split() for line in wiped]
    if asked["mode"] == "look":
        n = sum(line[0] == phone for line in times())
        say(initial=os.path.exists(phone), evidence="wiped %d times, booted" % n)
        sys.exit()
    time.sleep(0.3)
    fcntl.flock(wiped, fcntl.LOCK_EX)
    if [phone, key] not in times():
        wiped.write(phone + " " + key + "\n")
        wiped.flush()
    fcntl.flock(wiped, fcntl.LOCK_UN)
time.sleep(0.7)
open(phone, "w").close()
say(result="done")
`

// lab is the folder of labProgram.
type lab string

func (l lab) wipes() (phones []string) {
	text, _ := os.ReadFile(filepath.Join(string(l), "wiped")) // it comes with the first look or reset
	for line := range strings.Lines(string(text)) {
		phones = append(phones, strings.Fields(line)[0])
	}
	return phones
}

// shelf is a control plane that does a reset once for each key, and can be looked at.
type shelf struct {
	mu    sync.Mutex
	done  map[string]chan struct{} // by key, closed when the reset is over
	wipes []string                 // phones, in the order in which they were wiped
	born  map[string]time.Time     // since when a phone is in its initial state
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	phone := strings.TrimPrefix(r.URL.Path, "/")
	s.mu.Lock()
	if r.Method == http.MethodGet {
		born, initial := s.born[phone]
		s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"initial": initial, "evidence": "data born " + born.Format(time.RFC3339Nano)}) //nolint:errchkjson // plain values
		return
	}
	key := r.Header.Get("Idempotency-Key")
	over, known := s.done[key]
	if !known {
		over = make(chan struct{})
		s.done[key] = over
		s.wipes = append(s.wipes, phone)
	}
	s.mu.Unlock()
	if known {
		<-over
		return
	}
	// It goes on when the caller hangs up.
	harness.Pause(context.WithoutCancel(r.Context()), time.Second)
	s.mu.Lock()
	s.born[phone] = time.Now().UTC()
	s.mu.Unlock()
	close(over)
}

func (s *shelf) wiped() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wipes)
}

// TestOneListOverSeveralDrivers resets phones of three kinds through one list, by workers of which
// each is killed while it resets a phone of another kind, and has the result proved.
func TestOneListOverSeveralDrivers(t *testing.T) {
	boxes, bench, plane := startContainers(t), lab(t.TempDir()), &shelf{done: map[string]chan struct{}{}, born: map[string]time.Time{}}
	server := httptest.NewServer(plane)
	defer server.Close()
	program := terminaltest.File(t, "import os; os.chdir("+fmt.Sprintf("%q", string(bench))+")\n"+labProgram)
	drivers := terminaltest.File(t, fmt.Sprintf(`drivers:
  - {name: boxes, type: docker, concurrency: 1, attempt_timeout: 1m, host: "%s"}
  - {name: bench, type: exec, concurrency: 1, attempt_timeout: 1m, command: [python3, "%s"], env: [HOME], look: true, repeatable: true}
  - {name: shelf, type: http, concurrency: 1, attempt_timeout: 1m, url: "%s/{address}", look_url: "%[3]s/{address}", idempotent: true}
`, boxes.engine.Host(), program, server.URL))
	fleet, list, all := "instance_id,tenant,driver,address\n", "", []string{}
	for n := range phonesOfEach {
		for driver, address := range map[string]string{"boxes": "box", "bench": "device", "shelf": "slot"} {
			id := fmt.Sprintf("%s-phone-%d", driver, n)
			fleet += fmt.Sprintf("%s,acme,%s,%s-%d\n", id, driver, address, n)
			list += id + "\n"
			all = append(all, id)
		}
	}

	key := filepath.Join(t.TempDir(), "proof-key.pem")
	command(t, nil, "proof", "new-key", key).OK(t)
	redis := redistest.Start(t).URL()
	api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--proof-key-file", key)
	environment := map[string]string{"BATCHRESET_REDIS": redis}
	environment["BATCHRESET_SERVER"], _ = api.logged("api started")["api"].(string)
	csv := filepath.Join(t.TempDir(), "fleet.csv")
	if err := os.WriteFile(csv, []byte(fleet), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, environment, "fleet", "import", csv).OK(t)
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
	work := func() *process {
		p := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--drivers", drivers)
		p.logged("worker started")
		return p
	}
	worker := work()
	job := strings.TrimSpace(command(t, environment, "submit", "--file", terminaltest.File(t, list), "--yes").OK(t).Out)

	for _, begun := range []struct {
		what  string
		count func() int
	}{
		{"a control plane wipes a phone", func() int { return len(plane.wiped()) }},
		{"a program wipes a phone", func() int { return len(bench.wipes()) }},
		{"a container's data is wiped", boxes.begun},
	} {
		before := begun.count()
		harness.Eventually(t, patience, begun.what, func() bool { return begun.count() > before })
		if err := worker.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := <-worker.done; err == nil {
			t.Error("a killed worker exits with 0")
		}
		t.Logf("killed when %s; wiped until now: %v %v %d", begun.what, plane.wiped(), bench.wipes(), boxes.begun())
		worker = work()
	}
	var record client.Job
	harness.Eventually(t, 2*patience, "the job to end", func() bool {
		asked := command(t, environment, "status", job, "--output", "json") // on a machine that is busy, a request may fail
		return asked.Err == nil && json.Unmarshal([]byte(asked.Out), &record) == nil && record.Final()
	})
	attempts := 0
	var seen []string
	for _, it := range record.Items {
		seen = append(seen, it.InstanceID)
		attempts += it.Attempts
		t.Log(it.InstanceID, it.State, it.Attempts, it.Evidence)
		if it.State != "succeeded" || it.Evidence == "" {
			t.Errorf("item %+v", it)
		}
	}
	if slices.Sort(seen); !slices.Equal(seen, slices.Sorted(slices.Values(all))) {
		t.Errorf("items for %v", seen)
	}
	if attempts < len(all)+3 {
		t.Errorf("%d attempts: a worker was killed that did nothing", attempts)
	}
	boxes.mustBeReset()
	for name, phones := range map[string][]string{"device": bench.wipes(), "slot": plane.wiped()} {
		slices.Sort(phones)
		if want := []string{name + "-0", name + "-1", name + "-2", name + "-3"}; !slices.Equal(phones, want) {
			t.Errorf("wiped were %v", phones)
		}
	}

	compact := strings.TrimSpace(command(t, environment, "proof", job).OK(t).Out)
	_, published := get(t, environment["BATCHRESET_SERVER"]+"/v1/proof-keys")
	keys := terminaltest.File(t, published)
	worker.stop()
	api.stop()
	mustProve(t, compact, keys, job, all)
}

// mustProve wants a proof that can be checked without the service, and of which no byte can be changed.
func mustProve(t *testing.T, compact, keys, job string, instances []string) {
	t.Helper()
	out := command(t, nil, "proof", "verify", terminaltest.File(t, compact), "--keys", keys, "-o", "json").OK(t).Out
	var proved struct {
		Statement struct {
			JobID string `json:"job_id"`
			State string
			Items []struct {
				InstanceID string `json:"instance_id"`
				State      string
				Evidence   string
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &proved); err != nil {
		t.Fatal(err)
	}
	if proved.Statement.JobID != job || proved.Statement.State != "succeeded" || len(proved.Statement.Items) != len(instances) {
		t.Errorf("the proof says %s", out)
	}
	for _, it := range proved.Statement.Items {
		if !slices.Contains(instances, it.InstanceID) || it.State != "succeeded" || it.Evidence == "" {
			t.Errorf("the proof says of an item %+v", it)
		}
	}
	places := []int{len(compact) - 1}
	for at := 0; at < len(compact); at += 1 + len(compact)/100 {
		places = append(places, at)
	}
	for _, at := range places {
		flipped := []byte(compact)
		flipped[at] ^= 1
		if command(t, nil, "proof", "verify", terminaltest.File(t, string(flipped)), "--keys", keys).Err == nil {
			t.Errorf("byte %d of %d was changed, and the proof is taken for good", at, len(compact))
		}
	}
}
