package main

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// versionVariable is what the linker sets, and versionUnderTest to what, in the binary under
// test.
const (
	versionVariable  = "batchreset/cmd/batchreset/terminal.version"
	versionUnderTest = "v9.8.7-test"
)

func TestTheVersionIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"--version"}} {
		if out, err := exec.CommandContext(t.Context(), binary, args...).Output(); err != nil || string(out) != "batchreset "+versionUnderTest+"\n" {
			t.Errorf("%s prints %q, %v", args, out, err)
		}
	}
	dev := start(t, "dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	dev.logged("worker started")
	urls := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindAllString(dev.said(), 2)
	if len(urls) < 2 {
		t.Fatalf("no addresses in %s", dev.said())
	}
	for url, want := range map[string]string{
		urls[0] + "/":        `"version":"` + versionUnderTest + `"`,
		urls[0] + "/healthz": `"version":"` + versionUnderTest + `"`,
		urls[1] + "/healthz": `"version":"` + versionUnderTest + `"`,
		urls[1] + "/metrics": `batchreset_build_info{version="` + versionUnderTest + `"} 1`,
	} {
		if _, body := get(t, url); !strings.Contains(body, want) {
			t.Errorf("%s does not say %s", url, want)
		}
	}
	dev.stop()
}

func TestTheImageAndItsListOfModulesHaveThatVersion(t *testing.T) {
	for path, want := range map[string][]string{
		"deploy/Dockerfile":  {"-X " + versionVariable + "=$VERSION", "git describe --tags --always"},
		"docker-compose.yml": {`VERSION: "${VERSION:-}"`},
		"Makefile": {
			"git describe --tags --always", "-X " + versionVariable + "=$(VERSION)", `-version "$(VERSION)"`,
			"--build-arg VERSION=$(VERSION)", "--label org.opencontainers.image.version=$(VERSION)",
		},
	} {
		for _, part := range want {
			if !strings.Contains(readFile(t, root+path), part) {
				t.Errorf("%s does not have %s", path, part)
			}
		}
	}
}
