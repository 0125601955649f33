package execdriver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"batchreset/cmd/harness"
	"batchreset/worker"
)

// read returns what is in a file, which is nothing if there is none.
func read(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// leaver is a process that leaves the process group of the program that starts it.
type leaver struct{ file string }

func newLeaver(t *testing.T) leaver { return leaver{filepath.Join(t.TempDir(), "pid")} }

// script starts it, and waits until it has left. Not every system has setsid.
func (l leaver) script(does string) string {
	return `python3 -c 'import os, sys; os.setsid(); os.execvp("sh", ["sh", "-c", sys.argv[1]])' 'echo $$ >` + l.file + `.new; mv ` + l.file + `.new ` + l.file + `; ` + does + `' &
		while ! [ -e ` + l.file + ` ]; do sleep 0.01; done`
}

// end ends it, and says whether it had ended already.
func (l leaver) end(t *testing.T) bool {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, l.file)))
	if err != nil {
		t.Fatal(err)
	}
	before := harness.HasEnded(pid)
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	harness.Eventually(t, time.Minute, "the process ends", func() bool { return harness.HasEnded(pid) })
	return before
}

// wantEnd waits until the process whose number is in a file has ended.
func wantEnd(t *testing.T, file string) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, time.Minute, "the process ends", func() bool { return harness.HasEnded(pid) })
}

// stopped runs a script that writes a checkpoint once it is ready, and then stops its attempt.
func stopped(t *testing.T, cfg Config, stop time.Duration, script string) error {
	t.Helper()
	d, _ := open(t, cfg, script)
	d.(*program).times.stop = stop
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := attempt()
	a.Save = func(context.Context, string) error { cancel(); return nil }
	return d.Reset(ctx, a)
}

func TestAProgramWhoseAttemptIsStopped(t *testing.T) {
	t.Parallel()
	const ready = `echo '{"checkpoint":"ready"}'; `
	for _, row := range []struct {
		name, script string
		cfg          Config
		stop         time.Duration
		want         worker.Verdict
		message      string
	}{
		{"is told so, and is in doubt", ready + `exec sleep 600`, Config{}, time.Minute, worker.Unknown, "it was told to stop, and it ended with signal: terminated"},
		{"is killed if it does not listen", `trap '' TERM; ` + ready + `while :; do sleep 1; done`, Config{}, 10 * time.Millisecond, worker.Unknown, "it ended with signal: killed"},
		{"can say how far it came", `trap 'echo "{\"result\":\"retry\"}"; exit' TERM; ` + ready + `sleep 600 & wait`, Config{}, time.Minute, worker.Retryable, ""},
		{"is done if it says so", `trap 'echo "{\"result\":\"done\"}"; exit 0' TERM; ` + ready + `sleep 600 & wait`, Config{}, time.Minute, isDone, ""},
		{"is in doubt if it just exits", `trap 'exit 0' TERM; ` + ready + `sleep 600 & wait`, Config{}, time.Minute, worker.Unknown, "exit status 0"},
		{"is in doubt if it exits, plain script or not", `trap 'exit 0' TERM; ` + ready + `sleep 600 & wait`, Config{ExitStatus: true}, time.Minute, worker.Unknown, "exit status 0"},
		{"is in doubt if it exits with a status that has a meaning", `trap 'exit 75' TERM; ` + ready + `sleep 600 & wait`, Config{ExitStatus: true}, time.Minute, worker.Unknown, "exit status 75"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			err := stopped(t, row.cfg, row.stop, row.script)
			if row.want == isDone {
				if err != nil {
					t.Error(err)
				}
				return
			}
			e := wantVerdict(t, err, row.want)
			if !strings.Contains(e.Message, row.message) || e.Repeatable != (row.want == worker.Unknown) { // it had a checkpoint
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestAProgramThatTakesTooLongIsToldBeforeTheAttemptEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // so it has three
	defer cancel()
	d, _ := open(t, Config{}, `echo '{"progress":"waiting for the boot"}'; exec sleep 600`)
	e := wantVerdict(t, d.Reset(ctx, attempt()), worker.Unknown)
	if ctx.Err() != nil || !strings.Contains(e.Message, `its time was over, and it ended with signal: terminated; its last progress was "waiting for the boot"`) || e.Code != "" || e.Repeatable {
		t.Errorf("got %+v, the context: %v", e, ctx.Err())
	}

	ctx, cancel = context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	d, _ = open(t, Config{}, `trap '' TERM; while :; do sleep 1; done`)
	start := time.Now()
	wantVerdict(t, d.Reset(ctx, attempt()), worker.Unknown)
	if took := time.Since(start); took > 20*time.Second || ctx.Err() == nil {
		t.Errorf("one that does not listen: after %s, the context: %v", took, ctx.Err())
	}
}

func TestALookEndsInTime(t *testing.T) {
	t.Parallel()
	d, _ := open(t, Config{Look: true}, `exec sleep 600`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if sight, err := d.(worker.Looker).Look(ctx, attempt()); err == nil || !strings.Contains(err.Error(), "did not say what it saw") {
		t.Errorf("%+v, %v", sight, err)
	}
}

func TestTimes(t *testing.T) {
	now := time.Now()
	for _, row := range []struct{ limit, soft time.Duration }{
		{10 * time.Minute, 10*time.Minute - 10*time.Second},
		{40 * time.Second, 30 * time.Second},
		{4 * time.Second, 3 * time.Second},
	} {
		ctx, cancel := context.WithDeadline(t.Context(), now.Add(row.limit))
		if off := usualTimes.soft(ctx).Sub(now.Add(row.soft)).Abs(); off > 2*time.Second {
			t.Errorf("of %s: %s off", row.limit, off)
		}
		cancel()
	}
	if soft := usualTimes.soft(t.Context()); !soft.IsZero() {
		t.Errorf("without a limit: %s", soft)
	}
}

func TestWhatAProgramLeavesInItsGroupIsKilled(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{
		"after a result": `echo '{"result":"done"}'`,
		"after a crash":  `kill -9 $$`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pid")
			_ = reset(t, Config{}, `(trap '' TERM; exec sleep 600) & echo $! >`+file+`; `+end) // which holds the pipes
			wantEnd(t, file)
		})
	}
}

func TestWhoLeavesTheGroupHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for name, does := range map[string]string{
		"and is silent":   `exec sleep 600`,
		"and talks on":    `while :; do echo x; sleep 0.1; done`,
		"and never stops": `exec yes`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLeaver(t)
			d, _ := open(t, Config{ExitStatus: true}, l.script(does))
			err := d.Reset(limited(t), attempt())
			if l.end(t) && name == "and is silent" { // others notice that nobody listens any more
				t.Error("it was killed, or waited for")
			}
			if e, ok := errors.AsType[*worker.DriverError](err); ok && (e.Code != worker.NotUnderstood || name != "and never stops") {
				t.Error(err)
			}
		})
	}
}

