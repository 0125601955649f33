// Package examples has no code: its tests run the examples of pipelines against a real 'batchreset dev'.
package examples

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"batchreset/cmd/harness"
)

const token = "demo-token"

// bin is a folder with batchreset, which writes down each command line that it gets; binary is the one itself.
var bin, binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "batchreset-examples")
	if err == nil {
		binary, err = harness.Build(context.Background(), "", dir)
	}
	if err == nil {
		bin = filepath.Join(dir, "bin")
		err = errors.Join(os.Mkdir(bin, 0o700), os.WriteFile(filepath.Join(bin, "batchreset"), []byte("#!/bin/sh\necho \"$*\" >>\"$COMMAND_LINES\"\nexec "+binary+" \"$@\"\n"), 0o700)) //nolint:gosec // it is run
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// service is a running dev.
type service struct {
	t      *testing.T
	url    string
	secret string // of its webhook, if it has one

	mu  sync.Mutex
	log bytes.Buffer
}

func (s *service) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(b)
}

func (s *service) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

var (
	urlOfAPI        = regexp.MustCompile(`API +(http://\S+)`)
	secretOfWebhook = regexp.MustCompile(`signed with (whsec_\S+)`)
)

// start starts a dev whose simulated phones take a moment, and of which those that are called flaky-… fail.
func start(t *testing.T, args ...string) *service {
	t.Helper()
	return startDev(t, []string{"BATCHRESET_MAX_ATTEMPTS=1", "BATCHRESET_SIMULATOR_LATENCY=200ms"}, args...)
}

