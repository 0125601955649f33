package worker

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	beatEvery = time.Second
	// frozenAfter is how long a process may stand still and still own its tasks.
	// asynq's lease lasts 30 s and is extended every 5 s, so nobody takes a task from
	// a worker that has been gone for less than 25 s.
	frozenAfter = 15 * time.Second
)

var (
	errLate   = errors.New("the attempt's time was over before the request was sent")
	errFrozen = errors.New("the process stood still for so long that another worker may have its items")
)

// pulse notices that the process was frozen or suspended. Whoever looks first
// afterwards sees it, and everybody after that.
type pulse struct {
	mu     sync.Mutex
	last   time.Time
	stalls int // how often it stood still for too long
}

func newPulse() *pulse { return &pulse{last: time.Now()} }

// beat returns how often the process has stood still for too long so far.
func (p *pulse) beat() (stalls int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	// Both clocks: the monotonic one stands still while a machine is suspended.
	if now.Sub(p.last) > frozenAfter || now.Round(0).Sub(p.last.Round(0)) > frozenAfter {
		p.stalls++
	}
	p.last = now
	return p.stalls
}

// run beats until ctx ends.
func (p *pulse) run(ctx context.Context) {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.beat()
		}
	}
}
