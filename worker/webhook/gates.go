package webhook

import (
	"sync"
	"time"

	"batchreset/worker/requeue"
)

const (
	// endpointShare is how many notices a process sends to one endpoint at a time, so
	// that one which hangs leaves room for the others.
	endpointShare = concurrency / 4
	// While an endpoint fails it is sent one notice at a time; the others are put off for
	// longer, because they may be many.
	fullDelay    = time.Second
	failingDelay = 30 * time.Second
)

// gates bound what is under way to each endpoint.
type gates struct {
	mu        sync.Mutex
	endpoints map[string]*gate
}

type gate struct {
	active  int
	failing bool      // the last notice was not taken
	until   time.Time // nothing is sent before
}

func newGates() *gates { return &gates{endpoints: map[string]*gate{}} }

// enter lets a notice through, which leave ends, or says how long to wait.
func (g *gates) enter(endpoint string, now time.Time) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.endpoints[endpoint]
	if e == nil {
		e = &gate{}
		g.endpoints[endpoint] = e
	}
	switch {
	case now.Before(e.until):
		wait = e.until.Sub(now)
	case e.failing && e.active > 0:
		wait = failingDelay
	case e.active >= endpointShare:
		wait = fullDelay
	default:
		e.active++
		return 0, true
	}
	return wait + requeue.Jitter(min(wait, failingDelay)), false
}

// leave notes that a notice has ended; an empty verdict says nothing of the endpoint.
// What is as if it had never been here is forgotten.
func (g *gates) leave(endpoint string, v verdict, pause time.Duration, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.endpoints[endpoint]
	e.active--
	switch v {
	case delivered, gone:
		e.failing = false
	case failed, givenUp:
		e.failing = true
	}
	if pause > 0 {
		e.until = now.Add(pause)
	}
	if e.active == 0 && !e.failing && !now.Before(e.until) {
		delete(g.endpoints, endpoint)
	}
}