// startDev starts a dev with some settings.
func startDev(t *testing.T, environment []string, args ...string) *service {
	t.Helper()
	s := &service{t: t}
	args = append([]string{binary, "dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, args...)
	p, err := harness.Start(context.WithoutCancel(t.Context()), harness.Command{Name: "dev", Args: args, Env: append(environment, "BATCHRESET_DRAIN_DELAY=0"), Dir: t.TempDir(), Stdout: s, Stderr: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	ready := func(context.Context) error {
		if !strings.Contains(s.said(), "Operators' commands need") || slices.Contains(args, "--webhook-url") && !secretOfWebhook.MatchString(s.said()) {
			return errors.New("no greeting yet")
		}
		return nil
	}
	if err := p.WaitReady(t.Context(), time.Minute, ready); err != nil {
		t.Fatalf("%v\n%s", err, s.said())
	}
	s.url = urlOfAPI.FindStringSubmatch(s.said())[1]
	if found := secretOfWebhook.FindStringSubmatch(s.said()); found != nil {
		s.secret = found[1]
	}
	return s
}

// attempts are how often each phone was reset, whatever the run, and how many runs there are.
func (s *service) attempts() (runs int, attempts map[string]int) {
	s.t.Helper()
	var list struct {
		Data struct {
			Runs []struct {
				ID string `json:"run_id"`
			} `json:"runs"`
		} `json:"data"`
	}
	s.get("/v1/runs", func(b []byte) error { return json.Unmarshal(b, &list) })
	attempts = map[string]int{}
	for _, run := range list.Data.Runs {
		s.get("/v1/runs/"+run.ID+"/results", func(b []byte) error {
			for line := range bytes.Lines(b) {
				var row struct {
					ID       string `json:"instance_id"`
					Attempts int    `json:"attempts"`
				}
				if err := json.Unmarshal(line, &row); err != nil {
					return err
				}
				attempts[row.ID] += row.Attempts
			}
			return nil
		})
	}
	return len(list.Data.Runs), attempts
}

func (s *service) get(path string, read func([]byte) error) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("X-Auth-Token", token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(answer.Body); err != nil || answer.StatusCode != http.StatusOK || read(body.Bytes()) != nil {
		s.t.Fatalf("%s: %s %s %v", path, answer.Status, &body, err)
	}
}

// wants wants that there is one run, and that each phone was reset once.
func (s *service) wants(phones ...string) {
	s.t.Helper()
	runs, attempts := s.attempts()
	want := map[string]int{}
	for _, phone := range phones {
		want[phone] = 1
	}
	if runs != 1 || !maps.Equal(attempts, want) {
		s.t.Errorf("%d runs, attempts %v, want one run and %v", runs, attempts, want)
	}
}

// machine is where a pipeline runs: a folder with a list, and an environment with nothing else in it.
type machine struct {
	t           *testing.T
	dir         string
	environment map[string]string
}

func newMachine(t *testing.T, s *service, phones ...string) *machine {
	t.Helper()
	m := &machine{t, t.TempDir(), map[string]string{}}
	m.write("phones.txt", strings.Join(phones, "\n")+"\n")
	m.write("token.txt", token+"\n")
	m.environment = map[string]string{
		"PATH": bin + ":" + os.Getenv("PATH"), "HOME": m.dir, "COMMAND_LINES": filepath.Join(m.dir, "command-lines"), "BATCHRESET_SERVER": s.url,
		"PYTHONDONTWRITEBYTECODE": "1",
	}
	return m
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// read is a file of the folder, or nothing if it is not there.
func (m *machine) read(name string) string {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatal(err)
	}
	return string(b)
}

// run runs a command to its end. No secret may be in its command lines.
func (m *machine) run(args ...string) (code int, out string) {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), args[0], args[1:]...)
	cmd.Dir = m.dir
	for name, value := range m.environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	b, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		m.t.Fatalf("%v: %v", args, err)
	}
	if lines := m.read("command-lines"); strings.Contains(lines, token) || strings.Contains(strings.Join(args, " "), token) {
		m.t.Errorf("the token is on a command line: %s", lines)
	}
	if strings.Contains(string(b), token) {
		m.t.Errorf("the token is in the output: %s", b)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// junit are the tests and the failures of a report that is whole.
func junit(t *testing.T, text string) (tests, failures int) {
	t.Helper()
	var report struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
	}
	if err := xml.Unmarshal([]byte(text), &report); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return report.Tests, report.Failures
}

func TestShell(t *testing.T) {
	t.Parallel()
	script := absolute(t, "shell/reset.sh")
	t.Run("resets once, however often it runs", func(t *testing.T) {
		s := start(t)
		m := newMachine(t, s, "phone-1", "phone-2")
		m.environment["BATCHRESET_TOKEN_FILE"], m.environment["RUN_ID"] = filepath.Join(m.dir, "token.txt"), "nightly-1"
		for range 2 {
			if code, out := m.run(script, "phones.txt"); code != 0 {
				t.Fatalf("exit code %d: %s", code, out)
			}
		}
		if tests, failures := junit(t, m.read("report.xml")); tests != 2 || failures != 0 {
			t.Errorf("%d tests, %d failures", tests, failures)
		}
		s.wants("phone-1", "phone-2")
		m.write("phones.txt", "phone-3\n")
		if code, out := m.run(script, "phones.txt"); code != 3 || !strings.Contains(out, "RESET.0002") {
			t.Errorf("another list under the same ID: exit code %d: %s", code, out)
		}
		s.wants("phone-1", "phone-2")
	})
	t.Run("fails with the reset", func(t *testing.T) {
		s := start(t)
		m := newMachine(t, s, "flaky-1", "phone-2")
		m.environment["BATCHRESET_TOKEN"], m.environment["RUN_ID"], m.environment["REPORT"] = token, "nightly-1", "r.xml"
		if code, out := m.run(script, "phones.txt"); code != 2 || !strings.Contains(out, "flaky-1") {
			t.Errorf("exit code %d: %s", code, out)
		}
		if tests, failures := junit(t, m.read("r.xml")); tests != 2 || failures != 1 {
			t.Errorf("%d tests, %d failures", tests, failures)
		}
	})
	t.Run("waits no longer than it may, and leaves no report that looks whole", func(t *testing.T) {
		s := start(t)
		m := newMachine(t, s, "slow-1")
		m.environment["BATCHRESET_TOKEN"], m.environment["RUN_ID"], m.environment["TIMEOUT"] = token, "nightly-1", "300ms"
		if code, out := m.run(script, "phones.txt"); code != 124 || !strings.Contains(out, "the run goes on") || m.read("report.xml") != "" {
			t.Errorf("exit code %d, report %q: %s", code, m.read("report.xml"), out)
		}
	})
	t.Run("does nothing without an ID", func(t *testing.T) {
		s := start(t)
		m := newMachine(t, s, "phone-1")
		m.environment["BATCHRESET_TOKEN"] = token
		if code, out := m.run(script, "phones.txt"); code == 0 || !strings.Contains(out, "RUN_ID") || m.read("command-lines") != "" {
			t.Errorf("exit code %d: %s", code, out)
		}
	})
}

func TestPython(t *testing.T) {
	t.Parallel()
	script := absolute(t, "python/reset.py")
	t.Run("resets once, however often it runs", func(t *testing.T) {
		s := start(t)
		m := newMachine(t, s, "# the lab", "phone-1", "", "phone-2")
		m.environment["BATCHRESET_TOKEN_FILE"], m.environment["RUN_ID"] = filepath.Join(m.dir, "token.txt"), `nightly "1"`
		for range 2 {
			if code, out := m.run("python3", script, "phones.txt"); code != 0 || !strings.Contains(out, "succeeded (2 succeeded)") {
				t.Fatalf("exit code %d: %s", code, out)
			}
		}
		s.wants("phone-1", "phone-2")
		m.write("phones.txt", "phone-3\n")
		if code, out := m.run("python3", script, "phones.txt"); code != 3 || !strings.Contains(out, "RESET.0002") {
			t.Errorf("another list under the same ID: exit code %d: %s", code, out)
		}
	})
	t.Run("fails with the reset, and says where", func(t *testing.T) {
		s := start(t)
		m := newMachine(t, s, "flaky-1", "phone-2")
		m.environment["BATCHRESET_TOKEN"], m.environment["RUN_ID"] = token, "nightly-1"
		if code, out := m.run("python3", script, "phones.txt"); code != 2 || !strings.Contains(out, "\nflaky-1 failed CPS.0003 ") {
			t.Errorf("exit code %d: %s", code, out)
		}
	})
	t.Run("finds the run again after an answer that was lost", func(t *testing.T) {
		s := start(t)
		m := newMachine(t, s, "phone-1")
		m.environment["BATCHRESET_TOKEN"], m.environment["RUN_ID"] = token, "nightly-1"
		m.environment["BATCHRESET_SERVER"] = losing(t, s.url)
		if code, out := m.run("python3", script, "phones.txt"); code != 0 || !strings.Contains(out, "waiting to try again") {
			t.Errorf("exit code %d: %s", code, out)
		}
		s.wants("phone-1")
	})
	for name, row := range map[string]struct {
		set  map[string]string
		code int
		want string
	}{
		"is refused":                 {map[string]string{"BATCHRESET_TOKEN": "wrong"}, 3, "APIGW.0301"},
		"waits no longer":            {map[string]string{"TIMEOUT": "1", "PHONE": "slow-1"}, 124, "goes on"},
		"cannot reach the service":   {map[string]string{"BATCHRESET_SERVER": "http://127.0.0.1:1", "TIMEOUT": "1"}, 4, "refused"},
		"does nothing without a key": {map[string]string{"RUN_ID": ""}, 64, "RUN_ID is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			phone := "phone-1"
			if row.set["PHONE"] != "" {
				phone = row.set["PHONE"]
			}
			m := newMachine(t, s, phone)
			m.environment["BATCHRESET_TOKEN"], m.environment["RUN_ID"] = token, "nightly-1"
			maps.Copy(m.environment, row.set)
			if code, out := m.run("python3", script, "phones.txt"); code != row.code || !strings.Contains(out, row.want) {
				t.Errorf("exit code %d: %s", code, out)
			}
		})
	}
}

// losing is a server that passes everything on to another one, and hangs up instead of giving the first answer.
func losing(t *testing.T, to string) (url string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	lost := false
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		onward, err := http.NewRequestWithContext(r.Context(), r.Method, to+r.URL.RequestURI(), r.Body)
		if err != nil {
			panic(err)
		}
		onward.Header = r.Header
		answer, err := http.DefaultClient.Do(onward)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer answer.Body.Close()
		mu.Lock()
		first := !lost
		lost = true
		mu.Unlock()
		if first {
			panic(http.ErrAbortHandler)
		}
		maps.Copy(w.Header(), answer.Header)
		w.WriteHeader(answer.StatusCode)
		var body bytes.Buffer
		_, _ = body.ReadFrom(answer.Body)
		_, _ = w.Write(body.Bytes())
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + listener.Addr().String()
}

// readYAML reads one of the examples. What the platform would not know is refused.
func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// step is a step of a workflow.
type step struct {
	Name, ID, Uses, If, Run string
	Env, With               map[string]string
}

type workflow struct {
	Name string
	On   map[string]struct {
		Inputs map[string]struct{ Description, Default string }
	}
	Permissions map[string]string
	Concurrency string
	Jobs        map[string]struct {
		RunsOn         []string `yaml:"runs-on"`
		Environment    string
		TimeoutMinutes int `yaml:"timeout-minutes"`
		Env            map[string]string
		Steps          []step
	}
}

var expression = regexp.MustCompile(`\$\{\{ (.+?) \}\}`)

// github runs the steps of the workflow's job as a runner does, and returns whether the job succeeded and the summary.
// cancelled is that somebody has cancelled the job while it waited.
func github(t *testing.T, m *machine, known map[string]string, cancelled bool) (ok bool, summary, out string) {
	t.Helper()
	var w workflow
	readYAML(t, "github-actions/reset.yml", &w)
	job := w.Jobs["reset"]
	evaluate := func(text string) string {
		return expression.ReplaceAllStringFunc(text, func(e string) string {
			name := expression.FindStringSubmatch(e)[1]
			value, there := known[name]
			if !there {
				t.Fatalf("the platform knows no %s", name)
			}
			return value
		})
	}
	set := func(env map[string]string) {
		for name, value := range env {
			m.environment[name] = evaluate(value)
		}
	}
	for _, file := range []string{"GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"} {
		m.environment[file] = filepath.Join(m.dir, file)
		m.write(file, "")
	}
	set(job.Env)
	ok = true
	for _, s := range job.Steps {
		run := known["steps.reset.outputs.run"] != ""
		switch s.If {
		case "":
			run = ok
		case "${{ cancelled() && steps.reset.outputs.run }}":
			run = run && cancelled
		case "${{ always() && steps.reset.outputs.run }}":
		default:
			t.Fatalf("the step %q has the condition %q", s.Name, s.If)
		}
		if s.Run == "" || !run {
			continue
		}
		if expression.MatchString(s.Run) {
			t.Errorf("the step %q has an expression in its script", s.Name)
		}
		set(s.Env)
		m.write("step.sh", s.Run)
		code, said := m.run("bash", "-e", "step.sh")
		out += said
		ok = ok && code == 0
		for line := range strings.Lines(m.read("GITHUB_OUTPUT")) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			known["steps."+s.ID+"."+"outputs."+name] = value
		}
	}
	return ok, m.read("GITHUB_STEP_SUMMARY"), out
}

