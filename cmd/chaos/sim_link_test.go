//go:build !race

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness/faketime"
)

// simLink is the network between one process and Redis. It is in memory, so that the
// bubble's clock can go on while somebody waits for it, and it loses, delays and repeats
// what it carries. A request is what a client writes at once: a command or a pipeline.
type simLink struct {
	w    *simWorld
	name string

	mu      sync.Mutex
	seen    map[string]int // how often something was carried
	conns   []*simWire
	dead    bool          // its process is: nothing gets out any more
	cut     time.Duration // nothing gets through until then, and what was sent comes late
	trouble float64       // share of requests that something happens to
}

// simWire is one connection.
type simWire struct {
	link           *simLink
	client, server net.Conn
	mu             sync.Mutex
	deaf           bool // answers get lost
}

var errNoRedis = errors.New("simulated: connection refused")

func (w *simWorld) newLink(name string, trouble float64) *simLink {
	l := &simLink{w: w, name: name, seen: map[string]int{}, trouble: trouble}
	w.mu.Lock()
	w.links = append(w.links, l)
	w.mu.Unlock()
	return l
}

// dial is for redisdb.Options.
func (l *simLink) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	l.mu.Lock()
	refused := l.dead || l.w.now() < l.cut
	l.mu.Unlock()
	if refused {
		return nil, errNoRedis
	}
	server, err := l.w.redis.Dial()
	if err != nil {
		return nil, err
	}
	client, middle := net.Pipe()
	c := &simWire{link: l, client: middle, server: server}
	l.mu.Lock()
	l.conns = append(l.conns, c)
	l.mu.Unlock()
	l.w.all.Go(c.requests)
	l.w.all.Go(c.answers)
	return client, nil
}

// What happens to a request.
type mishap int

const (
	fine mishap = iota
	requestLost
	answerLost
	comesLate  // done, long after its caller has been told that the connection is lost
	comesTwice // done, and once more later
)

// draw says what happens to something that is carried. It follows from what it is, and how
// often that was carried before: of two things at one time either may come first.
func (l *simLink) draw(carried []byte) (m mishap, there, late time.Duration, deliver bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	what := l.name + " " + string(carried)
	r := l.w.stream(fmt.Sprint(what, l.seen[what]))
	l.seen[what]++
	there = 50*time.Microsecond + rand1(r, 2*time.Millisecond)
	late = 100*time.Millisecond + rand1(r, 40*time.Second)
	if l.trouble > 0 && r.IntN(20) == 0 {
		there += rand1(r, 4*time.Second) // longer than a client waits
	}
	if share := r.Float64(); share < l.trouble {
		m = 1 + mishap(share/l.trouble*4)
	}
	return m, there, late, r.IntN(2) == 0
}

// rand1 draws a time from 0 to d, to the nanosecond: two things that happen at the very same
// time would happen in any order.
func rand1(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }

func (c *simWire) requests() {
	defer c.hangUp()
	buf := make([]byte, 256<<10)
	for {
		n, err := c.client.Read(buf)
		if err != nil {
			return
		}
		m, there, late, deliver := c.link.draw(buf[:n])
		faketime.Pass(there)
		c.link.mu.Lock()
		dead, wait := c.link.dead, c.link.cut-c.link.w.now()
		c.link.mu.Unlock()
		switch {
		case dead: // what it sent may be on its way
			if deliver {
				c.silence()
				c.send(buf[:n])
			}
			return
		case wait > 0: // what was sent into the cut comes when it is over
			request := append([]byte(nil), buf[:n]...)
			c.link.w.later(wait+there, func() { c.link.w.apart(request) })
			return
		}
		if m != fine && strings.HasPrefix(c.link.name, "worker") {
			now := c.link.w.now()
			c.link.w.rec.Add(history.Event{Kind: history.Fault, Fault: fault.LinkDelay, Target: fault.WorkerToRedis, Begin: now - there, End: now + late})
		}
		switch m {
		case requestLost:
			return
		case answerLost:
			c.silence()
			c.send(buf[:n])
			return
		case comesLate, comesTwice:
			request := append([]byte(nil), buf[:n]...)
			c.link.w.later(late, func() { c.link.w.apart(request) })
			if m == comesLate {
				return
			}
		}
		if !c.send(buf[:n]) {
			return
		}
		if c.link.killsRunner(buf[:n]) {
			c.silence()
			c.link.w.slay(c.link)
			return
		}
	}
}

// send gives a request to Redis. When it returns, Redis has done it and its answer is on its way
// back: whoever hung up in the same moment would race with that.
func (c *simWire) send(request []byte) bool {
	c.link.w.setClock()
	_, err := c.server.Write(request)
	faketime.Pass(time.Nanosecond)
	return err == nil
}

func (c *simWire) silence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deaf = true
}

func (c *simWire) answers() {
	// Redis has its lock while it writes a long answer: somebody must take all of it at once, or nobody goes on.
	taken := make(chan []byte, 4096)
	c.link.w.all.Go(func() {
		defer close(taken)
		buf := make([]byte, 256<<10)
		for {
			n, err := c.server.Read(buf)
			if err != nil {
				return
			}
			taken <- append([]byte(nil), buf[:n]...)
		}
	})
	defer func() {
		for range taken { // until the reader has ended
		}
	}()
	defer c.hangUp()
	for answer := range taken {
		_, back, _, _ := c.link.draw(answer)
		c.mu.Lock()
		deaf := c.deaf
		c.mu.Unlock()
		if deaf {
			continue
		}
		// The last look before a reset is as old as its answer, and cmd/chaos allows it a second.
		faketime.Pass(back % (900 * time.Millisecond))
		if _, err := c.client.Write(answer); err != nil {
			return
		}
	}
}

func (c *simWire) hangUp() {
	_, _ = c.client.Close(), c.server.Close()
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.link.conns = slices.DeleteFunc(c.link.conns, func(other *simWire) bool { return other == c })
}

// apart does a request whose caller is not there any more.
func (w *simWorld) apart(request []byte) {
	conn, err := w.redis.Dial()
	if err != nil {
		return
	}
	w.setClock()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	w.all.Go(func() { // the answers must be taken, or Redis waits
		buf := make([]byte, 64<<10)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	})
	_, _ = conn.Write(request)
	faketime.Pass(2 * time.Second)
	_ = conn.Close()
}

// kill ends the process at this end of the link.
func (l *simLink) kill() { l.breakDown(func() { l.dead = true }) }

// cutFor lets nothing through for so long.
func (l *simLink) cutFor(d time.Duration) { l.breakDown(func() { l.cut = max(l.cut, l.w.now()+d) }) }

func (l *simLink) breakDown(how func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	how()
	for _, c := range l.conns { // in the order in which they were made
		_ = c.client.Close()
	}
}

func (l *simLink) isDead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

// frozen is for how long the process at this end stands still yet.
func (l *simLink) frozen() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut - l.w.now()
}

func (l *simLink) repair() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble, l.cut = 0, 0
}
