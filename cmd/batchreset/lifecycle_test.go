package main

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// get asks a process for a page.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := c.Get(url) //nolint:noctx // of a test
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, string(text)
}

// services are the processes that wait for Redis.
func services(redis string) map[string][]string {
	return map[string][]string{
		"api":    {"api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--redis-patience", "2m"},
		"worker": {"worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "simulator", "--redis-patience", "2m"},
	}
}

func TestAProcessWaitsForItsRedis(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*testing.T, *redistest.Server) (back func()){
		"that is not there yet": func(t *testing.T, s *redistest.Server) func() {
			s.Kill()
			return func() { s.Restart(t) }
		},
		"that is loading its data": func(t *testing.T, s *redistest.Server) func() { return s.RestartLoading(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "appendonly no")
			back := away(t, server)
			var waiting []*process
			for _, args := range services(server.URL()) {
				p := start(t, args...)
				p.logged("waiting for Redis")
				stopped := start(t, args...)
				stopped.logged("waiting for Redis")
				stopped.stop()
				waiting = append(waiting, p)
			}
			back()
			for _, p := range waiting {
				p.logged("Redis is there, going on")
				if strings.Contains(p.Name, "api") {
					p.logged("api started")
				} else {
					p.logged("worker started")
				}
				p.stop()
				if n := strings.Count(p.said(), "waiting for Redis"); n != 1 {
					t.Errorf("it says %d times that it waits:\n%s", n, p.said())
				}
			}
		})
	}
}

func TestWhatIsNotWorthWaitingForEndsAProcessAtOnce(t *testing.T) {
	server := redistest.Start(t)
	rdb := server.Client(t)
	if err := rdb.Do(t.Context(), "ACL", "SETUSER", "half", "on", ">secret", "~*", "&*", "+ping").Err(); err != nil {
		t.Fatal(err)
	}
	evicting := redistest.Start(t, "maxmemory-policy allkeys-lru")
	for _, row := range []struct{ name, url, want string }{
		{"a wrong password", strings.Replace(server.URL(), "redis://", "redis://half:wrong@", 1), "WRONGPASS"},
		{"a user without rights", strings.Replace(server.URL(), "redis://", "redis://half:secret@", 1), "NOPERM"},
		{"a Redis that may evict jobs", evicting.URL(), "maxmemory-policy allkeys-lru"},
		{"a URL of another kind", "http://127.0.0.1", "has the scheme"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, args := range services(row.url) {
				got := command(t, nil, args...)
				got.WantError(t, row.want)
				if strings.Contains(got.Errs, "waiting") {
					t.Errorf("it waited:\n%s", got.Errs)
				}
			}
		})
	}
}

func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	for _, args := range services("redis://127.0.0.1:1") {
		args[len(args)-1] = "1ms"
		got := command(t, nil, args...)
		got.WantError(t, "--redis: cannot reach Redis")
		if strings.Count(got.Errs, "waiting for Redis") != 1 {
			t.Errorf("the log:\n%s", got.Errs)
		}
	}
}

func TestAnAPIThatIsToldToStop(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t).URL()
	environment := map[string]string{"BATCHRESET_REDIS": redis}
	token := strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
	startAPI := func(delay string) (p *process, url, ops string, c *client.Client) {
		p = start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open", "--drain-delay", delay)
		started := p.logged("api started")
		url, _ = started["api"].(string)
		ops, _ = started["ops"].(string)
		c, err := client.New(url, token)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return p, url, ops, c
	}
	events := func(url, id string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/jobs/"+id+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Auth-Token", token)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return response
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	t.Run("is not ready, and answers for the drain delay", func(t *testing.T) {
		p, url, ops, c := startAPI("1h")
		terminate(t, p)
		p.logged("api stopping")
		for _, listener := range []string{url, ops} {
			if status, body := get(t, listener+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "is stopping") {
				t.Errorf("readyz of %s: %d %s", listener, status, body)
			}
			if status, _ := get(t, listener+"/healthz"); status != http.StatusOK {
				t.Errorf("healthz of %s: %d", listener, status)
			}
		}
		accepted, err := c.Submit(t.Context(), client.Batch{InstanceIDs: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		stream := events(url, accepted.JobID) //nolint:bodyclose // with the test
		if !stream.Close {
			t.Error("the caller is kept")
		}
		lines := bufio.NewScanner(stream.Body)
		for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") { // it goes on
		}
		terminate(t, p) // ends it at once
		for lines.Scan() {
			if strings.Contains(lines.Text(), "this process stops") {
				t.Error("the second signal waited for requests")
			}
		}
		if err := <-p.done; err == nil || !strings.Contains(err.Error(), "terminated") {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Run("ends streams in such a way that they are taken up again", func(t *testing.T) {
		p, url, _, c := startAPI("10ms")
		accepted, err := c.Submit(t.Context(), client.Batch{InstanceIDs: []string{"b"}})
		if err != nil {
			t.Fatal(err)
		}
		stream := events(url, accepted.JobID) //nolint:bodyclose // with the test
		p.stop()
		text, err := io.ReadAll(stream.Body)
		if err != nil || !strings.HasPrefix(string(text), "retry: ") || !strings.HasSuffix(string(text), ": this process stops, another one goes on\n\n") {
			t.Errorf("the stream: %s, %v", text, err)
		}
	})
}

func terminate(t *testing.T, p *process) {
	t.Helper()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func TestAWorkerThatDrainsCanBeLookedAt(t *testing.T) {
	t.Parallel()
	plane := &hanging{calls: map[string][]string{}, entered: make(chan struct{}, 1), release: make(chan struct{})}
	phones := httptest.NewServer(plane)
	defer phones.Close()
	redis := redistest.Start(t).URL()
	environment := map[string]string{"BATCHRESET_REDIS": redis}
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
	api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	environment["BATCHRESET_SERVER"], _ = api.logged("api started")["api"].(string)
	worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "http", "--driver-url", phones.URL+"/{instance_id}")
	site, _ := worker.logged("worker starting")["ops"].(string)
	command(t, environment, "submit", "phone-1").OK(t)
	<-plane.entered
	terminate(t, worker)
	harness.Eventually(t, patience, "it is not ready", func() bool {
		status, _ := get(t, site+"/readyz")
		return status == http.StatusServiceUnavailable
	})
	if status, _ := get(t, site+"/healthz"); status != http.StatusOK {
		t.Errorf("healthz: %d", status)
	}
	if status, body := get(t, site+"/metrics"); status != http.StatusOK || !strings.Contains(body, "batchreset_worker_slots_busy 1") {
		t.Errorf("metrics: %d, without the attempt that runs", status)
	}
	close(plane.release)
	if err := <-worker.done; err != nil {
		t.Error(err)
	}
	api.stop()
}