func TestGitHubActions(t *testing.T) {
	t.Parallel()
	platform := func(s *service) map[string]string {
		return map[string]string{"vars.BATCHRESET_SERVER": s.url, "secrets.BATCHRESET_TOKEN": token, "inputs.list": "phones.txt"}
	}
	runner := func(t *testing.T, s *service, phones ...string) *machine {
		m := newMachine(t, s, phones...)
		delete(m.environment, "BATCHRESET_SERVER")
		m.environment["GITHUB_REPOSITORY_ID"], m.environment["GITHUB_RUN_ID"], m.environment["GITHUB_RUN_ATTEMPT"] = "17", "4711", "1"
		return m
	}
	t.Run("resets once, however often it is run again", func(t *testing.T) {
		s := start(t)
		m := runner(t, s, "phone-1", "phone-2")
		for attempt := range 2 {
			m.environment["GITHUB_RUN_ATTEMPT"] = fmt.Sprint(attempt + 1)
			ok, summary, out := github(t, m, platform(s), false)
			if !ok || !strings.Contains(summary, "| succeeded | 2 |") || strings.Count(m.read("results.csv"), "\n") != 3 {
				t.Fatalf("%v, %s\n%s", ok, summary, out)
			}
		}
		s.wants("phone-1", "phone-2")
		m.environment["GITHUB_RUN_ID"] = "4712"
		if ok, _, out := github(t, m, platform(s), false); !ok {
			t.Error(out)
		}
		if runs, attempts := s.attempts(); runs != 2 || attempts["phone-1"] != 2 {
			t.Errorf("a new workflow run: %d runs, %v", runs, attempts)
		}
	})
	t.Run("fails with the reset, and tells in the summary", func(t *testing.T) {
		s := start(t)
		ok, summary, out := github(t, runner(t, s, "flaky-1", "phone-2"), platform(s), false)
		if ok || !strings.Contains(summary, "<code>flaky-1</code>") {
			t.Errorf("%v, %s\n%s", ok, summary, out)
		}
	})
	t.Run("takes back what has not begun, if it is cancelled", func(t *testing.T) {
		s := start(t)
		m := runner(t, s, "slow-1")
		m.environment["BATCHRESET_NOT_BEFORE"] = time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		shortWatch(t, m)
		ok, summary, out := github(t, m, platform(s), true)
		if ok || !strings.Contains(summary, "<code>cancelled</code>") || !strings.Contains(summary, "| cancelled | 1 |") {
			t.Errorf("%v, %s\n%s", ok, summary, out)
		}
		if _, attempts := s.attempts(); attempts["slow-1"] != 0 {
			t.Errorf("attempts %v", attempts)
		}
	})
}

