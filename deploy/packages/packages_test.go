//go:build packages

// Package packages_test looks into the packages that goreleaser has built, and does what deploy/systemd/README.md says on a Debian of
// its own whose first process is systemd: 'make test-packages'. It needs Linux, root, and Debian's debootstrap, systemd-container
// and rpm.
package packages_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	dist   = flag.String("dist", "../../dist", "directory with the packages")
	mirror = flag.String("mirror", "http://deb.debian.org/debian", "URL of Debian's packages")
)

// units are only in packages for systems with systemd.
var units = map[string]string{
	"/usr/lib/systemd/system/batchreset-api.service":     "-rw-r--r--",
	"/usr/lib/systemd/system/batchreset-worker.service":  "-rw-r--r--",
	"/usr/lib/systemd/system/batchreset-worker@.service": "-rw-r--r--",
	"/usr/share/doc/batchreset/systemd.md":               "-rw-r--r--",
}

// files are in all packages, with pages of the manual beside these.
var files = map[string]string{
	"/usr/bin/batchreset":                                  "-rwxr-xr-x",
	"/etc/batchreset":                                      "drwxr-x---",
	"/etc/batchreset/api.env":                              "-rw-r-----",
	"/etc/batchreset/worker.env":                           "-rw-r-----",
	"/etc/batchreset/drivers.yaml":                         "-rw-r-----",
	"/usr/share/man/man1/batchreset.1.gz":                  "-rw-r--r--",
	"/usr/share/man/man1/batchreset-api.1.gz":              "-rw-r--r--",
	"/usr/share/man/man1/batchreset-run-submit.1.gz":       "-rw-r--r--",
	"/usr/share/man/man1/batchreset-exit-codes.1.gz":       "-rw-r--r--",
	"/usr/share/bash-completion/completions/batchreset":    "-rw-r--r--",
	"/usr/share/zsh/vendor-completions/_batchreset":        "-rw-r--r--",
	"/usr/share/fish/vendor_completions.d/batchreset.fish": "-rw-r--r--",
	"/usr/share/doc/batchreset/copyright":                  "-rw-r--r--",
	"/usr/share/doc/batchreset/README.md":                  "-rw-r--r--",
	"/usr/share/doc/batchreset/CHANGELOG.md":               "-rw-r--r--",
}

