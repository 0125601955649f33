package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// wiped notes which paths were POSTed.
type wiped struct {
	mu    sync.Mutex
	paths []string
}

func (p *wiped) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paths = append(p.paths, r.URL.Path)
}

func (p *wiped) count(path string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.paths {
		if other == path {
			n++
		}
	}
	return n
}

// TestAFleetWithSeveralDrivers has two workers with different drivers, one list over the whole fleet,
// and an instance whose worker is killed and comes back.
func TestAFleetWithSeveralDrivers(t *testing.T) {
	t.Parallel()
	attic, lab := &wiped{}, &wiped{}
	atticServer, labServer := httptest.NewServer(attic), httptest.NewServer(lab)
	defer atticServer.Close()
	defer labServer.Close()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	redis := redistest.Start(t).URL()
	api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	server, _ := api.logged("api started")["api"].(string)
	work := func(name, drivers string) *process {
		p := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--drivers", file(name, drivers))
		p.logged("worker started")
		return p
	}
	first := work("first.yaml", fmt.Sprintf(`drivers:
  - {name: default, type: simulator, latency: 10ms, look: true}
  - {name: attic, type: http, url: "%s/{address}"}
`, atticServer.URL))
	second := fmt.Sprintf("drivers:\n  - {name: lab, type: http, url: \"%s/{instance_id}\"}\n", labServer.URL)

	environment := map[string]string{"BATCHRESET_REDIS": redis, "BATCHRESET_SERVER": server}
	command(t, environment, "fleet", "import", file("fleet.csv",
		"instance_id,tenant,driver,address\nphone-1,acme,,\nphone-2,acme,attic,shelf-2\nphone-3,acme,lab,\nphone-4,acme,lab,\n")).OK(t)
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
	caller, err := client.New(server, environment["BATCHRESET_TOKEN"])
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	job := strings.TrimSpace(command(t, environment, "submit", "--file", filepath.Join(dir, "fleet.csv")).OK(t).Out)
	items := func() map[string]client.Item {
		t.Helper()
		record, err := caller.Job(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]client.Item{}
		for _, it := range record.Items {
			all[it.InstanceID] = it
		}
		return all
	}
	harness.Eventually(t, patience, "what has a worker is done", func() bool {
		now := items()
		return now["phone-1"].State == "succeeded" && now["phone-2"].State == "succeeded"
	})
	if now := items(); now["phone-3"].State != "pending" || now["phone-4"].State != "pending" || now["phone-1"].Evidence == "" {
		t.Errorf("items %+v", now)
	}
	if attic.count("/shelf-2") != 1 || len(attic.paths) != 1 {
		t.Errorf("attic was asked for %v", attic.paths)
	}
	// One of those that wait gets the driver of a worker that lives, the other one's worker comes.
	command(t, environment, "fleet", "import", file("moved.csv", "instance_id,driver,address\nphone-4,attic,shelf-4\n")).OK(t)
	late := work("second.yaml", second)
	harness.Eventually(t, patience+time.Minute, "all is done", func() bool {
		for _, it := range items() {
			if it.State != "succeeded" {
				return false
			}
		}
		return true
	})
	if lab.count("/phone-3") != 1 || len(lab.paths) != 1 || attic.count("/shelf-4") != 1 {
		t.Errorf("lab was asked for %v, attic for %v", lab.paths, attic.paths)
	}
	first.stop()
	late.stop()
	api.stop()
}
