package execdriver

import (
	"context"
	"os/exec"
	"sync"

	"batchreset/worker"
)

// starters is how many programs may be about to start. Each has been allowed to a moment ago, and
// must not wait for long behind others: what allowed it may change.
const starters = 8

// spawner starts programs from one thread that lives from the first of them until it is closed. The
// kernel ends a program when the thread ends that has started it, see attributes, and Go may end
// any other.
type spawner struct {
	turns chan struct{}
	work  chan func()
	first sync.Once
	done  sync.WaitGroup
}

func newSpawner() *spawner {
	return &spawner{turns: make(chan struct{}, starters), work: make(chan func())}
}

// thread starts what it is given, one after the other: the kernel does so anyway.
func (s *spawner) thread() {
	lockThread()
	for start := range s.work {
		start()
	}
}

// start starts a program if allow says so. An error says that it was not started.
func (s *spawner) start(ctx context.Context, cmd *exec.Cmd, allow func() error) error {
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		return notStarted(worker.NotSent, ctx.Err())
	}
	defer func() { <-s.turns }()
	if err := allow(); err != nil {
		return notStarted(worker.NotSent, err)
	}
	s.first.Do(func() { s.done.Go(s.thread) })
	started := make(chan error)
	s.work <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return notStarted(worker.Unreachable, err)
	}
	return nil
}

// close ends the thread.
func (s *spawner) close() {
	close(s.work)
	s.done.Wait()
}

// notStarted is an attempt at whose phone nothing was done.
func notStarted(verdict worker.Verdict, err error) error {
	return &worker.DriverError{Verdict: verdict, Message: "the program was not started: " + err.Error()}
}