// shortWatch has the first 'run watch' of the machine end soon, as if somebody had ended the script that waits.
func shortWatch(t *testing.T, m *machine) {
	t.Helper()
	dir := t.TempDir()
	wrapper := "#!/bin/sh\nif [ \"$2\" = watch ] && mkdir " + dir + "/watched 2>/dev/null; then exec " + bin + "/batchreset run watch \"$3\" --timeout 300ms; fi\nexec " + bin + "/batchreset \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "batchreset"), []byte(wrapper), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	m.environment["PATH"] = dir + ":" + m.environment["PATH"]
}

type gitlabJob struct {
	Stage         string
	Rules         []struct{ If, When string }
	ResourceGroup string `yaml:"resource_group"`
	Timeout       string
	Variables     map[string]string
	BeforeScript  []string `yaml:"before_script"`
	Script        []string
	AfterScript   []string `yaml:"after_script"`
	Artifacts     struct {
		When    string
		Paths   []string
		Reports struct{ JUnit string }
	}
}

// gitlab runs the job as a runner does, and returns whether it succeeded.
func gitlab(t *testing.T, m *machine, cancelled bool) (ok bool, out string) {
	t.Helper()
	var file map[string]gitlabJob
	readYAML(t, "gitlab/reset.gitlab-ci.yml", &file)
	job := file["reset-phones"]
	maps.Copy(m.environment, job.Variables)
	m.write("script.sh", "set -eo pipefail\n"+strings.Join(slices.Concat(job.BeforeScript, job.Script), "\n"))
	code, out := m.run("bash", "script.sh")
	m.environment["CI_JOB_STATUS"] = map[bool]string{true: "success", false: "failed"}[code == 0]
	if cancelled {
		m.environment["CI_JOB_STATUS"] = "canceled"
	}
	m.write("after.sh", "set -eo pipefail\n"+strings.Join(job.AfterScript, "\n"))
	_, after := m.run("bash", "after.sh")
	return code == 0, out + after
}

