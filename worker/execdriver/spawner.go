package execdriver

import (
	"context"
	"errors"
	"os/exec"
	"sync"
	"time"

	"batchreset/worker"
)

// starters is how many programs may be about to start. Each has been allowed to a moment ago, and
// must not wait for long behind others: what allowed it may change. One that has waited longer than
// freshness asks again: a program on a disk that hangs holds up those behind it for as long.
const (
	starters  = 8
	freshness = 2 * time.Second
)

var errStale = errors.New("it has waited for too long since it was allowed to start")

// spawner starts programs from one thread that lives from the first of them until it is closed. The
// kernel ends a program when the thread ends that has started it, see attributes, and Go may end
// any other.
type spawner struct {
	turns chan struct{}
	fresh time.Duration
	work  chan func()
	first sync.Once
	done  sync.WaitGroup
}

func newSpawner() *spawner {
	return &spawner{turns: make(chan struct{}, starters), fresh: freshness, work: make(chan func())}
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
	s.first.Do(func() { s.done.Go(s.thread) })
	for {
		if err := allow(); err != nil {
			return notStarted(worker.NotSent, err)
		}
		if err := s.startNow(ctx, cmd, time.Now()); !errors.Is(err, errStale) {
			return err
		}
	}
}

// startNow starts a program as soon as the thread is free.
func (s *spawner) startNow(ctx context.Context, cmd *exec.Cmd, allowed time.Time) error {
	started := make(chan error, 1)
	start := func() {
		switch {
		case ctx.Err() != nil:
			started <- notStarted(worker.NotSent, ctx.Err())
		case time.Since(allowed) > s.fresh:
			started <- errStale
		default:
			err := cmd.Start()
			if err != nil {
				err = notStarted(worker.Unreachable, err)
			}
			started <- err
		}
	}
	select {
	case s.work <- start:
		return <-started
	case <-ctx.Done():
		return notStarted(worker.NotSent, ctx.Err())
	}
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
