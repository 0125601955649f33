package main

import (
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

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"batchreset/cmd/batchreset/terminal"
)

// unit is a unit of systemd: what each key has, in order.
type unit map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	u := unit{}
	for line := range strings.Lines(readFile(t, root+"deploy/systemd/"+name)) {
		key, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if found && !strings.HasPrefix(key, "#") {
			u[key] = append(u[key], value)
		}
	}
	return u
}

// time is a length of time that a unit has.
func (u unit) time(t *testing.T, key string) time.Duration {
	t.Helper()
	if len(u[key]) != 1 {
		t.Fatalf("%s: %q", key, u[key])
	}
	d, err := time.ParseDuration(strings.Replace(u[key][0], "min", "m", 1))
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return d
}

// theCommand is one of ours.
func theCommand(t *testing.T, name string) *cobra.Command {
	t.Helper()
	cmd, _, err := newRootCommand(&terminal.Streams{}).Find([]string{name})
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

// flagOf is the flag that a variable sets, or nil.
func flagOf(cmd *cobra.Command, variable string) (found *pflag.Flag) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if terminal.EnvironmentVariable(f.Name) == variable {
			found = f
		}
	})
	return found
}

func lasts(t *testing.T, cmd *cobra.Command, flag string) time.Duration {
	t.Helper()
	d, err := cmd.Flags().GetDuration(flag)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// theUnits are the units with the command that each runs.
var theUnits = map[string]string{"batchreset-api.service": "api", "batchreset-worker.service": "worker", "batchreset-worker@.service": "worker"}

func TestUnits(t *testing.T) {
	for name, command := range theUnits {
		t.Run(name, func(t *testing.T) {
			u, cmd := readUnit(t, name), theCommand(t, command)
			if start := u["ExecStart"]; len(start) != 1 || start[0] != "/usr/bin/batchreset "+command {
				t.Errorf("it starts %q", start)
			}
			credentials := map[string]bool{}
			for _, c := range u["LoadCredential"] {
				id, path, _ := strings.Cut(c, ":")
				credentials[id] = true
				if !strings.HasPrefix(path, "/etc/batchreset/") {
					t.Errorf("credential %s", c)
				}
			}
			for _, variable := range u["Environment"] {
				key, value, _ := strings.Cut(variable, "=")
				if flagOf(cmd, key) == nil {
					t.Errorf("%s is no variable of 'batchreset %s'", key, command)
				}
				if id, isCredential := strings.CutPrefix(value, "%d/"); !isCredential || !credentials[id] {
					t.Errorf("%s: there is no such credential", variable)
				}
			}
			for key, want := range map[string]string{
				"Type": "notify", "NotifyAccess": "main", "KillMode": "mixed", "Restart": "on-failure", "StandardOutput": "null", "DynamicUser": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "",
				"ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes", "MemoryDenyWriteExecute": "yes", "LockPersonality": "yes", "UMask": "0077",
				"RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "SystemCallErrorNumber": "EPERM",
			} {
				if got := u[key]; len(got) != 1 || got[0] != want {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
			if exit := u["RestartPreventExitStatus"]; len(exit) != 1 || exit[0] != "64" || terminal.ExitUsage != 64 {
				t.Errorf("after %q it is not started again", exit)
			}
			// It stops in good time before it is killed.
			var stop time.Duration
			if command == "api" {
				stop = lasts(t, cmd, "drain-delay") + 10*time.Second // for requests to end
			} else if stop = lasts(t, cmd, "attempt-timeout"); lasts(t, cmd, "shutdown-timeout") != 0 {
				t.Error("the shutdown timeout is not the attempt timeout any more")
			}
			if got, want := u.time(t, "TimeoutStopSec"), stop+40*time.Second; got != want {
				t.Errorf("TimeoutStopSec is %s, want %s", got, want)
			}
			if got, least := u.time(t, "TimeoutStartSec"), 2*lasts(t, cmd, "redis-patience"); got < least {
				t.Errorf("TimeoutStartSec is %s, and the wait for Redis %s", got, least/2)
			}
			if w := u.time(t, "WatchdogSec"); w < 30*time.Second {
				t.Errorf("WatchdogSec is %s: a look at Redis alone may take 5 s", w)
			}
			// A Redis that is away for long never makes it give up.
			tries, within := u["StartLimitBurst"][0], u.time(t, "StartLimitIntervalSec")
			if most := within / (u.time(t, "RestartSec") + lasts(t, cmd, "redis-patience")); tries != "20" || most >= 20 {
				t.Errorf("%s tries are too many, and %d come within %s while Redis is away", tries, most, within)
			}
		})
	}
}

// TestTheSettingsOfThePackage sets every variable that the files suggest.
func TestTheSettingsOfThePackage(t *testing.T) {
	suggested := regexp.MustCompile(`(?m)^#?(BATCHRESET_\w+)=(.*)$`)
	for file, command := range map[string]string{"api.env": "api", "worker.env": "worker"} {
		cmd := theCommand(t, command)
		found := suggested.FindAllStringSubmatch(readFile(t, root+"deploy/packages/etc/"+file), -1)
		if len(found) < 3 {
			t.Errorf("%s suggests only %q", file, found)
		}
		for _, s := range found {
			if f := flagOf(cmd, s[1]); f == nil {
				t.Errorf("%s: %s is no variable of 'batchreset %s'", file, s[1], command)
			} else if err := f.Value.Set(s[2]); err != nil {
				t.Errorf("%s: %s: %v", file, s[0], err)
			}
		}
	}
	_, example, _ := strings.Cut(readFile(t, root+"deploy/packages/etc/drivers.yaml"), "\n#drivers:")
	example = "drivers:" + strings.ReplaceAll(example, "\n#", "\n")
	token, file := filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "drivers.yaml")
	example = strings.ReplaceAll(example, "/run/credentials/batchreset-worker.service/plane-token", token)
	for path, content := range map[string]string{token: "secret", file: example} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command(t, nil, "worker", "--drivers", file, "--redis", "redis://127.0.0.1:1").WantError(t, "127.0.0.1:1") // so the file is well
}

// TestSystemdTakesTheUnits asks systemd itself.
func TestSystemdTakesTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if runtime.GOOS != "linux" {
			t.Skip("units are for systemd, which only Linux has")
		}
		t.Fatal("systemd-analyze is missing: run .ci/setup, or apt-get install --no-install-recommends systemd (no systemd need run)")
	}
	dir := t.TempDir()
	var paths []string
	for name := range theUnits {
		path := filepath.Join(dir, strings.Replace(name, "@", "@lab", 1))
		text := strings.ReplaceAll(readFile(t, root+"deploy/systemd/"+name), "/usr/bin/batchreset", binary)
		text = regexp.MustCompile(`(?m)^Documentation=.*$`).ReplaceAllString(text, "") // the pages are not there
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
		// 10 is without any protection.
		if out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=20", "--no-pager", path).CombinedOutput(); err != nil {
			t.Errorf("%s is exposed to more than 2.0 of 10: %v\n%s", name, err, out)
		}
	}
	if out, err := exec.CommandContext(t.Context(), analyze, append([]string{"verify", "--man=no"}, paths...)...).CombinedOutput(); err != nil || strings.Contains(string(out), dir) {
		t.Errorf("systemd does not like a unit: %v\n%s", err, out)
	}
}

