package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"batchreset/cmd/harness"
)

// restartPause is how long a process that ended stays away, as under systemd.
const restartPause = 300 * time.Millisecond

// process is a process that is started again whenever it ends.
type process struct {
	*harness.Process
	// gate, while locked, keeps an ended process from being started again.
	gate sync.Mutex

	mu     sync.Mutex
	killed bool // in its present run
	exited int
}

// start starts a process, whose output goes to a file, and supervises it.
func (w *world) start(ctx context.Context, later func(func()), name string, env []string, args ...string) error {
	p, err := harness.Start(ctx, harness.Command{Name: name, Args: args, Env: env, Log: filepath.Join(w.dir, name+".log")})
	if err == nil {
		w.supervise(ctx, later, p)
	}
	return err
}

// supervise starts a process again whenever it ends, until ctx does, which kills it.
func (w *world) supervise(ctx context.Context, later func(func()), started *harness.Process) {
	p := &process{Process: started}
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			<-p.Ended()
			p.note()
			harness.Pause(ctx, restartPause)
			p.again(ctx)
		}
		p.Kill()
	})
	later(done.Wait)
	w.processes[p.Name] = p
}

// note counts that the process has ended, and adds how to its log.
func (p *process) note() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.killed {
		p.exited++
	}
	p.killed = false
	if log, err := os.OpenFile(p.Log, os.O_APPEND|os.O_WRONLY, 0); err == nil { // it helps those who read it, nothing more
		fmt.Fprintf(log, "chaos: %s ended: %s\n", p.Name, p.State())
		_ = log.Close()
	}
}

// again starts the process again when the gate is open, as soon as the machine lets it.
func (p *process) again(ctx context.Context) {
	p.gate.Lock()
	defer p.gate.Unlock()
	for ctx.Err() == nil && p.Restart(ctx) != nil {
		harness.Pause(ctx, restartPause)
	}
}

// signal sends a signal to the process, if it runs.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Signal(s) == nil && s == syscall.SIGKILL {
		p.killed = true
	}
}

// exits is how often the process has ended by itself.
func (p *process) exits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exited
}
