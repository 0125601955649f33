package worker

import (
	"context"
	"sync"
	"time"
)

// pace spaces calls evenly. Unlike a rate.Limiter it takes back a turn that was not used: for
// example, an item whose instance is busy must not use up the rate of the others.
type pace struct {
	every time.Duration // 0: no bound

	mu   sync.Mutex
	next time.Time // when the next turn is
}

// newPace makes a pace of so many turns per second; 0 = no bound.
func newPace(rate float64) *pace {
	p := &pace{}
	if rate > 0 {
		p.every = time.Duration(float64(time.Second) / rate)
	}
	return p
}

// wait waits for a turn, or reports that none comes before ctx ends.
func (p *pace) wait(ctx context.Context) bool {
	if p.every == 0 {
		return ctx.Err() == nil
	}
	p.mu.Lock()
	turn := time.Now()
	if turn.Before(p.next) {
		turn = p.next
	}
	if end, bounded := ctx.Deadline(); bounded && end.Before(turn) {
		p.mu.Unlock()
		return false
	}
	p.next = turn.Add(p.every)
	p.mu.Unlock()
	select {
	case <-time.After(time.Until(turn)):
		return true
	case <-ctx.Done():
		p.giveBack()
		return false
	}
}

// giveBack gives a turn that was not used to the next caller.
func (p *pace) giveBack() {
	if p.every == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = p.next.Add(-p.every)
}
