package execdriver

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"batchreset/worker"
)

func TestMain(m *testing.M) {
	if script := os.Getenv(workerScript); script != "" {
		beWorker(script)
		return
	}
	goleak.VerifyTestMain(m)
}

// logs are what a driver has logged.
type logs struct {
	mu    sync.Mutex
	lines []string
}

func (l *logs) add(_ worker.Attempt, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, text)
}

// open makes a driver that runs a script, or the command of its settings.
func open(t testing.TB, cfg Config, script string) (Driver, *logs) {
	t.Helper()
	if cfg.Command == nil {
		cfg.Command = []string{"sh", "-c", script}
	}
	said := &logs{}
	d, err := New(cfg, said.add)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, said
}

// reset runs a script once.
func reset(t *testing.T, cfg Config, script string) error {
	t.Helper()
	d, _ := open(t, cfg, script)
	return d.Reset(limited(t), attempt())
}

// limited is a context for a driver that would hang.
func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// attempt is a first attempt.
func attempt() worker.Attempt {
	return worker.Attempt{
		InstanceID: "phone-1", Address: "10.0.0.7:5555", Labels: map[string]string{"rack": "b"},
		ItemID: "job-0", Number: 1, Key: "KEY1",
		MaySend: func() error { return nil },
		Save:    func(context.Context, string) error { return nil },
	}
}

// wantVerdict checks the verdict of an error and returns its account.
func wantVerdict(t *testing.T, err error, want worker.Verdict) worker.DriverError {
	t.Helper()
	e, ok := errors.AsType[*worker.DriverError](err)
	if !ok || e.Verdict != want {
		t.Fatalf("got %v, want it %s", err, want)
	}
	return *e
}

func TestTheRequest(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "request")
	d, _ := open(t, Config{}, `cat >`+file+`; echo '{"result":"done"}'`)
	a := attempt()
	a.InstanceID, a.Ambiguous, a.Checkpoint = `a"<b`, true, "job 7"
	ctx := limited(t)
	end, _ := ctx.Deadline()
	if err := d.Reset(ctx, a); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Count(string(text), "\n") != 1 || !strings.HasSuffix(string(text), "\n") {
		t.Fatalf("it reads %q, %v", text, err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	deadline, err := time.Parse(time.RFC3339, got["deadline"].(string))
	if early := end.Sub(deadline).Round(time.Second); err != nil || early != 10*time.Second {
		t.Errorf("the deadline is %s before the attempt's, %v", early, err)
	}
	delete(got, "deadline")
	want := map[string]any{
		"version": 1.0, "mode": "reset", "instance_id": `a"<b`, "address": "10.0.0.7:5555", "item_id": "job-0",
		"attempt": 1.0, "driver_key": "KEY1", "ambiguous": true, "checkpoint": "job 7", "labels": map[string]any{"rack": "b"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestARequestThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	a := attempt()
	a.Labels = map[string]string{"long": strings.Repeat("x", 1<<20)} // more than a pipe holds
	for _, script := range []string{`echo '{"result":"done"}'`, `exec <&-; echo '{"result":"done"}'`} {
		d, _ := open(t, Config{}, script)
		if err := d.Reset(limited(t), a); err != nil {
			t.Errorf("%s: %v", script, err)
		}
	}
	l := newLeaver(t)
	d, _ := open(t, Config{}, `exec 3<&0; `+l.script(`exec sleep 600`)+`; echo '{"result":"done"}'`) // it has the pipe
	if err := d.Reset(limited(t), a); err != nil {
		t.Error(err)
	}
	if l.end(t) {
		t.Error("who had left the group was waited for")
	}
}

func TestOnlyNamedVariablesArePassedOn(t *testing.T) {
	t.Setenv("EXECDRIVER_TOKEN", "told=it")
	t.Setenv("EXECDRIVER_SECRET", "hunter2")
	file := filepath.Join(t.TempDir(), "env")
	if err := reset(t, Config{Env: []string{"EXECDRIVER_TOKEN"}}, `env >`+file+`; echo '{"result":"done"}'`); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	got := "\n" + string(text)
	if err != nil || !strings.Contains(got, "\nEXECDRIVER_TOKEN=told=it\n") || !strings.Contains(got, "\nPATH="+os.Getenv("PATH")+"\n") ||
		strings.Contains(got, "hunter2") || strings.Contains(got, "\nHOME=") {
		t.Errorf("it has %s, %v", text, err)
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	for _, row := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "command must begin with a program"},
		{Config{Command: []string{""}}, "command must begin with a program"},
		{Config{Command: []string{"./reset"}}, "command must begin with an absolute path or a name"},
		{Config{Command: []string{"sh", "a\x00b"}}, "command must not have a NUL"},
		{Config{Command: []string{"no-such-program-anywhere"}}, "command cannot be run"},
		{Config{Command: []string{"/etc/passwd"}}, "command cannot be run"},
		{Config{Command: []string{"sh"}, Env: []string{"A=b"}}, `env must list names of variables, not "A=b"`},
		{Config{Command: []string{"sh"}, Env: []string{""}}, "env must list names"},
		{Config{Command: []string{"sh"}, Env: []string{"EXECDRIVER_NOT_SET"}}, "env lists EXECDRIVER_NOT_SET, which is not set"},
		{Config{Command: []string{"sh"}, Look: true, ExitStatus: true}, "look cannot go with exit_status"},
	} {
		if d, err := New(row.cfg, nil); err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%+v: %v, %v", row.cfg, d, err)
		}
	}
}

func TestCheckFindsAProgramThatHasGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reset")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	d, _ := open(t, Config{Command: []string{path}}, "")
	if err := d.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.Check(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "command cannot be run") {
		t.Errorf("not executable: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := d.Check(t.Context()); err == nil {
		t.Error("it has gone, and Check does not say so")
	}
	e := wantVerdict(t, d.Reset(limited(t), attempt()), worker.Unreachable)
	if !strings.Contains(e.Message, "was not started") {
		t.Errorf("got %+v", e)
	}
}

func TestOnlyAProgramThatSaysSoIsALooker(t *testing.T) {
	for _, looks := range []bool{false, true} {
		d, _ := open(t, Config{Look: looks}, "")
		if _, is := d.(worker.Looker); is != looks || d.Repeatable() {
			t.Errorf("look: %t, and it is a Looker: %t, repeatable: %t", looks, is, d.Repeatable())
		}
	}
	if d, _ := open(t, Config{Repeatable: true}, ""); !d.Repeatable() {
		t.Error("repeatable: true, and it is not")
	}
}

func TestARequestThatCannotBeWrittenIsPermanent(t *testing.T) {
	d, _ := open(t, Config{}, "")
	a := attempt()
	a.Address = "\xff"
	a.MaySend = func() error { t.Error("asked"); return nil }
	wantVerdict(t, d.Reset(limited(t), a), worker.Permanent)
}
