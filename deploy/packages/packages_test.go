//go:build packages

// Package packages_test looks into the packages that goreleaser has built, and does what deploy/systemd/README.md says on a Debian of
// its own whose first process is systemd: 'make test-packages'. It needs Linux, root, and Debian's debootstrap, systemd-container,
// docker.io and rpm.
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

	"batchreset/worker/docker/enginetest"
)

var (
	dist   = flag.String("dist", "../../dist", "directory with the packages")
	mirror = flag.String("mirror", "http://deb.debian.org/debian", "URL of Debian's packages")
)

// units are only in packages for systems with systemd, and so is what their document speaks of.
var units = map[string]string{
	"/usr/lib/systemd/system/batchreset-api.service":     "-rw-r--r--",
	"/usr/lib/systemd/system/batchreset-worker.service":  "-rw-r--r--",
	"/usr/lib/systemd/system/batchreset-worker@.service": "-rw-r--r--",
	"/usr/share/doc/batchreset/systemd.md":               "-rw-r--r--",
	"/usr/share/batchreset/docker-phone/Dockerfile":      "-rw-r--r--",
	"/usr/share/batchreset/docker-phone/getprop":         "-rwxr-xr-x",
	"/usr/share/batchreset/docker-phone/init":            "-rwxr-xr-x",
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

// blocks are the lines of a section of the document that are in this language.
func blocks(t *testing.T, section, language string) (lines []string) {
	t.Helper()
	b, err := os.ReadFile("../systemd/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "\n## "+section+"\n")
	part, _, _ := strings.Cut(after, "\n## ")
	for _, block := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(part, -1) {
		lines = append(lines, slices.Collect(strings.Lines(block[1]))...)
	}
	return lines
}

// split returns the command of some that needs the network, which systemd's Debian has not, and the others.
func split(t *testing.T, commands []string, network string, want int) (string, string) {
	t.Helper()
	if len(commands) != want || !strings.HasPrefix(commands[0], network) {
		t.Fatalf("the document says that there are %d commands, and the first is %q: %q", want, network, commands)
	}
	return commands[0], strings.Join(commands[1:], "")
}

// afterwards looks at what the commands have led to. What it prints is compared with what is wanted.
const afterwards = `
echo '== an exec driver'
cat >/usr/local/bin/reset-phone <<'PROGRAM'
#!/usr/bin/perl
$| = 1;
my $line = <STDIN>;
syscall(9, 0, 4096, 7, 0x22, -1, 0) != -1 or die "mmap: $!"; # read, write and execute, as a compiler needs it
open(my $kept, '>>', "$ENV{HOME}/kept") or die "$ENV{HOME}/kept: $!";
print {$kept} $line;
print qq({"result":"done","evidence":"kept"}\n);
PROGRAM
chmod 755 /usr/local/bin/reset-phone
printf 'drivers:\n  - name: exec\n    type: exec\n    command: [/usr/local/bin/reset-phone]\n    env: [HOME]\n' >/etc/batchreset/drivers-exec.yaml
echo 'BATCHRESET_OPS_LISTEN=127.0.0.1:9093' >/etc/batchreset/worker-exec.env
install -D -m 644 /root/exec.conf /etc/systemd/system/batchreset-worker@exec.service.d/override.conf
systemctl start batchreset-worker@exec
printf 'instance_id,tenant,driver\nphone-4,acme,exec\n' >exec-fleet.csv
batchreset fleet import exec-fleet.csv --redis-file /etc/batchreset/redis-url
batchreset submit --server http://127.0.0.1:8080 --token-file acme-token.txt --wait --yes phone-4
echo "kept by the program: $(grep -c '"instance_id":"phone-4"' /var/lib/batchreset/kept)"
systemctl stop batchreset-worker@exec

echo '== what is seen'
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
echo 'BATCHRESET_OPS_LISTEN=127.0.0.1:9094' >/etc/batchreset/worker-lab.env
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
	engine, err := enginetest.Start(context.WithoutCancel(t.Context())) // first, because it is what may be missing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Stop(); err != nil {
			t.Error(err)
		}
	})
	begun := time.Now()
	root := filepath.Join(t.TempDir(), "debian")
	run(t, "debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv,dbus,procps,busybox-static", "bookworm", root, *mirror)
	t.Logf("Debian after %s", time.Since(begun).Round(time.Second))
	run(t, "cp", built(t, "batchreset_*_amd64.deb"), filepath.Join(root, "root"))

	install, first := split(t, blocks(t, "From nothing to the first reset", "sh"), "apt-get install -y redis-server", 12)
	installDocker, container := split(t, blocks(t, "A real container", "sh"), "apt-get install -y docker.io", 11)
	policy := filepath.Join(root, "usr/sbin/policy-rc.d") // as in every chroot: what runs is not this Debian yet
	write(t, policy, "#!/bin/sh\nexit 101\n", 0o755)
	run(t, "env", "-u", "TMPDIR", "chroot", root, "sh", "-ec", "export DEBIAN_FRONTEND=noninteractive; "+install+installDocker)
	if err := os.Remove(policy); err != nil {
		t.Fatal(err)
	}
	lendEngine(t, engine, root)
	write(t, filepath.Join(root, "root/exec.conf"), strings.Join(blocks(t, "Drivers that need more", "ini"), ""), 0o644)
	begin, submit, found := strings.Cut(container, "batchreset submit ")
	if !found {
		t.Fatalf("no command resets the container:\n%s", container)
	}
	write(t, filepath.Join(root, "root/first-reset.sh"), "set -e\ncd /root\nexport HOME=/root\n"+
		first+"echo '== first reset done'\n"+
		busybox+begin+"echo \"container: $(docker inspect -f '{{.Id}}' phone-3)\"\nbatchreset submit "+submit+
		"echo \"container: $(docker inspect -f '{{.Id}}' phone-3)\"\necho \"its data: $(docker exec phone-3 ls /data | tr '\\n' ' ')\"\n"+
		"echo \"users that it sees: $(wc -l </proc/$(systemctl show -P MainPID batchreset-worker@docker)/uid_map)\"\n"+
		"echo '== container done'\n"+afterwards+"echo '== the end'\n", 0o700)
	write(t, filepath.Join(root, "etc/systemd/system/first-reset.service"), `[Unit]
After=multi-user.target redis-server.service
[Service]
Type=oneshot
ExecStart=/bin/bash /root/first-reset.sh
ExecStopPost=/bin/systemctl --no-block poweroff
TimeoutStartSec=10min
StandardOutput=append:/root/first-reset.log
StandardError=append:/root/first-reset.log
[Install]
WantedBy=default.target
`, 0o644)
	run(t, "systemctl", "--root", root, "enable", "first-reset.service")

	booted := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 13*time.Minute)
	defer cancel()
	boot := exec.CommandContext(ctx, "systemd-nspawn", "--quiet", "--directory="+root, "--register=no", "--keep-unit", "--private-network",
		"--bind="+strings.TrimPrefix(engine.Host(), "unix://")+":/run/docker.sock", "--boot")
	boot.Cancel = func() error { return boot.Process.Signal(os.Interrupt) }
	boot.WaitDelay = time.Minute
	console, err := boot.CombinedOutput()
	t.Logf("from the start of systemd to its end: %s", time.Since(booted).Round(time.Second))
	said := read(filepath.Join(root, "root/first-reset.log"))
	t.Logf("the commands and the checks print:\n%s", said)
	if err != nil || !strings.HasSuffix(said, "== the end\n") {
		t.Fatalf("it did not come to its end: %v\n%s", err, console[max(0, len(console)-4000):])
	}
	simulated, rest, _ := strings.Cut(said, "== first reset done\n")
	contained, later, _ := strings.Cut(rest, "== container done\n")
	for _, want := range []string{
		"batchreset is installed, and not started.",
		"succeeded",
	} {
		if !strings.Contains(simulated, want) {
			t.Errorf("%q is not in what the first commands print", want)
		}
	}
	for _, want := range []string{"\nfirst-boot\nphoto\n", "1 instance in 1 job: 1 succeeded", "\nits data: first-boot \n", "\nusers that it sees: 2\n"} {
		if !strings.Contains(contained, want) {
			t.Errorf("%q is not in what the commands about a container print", want)
		}
	}
	if ids := regexp.MustCompile(`(?m)^container: ([0-9a-f]{64})$`).FindAllStringSubmatch(contained, -1); len(ids) != 2 || ids[0][1] == ids[1][1] {
		t.Errorf("the phone's containers before and after are %q", ids)
	}
	for _, want := range []string{
		"1 instance in 1 job: 1 succeeded",
		"kept by the program: 1",
		"is-active: active active",
		"api works, API at http://127.0.0.1:8080, operators' site at http://127.0.0.1:9090",
		"worker works, operators' site at http://127.0.0.1:9091",
		"verify: well",
		"wrong setting: 64 failed 0",
		"works on: 0",
		"after it hung: active 1",
		"lab: active",
		"left running: 0",
		"kept: api.env drivers-docker.yaml drivers-exec.yaml drivers-lab.yaml drivers.yaml redis-url secret-key worker-docker.env worker-exec.env worker-lab.env worker.env ",
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

// busybox is what the stand-in for a phone is made of, under the name that its Dockerfile has, because there is no registry. Debian's lacks the
// -delete of find, which the real one has.
const busybox = `mkdir -p busybox/bin
cp /bin/busybox busybox/bin
chroot busybox /bin/busybox --install -s /bin
rm busybox/bin/find
cp /usr/bin/find busybox/bin
cp --parents $(ldd /usr/bin/find | grep -o '/lib[^ ]*') busybox
tar -C busybox -c . | docker import - busybox:1.37.0
`

// lendEngine gives the engine's socket to the group that Debian's package has made for it, as the engine of that package would. That one may
// make no containers inside of another one, and is not started.
func lendEngine(t *testing.T, engine *enginetest.Engine, root string) {
	t.Helper()
	run(t, "systemctl", "--root", root, "mask", "docker.service", "docker.socket", "containerd.service")
	group := regexp.MustCompile(`(?m)^docker:[^:]*:(\d+):`).FindStringSubmatch(read(filepath.Join(root, "etc/group")))
	if group == nil {
		t.Fatal("docker.io has made no group docker")
	}
	socket := strings.TrimPrefix(engine.Host(), "unix://")
	run(t, "chown", "root:"+group[1], socket)
	run(t, "chmod", "660", socket)
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
