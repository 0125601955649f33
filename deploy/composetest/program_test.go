package composetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// machine runs services of docker-compose.yml without Docker: what a container would have at a path or at an
// address is somewhere else.
type machine struct {
	t       *testing.T
	project *types.Project
	dir     string
	binary  string
	secrets string
	replace *strings.Replacer
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// start runs a program until the test ends.
func (m *machine) start(name string, environment []string, args ...string) (said *log) {
	m.t.Helper()
	said = &log{path: filepath.Join(m.dir, name+".log")}
	file, err := os.Create(said.path)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	cmd := exec.CommandContext(context.WithoutCancel(m.t.Context()), args[0], args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = append(environment, "PATH="+os.Getenv("PATH")), file, file, m.dir
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil || m.t.Failed() {
			m.t.Logf("%s ended with %v:\n%s", name, err, said.text())
		}
		ended.Stop()
	})
	return said
}

type log struct{ path string }

func (l *log) text() string {
	b, _ := os.ReadFile(l.path)
	return string(b)
}

// eventually waits until f is content.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	within(t, 30*time.Second, what, f)
}

// within waits for so long at the most until f is content.
func within(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	over := time.After(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-over:
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// environment is a service's, on this machine. The image's own variables come first.
func (m *machine) environment(service, listen, ops string) (environment []string) {
	variable := regexp.MustCompile(`(?m)^ENV (\S+)$`)
	for _, found := range variable.FindAllStringSubmatch(read(m.t, "deploy/Dockerfile"), -1) {
		environment = append(environment, found[1])
	}
	for name, value := range m.project.Services[service].Environment {
		text := m.replace.Replace(*value)
		switch {
		case name == "BATCHRESET_LISTEN" && text == ":8080":
			text = listen
		case name == "BATCHRESET_OPS_LISTEN" && text == ":9090":
			text = ops
		}
		environment = append(environment, name+"="+text)
	}
	return environment
}

// healthy asks as the image's health check does.
func (m *machine) healthy(service string, environment []string) {
	m.t.Helper()
	eventually(m.t, service+" is healthy", func() error {
		cmd := exec.CommandContext(m.t.Context(), m.binary, "healthcheck")
		cmd.Env = environment
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// newMachine starts Redis, api and worker exactly as docker-compose.yml does, but for paths and addresses.
func newMachine(t *testing.T) (m *machine, api, site string) {
	t.Helper()
	m = &machine{t: t, project: everything(t), dir: t.TempDir(), secrets: secretsMade(t)}
	m.binary = filepath.Join(m.dir, "batchreset")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", root, "-o", m.binary, "./cmd/batchreset").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	redis := freeAddress(t)
	api, site = freeAddress(t), freeAddress(t)
	var pairs []string
	for name, secret := range m.project.Secrets {
		path := filepath.Join(m.secrets, filepath.Base(secret.File))
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("@redis:6379/"), []byte("@"+redis+"/")), 0o600); err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, "/run/secrets/"+name, path)
	}
	m.replace = strings.NewReplacer(append(pairs, "http://api:8080", "http://"+api,
		"/etc/batchreset/drivers.yaml", mustAbs(t, filepath.Join(root, "deploy/docker-phones/drivers.yaml")))...)

	var server []string
	for _, arg := range m.project.Services["redis"].Command {
		server = append(server, m.replace.Replace(arg))
	}
	host, port, _ := net.SplitHostPort(redis)
	m.start("redis", nil, append(server, "--bind", host, "--port", port, "--dir", m.dir)...)
	for name, listeners := range map[string][2]string{
		"api": {api, site}, "worker": {"", freeAddress(t)}, "docker-worker": {"", freeAddress(t)},
	} {
		environment := m.environment(name, listeners[0], listeners[1])
		said := m.start(name, environment, append([]string{m.binary}, m.project.Services[name].Command...)...)
		m.healthy(name, environment)
		simulated := strings.Contains(said.text(), "simulated: no real device is reset")
		if simulated != (name == "worker") {
			t.Errorf("%s says that its phones are simulated: %v\n%s", name, simulated, said.text())
		}
		if strings.Contains(said.text(), "first-operator") {
			t.Errorf("%s prints a link, and COMPOSE.md says that nobody does:\n%s", name, said.text())
		}
	}
	return m, api, site
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// docker stands in for 'docker compose run --rm cli': it runs the command on this machine.
const docker = `#!/bin/sh
set -eu
[ "$1 $2 $3" = "compose run --rm" ] || { echo "docker $*: not here" >&2; exit 1; }
shift 3
files=
while [ "$1" != cli ]; do
	case $1 in
	-T) ;;
	-e) export "$2"; shift ;;
	-v) files=$2; shift ;;
	*) echo "docker compose run $1: not here" >&2; exit 1 ;;
	esac
	shift
done
shift
if [ -n "$files" ]; then
	for arg; do
		shift
		[ "$arg" != /fleet.csv ] || arg=${files%%:*}
		set -- "$@" "$arg"
	done
fi
exec "$PROGRAM" "$@"
`

// commands are those of a section of COMPOSE.md.
func commands(t *testing.T, section string) []string {
	t.Helper()
	_, rest, found := strings.Cut(read(t, "deploy/COMPOSE.md"), "\n## "+section+"\n")
	_, rest, opened := strings.Cut(rest, "```sh\n")
	block, _, closed := strings.Cut(rest, "```\n")
	if !found || !opened || !closed {
		t.Fatalf("COMPOSE.md has no commands about %q", section)
	}
	return strings.Split(strings.TrimSuffix(block, "\n"), "\n")
}

// run does a command of the document as it stands there.
func (m *machine) run(line string) (string, error) {
	cmd := exec.CommandContext(m.t.Context(), "sh", "-c", line)
	cmd.Dir = m.dir
	cmd.Env = append(m.environment("cli", "", ""), "PATH="+m.dir+":"+os.Getenv("PATH"), "PROGRAM="+m.binary, "BATCHRESET_PASSWORD_FILE="+filepath.Join(m.dir, "password"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestTheDocumentLeadsToAReset does what COMPOSE.md says, as far as that can be done without Docker.
func TestTheDocumentLeadsToAReset(t *testing.T) {
	m, api, site := newMachine(t)
	for name, content := range map[string]string{"docker": docker, "password": "correct horse battery"} {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(content), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	for _, line := range commands(t, "The first operator, token and reset") {
		out, err := m.run(line)
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		if strings.Contains(line, "submit") && strings.Count(out, "succeeded") == 0 {
			t.Errorf("%s says\n%s", line, out)
		}
	}
	phones := commands(t, "A real container")
	for _, line := range phones[2:4] { // the fleet; without an engine the phone waits
		if out, err := m.run(line); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	if out, err := m.run("docker compose run --rm cli fleet list"); err != nil || !strings.Contains(out, "docker-phone-1") || !strings.Contains(out, "docker") {
		t.Errorf("the fleet is %v\n%s", err, out)
	}
	if want := m.project.Services["docker-phone"].Labels["batchreset.instance"]; !strings.Contains(phones[4], want) {
		t.Errorf("%s does not reset %s", phones[4], want)
	}
	for url, want := range map[string]int{
		"http://" + site + "/healthz": 200, "http://" + site + "/metrics": 200, "http://" + site + "/login": 200, "http://" + site + "/": 303, "http://" + api + "/readyz": 200,
	} {
		if status, err := get(t.Context(), url); err != nil || status != want {
			t.Errorf("%s answers %d, %v; want %d", url, status, err, want)
		}
	}
}

func get(ctx context.Context, url string) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Body.Close()
}

// TestCommandsAreCounted: the numbers of the list under the commands go on, and there is one for each.
func TestCommandsAreCounted(t *testing.T) {
	n := 0
	document := read(t, "deploy/COMPOSE.md")
	for _, section := range []string{"The service", "The first operator, token and reset", "A real container"} {
		for range commands(t, section) {
			n++
			if !strings.Contains(document, fmt.Sprintf("\n%d. ", n)) {
				t.Errorf("nothing is said of command %d", n)
			}
		}
	}
	if n != 10 || !strings.Contains(document, "after 2, the first (simulated) reset is done after 5, that of a container after 10") {
		t.Errorf("there are %d commands", n)
	}
}

// TestTheProxyLetsThroughWhatTheDriverNeeds asks a real nginx with our configuration, which has a server of ours for an engine.
func TestTheProxyLetsThroughWhatTheDriverNeeds(t *testing.T) {
	nginx := "/usr/sbin/nginx"
	if path, err := exec.LookPath("nginx"); err == nil {
		nginx = path
	}
	dir, err := os.MkdirTemp("", "proxy") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	engine, proxy := filepath.Join(dir, "engine.sock"), filepath.Join(dir, "proxy.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", engine)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Docker-Container-Path-Stat", "stat")
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })

	config := read(t, "deploy/docker-phones/nginx.conf")
	for _, pair := range [][2]string{
		{"/tmp/", dir + "/"}, {"/run/docker-proxy/docker.sock", proxy}, {"/var/run/docker.sock", engine},
	} {
		if !strings.Contains(config, pair[0]) {
			t.Fatalf("nginx.conf lacks %s", pair[0])
		}
		config = strings.ReplaceAll(config, pair[0], pair[1])
	}
	if os.Getuid() != 0 {
		config = strings.Replace(config, "user root;\n", "", 1)
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir}
	m.start("nginx", nil, nginx, "-c", file, "-p", dir)
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", proxy)
	}}}
	defer client.CloseIdleConnections()
	ask := func(method, path string) (int, string, error) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://engine"+path, strings.NewReader("body"))
		if err != nil {
			return 0, "", err
		}
		response, err := client.Do(r)
		if err != nil {
			return 0, "", err
		}
		text, err := io.ReadAll(response.Body)
		return response.StatusCode, string(text), errors.Join(err, response.Body.Close())
	}
	eventually(t, "nginx answers", func() error {
		_, _, err := ask(http.MethodGet, "/version")
		return err
	})
	const id = "4bc6fd3f2e"
	for _, row := range []struct {
		want  int
		calls []string
	}{
		{http.StatusOK, []string{
			"GET /version", "GET /v1.41/containers/json?all=1&filters=%7B%22label%22%3A%5B%22x%22%5D%7D", "GET /v1.41/containers/" + id + "/json",
			"GET /v1.51/containers/phone-7.reset-3f/json", "GET /v1.41/containers/" + id + "/archive?path=%2Fdata", "HEAD /v1.41/containers/" + id + "/archive?path=%2Fdata",
			"GET /v1.41/containers/" + id + "/logs?stdout=1", "GET /v1.41/images/sha256:" + id + "/json", "GET /v1.41/images/redroid/redroid:12.0.0_64only-latest/json",
			"POST /v1.41/containers/create?name=phone-7", "POST /v1.41/containers/" + id + "/start", "POST /v1.41/containers/" + id + "/stop", "POST /v1.41/containers/" + id + "/wait",
			"POST /v1.41/containers/" + id + "/rename?name=phone-7", "POST /v1.41/containers/" + id + "/exec", "POST /v1.41/exec/" + id + "/start",
			"POST /v1.41/networks/" + id + "/connect", "DELETE /v1.41/containers/" + id, "DELETE /v1.41/containers/" + id + "?v=1",
		}},
		{http.StatusForbidden, []string{
			"GET /info", "GET /v1.41/info", "GET /v1.41/events", "POST /v1.41/images/create?fromImage=x", "DELETE /v1.41/images/" + id, "POST /v1.41/build", "POST /build", "GET /v1.41/images/json",
			"DELETE /v1.41/volumes/x", "POST /v1.41/volumes/create", "POST /v1.41/volumes/prune", "POST /v1.41/containers/prune", "POST /v1.41/networks/create", "GET /v1.41/secrets",
			"PUT /v1.41/containers/" + id + "/archive?path=/", "POST /v1.41/containers/" + id + "/kill", "POST /v1.41/containers/" + id + "/update", "GET /v1.41/containers/" + id + "/export",
			"POST /v1.41/containers/" + id + "/attach", "POST /containers/create", "POST /v1.41/swarm/init", "POST /v1.41/plugins/pull", "POST /v1.41/commit", "POST /v1.41/auth",
			"POST /v1.41/containers/../volumes/create", "DELETE /v1.41/containers/..%2Fvolumes%2Fx", "DELETE /v1.41/containers/../volumes/x", "GET /v1.41/images/../containers/x/export",
			"GET /v1.41/images/../info/json", "DELETE /v1.41/containers/" + id + "?force=1", "DELETE /v1.41/containers/" + id + "?v=1&force=true",
			"POST /v1.41/exec/" + id + "/resize", "GET /v1.41//containers/json/../../info", "OPTIONS /version",
		}},
	} {
		for _, call := range row.calls {
			method, path, _ := strings.Cut(call, " ")
			status, text, err := ask(method, path)
			if err != nil || status != row.want {
				t.Errorf("%s: %d, %v; want %d", call, status, err, row.want)
			}
			if status == http.StatusOK && method != http.MethodHead && text != call+" body" {
				t.Errorf("%s came to the engine as %s", call, text)
			}
		}
	}
}
