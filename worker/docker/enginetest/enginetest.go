// Package enginetest starts a real Docker engine for tests, with images of a stand-in of Android.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"batchreset/cmd/harness"
)

// The images, which differ in what they set.
const (
	PhoneImage  = "phone:1"
	OtherImage  = "phone:2"
	HealthImage = "phone:healthcheck"
)

// Engine is a real Docker engine, with its containers, images and networks in a folder of its
// own. It has a bridge of its own and no firewall rules, so that it leaves nothing behind, and nothing changed.
type Engine struct {
	Dir     string
	TCP     string // where it listens, too, with TLS: see WriteCertificates
	Process *harness.Process

	cgroup string // below which its containers are
	bridge string // of its network for containers that name none; empty: it is not there
	client *http.Client
}

// Start starts an engine. Stop must be called.
func Start(ctx context.Context) (*Engine, error) {
	e := &Engine{}
	e.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.socket())
	}}}
	if err := e.start(ctx); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

func (e *Engine) socket() string { return filepath.Join(e.Dir, "docker.sock") }

// Host is where the engine listens, as the driver's setting.
func (e *Engine) Host() string { return "unix://" + e.socket() }

func (e *Engine) start(ctx context.Context) (err error) {
	path := os.Getenv("PATH") + ":/usr/sbin:/sbin"
	program, err := lookFor("dockerd", path)
	if err != nil {
		return errors.New("these tests need Docker's engine, and there is no dockerd: apt-get install --no-install-recommends docker.io")
	}
	if os.Geteuid() != 0 {
		return errors.New("these tests start Docker's engine, which needs root")
	}
	if e.Dir, err = os.MkdirTemp("", "dockerd"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(e.Dir, "daemon.json"), []byte("{}"), 0o600); err != nil {
		return err
	}
	if e.TCP, err = harness.FreeAddr(ctx); err != nil {
		return err
	}
	if err := WriteCertificates(e.Dir); err != nil {
		return err
	}
	e.cgroup = "batchreset-" + filepath.Base(e.Dir)
	if err := e.addBridge(ctx, path); err != nil {
		return err
	}
	e.Process, err = harness.Start(ctx, harness.Command{
		Name: "dockerd",
		Args: []string{
			program, "--host", e.Host(), "--config-file", filepath.Join(e.Dir, "daemon.json"),
			"--data-root", filepath.Join(e.Dir, "data"), "--exec-root", filepath.Join(e.Dir, "exec"),
			"--pidfile", filepath.Join(e.Dir, "pid"), "--cgroup-parent", "/" + e.cgroup,
			"--host", "tcp://" + e.TCP, "--tlsverify", "--tlscacert", filepath.Join(e.Dir, "ca.pem"),
			"--tlscert", filepath.Join(e.Dir, "server.pem"), "--tlskey", filepath.Join(e.Dir, "server-key.pem"),
			"--bridge", e.bridge, "--iptables=false", "--ip-forward=false", "--ip-masq=false",
		},
		Env: []string{"PATH=" + path, "TMPDIR=" + e.Dir}, // runc leaves files there
		Log: filepath.Join(e.Dir, "log"),
	})
	if err != nil {
		return err
	}
	if err := e.Process.WaitReady(ctx, 30*time.Second, func(ctx context.Context) error {
		return e.Call(ctx, http.MethodGet, "/version", nil, io.Discard)
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

// addBridge makes a bridge for the engine. One that is told to have none takes away docker0, which the machine's own engine needs.
func (e *Engine) addBridge(ctx context.Context, path string) error {
	ip, err := lookFor("ip", path)
	if err != nil {
		return errors.New("these tests need the program ip: apt-get install --no-install-recommends iproute2")
	}
	suffix := filepath.Base(e.Dir)
	name := "brtest" + suffix[max(0, len(suffix)-9):] // 15 characters at most
	for _, args := range [][]string{
		{"link", "add", name, "type", "bridge"},
		{"address", "add", "198.51.100.1/30", "dev", name}, // an address of documents, which no network has
	} {
		if out, err := exec.CommandContext(ctx, ip, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		e.bridge = name
	}
	return nil
}

func (e *Engine) removeBridge() error {
	if e.bridge == "" {
		return nil
	}
	ip, err := lookFor("ip", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(context.Background(), ip, "link", "delete", e.bridge).CombinedOutput(); err != nil {
		return fmt.Errorf("the bridge %s is left: %w\n%s", e.bridge, err, out)
	}
	return nil
}

// Stop ends the engine with all its containers, and makes sure that nothing of it is left.
func (e *Engine) Stop() error {
	if e.Dir == "" {
		return nil
	}
	e.client.CloseIdleConnections()
	err := e.end()
	left := e.processes()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("dockerd left processes behind: %q", left)
	}
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(e.Dir, "log"))
		err = fmt.Errorf("%w\n%s", err, log[max(0, len(log)-4096):])
	}
	return errors.Join(err, os.RemoveAll(e.Dir), e.removeCgroups(), e.removeBridge())
}

func (e *Engine) end() error {
	if e.Process == nil {
		return nil
	}
	return e.Process.Stop(30 * time.Second)
}

// processes are those whose command line names the engine's folder.
func (e *Engine) processes() (lines []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may have ended
		if bytes.Contains(line, []byte(e.Dir)) {
			lines = append(lines, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return lines
}

func (e *Engine) removeCgroups() (err error) {
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		folders, _ := filepath.Glob(pattern + e.cgroup)
		for _, folder := range folders {
			err = errors.Join(err, os.Remove(folder))
		}
	}
	return err
}

// makeImages builds the stand-in of Android and makes images of it.
func (e *Engine) makeImages(ctx context.Context) error {
	program := filepath.Join(e.Dir, "phone")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "batchreset/worker/docker/testdata/phone")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the stand-in: %w\n%s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	root, err := Root(content)
	if err != nil {
		return err
	}
	for name, changes := range map[string][]string{
		PhoneImage:  {`ENTRYPOINT ["/init","androidboot.hardware=redroid"]`, "ENV IMAGE=1 BOTH=1", "LABEL image=1"},
		OtherImage:  {`ENTRYPOINT ["/init","androidboot.hardware=other"]`, `CMD ["phone.from=image"]`, "ENV IMAGE=2 BOTH=1", "LABEL image=2"},
		HealthImage: {`ENTRYPOINT ["/init"]`, `HEALTHCHECK --interval=200ms --retries=1000 CMD ["/system/bin/healthy"]`},
	} {
		if err := e.importImage(ctx, name, root, changes); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) importImage(ctx context.Context, name string, root []byte, changes []string) error {
	repository, tag, _ := strings.Cut(name, ":")
	query := url.Values{"fromSrc": {"-"}, "repo": {repository}, "tag": {tag}, "changes": changes}
	said := new(bytes.Buffer)
	err := e.Call(ctx, http.MethodPost, "/images/create?"+query.Encode(), bytes.NewReader(root), said)
	if err == nil && bytes.Contains(said.Bytes(), []byte("error")) {
		err = errors.New(said.String())
	}
	if err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	return nil
}

// Call calls the engine, with the oldest version of its API that the driver can do with, and writes
// the answer to w as it comes.
func (e *Engine) Call(ctx context.Context, method, path string, body io.Reader, w io.Writer) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://docker/v1.41"+path, body)
	if err != nil {
		return err
	}
	if kind := "application/json"; body != nil {
		if strings.HasPrefix(path, "/images/create?") {
			kind = "application/x-tar"
		}
		r.Header.Set("Content-Type", kind)
	}
	response, err := e.client.Do(r)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		w = new(bytes.Buffer)
	}
	_, err = io.Copy(w, response.Body)
	_ = response.Body.Close()
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s %s", method, path, response.Status, w)
	}
	return err
}