func TestGitLab(t *testing.T) {
	t.Parallel()
	runner := func(t *testing.T, s *service, phones ...string) *machine {
		m := newMachine(t, s, phones...)
		m.environment["BATCHRESET_TOKEN_FILE"] = filepath.Join(m.dir, "token.txt")
		m.environment["CI_PROJECT_ID"], m.environment["CI_PIPELINE_ID"] = "17", "4711"
		return m
	}
	t.Run("resets once, however often it is retried", func(t *testing.T) {
		s := start(t)
		m := runner(t, s, "phone-1", "phone-2")
		for range 2 {
			if ok, out := gitlab(t, m, false); !ok {
				t.Fatal(out)
			}
			if tests, failures := junit(t, m.read("reset.xml")); tests != 2 || failures != 0 {
				t.Errorf("%d tests, %d failures", tests, failures)
			}
		}
		s.wants("phone-1", "phone-2")
	})
	t.Run("fails with the reset, with a report", func(t *testing.T) {
		s := start(t)
		m := runner(t, s, "flaky-1", "phone-2")
		ok, out := gitlab(t, m, false)
		if _, failures := junit(t, m.read("reset.xml")); ok || failures != 1 || strings.Count(m.read("results.csv"), "\n") < 3 {
			t.Errorf("%v, %d failures: %s", ok, failures, out)
		}
	})
	t.Run("takes back what has not begun, if it is cancelled", func(t *testing.T) {
		s := start(t)
		m := runner(t, s, "phone-1")
		m.environment["BATCHRESET_NOT_BEFORE"] = time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		shortWatch(t, m)
		ok, out := gitlab(t, m, true)
		if tests, _ := junit(t, m.read("reset.xml")); ok || tests != 1 || !strings.Contains(m.read("reset.xml"), "<skipped") {
			t.Errorf("%v: %s", ok, out)
		}
		if _, attempts := s.attempts(); attempts["phone-1"] != 0 {
			t.Errorf("attempts %v", attempts)
		}
	})
	t.Run("does nothing more if there is no run", func(t *testing.T) {
		m := runner(t, start(t), "a b")
		if ok, out := gitlab(t, m, false); ok || m.read("reset.xml") != "" {
			t.Errorf("%v: %s", ok, out)
		}
	})
}