func TestALongOutputIsReadButNotKept(t *testing.T) {
	for name, script := range map[string]string{
		"one line":           `head -c 10000000 /dev/zero | tr '\0' x`,
		"lines that count":   `yes '{"progress":"still at it, still at it, still at it, still at it"}' | head -c 10000000`,
		"lines that do not":  `yes x | head -c 10000000`,
		"binary":             `head -c 10000000 /dev/zero`,
		"and standard error": `yes x | head -c 10000000 >&2; echo '{"result":"what"}'`,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "end")
			d, said := open(t, Config{}, script+`; echo '{"result":"done"}'; echo end >`+file)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			e := wantVerdict(t, d.Reset(limited(t), attempt()), worker.Unknown)
			runtime.ReadMemStats(&after)
			if e.Code != worker.NotUnderstood || !strings.Contains(e.Message, "was not understood") {
				t.Errorf("got %+v", e)
			}
			if read(t, file) == "" {
				t.Error("it was stopped half-way")
			}
			// All that was ever allocated, most of which is garbage after each line.
			if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
				t.Errorf("%d bytes were allocated for it", used)
			}
			for _, text := range said.lines {
				if len(text) > maxLog {
					t.Errorf("%d bytes are logged", len(text))
				}
			}
		})
	}
}

func TestTheEndOfStandardErrorIsLogged(t *testing.T) {
	t.Parallel()
	d, said := open(t, Config{}, `head -c 100000 /dev/zero | tr '\0' x >&2; printf 'one\ntwo\033[2J\n' >&2; echo '{"result":"done"}'`)
	if err := d.Reset(limited(t), attempt()); err != nil {
		t.Error(err)
	}
	if len(said.lines) != 1 || len(said.lines[0]) > maxLog || !strings.Contains(said.lines[0], "xone two[U+001B][2J") {
		t.Errorf("logged %.200q", said.lines)
	}
	d, said = open(t, Config{}, `echo >&2; echo '{"result":"done"}'`)
	if err := d.Reset(limited(t), attempt()); err != nil || len(said.lines) != 0 {
		t.Errorf("nothing to say: %q, %v", said.lines, err)
	}
}

