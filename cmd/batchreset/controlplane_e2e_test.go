package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// pythonPlane is deploy/examples/http/controlplane.py in a folder.
type pythonPlane struct {
	*harness.Process
	dir, address string
}

func startPythonPlane(t *testing.T, reset, look string) pythonPlane {
	t.Helper()
	program, err := filepath.Abs("../../deploy/examples/http/controlplane.py")
	if err != nil {
		t.Fatal(err)
	}
	address, err := harness.FreeAddr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := pythonPlane{dir: t.TempDir(), address: address}
	p.Process, err = harness.Start(context.WithoutCancel(t.Context()), harness.Command{
		Name: "control plane", Args: []string{"python3", program, reset, look}, Env: []string{"LISTEN=" + p.address}, Dir: p.dir, Stdout: os.Stderr, Stderr: os.Stderr,
	})
	if err != nil {
		t.Fatalf("%v (this test needs python3: run .ci/setup)", err)
	}
	t.Cleanup(p.Kill)
	p.await(t)
	return p
}

func (p pythonPlane) await(t *testing.T) {
	t.Helper()
	harness.Eventually(t, patience, "the control plane", func() bool { return harness.Listens(t.Context(), p.address) == nil })
}

// through starts an api and a worker for the control plane, and returns the environment of commands.
func (p pythonPlane) through(t *testing.T, flags ...string) map[string]string {
	t.Helper()
	url := redistest.Start(t).URL()
	api := start(t, "api", "--redis", url, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	environment := map[string]string{"BATCHRESET_REDIS": url}
	environment["BATCHRESET_SERVER"], _ = api.logged("api started")["api"].(string)
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
	start(t, append([]string{
		"worker", "--redis", url, "--ops-listen", "127.0.0.1:0", "--driver", "http", "--driver-url", "http://" + p.address + "/phones/{instance_id}/reset",
		"--driver-look-url", "http://" + p.address + "/phones/{instance_id}", "--driver-idempotent",
	}, flags...)...)
	return environment
}

func jobOf(t *testing.T, environment map[string]string, id string) (job client.Job) {
	t.Helper()
	if err := json.Unmarshal([]byte(command(t, environment, "status", id, "--output", "json").OK(t).Out), &job); err != nil {
		t.Fatal(err)
	}
	return job
}

// The example is killed in the middle of resets, whose commands go on. What was wiped is seen once its command has
// ended, and nothing is wiped twice.
func TestTheControlPlaneInPython(t *testing.T) {
	t.Parallel()
	plane := startPythonPlane(t, `echo begun >"$PHONE.at-work"; sleep 0.5; echo "$PHONE" >>wiped.txt; echo clean >"$PHONE.state"; sleep 0.5; rm "$PHONE.at-work"`,
		`test -e "$PHONE.at-work" && echo "seen during the reset"; cat "$PHONE.state"`)
	environment := plane.through(t, "--concurrency", "4", "--look-patience", "5s")
	var phones []string
	for n := range 16 {
		phones = append(phones, fmt.Sprintf("phone-%d", n))
	}
	id := strings.TrimSpace(command(t, environment, append([]string{"submit", "--yes"}, phones...)...).OK(t).Out)
	wiped := func() []string {
		text, _ := os.ReadFile(filepath.Join(plane.dir, "wiped.txt"))
		return strings.Fields(string(text))
	}
	harness.Eventually(t, patience, "some to be wiped", func() bool { return len(wiped()) >= 4 })
	harness.Pause(t.Context(), 200*time.Millisecond)
	_ = plane.Signal(syscall.SIGKILL)
	<-plane.Ended()
	if err := plane.Restart(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	plane.await(t)
	var job client.Job
	harness.Eventually(t, patience, "the job to end", func() bool {
		job = jobOf(t, environment, id)
		return job.Final()
	})
	for _, it := range job.Items {
		n := 0
		for _, phone := range wiped() {
			if phone == it.InstanceID {
				n++
			}
		}
		seen := it.State == "succeeded" && strings.HasSuffix(it.Evidence, ": clean") && n == 1
		if lost := it.State == "unknown" && n <= 1; !seen && !lost { // its command was killed with the control plane
			t.Errorf("%s was wiped %d times: %+v", it.InstanceID, n, it)
		}
	}
	if job.Counts.Succeeded < 12 {
		t.Errorf("counts %+v", job.Counts)
	}
}

func TestTheControlPlaneInPythonThatLies(t *testing.T) {
	t.Parallel()
	plane := startPythonPlane(t, "true", "echo its old user is still there; false")
	environment := plane.through(t, "--look-patience", "1s", "--max-attempts", "1")
	id := strings.TrimSpace(command(t, environment, "submit", "phone-1").OK(t).Out)
	var job client.Job
	harness.Eventually(t, patience, "the job to end", func() bool {
		job = jobOf(t, environment, id)
		return job.Final()
	})
	if it := job.Items[0]; it.State != "failed" || it.Code != "RESET.1010" || !strings.HasSuffix(it.Evidence, ": its old user is still there") {
		t.Errorf("item %+v", it)
	}
}

func TestTheControlPlaneInPythonIsNotStartedWrongly(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed with the test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for name, row := range map[string]struct {
		listen, state string
		commands      []string
		want          string
	}{
		"no commands":         {"127.0.0.1:0", "", nil, "It runs a command for each reset"},
		"an empty command":    {"127.0.0.1:0", "", []string{"", "true"}, "It runs a command for each reset"},
		"a port alone":        {"8097", "", []string{"true", "true"}, "LISTEN must be like 127.0.0.1:8090"},
		"no port":             {"127.0.0.1:", "", []string{"true", "true"}, "LISTEN must be like 127.0.0.1:8090"},
		"no such port":        {"127.0.0.1:99999", "", []string{"true", "true"}, "LISTEN 127.0.0.1:99999"},
		"an address in use":   {taken.Addr().String(), "", []string{"true", "true"}, "Address already in use"},
		"a folder that is no": {"127.0.0.1:0", "/nonexistent", []string{"true", "true"}, "STATE /nonexistent: unable to open database file"},
	} {
		t.Run(name, func(t *testing.T) {
			program, err := filepath.Abs("../../deploy/examples/http/controlplane.py")
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "python3", append([]string{program}, row.commands...)...)
			cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "LISTEN="+row.listen, "STATE="+row.state)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), row.want) || strings.Contains(string(out), "Traceback") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