func TestAirflow(t *testing.T) {
	t.Parallel()
	worker := func(t *testing.T, s *service, extra map[string]string, poll string, phones ...string) *machine {
		m := newMachine(t, s)
		conn, err := json.Marshal(map[string]any{"host": s.url, "password": token, "extra": extra})
		if err != nil {
			t.Fatal(err)
		}
		m.environment["AIRFLOW_CONN_BATCHRESET"] = string(conn)
		m.environment["PYTHONPATH"] = absolute(t, "airflow") + ":" + absolute(t, "testdata/airflow")
		m.environment["PHONES"], m.environment["DAG_RUN"], m.environment["POLL"] = strings.Join(phones, " "), "scheduled__2026-11-28T00:00:00+00:00", poll
		return m
	}
	task := func(t *testing.T, m *machine) (code int, out string) {
		t.Helper()
		return m.run("python3", absolute(t, "testdata/airflow/run_task.py"))
	}
	t.Run("is woken by the webhook", func(t *testing.T) {
		address, err := harness.FreeAddr(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := start(t, "--webhook-url", "http://"+address+"/", "--simulator-latency", "1s")
		m := worker(t, s, map[string]string{"webhook_listen": address, "webhook_secret": s.secret}, "600", "phone-1", "phone-2")
		began := time.Now()
		code, out := task(t, m)
		if took := time.Since(began); code != 0 || !strings.HasPrefix(out, `deferred [["batchreset_operator.BatchResetTrigger", {"run_id": `) || !strings.Contains(out, "\nresult ") || took > 5*time.Minute {
			t.Fatalf("exit code %d after %s: %s", code, took, out)
		}
		if code, out := task(t, m); code != 0 || strings.Contains(out, "deferred") { // cleared: it has ended before
			t.Errorf("again: exit code %d: %s", code, out)
		}
		s.wants("phone-1", "phone-2")
	})
	t.Run("believes no webhook", func(t *testing.T) {
		address, err := harness.FreeAddr(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := start(t, "--simulator-latency", "2s")
		m := worker(t, s, map[string]string{"webhook_listen": address, "webhook_secret": "whsec_c2VjcmV0"}, "1", "phone-1")
		forged := make(chan int, 1)
		go func() {
			status := 0
			_ = harness.Until(t.Context(), time.Minute, func(ctx context.Context) error { // nobody listens before the trigger does
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/", strings.NewReader(`{"type":"run.finished","data":{"run_id":"x","state":"succeeded"}}`))
				if err != nil {
					return err
				}
				r.Header.Set("webhook-id", "x")
				r.Header.Set("webhook-timestamp", fmt.Sprint(time.Now().Unix()))
				r.Header.Set("webhook-signature", "v1,Zm9yZ2Vk")
				answer, err := http.DefaultClient.Do(r)
				if err == nil {
					status = answer.StatusCode
					err = answer.Body.Close()
				}
				return err
			})
			forged <- status
		}()
		if code, out := task(t, m); code != 0 {
			t.Errorf("exit code %d: %s", code, out)
		}
		if status := <-forged; status != http.StatusUnauthorized {
			t.Errorf("a forged webhook is answered %d", status)
		}
	})
	t.Run("asks without a webhook, and fails with the reset", func(t *testing.T) {
		s := start(t)
		m := worker(t, s, nil, "0.2", "flaky-1", "phone-2")
		if code, out := task(t, m); code != 1 || !strings.Contains(out, "CPS.0003") || !strings.Contains(out, "deferred") {
			t.Errorf("exit code %d: %s", code, out)
		}
		m.environment["DAG_RUN"] = "manual"
		if _, out := task(t, m); !strings.Contains(out, "failed run") {
			t.Errorf("another DAG run: %s", out)
		}
		if runs, attempts := s.attempts(); runs != 2 || attempts["phone-2"] != 2 {
			t.Errorf("%d runs, %v", runs, attempts)
		}
	})
	t.Run("fails at once if it is refused", func(t *testing.T) {
		s := start(t)
		if code, out := task(t, worker(t, s, nil, "1", "not a phone!")); code != 1 || !strings.Contains(out, "the reset was refused: HTTP 400") {
			t.Errorf("exit code %d: %s", code, out)
		}
	})
}

// TestTheIndexHasEveryExample keeps README.md true.
func TestTheIndexHasEveryExample(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && e.Name() != "testdata" && !strings.Contains(string(text), "]("+e.Name()+"/") {
			t.Errorf("%s is not in README.md", e.Name())
		}
	}
}