func TestLastBytes(t *testing.T) {
	for length := range 40 {
		text := strings.Repeat("0123456789", 4)[:length]
		if got, want := lastBytes(strings.NewReader(text), 8), text[max(0, length-8):]; got != want {
			t.Errorf("of %q: %q", text, got)
		}
	}
}

func TestCheckpointsAreSavedInOrderAndWhileTheAttemptEnds(t *testing.T) {
	t.Parallel()
	d, _ := open(t, Config{}, `
		trap 'echo "{\"checkpoint\":\"3\"}"; exit' TERM
		echo '{"checkpoint":"1"}'; echo '{"checkpoint":"2"}'
		sleep 600 & wait`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var saved []string
	a := attempt()
	a.Save = func(saving context.Context, checkpoint string) error {
		if _, limited := saving.Deadline(); saving.Err() != nil || !limited {
			t.Errorf("%s: %v, limited %t", checkpoint, saving.Err(), limited)
		}
		if saved = append(saved, checkpoint); len(saved) == 2 {
			cancel()
		}
		return nil
	}
	if e := wantVerdict(t, d.Reset(ctx, a), worker.Unknown); !e.Repeatable || fmt.Sprint(saved) != "[1 2 3]" {
		t.Errorf("saved %v, %+v", saved, e)
	}
}

func TestARunTakesNoThread(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux tells how many there are")
		return
	}
	const runs = 200
	threads := func() int {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	d, _ := open(t, Config{}, `echo '{"checkpoint":"ready"}'; exec sleep 600`)
	before := threads()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var ready atomic.Int32
	var all sync.WaitGroup
	for range runs {
		all.Go(func() {
			a := attempt()
			a.Save = func(context.Context, string) error { ready.Add(1); return nil }
			wantVerdictLater(t, d.Reset(ctx, a))
		})
	}
	harness.Eventually(t, 2*time.Minute, "all run", func() bool { return ready.Load() == runs })
	if more := threads() - before; more > runs/4 {
		t.Errorf("%d threads for %d runs", more, runs)
	}
	cancel()
	all.Wait()
}

// wantVerdictLater checks that a run is in doubt, from any goroutine.
func wantVerdictLater(t *testing.T, err error) {
	if e, ok := errors.AsType[*worker.DriverError](err); !ok || e.Verdict != worker.Unknown {
		t.Errorf("got %v", err)
	}
}

func TestAProgramWithoutPipesIsNotStarted(t *testing.T) {
	// A file descriptor limit that is reached, as a worker with too many runs has it.
	d, _ := open(t, Config{}, `echo '{"result":"done"}'`)
	a := attempt()
	a.MaySend = func() error { t.Error("asked"); return nil }
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	err := d.Reset(limited(t), a)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if e := wantVerdict(t, err, worker.Unreachable); !strings.Contains(e.Message, "too many open files") {
		t.Errorf("got %+v", e)
	}
}

// workerScript is set for the copy of this test binary that is a worker to be killed. It is what
// the worker's program runs.
const workerScript = "EXECDRIVER_TEST_WORKER"

// beWorker makes one attempt.
func beWorker(script string) {
	d, err := New(Config{Command: []string{"sh", "-c", script}}, func(worker.Attempt, string) {})
	if err != nil {
		panic(err)
	}
	a := attempt()
	a.Save = func(_ context.Context, checkpoint string) error {
		_, err := fmt.Println(checkpoint)
		return err
	}
	_ = d.Reset(context.Background(), a) // it is killed before
}

func TestAProgramDoesNotOutliveItsWorker(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux sees to that")
		return
	}
	t.Parallel()
	pid, kill := harness.StartAgain(t, workerScript+`=trap "" TERM; echo "{\"checkpoint\":\"$$\"}"; while :; do sleep 0.1; done`)
	runtime.GC() // threads come and go, and the program stays
	if harness.HasEnded(pid) {
		t.Error("it ended before its worker")
	}
	kill()
	harness.Eventually(t, time.Minute, "the program ends", func() bool { return harness.HasEnded(pid) })
}
