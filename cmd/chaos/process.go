package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// restartPause is how long a process that ended stays away, as under systemd.
const restartPause = 300 * time.Millisecond

// process is a command that is started again whenever it ends.
type process struct {
	name string
	args []string
	env  []string // besides the harness's own
	log  *os.File
	// gate, while locked, keeps an ended process from being started again.
	gate sync.Mutex

	mu      sync.Mutex
	running *os.Process // nil between two runs
	runs    int
	killed  int
}

// startProcess starts a command, supervised until ctx ends; then it is killed. Its
// output goes to a file in dir. wait blocks until it has ended for good.
func startProcess(ctx context.Context, dir, name string, env []string, args ...string) (p *process, wait func(), err error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, nil, err
	}
	p = &process{name: name, args: args, env: env, log: log}
	var done sync.WaitGroup
	done.Go(func() {
		// Pdeathsig is about the thread that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer func() { _ = log.Close() }() // nothing more to write
		for ctx.Err() == nil {
			p.pass()
			err := p.once(ctx)
			fmt.Fprintf(log, "chaos: %s ended: %v\n", name, err)
			pause(ctx, restartPause)
		}
	})
	return p, done.Wait, nil
}

// pass waits until the gate is open.
func (p *process) pass() {
	p.gate.Lock()
	defer p.gate.Unlock()
}

// once runs the command until it ends or ctx does.
func (p *process) once(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.Env = append(os.Environ(), p.env...)
	// A group of its own: Ctrl-C is for the harness, which ends the rest.
	// And should the harness be killed, they die with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.mu.Lock()
	p.running = cmd.Process
	p.runs++
	p.mu.Unlock()
	err := cmd.Wait()
	p.mu.Lock()
	p.running = nil
	p.mu.Unlock()
	return err
}

// signal sends a signal to the process, if it runs.
func (p *process) signal(s os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return
	}
	if s == syscall.SIGKILL {
		p.killed++
	}
	_ = p.running.Signal(s) // it may have ended already
}

// exits is how often the process ended by itself.
func (p *process) exits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	ended := p.runs - p.killed
	if p.running != nil {
		ended--
	}
	return ended
}

// nextPort is where freeAddr looks next: below the ports that systems hand out for
// outgoing connections, and elsewhere in another harness at the same time. What is
// started again must find its port free, and nobody else's server behind it.
var nextPort atomic.Int32

func init() { nextPort.Store(int32(10000 + os.Getpid()%200*100)) }

// freeAddr returns an address of the loopback interface that was free a moment ago and
// that no other run of this process will get.
func freeAddr(ctx context.Context) (addr string, err error) {
	for range 1000 {
		addr = fmt.Sprintf("127.0.0.1:%d", 10000+nextPort.Add(1)%20000)
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err == nil {
			return addr, l.Close()
		}
	}
	return "", fmt.Errorf("no free port: %w", err)
}

// build builds the program under test, from the source tree in the folder source, into
// dir. Its clock can be made wrong if that is wanted.
func build(ctx context.Context, source, dir string, wrong bool, stderr io.Writer) (binary string, err error) {
	if binary, err = filepath.Abs(filepath.Join(dir, "batchreset")); err != nil {
		return "", err
	}
	args := []string{"build", "-o", binary}
	if wrong {
		file, err := overlay(ctx, dir)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", file)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "batchreset/cmd/batchreset")...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = source, stderr, stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build batchreset: %w", err)
	}
	return binary, nil
}

// until calls f every 50 ms until it succeeds, at most for d.
func until(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		pause(ctx, 50*time.Millisecond)
	}
}
