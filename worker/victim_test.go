package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/worker"
	"batchreset/worker/httpdriver"
)

// TestMain is that of both test packages of this folder. The test binary is also the
// worker process that dies or freezes in death_test.go.
func TestMain(m *testing.M) {
	if fate := os.Getenv(fateVariable); fate != "" {
		if err := runChild(fate); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const (
	fateVariable = "BATCHRESET_TEST_FATE"
	queue        = "reset-0"
	patience     = 30 * time.Second // for something that takes less than a second
)

// phase is a point in the course of an attempt.
type phase string

const (
	beforeBegin  phase = "before the attempt has begun"
	afterBegin   phase = "after the attempt has begun, before the driver"
	inDriver     phase = "in the driver, before it connects"
	connected    phase = "in the driver, before it sends"
	received     phase = "in the driver, after the call was received"
	beforeSave   phase = "in the driver, before the checkpoint is saved"
	afterSave    phase = "in the driver, after the checkpoint was saved"
	beforeFinish phase = "after the driver, before the outcome is written"
	afterFinish  phase = "after the outcome was written, before asynq knows"
)

// fate is what a child process does, and what is done to it.
type fate struct {
	Redis, Plane string
	Idempotent   bool
	Timeout      time.Duration // of an attempt
	Phase        phase         // where it sends itself the signal
	Instance     string        // at whose attempts; empty: at any
	Signal       syscall.Signal
}

// runChild is the main function of a child process. It is a worker like any other but
// for what happens to it in one phase.
func runChild(text string) error {
	var f fate
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return err
	}
	go func() { // the parent is gone
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(2)
	}()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	db, err := redisdb.Open(ctx, redisdb.Options{URL: f.Redis})
	if err != nil {
		return err
	}
	driver, err := httpdriver.New(httpdriver.Config{URL: f.Plane, Idempotent: f.Idempotent})
	if err != nil {
		return err
	}
	v := &victim{Store: worker.StoreOf(db), Driver: driver, fate: f, thawed: make(chan os.Signal, 1)}
	signal.Notify(v.thawed, syscall.SIGCONT)
	store := v.Store
	store.Attempts = v
	w, err := worker.New(config(f.Timeout), store, v, db.Redis.NewServer, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

// config leaves no failure to an item: a lost attempt must not be one.
func config(timeout time.Duration) worker.Config {
	return worker.Config{
		QueuesOf:    func(context.Context, string) ([]string, error) { return []string{queue}, nil },
		Concurrency: 2, Lanes: 1, MaxAttempts: 1,
		AttemptTimeout: timeout, ShutdownTimeout: time.Minute,
	}
}

// victim is a store and a driver in one, in which the process is hit in one phase.
type victim struct {
	worker.Store
	*httpdriver.Driver
	fate
	thawed chan os.Signal
}

// reach does not return in the phase in which the process is hit, unless it is thawed:
// a signal to oneself may take effect a moment later.
func (v *victim) reach(p phase, instance string) {
	if p == v.Phase && (v.Instance == "" || v.Instance == instance) {
		_ = syscall.Kill(os.Getpid(), v.Signal)
		<-v.thawed
	}
}

func (v *victim) Begin(ctx context.Context, d tasks.Delivery, token, key string, lock time.Duration) (tasks.Begun, error) {
	v.reach(beforeBegin, d.InstanceID)
	begun, err := v.Store.Begin(ctx, d, token, key, lock)
	v.reach(afterBegin, d.InstanceID)
	return begun, err
}

func (v *victim) Reset(ctx context.Context, a worker.Attempt) error {
	v.reach(inDriver, a.InstanceID)
	return v.Driver.Reset(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { v.reach(connected, a.InstanceID) },
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			v.reach(received, a.InstanceID)
			return nil
		},
	}), a)
}

func (v *victim) Checkpoint(ctx context.Context, d tasks.Delivery, token, checkpoint string) error {
	v.reach(beforeSave, d.InstanceID)
	err := v.Store.Checkpoint(ctx, d, token, checkpoint)
	v.reach(afterSave, d.InstanceID)
	return err
}

func (v *victim) Finish(ctx context.Context, d tasks.Delivery, token string, o tasks.Outcome, unlock bool) (tasks.Ended, error) {
	v.reach(beforeFinish, d.InstanceID)
	ended, err := v.Store.Finish(ctx, d, token, o, unlock)
	v.reach(afterFinish, d.InstanceID)
	return ended, err
}

// child is a worker process.
type child struct {
	cmd   *exec.Cmd
	log   bytes.Buffer // not to be read before it has ended
	ended chan struct{}
}

func (s *scene) startChild(t *testing.T, sig syscall.Signal, at phase, instance string) *child {
	t.Helper()
	f := s.child
	f.Signal, f.Phase, f.Instance = sig, at, instance
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.CommandContext(t.Context(), binary), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), fateVariable+"="+string(text))
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	// Should this process be killed, the child reads the end of its input. If it is
	// frozen, the kernel hangs up on it, because it is in a group of its own.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		_ = c.cmd.Wait() // its state says more
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.ended
		if t.Failed() {
			t.Logf("the child's log:\n%s", &c.log)
		}
	})
	return c
}

// wait returns how the child has ended.
func (c *child) wait(t *testing.T) syscall.WaitStatus {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		t.Fatal("waited in vain: the child ends")
	}
	return c.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func (c *child) waitKilled(t *testing.T) {
	t.Helper()
	if status := c.wait(t); status.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %s", c.cmd.ProcessState)
	}
}

func (c *child) waitFrozen(t *testing.T) {
	t.Helper()
	harness.Eventually(t, patience, "the child freezes", func() bool {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(c.cmd.Process.Pid, &status, syscall.WNOHANG|syscall.WUNTRACED, nil)
		if err != nil || pid != 0 && !status.Stopped() {
			t.Fatalf("the child ended instead, %v", err)
		}
		return pid != 0
	})
}

// thaw lets the child go on, and end when it has nothing more to do.
func (c *child) thaw(t *testing.T) {
	t.Helper()
	for _, sig := range []os.Signal{syscall.SIGCONT, syscall.SIGTERM} {
		if err := c.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if status := c.wait(t); !status.Exited() || status.ExitStatus() != 0 {
		t.Fatalf("the child ended with %s", c.cmd.ProcessState)
	}
}
