package browsertest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Script runs a JavaScript file with Node, where playwright-core can be required. It finds
// Chromium's path in CHROMIUM, and the folder for pictures in SCREENSHOTS, which may be
// empty. root is the way to the project's folder. The test fails if the script does.
func Script(t testing.TB, root, file string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // against a hang; a busy machine needs two
	defer cancel()
	modules, err := filepath.Abs(filepath.Join(root, ".bin/npm/node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "playwright-core")); err != nil {
		t.Fatalf("this test needs the packages of .ci/package.json: run 'make .bin/npm/installed' (%v)", err)
	}
	cmd := exec.CommandContext(ctx, "node", append([]string{file}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "CHROMIUM="+browser(t))
	// Chromium's own processes end with Node's pipe to them.
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", file, err, strings.TrimSpace(string(out)))
	}
}
