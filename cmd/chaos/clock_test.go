package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/harness"
)

// off is how wrong a clock that shows this time is.
func off(shown time.Time) time.Duration { return time.Until(shown).Round(time.Second) }

func TestTheClockOfARedisServerIsWrongAndSteps(t *testing.T) {
	dir := t.TempDir()
	library, err := buildClockLibrary(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newClock(dir, "redis")
	if err != nil {
		t.Fatal(err)
	}
	r, err := harness.RedisSetup{
		Dir: dir, Env: func(string) ([]string, error) { return append(c.env(), "LD_PRELOAD="+library), nil },
	}.StartSingle(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	client := r.Client()
	t.Cleanup(func() { _ = client.Close() })
	ask := func() time.Duration {
		t.Helper()
		shown, err := client.Time(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		return off(shown)
	}
	for _, wrong := range []time.Duration{0, 5 * time.Second, -7 * time.Second, time.Hour} {
		if err := c.set(wrong); err != nil {
			t.Fatal(err)
		}
		if got := ask(); got != wrong {
			t.Errorf("the clock is wrong by %s, not %s", got, wrong)
		}
	}
}

func TestTheClockOfAGoProgramIsWrong(t *testing.T) {
	dir := t.TempDir()
	file, err := overlay(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	const program = `package main

import "time"

func main() {
	begin := time.Now()
	println(begin.Unix(), time.Since(begin) < time.Minute)
}
`
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", file, "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if able, err := wrongable(binary); err != nil || !able {
		t.Errorf("not known as one whose clock can be made wrong: %v, %v", able, err)
	}
	for _, wrong := range []time.Duration{0, -time.Hour, 100 * time.Second} {
		c, err := newClock(dir, "program")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.set(wrong); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), binary)
		cmd.Env = append(os.Environ(), c.env()...)
		out, err := cmd.CombinedOutput()
		seconds, monotonic, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
		shown, parseErr := strconv.ParseInt(seconds, 10, 64)
		if err != nil || parseErr != nil || monotonic != "true" {
			t.Fatalf("%v, %v: %s", err, parseErr, out)
		}
		if got := off(time.Unix(shown, 0)); (got - wrong).Abs() > 5*time.Second {
			t.Errorf("the clock is wrong by %s, not %s", got, wrong)
		}
	}
}
