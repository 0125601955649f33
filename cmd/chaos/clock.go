package main

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"batchreset/cmd/chaos/fault"
)

const (
	// clockEnv names the file that says how wrong a process's clock is. The program
	// under test and Redis read it through what is below.
	clockEnv = "CHAOS_CLOCK"
	// redisSkew is how far a Redis server's clock may be from the right time, each way:
	// two of them differ by twice that, and so far one may step. The design allows 10 s.
	redisSkew = 5 * time.Second
	// processSkew is the same for api and worker, which the design allows anything.
	processSkew = 100 * time.Second
)

// wrongClock is put in front of the clock functions of the C library.
//
//go:embed clock.c.txt
var wrongClock []byte

// wrongNow is put into Go's package time, in the program under test only.
//
//go:embed clock.go.txt
var wrongNow []byte

// clock is the wrong clock of one process.
type clock struct{ path string }

// newClock makes a clock that is right, in a file in dir.
func newClock(dir, process string) (clock, error) {
	path, err := filepath.Abs(filepath.Join(dir, process+".clock"))
	if err != nil {
		return clock{}, err
	}
	return clock{path}, os.WriteFile(path, make([]byte, 8), 0o600)
}

// set makes the clock wrong by so much, at once; the process has the file mapped.
func (c clock) set(wrong time.Duration) error {
	f, err := os.OpenFile(c.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // written or not, which WriteAt says
	var raw [8]byte
	binary.NativeEndian.PutUint64(raw[:], uint64(wrong))
	_, err = f.WriteAt(raw[:], 0)
	return err
}

// env is what a process of the Go program needs to have this clock.
func (c clock) env() []string { return []string{clockEnv + "=" + c.path} }

// buildClockLibrary compiles what goes in front of the C library's clock.
func buildClockLibrary(ctx context.Context, dir string) (library string, err error) {
	source := filepath.Join(dir, "clock.c")
	if library, err = filepath.Abs(filepath.Join(dir, "clock.so")); err != nil {
		return "", err
	}
	if err := os.WriteFile(source, wrongClock, 0o600); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s needs a C compiler, or leave it out of --faults: %w: %s", fault.RedisClock, err, out)
	}
	return library, nil
}

// overlay writes what makes 'go build' put wrongNow into package time.
func overlay(ctx context.Context, dir string) (file string, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	raw, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		return "", err
	}
	const was, is = "sec, nsec, mono := runtimeNow()", "sec, nsec, mono := wrongNow()"
	if strings.Count(string(raw), was) != 1 {
		return "", fmt.Errorf("package time of this Go does not ask for the time as expected: leave %s and %s out of --faults", fault.APIClock, fault.WorkerClock)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	patched, added := filepath.Join(dir, "time.go"), filepath.Join(dir, "wrong_now.go")
	file = filepath.Join(dir, "overlay.json")
	for name, content := range map[string]string{
		patched: strings.Replace(string(raw), was, is, 1),
		added:   string(wrongNow),
		file: fmt.Sprintf(`{"Replace":{%q:%q,%q:%q}}`,
			filepath.Join(source, "time.go"), patched, filepath.Join(source, "wrong_now.go"), added),
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	return file, nil
}

// wrongable reports whether a binary was built with the overlay.
func wrongable(binary string) (bool, error) {
	raw, err := os.ReadFile(binary)
	return strings.Contains(string(raw), clockEnv), err
}
