//go:build compose

package composetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// host is a copy of this repository on a machine with Docker, under a project, images and ports of its own.
type host struct {
	t       *testing.T
	dir     string
	project string
	env     []string
}

// TestTheDocumentOnAnEngine does what COMPOSE.md says, all of it, word for word: 'make test-compose'. It needs Docker with Compose, and
// the images that docker-compose.yml names, which Docker gets by itself.
func TestTheDocumentOnAnEngine(t *testing.T) {
	h := newHost(t)
	service := commands(t, "The service")
	first := commands(t, "The first operator, token and reset")
	phones := commands(t, "A real container")
	watch := commands(t, "Prometheus and Grafana")

	for _, line := range service {
		h.must(line)
	}
	h.healthy("redis", "api", "worker")
	h.mustNotSay("others may read", "OOM", "panic")
	api, site := h.address("api", "8080"), h.address("api", "9090")

	const password = "correct horse battery"
	h.onTerminal(first[0], password, password)
	h.login(site, "alice", password)
	h.must(first[1])
	h.must(first[2]) // which fails if an instance is not reset
	if status, err := get(t.Context(), "http://"+api+"/readyz"); err != nil || status != http.StatusOK {
		t.Errorf("readyz of the api: %d, %v", status, err)
	}
	if out := h.must("docker compose run --rm -T cli version"); !strings.Contains(out, "of-this-test") {
		t.Errorf("the image has the version %s", out)
	}

	began := h.started("api", "worker")
	h.must(phones[0])
	h.healthy("redis", "api", "worker", "docker-proxy", "docker-worker")
	if now := h.started("api", "worker"); now != began {
		t.Errorf("the profile started the service anew: %s, before %s", now, began)
	}
	if out := h.must(phones[1]); !strings.Contains(out, "first-boot") || !strings.Contains(out, "photo") {
		t.Errorf("%s says\n%s", phones[1], out)
	}
	old := h.container("docker-phone")
	for _, line := range phones[2:] {
		h.must(line)
	}
	if h.container("docker-phone") == old {
		t.Error("the phone has its old container")
	}
	if out := h.must("docker compose --profile docker-phones exec -T docker-phone ls /data"); out != "first-boot\n" {
		t.Errorf("after the reset the phone has\n%s", out)
	}
	h.proxyRefuses()

	for _, line := range watch {
		h.must(line)
	}
	h.healthy("prometheus", "grafana")
	h.everythingIsWatched()
	h.portsAreLocal()
	h.runLasts()

	h.must("docker compose --profile '*' down")
	h.must("docker compose up -d")
	h.healthy("redis", "api", "worker")
	if out := h.cli("run list"); !strings.Contains(out, "succeeded") {
		t.Errorf("after down and up the runs are\n%s", out)
	}
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), project: fmt.Sprintf("batchreset-test-%d", os.Getpid())}
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); !strings.HasPrefix(name, "COMPOSE_") && !strings.HasPrefix(name, "BATCHRESET_") {
			h.env = append(h.env, variable)
		}
	}
	h.env = append(h.env, "COMPOSE_PROJECT_NAME="+h.project, "VERSION=of-this-test")
	for what, line := range map[string]string{
		"an engine that this user may use": "docker version", "the plugin docker compose, 2.20 or newer": "docker compose version", "util-linux's script": "script --version",
	} {
		if out, err := h.run(line); err != nil {
			t.Fatalf("this test needs %s: '%s' says\n%s", what, line, out)
		}
	}
	h.copyRepository()
	t.Cleanup(h.remove)
	return h
}

// copyRepository copies the files that git has here, as they are now.
func (h *host) copyRepository() {
	h.t.Helper()
	out, err := exec.CommandContext(h.t.Context(), "git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		h.t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		from, to := filepath.Join(root, name), filepath.Join(h.dir, name)
		info, err := os.Stat(from)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
			continue
		}
		text, readErr := os.ReadFile(from)
		if err := errors.Join(err, readErr, os.MkdirAll(filepath.Dir(to), 0o755)); err != nil {
			h.t.Fatal(err)
		}
		if name == "docker-compose.yml" { // names and ports of its own
			for _, port := range []string{"8080", "9090", "9091", "3000"} {
				text = bytes.ReplaceAll(text, []byte(`"127.0.0.1:`+port+":"), []byte(`"127.0.0.1:0:`))
			}
			text = bytes.ReplaceAll(text, []byte(":latest\n"), []byte(":"+h.project+"\n"))
		}
		if err := os.WriteFile(to, text, info.Mode().Perm()); err != nil {
			h.t.Fatal(err)
		}
	}
}

