//go:build !race

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness/faketime"
	"batchreset/worker"
)

// simSights are the looks at a control plane's phones, and what goes wrong with them. A phone is
// in its initial state when it was wiped since it was last used, and no reset of it is under way.
type simSights struct {
	rand     *rand.Rand
	patience time.Duration // the workers'
	lying    float64       // share of resets that are called done and wipe nothing
	blind    bool          // some looks say that a phone is in its initial state which is not
	late     time.Duration // a wipe shows within this time, most of them
	trouble  float64       // share of looks that are spoilt
	fates    []simSight
	phones   map[string]*simPhone
	n        int // looks so far
}

// simPhone is a phone as looks see it.
type simPhone struct {
	wiped bool
	shows time.Duration // when a look shows that
	under int           // resets
}

// What becomes of a look.
type simSight int

const (
	plain        simSight = iota
	lookSlow              // its answer is old when it comes, or comes too late
	lookRefused           // 429 or 503
	lookGarbage           // something that nobody understands
	lookUnclear           // neither the one nor the other
	lookLost              // its answer does not come
	lookCrash             // the driver panics
	killedBefore          // the worker is killed between the reset and the look
	killedAfter           // the worker is killed between the look and the commit
	lookLate              // the driver does not notice that its time is over, or its process stood still
	lookFalse             // it says that the phone is in its initial state, whatever is true
)

// drawSights draws whether drivers look, and how that goes.
func (w *simWorld) drawSights() *simSights {
	r := w.stream("looks")
	if r.IntN(3) == 0 {
		return nil
	}
	s := &simSights{rand: r, patience: rand1(r, 6*time.Second), phones: map[string]*simPhone{}}
	switch r.IntN(6) {
	case 0:
		s.lying = 1
	case 1, 2:
		s.lying = 0.3
	}
	if r.IntN(2) == 0 {
		s.late = s.patience
	}
	if w.on("look") {
		s.trouble = 0.1 + 0.5*r.Float64()
		for len(s.fates) < 3 {
			s.fates = append(s.fates, lookSlow+simSight(r.IntN(int(lookFalse-lookSlow))))
		}
		if s.blind = r.IntN(8) == 0; s.blind {
			s.fates = append(s.fates, lookFalse)
		}
	}
	return s
}

func (s *simSights) draw() (fate simSight, there, back time.Duration) {
	there, back = rand1(s.rand, 20*time.Millisecond), rand1(s.rand, 20*time.Millisecond)
	if s.rand.Float64() < s.trouble {
		fate = s.fates[s.rand.IntN(len(s.fates))]
	}
	if fate == lookSlow || fate == lookLate {
		back += rand1(s.rand, 15*time.Second)
	}
	return fate, there, back
}

func (p *simPlane) phone(id string) *simPhone {
	if p.looks.phones[id] == nil {
		p.looks.phones[id] = &simPhone{}
	}
	return p.looks.phones[id]
}

// use says that phones are used again.
func (p *simPlane) use(instances []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range instances {
		if p.looks != nil {
			p.phone(id).wiped = false
		}
	}
}

// under says that a reset has begun, ended that it has ended. What wipes nothing touches nothing.
func (p *simPlane) under(instance, answer string) {
	if p.looks != nil && answer != history.Lie {
		p.phone(instance).under++
	}
}

func (p *simPlane) ended(instance, answer string) {
	if p.looks == nil || answer == history.Lie {
		return
	}
	one := p.phone(instance)
	one.under--
	if answer == history.Success {
		late := rand1(p.looks.rand, p.looks.late+1)
		if p.looks.late > 0 && p.looks.rand.IntN(10) == 0 {
			late *= 5
		}
		one.wiped, one.shows = true, p.w.now()+late
	}
}

// simLooker is a driver that can look.
type simLooker struct{ *simDriver }

var errNoSight = errors.New("simulated: the look came to nothing")

// Look implements worker.Looker.
func (d simLooker) Look(ctx context.Context, a worker.Attempt) (worker.Sight, error) {
	d.mu.Lock()
	fate, there, back := d.looks.draw()
	d.looks.n++
	e := history.Event{
		Kind: history.Look, Begin: d.w.now(), Worker: d.link.name, Instance: a.InstanceID, Item: a.ItemID, Attempt: a.Number,
		Evidence: fmt.Sprintf("look-%d", d.looks.n), Status: http.StatusOK,
	}
	d.mu.Unlock()
	if fate == killedBefore {
		d.w.strike(d.link)
	}
	if !d.travel(ctx, there) {
		return worker.Sight{}, errNoSight
	}
	d.mu.Lock()
	phone := d.phone(a.InstanceID)
	e.Initial = phone.wiped && phone.under == 0
	sight := worker.Sight{State: worker.NotInitial, Evidence: e.Evidence}
	if fate == lookFalse || e.Initial && d.w.now() >= phone.shows {
		sight.State = worker.Initial
	}
	d.mu.Unlock()
	e.Answer = string(sight.State)
	var err error
	switch fate {
	case lookRefused:
		e.Status, e.Answer, err = []int{http.StatusTooManyRequests, http.StatusServiceUnavailable}[len(a.Key+a.ItemID)%2], "", errNoSight
	case lookGarbage:
		e.Answer, err = "", errNoSight
	case lookUnclear:
		e.Answer, sight.State = "", worker.Unclear
	case lookLost:
		back = 3 * time.Second
		e.Status, err = 0, errNoSight
	}
	switch fate {
	case lookLate:
		e.Gone = !d.outlive(ctx, back+max(0, d.link.frozen()))
	case lookCrash:
		_ = d.travel(ctx, back)
		e.Gone = true
	default:
		e.Gone = !d.travel(ctx, back)
	}
	e.End = d.w.now()
	d.w.rec.Add(e)
	switch {
	case fate == lookCrash:
		panic("simulated: a look")
	case e.Gone || err != nil:
		return worker.Sight{}, errNoSight
	case fate == killedAfter:
		d.w.strike(d.link)
	}
	return sight, nil
}

// outlive lets time pass whatever becomes of ctx, and says whether somebody still takes an answer:
// a worker waits for its driver for five seconds.
func (d simLooker) outlive(ctx context.Context, t time.Duration) bool {
	begin, over := time.Now(), make(chan time.Duration, 1)
	defer context.AfterFunc(ctx, func() { over <- time.Since(begin) })()
	faketime.Pass(t)
	select {
	case at := <-over:
		return !d.link.isDead() && time.Since(begin)-at < 5*time.Second
	default:
		return !d.link.isDead()
	}
}

// strike kills the process at a link in this very moment, if the seed kills processes.
func (w *simWorld) strike(l *simLink) {
	if w.on("kill") {
		w.slay(l)
	}
}

// slay kills the process at a link in this very moment. The story starts it again.
func (w *simWorld) slay(l *simLink) {
	for _, p := range w.workers {
		if p.link == l && !l.isDead() {
			w.kill(p)
		}
	}
}

// revive starts processes that were struck.
func (w *simWorld) revive(trouble float64) {
	for _, p := range w.workers {
		if p.link.isDead() {
			w.start(p, trouble)
		}
	}
}
