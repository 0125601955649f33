package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// starter is set for the copy of this test binary that starts a process and waits.
const starter = "HARNESS_TEST_STARTER"

func TestMain(m *testing.M) {
	if os.Getenv(starter) != "" {
		p, err := Start(context.Background(), Command{Name: "sleeper", Args: []string{"sleep", "600"}})
		if err != nil {
			panic(err)
		}
		fmt.Println(p.PID())
		_ = p.Wait() // it is killed before
		return
	}
	goleak.VerifyTestMain(m)
}

// shell starts a script that is killed with the test.
func shell(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(context.WithoutCancel(t.Context()), Command{
		Name: "script", Args: []string{"sh", "-c", script}, Log: filepath.Join(t.TempDir(), "log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestCheckSaysHowAProcessEnded(t *testing.T) {
	for _, row := range []struct{ script, want string }{
		{"echo first; echo last", "script ended: exit status 0; the last line of its log: last"},
		{"echo no >&2; exit 3", "script ended: exit status 3; the last line of its log: no"},
		{"kill -TERM $$", "script ended: signal: terminated; the last line of its log: "},
	} {
		p := shell(t, row.script)
		<-p.Ended()
		if err := p.Check(); err == nil || err.Error() != row.want {
			t.Errorf("%s:\ngot  %v\nwant %s", row.script, err, row.want)
		}
	}
	p := shell(t, "exec sleep 600")
	if err := p.Check(); err != nil {
		t.Errorf("it runs: %v", err)
	}
	p.Kill()
	if err := p.Check(); err != nil {
		t.Errorf("it was killed: %v", err)
	}
}

func TestWaitReadyFailsWhenTheProcessEnds(t *testing.T) {
	never := func(context.Context) error { return errors.New("not ready") }
	err := shell(t, "exit 3").WaitReady(t.Context(), time.Hour, never)
	if err == nil || !strings.HasPrefix(err.Error(), "script ended: exit status 3") {
		t.Errorf("got %v", err)
	}
	err = shell(t, "exec sleep 600").WaitReady(t.Context(), 10*time.Millisecond, never)
	if err == nil || !strings.HasSuffix(err.Error(), "not ready") {
		t.Errorf("got %v", err)
	}
}

func TestStop(t *testing.T) {
	if err := shell(t, "exec sleep 600").Stop(time.Minute); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("one that ends at SIGTERM: %v", err)
	}
	deaf := shell(t, "trap '' TERM; echo deaf; exec sleep 600")
	if err := Until(t.Context(), time.Minute, func(context.Context) error {
		if text, _ := os.ReadFile(deaf.Log); len(text) == 0 {
			return errors.New("it does not ignore signals yet")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := deaf.Stop(10 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "does not stop within 10ms") {
		t.Errorf("one that ignores it: %v", err)
	}
	select {
	case <-deaf.Ended():
	default:
		t.Error("it still runs")
	}
}

func TestARestartedProcessAddsToItsLog(t *testing.T) {
	p := shell(t, "echo run")
	<-p.Ended()
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(p.Log); string(text) != "run\nrun\n" || err != nil {
		t.Errorf("the log is %q, %v", text, err)
	}
}

func TestAProcessIsKilledWhenItsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, err := Start(ctx, Command{Name: "sleeper", Args: []string{"sleep", "600"}})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-p.Ended()
	if err := p.Check(); err != nil {
		t.Errorf("that was meant: %v", err)
	}
}

func TestAProcessDoesNotOutliveAKilledStarter(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux sees to that")
		return
	}
	pid, kill := StartAgain(t, starter+"=1")
	kill()
	wantEnd(t, pid)
}

// wantEnd waits until a process that is not our child has ended.
func wantEnd(t *testing.T, pid int) {
	t.Helper()
	Eventually(t, time.Minute, "the process ends", func() bool { return HasEnded(pid) })
}

func TestChildrenAreKilledToo(t *testing.T) {
	p := shell(t, "sleep 600 & echo $!; wait")
	var pid int
	Eventually(t, time.Minute, "the child starts", func() bool {
		text, err := os.ReadFile(p.Log)
		if err != nil || !strings.HasSuffix(string(text), "\n") {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	p.Kill()
	wantEnd(t, pid)
}

func TestFreeAddr(t *testing.T) {
	one, err := FreeAddr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	two, err := FreeAddr(t.Context())
	if err != nil || one == two {
		t.Errorf("%s and then %s, %v", one, two, err)
	}
	_, err = freeAddr(func(string) error { return errors.New("in use") })
	if want := "no free port on 127.0.0.1: in use"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