// remove leaves nothing of it, and says what is left.
func (h *host) remove() {
	if h.t.Failed() {
		out, _ := h.runIn(context.Background(), "docker compose --profile '*' ps -a; docker compose --profile '*' logs --no-color --tail 50")
		h.t.Log(out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // the test's own has ended
	defer cancel()
	for _, line := range []string{
		"docker compose --profile '*' down -v --remove-orphans",
		"docker image ls -q --filter reference='batchreset*:" + h.project + "' | sort -u | xargs -r docker image rm -f",
		"docker image prune -f --filter label=com.docker.compose.project=" + h.project, // api and worker build one image, under one name
	} {
		if out, err := h.runIn(ctx, line); err != nil {
			h.t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	for _, kind := range []string{"ps -a", "volume ls", "network ls"} {
		if out, err := h.runIn(ctx, "docker "+kind+" -q --filter label=com.docker.compose.project="+h.project); err != nil || out != "" {
			h.t.Errorf("docker %s has %s, %v", kind, out, err)
		}
	}
}

func (h *host) run(line string) (string, error) { return h.runIn(h.t.Context(), line) }

func (h *host) runIn(ctx context.Context, line string) (string, error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env = h.dir, h.env
	said := new(bytes.Buffer)
	cmd.Stderr = said
	out, err := cmd.Output()
	if err != nil {
		return string(out) + said.String(), err
	}
	return string(out), nil
}

// must does a command, and returns what it writes to standard output.
func (h *host) must(line string) string {
	h.t.Helper()
	began := time.Now()
	out, err := h.run(line)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	h.t.Logf("%5.1f s  %s", time.Since(began).Seconds(), line)
	return out
}

// onTerminal does a command on a terminal, whose user answers.
func (h *host) onTerminal(line string, answers ...string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "script", "-qec", line, "/dev/null")
	cmd.Dir, cmd.Env = h.dir, h.env
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	said := new(bytes.Buffer)
	cmd.Stdout = said
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	_, _ = io.WriteString(in, strings.Join(answers, "\n")+"\n") // who has ended says why below
	if err := cmd.Wait(); err != nil {
		h.t.Fatalf("%s: %v\n%s", line, err, said)
	}
}

func (h *host) cli(command string) string {
	h.t.Helper()
	return h.must(`docker compose run --rm -T -e BATCHRESET_TOKEN="$(cat token.txt)" cli ` + command)
}

// inspect asks the engine about the only container of each service.
func (h *host) inspect(format string, services ...string) string {
	h.t.Helper()
	out, err := h.run("docker inspect --format '" + format + "' $(docker compose --profile '*' ps -q " + strings.Join(services, " ") + ")")
	if err != nil {
		h.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (h *host) container(service string) string { return h.inspect("{{.Id}}", service) }

func (h *host) started(services ...string) string {
	return h.inspect("{{.Name}} {{.State.StartedAt}}", services...)
}

// eventually waits until f is content: containers take longer than our tests without Docker allow.
func (h *host) eventually(what string, f func() error) {
	h.t.Helper()
	within(h.t, 3*time.Minute, what, f)
}

// healthy waits until the health checks of these services say so.
func (h *host) healthy(services ...string) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%v are healthy", services), func() error {
		out := h.inspect("{{.Name}} {{.State.Health.Status}}", services...)
		if lines := strings.Fields(out); strings.Count(out, " healthy\n") != len(services) {
			return fmt.Errorf("%q", lines)
		}
		return nil
	})
}

func (h *host) address(service, port string) string {
	h.t.Helper()
	return strings.TrimSpace(h.must("docker compose --profile '*' port " + service + " " + port))
}

// portsAreLocal makes sure that nothing is published but to this machine.
func (h *host) portsAreLocal() {
	h.t.Helper()
	published := 0
	for line := range strings.Lines(h.inspect("{{json .NetworkSettings.Ports}}", "")) {
		var ports map[string][]struct{ HostIP string }
		if err := json.Unmarshal([]byte(line), &ports); err != nil {
			h.t.Fatalf("%s: %v", line, err)
		}
		for port, at := range ports {
			for _, a := range at {
				published++
				if a.HostIP != "127.0.0.1" {
					h.t.Errorf("%s is published at %s", port, a.HostIP)
				}
			}
		}
	}
	if published != 4 {
		h.t.Errorf("%d ports are published", published)
	}
}

// mustNotSay looks for what the service should have no reason to say.
func (h *host) mustNotSay(texts ...string) {
	h.t.Helper()
	logs := h.must("docker compose logs --no-color api worker redis")
	for _, text := range texts {
		if strings.Contains(logs, text) {
			h.t.Errorf("the log says %q:\n%s", text, logs)
		}
	}
}

// login logs in to the operators' site.
func (h *host) login(site, name, password string) {
	h.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	client := http.Client{Jar: jar, Timeout: 30 * time.Second}
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, "http://"+site+"/login", strings.NewReader(url.Values{"name": {name}, "password": {password}}.Encode()))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", "http://"+site)
	response, err := client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !bytes.Contains(page, []byte("<h1>Overview")) {
		h.t.Errorf("the log-in leads to %s, %v\n%.500s", response.Status, err, page)
	}
}

// proxyRefuses asks the proxy before the engine for what the driver has no need of.
func (h *host) proxyRefuses() {
	h.t.Helper()
	redis := strings.TrimSpace(h.container("redis"))
	for call, want := range map[string]string{
		"GET /version": "200", "GET /v1.41/info": "403", "POST /v1.41/images/create?fromImage=busybox": "403", "POST /v1.41/volumes/create": "403",
		"DELETE /v1.41/containers/" + redis + "?force=1": "403", "DELETE /v1.41/containers/" + redis: "409", "POST /v1.41/containers/" + redis + "/kill": "403",
	} {
		method, path, _ := strings.Cut(call, " ")
		out := h.must("docker compose --profile docker-phones exec -T docker-proxy curl -s -o /dev/null -w '%{http_code}' --unix-socket /run/docker-proxy/docker.sock -X " + method + " 'http://engine" + path + "'")
		if out != want {
			h.t.Errorf("%s: %s, want %s", call, out, want)
		}
	}
}

// everythingIsWatched asks Prometheus for its targets and rules.
func (h *host) everythingIsWatched() {
	h.t.Helper()
	prometheus := "http://" + h.address("prometheus", "9090")
	ask := func(path string, into any) error {
		r, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, prometheus+path, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		return json.NewDecoder(response.Body).Decode(into)
	}
	h.eventually("Prometheus has all targets and rules", func() error {
		var targets struct {
			Data struct {
				ActiveTargets []struct {
					Labels map[string]string
					Health string
				}
			}
		}
		var rules struct {
			Data struct {
				Groups []struct{ Rules []struct{ Health string } }
			}
		}
		if err := errors.Join(ask("/api/v1/targets", &targets), ask("/api/v1/rules", &rules)); err != nil {
			return err
		}
		var up []string
		for _, target := range targets.Data.ActiveTargets {
			up = append(up, target.Labels["job"]+" "+target.Health)
		}
		slices.Sort(up)
		loaded := 0
		for _, group := range rules.Data.Groups {
			for _, rule := range group.Rules {
				if rule.Health == "ok" {
					loaded++
				}
			}
		}
		written := strings.Count(read(h.t, "deploy/prometheus/rules.yaml"), "alert:")
		if want := "batchreset-api up,batchreset-worker up,batchreset-worker up"; strings.Join(up, ",") != want || loaded != written {
			return fmt.Errorf("targets %q, %d of %d rules", up, loaded, written)
		}
		return nil
	})
}

// runLasts stops the worker in the middle of a run, and kills api and Redis: each instance is reset, once.
func (h *host) runLasts() {
	h.t.Helper()
	var list strings.Builder
	for n := range 600 {
		fmt.Fprintf(&list, "many-%d\n", n)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "list.txt"), []byte(list.String()), 0o644); err != nil { //nolint:gosec // another user of the container reads it
		h.t.Fatal(err)
	}
	run := strings.TrimSpace(h.must(`docker compose run --rm -T -v "$PWD/list.txt:/list.txt:ro" -e BATCHRESET_TOKEN="$(cat token.txt)" cli run submit --yes --wait=false --file /list.txt`))
	state := func() string { return h.cli("run show " + run) }
	h.eventually("the run is half-way", func() error {
		if now := state(); !strings.Contains(now, " succeeded") {
			return errors.New(now)
		}
		return nil
	})
	h.must("docker compose stop worker")
	if now := state(); !strings.Contains(now, " pending") || strings.Contains(now, " running,") || strings.Contains(now, "unknown") {
		h.t.Errorf("while no worker runs the run is\n%s", now)
	}
	h.must("docker compose kill redis api")
	h.must("docker compose up -d")
	h.healthy("redis", "api", "worker")
	h.cli("run watch " + run)
	if now := state(); !strings.Contains(now, "600: 600 succeeded") {
		h.t.Errorf("the run has ended as\n%s", now)
	}
	results := h.cli("run results " + run + " --output csv")
	if n := strings.Count(results, ",succeeded,1,"); n != 600 {
		h.t.Errorf("%d instances were reset in one attempt\n%.500s", n, results)
	}
}