// releaseConfig is what this test looks at in .goreleaser.yaml.
type releaseConfig struct {
	Env    []string
	Builds []struct {
		Goos, Goarch, Flags, Ldflags []string
		Timestamp                    string `yaml:"mod_timestamp"`
	}
	Archives []struct {
		Files []struct{ Src, Dst string }
	}
	Nfpms []struct {
		Formats  []string
		Mtime    string
		Contents []struct {
			Src, Dst, Type string
			Info           struct{ Mtime string } `yaml:"file_info"`
		}
		Scripts map[string]string
	}
	Dockers []struct {
		Dockerfile string
		Platforms  []string
	} `yaml:"dockers_v2"`
}

func TestTheReleaseIsMadeOfWhatIsThere(t *testing.T) {
	var c releaseConfig
	if err := yaml.Unmarshal([]byte(readFile(t, root+".goreleaser.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	b := c.Builds[0]
	if got := strings.Join(b.Goos, " ") + ", " + strings.Join(b.Goarch, " "); got != "linux darwin windows, amd64 arm64" {
		t.Errorf("it is built for %s", got)
	}
	if !slices.Contains(c.Env, "CGO_ENABLED=0") || strings.Join(b.Flags, " ") != "-trimpath -buildvcs=false" || b.Timestamp != "{{ .CommitTimestamp }}" {
		t.Errorf("two builds differ: %q %q %s", c.Env, b.Flags, b.Timestamp)
	}
	// The flags of all ways to build it are the same.
	const flags = "-s -w -X " + versionVariable + "="
	if b.Ldflags[0] != flags+"v{{ .Version }}" {
		t.Errorf("ldflags %q", b.Ldflags)
	}
	for _, path := range []string{"Makefile", "deploy/Dockerfile", ".ci/release/files"} {
		if !strings.Contains(readFile(t, root+path), flags) {
			t.Errorf("%s builds it with others than %s", path, flags)
		}
	}
	there := func(path string) {
		t.Helper()
		if _, err := os.Stat(root + path); err != nil && !strings.HasPrefix(path, ".release/") { // which .ci/release/files makes
			t.Error(err)
		}
	}
	var packed []string
	for _, f := range c.Archives[0].Files {
		there(f.Src)
		packed = append(packed, f.Src)
	}
	if got := strings.Join(packed, " "); got != "LICENSE README.md CHANGELOG.md .release/man/*.1.gz .release/completions/*" {
		t.Errorf("archives have %s", got)
	}
	formats := ""
	for _, n := range c.Nfpms {
		formats += strings.Join(n.Formats, " ") + " "
		paths := map[string]bool{}
		for _, f := range n.Contents {
			paths[f.Dst] = true
			if f.Src != "" {
				there(f.Src)
			}
			if f.Info.Mtime != "{{ .CommitDate }}" || n.Mtime != "{{ .CommitDate }}" {
				t.Errorf("%s: two builds differ", f.Dst)
			}
			if config := strings.HasPrefix(f.Dst, "/etc/batchreset/"); config != (f.Type == "config|noreplace") {
				t.Errorf("%s is of type %q", f.Dst, f.Type)
			}
		}
		want := []string{
			"/etc/batchreset", "/etc/batchreset/api.env", "/etc/batchreset/drivers.yaml", "/etc/batchreset/worker.env",
			"/usr/share/bash-completion/completions/batchreset", "/usr/share/doc/batchreset/CHANGELOG.md", "/usr/share/doc/batchreset/README.md",
			"/usr/share/doc/batchreset/copyright", "/usr/share/fish/vendor_completions.d/batchreset.fish", "/usr/share/man/man1/", "/usr/share/zsh/vendor-completions/_batchreset",
		}
		if n.Formats[0] != "apk" { // Alpine has no systemd
			want = append(want, "/usr/share/doc/batchreset/systemd.md", "/usr/share/batchreset/docker-phone/Dockerfile",
				"/usr/share/batchreset/docker-phone/getprop", "/usr/share/batchreset/docker-phone/init")
			for name := range theUnits {
				want = append(want, "/usr/lib/systemd/system/"+name)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(n.Scripts)), " "); got != "postinstall postremove preremove" {
				t.Errorf("scripts %s", got)
			}
		}
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(paths)); !slices.Equal(got, want) {
			t.Errorf("%s has\n%q, want\n%q", n.Formats, got, want)
		}
		for _, script := range n.Scripts {
			there(script)
			if out, err := exec.CommandContext(t.Context(), "sh", "-n", root+script).CombinedOutput(); err != nil {
				t.Errorf("%s: %v %s", script, err, out)
			}
		}
	}
	if formats != "deb rpm apk " {
		t.Errorf("packages: %s", formats)
	}
	if d := c.Dockers[0]; strings.Join(d.Platforms, " ") != "linux/amd64 linux/arm64" || d.Dockerfile != "deploy/release.Dockerfile" {
		t.Errorf("the image: %+v", d)
	}
}

// TestBothImagesAreTheSame compares the last stages of both Dockerfiles.
func TestBothImagesAreTheSame(t *testing.T) {
	last := func(path string) string {
		_, stage, found := strings.Cut(readFile(t, root+path), "\nFROM scratch\n")
		if !found {
			t.Fatalf("%s does not end with a stage from scratch", path)
		}
		return stage
	}
	built := strings.Replace(last("deploy/Dockerfile"), "COPY --from=build /out/batchreset /batchreset", "COPY $TARGETPLATFORM/batchreset /batchreset", 1)
	if released := strings.Replace(last("deploy/release.Dockerfile"), "ARG TARGETPLATFORM\n", "", 1); released != built {
		t.Errorf("the image of a release is\n%s\nand the one of deploy/Dockerfile\n%s", released, built)
	}
}

func TestManualPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1790000000")
	dir := t.TempDir()
	command(t, nil, "man", dir).OK(t)
	worker := readFile(t, filepath.Join(dir, "batchreset-worker.1"))
	for _, part := range []string{`"Sep 2026"`, `\-\-shutdown-timeout`, "BATCHRESET-WORKER"} {
		if !strings.Contains(strings.ReplaceAll(worker, `\fB--`, `\fB\-\-`), part) {
			t.Errorf("the page of the worker does not have %s:\n%s", part, worker[:300])
		}
	}
	if codes := readFile(t, filepath.Join(dir, "batchreset-exit-codes.1")); !strings.Contains(codes, "  64   the command line is wrong") {
		t.Errorf("the table of exit codes has lost its columns:\n%s", codes)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 50 {
		t.Errorf("%d pages, %v", len(pages), err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if text := readFile(t, page); strings.Contains(text, home+"/") && home != "/" {
			t.Errorf("%s has the home directory of whoever has made it", page)
		}
	}
	command(t, nil, "man", filepath.Join(dir, "not-there")).WantError(t, "not-there")
}