// built is the only file that matches.
func built(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(*dist, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v: 'make release-snapshot' builds them", pattern, found, err)
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a command and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// wantFiles compares the modes of files with those that should be there. Other pages of the manual may be there, and
// nothing else.
func wantFiles(t *testing.T, got map[string]string, want ...map[string]string) {
	t.Helper()
	wanted := map[string]string{}
	for _, some := range want {
		maps.Copy(wanted, some)
	}
	pages := 0
	for path, mode := range got {
		page := strings.HasPrefix(path, "/usr/share/man/man1/batchreset") && strings.HasSuffix(path, ".1.gz")
		if page {
			pages++
		}
		if _, known := wanted[path]; !known && !page && !strings.HasPrefix(mode, "d") {
			t.Errorf("%s %s is in it", mode, path)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(wanted)) {
		if got[path] != wanted[path] {
			t.Errorf("%s is %q, want %q", path, got[path], wanted[path])
		}
	}
	if pages < 50 {
		t.Errorf("%d pages of the manual", pages)
	}
}

func TestDeb(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		path := built(t, "batchreset_*_"+arch+".deb")
		got := map[string]string{}
		for line := range strings.Lines(run(t, "dpkg-deb", "-c", path)) {
			fields := strings.Fields(line)
			if fields[1] != "root/root" {
				t.Errorf("whose is it? %s", line)
			}
			got[strings.TrimSuffix(strings.TrimPrefix(fields[5], "."), "/")] = fields[0]
		}
		wantFiles(t, got, files, units)
		if kept := run(t, "dpkg-deb", "-I", path, "conffiles"); strings.TrimSpace(kept) != "/etc/batchreset/api.env\n/etc/batchreset/drivers.yaml\n/etc/batchreset/worker.env" {
			t.Errorf("conffiles:\n%s", kept)
		}
		if about := run(t, "dpkg-deb", "-f", path); !strings.Contains(about, "Package: batchreset\n") || !strings.Contains(about, "Architecture: "+arch+"\n") {
			t.Errorf("it says:\n%s", about)
		}
	}
}

func TestRPM(t *testing.T) {
	for _, arch := range []string{"x86_64", "aarch64"} {
		path := built(t, "batchreset-*."+arch+".rpm")
		got := map[string]string{}
		for line := range strings.Lines(run(t, "rpm", "-qp", "--qf", `[%{FILEMODES:perms} %{FILENAMES} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILEFLAGS:fflags}\n]`, path)) {
			fields := strings.Fields(line)
			got[fields[1]] = fields[0]
			if fields[2] != "root" || fields[3] != "root" {
				t.Errorf("whose is it? %s", line)
			}
			if config := strings.HasPrefix(fields[1], "/etc/batchreset/"); config != (len(fields) > 4 && fields[4] == "cn") {
				t.Errorf("is it kept? %s", line)
			}
		}
		wantFiles(t, got, files, units)
		if about := run(t, "rpm", "-qp", "--qf", "%{NAME} %{ARCH} %{LICENSE} %{BUILDHOST}", path); about != "batchreset "+arch+" MIT localhost" {
			t.Errorf("it says %s", about)
		}
		scripts := run(t, "rpm", "-qp", "--scripts", path)
		for _, part := range []string{"postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet", "systemctl disable --now"} {
			if !strings.Contains(scripts, part) {
				t.Errorf("there is no %s in\n%s", part, scripts)
			}
		}
	}
}

func TestAPK(t *testing.T) {
	for _, arch := range []string{"x86_64", "aarch64"} {
		file, err := os.Open(built(t, "batchreset_*_"+arch+".apk"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		unzipped, err := gzip.NewReader(file)
		if err != nil {
			t.Fatal(err)
		}
		got, about := map[string]string{}, ""
		for r := tar.NewReader(unzipped); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if h.Name == ".PKGINFO" {
				b, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				about = string(b)
				continue
			}
			got["/"+strings.TrimSuffix(h.Name, "/")] = h.FileInfo().Mode().String()
		}
		wantFiles(t, got, files)
		if !strings.Contains(about, "pkgname = batchreset\n") || !strings.Contains(about, "arch = "+arch+"\n") {
			t.Errorf("it says:\n%s", about)
		}
	}
}

// commands are those of a document that lead to the first reset.
func commands(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../systemd/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "## From nothing to the first reset\n")
	part, _, _ := strings.Cut(after, "\n## ")
	var all strings.Builder
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(part, -1) {
		all.WriteString(block[1])
	}
	return all.String()
}

// afterwards looks at what the commands have led to. What it prints is compared with what is wanted.
const afterwards = `
echo "is-active: $(systemctl is-active batchreset-api batchreset-worker | tr '\n' ' ')"
systemctl show -P StatusText batchreset-api batchreset-worker
sleep 3
journalctl -o cat -u batchreset-api -u batchreset-worker
ps -eo user:20,args | grep '[/]usr/bin/batchreset'
for unit in batchreset-api batchreset-worker; do systemd-analyze security "$unit" | tail -1; done
systemd-analyze verify --man=no batchreset-api.service batchreset-worker.service batchreset-worker@x.service && echo 'verify: well'
api=$(systemctl show -P MainPID batchreset-api)
ls -l "/proc/$api/root/run/credentials/batchreset-api.service" | sed 's/^/credential: /'

echo '== a wrong setting'
mkdir -p /run/systemd/system/batchreset-worker.service.d
printf '[Service]\nEnvironment=BATCHRESET_DRIVER=\nEnvironment=BATCHRESET_LANES=0\nExecStart=\nExecStart=/usr/bin/batchreset worker --lanes -1\n' >/run/systemd/system/batchreset-worker.service.d/wrong.conf
systemctl daemon-reload
systemctl restart batchreset-worker || echo "restart: $?"
sleep 8
echo "wrong setting: $(systemctl show -P ExecMainStatus batchreset-worker) $(systemctl show -P ActiveState batchreset-worker) $(systemctl show -P NRestarts batchreset-worker)"
rm /run/systemd/system/batchreset-worker.service.d/wrong.conf
systemctl daemon-reload
systemctl start batchreset-worker

echo '== a process that hangs'
mkdir -p /run/systemd/system/batchreset-api.service.d
printf '[Service]\nWatchdogSec=4s\n' >/run/systemd/system/batchreset-api.service.d/quick.conf
systemctl daemon-reload
systemctl restart batchreset-api
sleep 12
echo "works on: $(systemctl show -P NRestarts batchreset-api)"
kill -STOP "$(systemctl show -P MainPID batchreset-api)"
for second in $(seq 60); do
	[ "$(systemctl show -P NRestarts batchreset-api)" = 0 ] || break
	sleep 1
done
for second in $(seq 60); do
	[ "$(systemctl is-active batchreset-api)" != active ] || break
	sleep 1
done
echo "after it hung: $(systemctl is-active batchreset-api) $(systemctl show -P NRestarts batchreset-api)"
batchreset submit --server http://127.0.0.1:8080 --token-file acme-token.txt --wait --yes phone-1

echo '== a second worker'
printf 'drivers:\n  - name: lab\n    type: simulator\n' >/etc/batchreset/drivers-lab.yaml
echo 'BATCHRESET_OPS_LISTEN=127.0.0.1:9092' >/etc/batchreset/worker-lab.env
systemctl start batchreset-worker@lab
echo "lab: $(systemctl is-active batchreset-worker@lab)"

echo '== removal'
dpkg -r batchreset
echo "left running: $(ps -eo args | grep -c '[/]usr/bin/batchreset')"
ls /etc/batchreset | tr '\n' ' ' | sed 's/^/kept: /'
echo
dpkg -P batchreset
ls -d /etc/batchreset 2>/dev/null || echo 'purged: nothing is left'

echo '== half configured'
dpkg -i /root/batchreset_*_amd64.deb
systemctl start batchreset-api || echo "start without a URL: $?"
systemctl is-enabled batchreset-api || true
`

// TestTheDocumentOnADebianWithSystemd runs the commands of the document word for word.
func TestTheDocumentOnADebianWithSystemd(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the document names the package for amd64")
	}
	begun := time.Now()
	root := filepath.Join(t.TempDir(), "debian")
	run(t, "debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv,dbus,procps", "bookworm", root, *mirror)
	t.Logf("Debian after %s", time.Since(begun).Round(time.Second))
	run(t, "cp", built(t, "batchreset_*_amd64.deb"), filepath.Join(root, "root"))

	script := commands(t)
	count := strings.Count(script, "\n")
	if count != 12 {
		t.Errorf("the document says that there are twelve commands; there are %d", count)
	}
	install, rest, _ := strings.Cut(script, "\n") // this one needs the network, and systemd has none
	if !strings.HasPrefix(install, "apt-get install -y redis-server") {
		t.Fatalf("the first command is %s", install)
	}
	policy := filepath.Join(root, "usr/sbin/policy-rc.d") // as in every chroot: what runs is not this Debian yet
	write(t, policy, "#!/bin/sh\nexit 101\n", 0o755)
	run(t, "env", "-u", "TMPDIR", "chroot", root, "sh", "-ec", "export DEBIAN_FRONTEND=noninteractive; "+install)
	if err := os.Remove(policy); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "root/first-reset.sh"), "set -e\ncd /root\nexport HOME=/root\n"+rest+"echo '== first reset done'\n"+afterwards+"echo '== the end'\n", 0o700)
	write(t, filepath.Join(root, "etc/systemd/system/first-reset.service"), `[Unit]
After=multi-user.target redis-server.service
[Service]
Type=oneshot
ExecStart=/bin/bash /root/first-reset.sh
ExecStopPost=/bin/systemctl --no-block poweroff
TimeoutStartSec=5min
StandardOutput=append:/root/first-reset.log
StandardError=append:/root/first-reset.log
[Install]
WantedBy=default.target
`, 0o644)
	run(t, "systemctl", "--root", root, "enable", "first-reset.service")

	booted := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	boot := exec.CommandContext(ctx, "systemd-nspawn", "--quiet", "--directory="+root, "--register=no", "--keep-unit", "--private-network", "--boot")
	boot.Cancel = func() error { return boot.Process.Signal(os.Interrupt) }
	boot.WaitDelay = time.Minute
	console, err := boot.CombinedOutput()
	t.Logf("from the start of systemd to its end: %s", time.Since(booted).Round(time.Second))
	said := read(filepath.Join(root, "root/first-reset.log"))
	t.Logf("%d commands; they and the checks print:\n%s", count, said)
	if err != nil || !strings.HasSuffix(said, "== the end\n") {
		t.Fatalf("it did not come to its end: %v\n%s", err, console[max(0, len(console)-4000):])
	}
	first, later, _ := strings.Cut(said, "== first reset done\n")
	for _, want := range []string{
		"batchreset is installed, and not started.",
		"succeeded",
	} {
		if !strings.Contains(first, want) {
			t.Errorf("%q is not in what the first commands print", want)
		}
	}
	for _, want := range []string{
		"is-active: active active",
		"api works, API at http://127.0.0.1:8080, operators' site at http://127.0.0.1:9090",
		"worker works, operators' site at http://127.0.0.1:9091",
		"verify: well",
		"wrong setting: 64 failed 0",
		"works on: 0",
		"after it hung: active 1",
		"lab: active",
		"left running: 0",
		"kept: api.env drivers-lab.yaml drivers.yaml redis-url secret-key worker-lab.env worker.env ",
		"purged: nothing is left",
		"start without a URL: 1",
	} {
		if !strings.Contains(later, want) {
			t.Errorf("%q is not in what is seen afterwards", want)
		}
	}
	if found := regexp.MustCompile(`Overall exposure level for batchreset-\w+.service: (\d+\.\d)`).FindAllStringSubmatch(later, -1); len(found) != 2 || found[0][1] > "2.0" || found[1][1] > "2.0" {
		t.Errorf("exposure: %q", found)
	}
	if strings.Contains(later, "first-operator?token=") {
		t.Error("the journal has the link for the first operator")
	}
	if regexp.MustCompile(`(?m)^root .*/usr/bin/batchreset`).MatchString(later) {
		t.Error("a process runs as root")
	}
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// read returns what a file has, or why it has nothing.
func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(b)
}
