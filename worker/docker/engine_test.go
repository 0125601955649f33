//go:build engine

package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"batchreset/cmd/harness"
)

// The images of the tests, which differ in what they set.
const (
	phoneImage  = "phone:1"
	otherImage  = "phone:2"
	healthImage = "phone:healthcheck"
)

// testEngine is a real Docker engine, with its containers, images and networks in a folder of its
// own. It has no bridge of its own and no firewall rules, so that it leaves nothing behind.
type testEngine struct {
	dir     string
	tcp     string // where it listens, too, with TLS
	cgroup  string // below which its containers are
	process *harness.Process
	engine  engine // of the test itself
}

var started struct {
	sync.Once

	engine *testEngine
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	err := started.engine.stop()
	if err == nil {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// dockerd returns the engine that all tests share.
func dockerd(t *testing.T) *testEngine {
	t.Helper()
	started.Do(func() {
		started.engine = &testEngine{}
		// Not the test's context: others use the engine after it.
		started.err = started.engine.start(context.Background()) //nolint:usetesting // see above
	})
	if started.err != nil {
		t.Fatal(started.err)
	}
	return started.engine
}

func (e *testEngine) host() string { return "unix://" + filepath.Join(e.dir, "docker.sock") }

func (e *testEngine) start(ctx context.Context) (err error) {
	path := os.Getenv("PATH") + ":/usr/sbin:/sbin"
	program, err := lookFor("dockerd", path)
	if err != nil {
		return errors.New("these tests need Docker's engine, and there is no dockerd: apt-get install --no-install-recommends docker.io")
	}
	if os.Geteuid() != 0 {
		return errors.New("these tests start Docker's engine, which needs root")
	}
	if e.dir, err = os.MkdirTemp("", "dockerd"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(e.dir, "daemon.json"), []byte("{}"), 0o600); err != nil {
		return err
	}
	if e.tcp, err = harness.FreeAddr(ctx); err != nil {
		return err
	}
	if err := writeCertificates(e.dir); err != nil {
		return err
	}
	e.cgroup = "batchreset-" + filepath.Base(e.dir)
	e.process, err = harness.Start(ctx, harness.Command{
		Name: "dockerd",
		Args: []string{
			program, "--host", e.host(), "--config-file", filepath.Join(e.dir, "daemon.json"),
			"--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"),
			"--pidfile", filepath.Join(e.dir, "pid"), "--cgroup-parent", "/" + e.cgroup,
			"--host", "tcp://" + e.tcp, "--tlsverify", "--tlscacert", filepath.Join(e.dir, "ca.pem"),
			"--tlscert", filepath.Join(e.dir, "server.pem"), "--tlskey", filepath.Join(e.dir, "server-key.pem"),
			"--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
		},
		Env: []string{"PATH=" + path, "TMPDIR=" + e.dir}, // runc leaves files there
		Log: filepath.Join(e.dir, "log"),
	})
	if err != nil {
		return err
	}
	d, err := New(Config{Host: e.host()})
	if err != nil {
		return err
	}
	if err := e.process.WaitReady(ctx, 30*time.Second, func(ctx context.Context) (err error) {
		e.engine, err = d.connect(ctx)
		return err
	}); err != nil {
		return err
	}
	return e.makeImages(ctx)
}

func lookFor(program, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if found, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return found, nil
		}
	}
	return "", exec.ErrNotFound
}

// stop ends the engine with all its containers, and makes sure that nothing of it is left.
func (e *testEngine) stop() error {
	if e == nil || e.dir == "" {
		return nil
	}
	err := e.end()
	left := e.processes()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("dockerd left processes behind: %q", left)
	}
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(e.dir, "log"))
		err = fmt.Errorf("%w\n%s", err, log[max(0, len(log)-4096):])
	}
	return errors.Join(err, os.RemoveAll(e.dir), e.removeCgroups())
}

func (e *testEngine) end() error {
	if e.process == nil {
		return nil
	}
	return e.process.Stop(30 * time.Second)
}

// processes are those whose command line names the engine's folder.
func (e *testEngine) processes() (lines []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may have ended
		if bytes.Contains(line, []byte(e.dir)) {
			lines = append(lines, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return lines
}

func (e *testEngine) removeCgroups() (err error) {
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		folders, _ := filepath.Glob(pattern + e.cgroup)
		for _, folder := range folders {
			err = errors.Join(err, os.Remove(folder))
		}
	}
	return err
}

// makeImages builds the stand-in of Android and makes images of it.
func (e *testEngine) makeImages(ctx context.Context) error {
	program := filepath.Join(e.dir, "phone")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./testdata/phone")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the stand-in: %w\n%s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	root, err := rootOf(content)
	if err != nil {
		return err
	}
	for name, changes := range map[string][]string{
		phoneImage:  {`ENTRYPOINT ["/init","androidboot.hardware=redroid"]`, "ENV IMAGE=1 BOTH=1", "LABEL image=1"},
		otherImage:  {`ENTRYPOINT ["/init","androidboot.hardware=other"]`, `CMD ["phone.from=image"]`, "ENV IMAGE=2 BOTH=1", "LABEL image=2"},
		healthImage: {`ENTRYPOINT ["/init"]`, `HEALTHCHECK --interval=200ms --retries=1000 CMD ["/system/bin/healthy"]`},
	} {
		if err := e.importImage(ctx, name, root, changes); err != nil {
			return err
		}
	}
	return nil
}

func (e *testEngine) importImage(ctx context.Context, name string, root []byte, changes []string) error {
	repository, tag, _ := strings.Cut(name, ":")
	query := url.Values{"fromSrc": {"-"}, "repo": {repository}, "tag": {tag}, "changes": changes}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker"+e.engine.base+"/images/create?"+query.Encode(), bytes.NewReader(root))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-tar")
	response, err := e.engine.client.Do(r)
	if err != nil {
		return err
	}
	said := new(bytes.Buffer)
	_, err = said.ReadFrom(response.Body)
	_ = response.Body.Close()
	if err == nil && (response.StatusCode != http.StatusOK || bytes.Contains(said.Bytes(), []byte("error"))) {
		err = fmt.Errorf("import %s: %s %s", name, response.Status, said)
	}
	return err
}
