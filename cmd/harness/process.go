package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Command is a program with its arguments, to be run as a process.
type Command struct {
	Name string   // in errors
	Args []string // the program, then its arguments
	Env  []string // added to the environment of this process
	Dir  string   // where it runs; empty: where this process runs
	// Log is a file to which all output is appended; empty: output goes to Stdout and Stderr,
	// or nowhere.
	Log            string
	Stdout, Stderr io.Writer
}

// Process is a command that has been started. Its methods may be called at the same time.
type Process struct {
	Command // change it only between two runs

	mu  sync.Mutex
	run *run // the present one, or the last
}

// run is one run of a command.
type run struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	err    error // of cmd.Wait, once ended
	killed bool  // by Kill or Stop, or because ctx has ended; guarded by Process.mu
}

// Start starts a command as a process. It is killed when ctx ends.
func Start(ctx context.Context, c Command) (*Process, error) {
	p := &Process{Command: c}
	return p, p.Restart(ctx)
}

// Restart starts the command again. Its process must have ended.
func (p *Process) Restart(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, p.Args[0], p.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = append(os.Environ(), p.Env...), p.Dir, p.Stdout, p.Stderr
	cmd.SysProcAttr = attributes()
	if p.Log != "" {
		log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer func() { _ = log.Close() }() // the process has its own descriptor
		cmd.Stdout, cmd.Stderr = log, log
	}
	next := &run{cmd: cmd, ended: make(chan struct{})}
	cmd.Cancel = func() error { return p.kill(next) }
	started := make(chan error)
	go func() {
		// The kernel kills the process when the thread ends that has started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			next.err = cmd.Wait()
			close(next.ended)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.run = next
	return nil
}

func (p *Process) current() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

// PID is the number of the process.
func (p *Process) PID() int { return p.current().cmd.Process.Pid }

// Ended is closed when the process ends.
func (p *Process) Ended() <-chan struct{} { return p.current().ended }

// Wait waits until the process has ended and returns how, as [exec.Cmd.Wait] does.
func (p *Process) Wait() error {
	r := p.current()
	<-r.ended
	return r.err
}

// State waits until the process has ended and returns how.
func (p *Process) State() *os.ProcessState {
	r := p.current()
	<-r.ended
	return r.cmd.ProcessState
}

// Signal sends a signal to the process. It fails if the process has ended.
func (p *Process) Signal(s os.Signal) error {
	if err := p.current().cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// Kill ends the process with SIGKILL, if it still runs, and waits for it. Its children end with
// it: a Redis that rewrites its file would leave one that goes on to write.
func (p *Process) Kill() {
	r := p.current()
	_ = p.kill(r) // it may have ended
	<-r.ended
}

func (p *Process) kill(r *run) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.killed = true
	select {
	case <-r.ended: // its number may be somebody else's now
		return os.ErrProcessDone
	default:
	}
	if err := syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return os.ErrProcessDone
}

// Stop asks the process to end, with SIGTERM as a service manager does, and returns how it
// ended. A process that still runs after limit is killed, and that is an error.
func (p *Process) Stop(limit time.Duration) error {
	r := p.current()
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-r.ended:
		return r.err
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s does not stop within %s of SIGTERM", p.Name, limit)
	}
}

// Check returns an error if the process has ended and was not killed by this package. It
// says how it ended, and the last line of its log.
func (p *Process) Check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.run.ended:
	default:
		return nil
	}
	if p.run.killed {
		return nil
	}
	err := fmt.Errorf("%s ended: %s", p.Name, p.run.cmd.ProcessState)
	if p.Log == "" {
		return err
	}
	text, logErr := os.ReadFile(p.Log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return errors.Join(fmt.Errorf("%w; the last line of its log: %.300s", err, lines[len(lines)-1]), logErr)
}

// WaitReady calls ready until it returns nil, at most for limit. It fails at once when the
// process ends.
func (p *Process) WaitReady(ctx context.Context, limit time.Duration, ready func(context.Context) error) error {
	return poll(ctx, limit, func(ctx context.Context) (done bool, err error) {
		// In this order: whoever answers after the process has ended is somebody else.
		err = ready(ctx)
		if ended := p.Check(); ended != nil {
			return true, ended
		}
		return err == nil, err
	})
}
