package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
)

// sights are what can be seen of a control plane's phones. One is in its initial state if it was
// wiped since it was last used, and no reset of it is under way.
type sights struct {
	rec      *history.Recorder
	patience time.Duration // of those who look

	mu    sync.Mutex
	rand  *rand.Rand
	all   map[string]*phone
	looks int
}

type phone struct {
	wiped bool
	shows time.Duration // when looks show that
	under int           // resets
}

func newSights(rec *history.Recorder, r *rand.Rand, patience time.Duration) *sights {
	return &sights{rec: rec, patience: patience, rand: r, all: map[string]*phone{}}
}

func (p *sights) phone(id string) *phone {
	if p.all[id] == nil {
		p.all[id] = &phone{}
	}
	return p.all[id]
}

// use says that phones are used again.
func (p *sights) use(ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		p.phone(id).wiped = false
	}
}

// begin says that a reset begins; a lie never does. Nobody can look if p is nil.
func (p *sights) begin(id, answer string) {
	if p == nil || answer == history.Lie {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phone(id).under++
}

// end says that a reset ends at the time that now tells. The time is taken together with the wipe: a
// wipe that is told to be older than somebody's wish to have the phone reset must be older than the
// use that goes with this wish.
func (p *sights) end(id, answer string, late bool, now func() time.Duration) time.Duration {
	if p == nil || answer == history.Lie {
		return now()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	end, one := now(), p.phone(id)
	one.under--
	if answer != history.Success {
		return end
	}
	one.wiped, one.shows = true, end
	if late {
		one.shows += time.Duration(p.rand.Int64N(int64(p.patience * 5 / 4)))
	}
	return end
}

// see is what is true of a phone, and what a look shows. It gives the look a name.
func (p *sights) see(id string) (initial, shown bool, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks++
	one := p.phone(id)
	initial = one.wiped && one.under == 0
	return initial, initial && p.rec.Now() >= one.shows, fmt.Sprintf("look-%d", p.looks)
}

// Shares of the looks that are struck by a mood.
const (
	strangeLook = 0.4
	slowLook    = 0.3
	lyingLook   = 0.3
)

// odd are answers to a look that nobody should understand.
var odd = []reply{
	{status: http.StatusOK, body: `{}`},
	{status: http.StatusOK, body: `{"initial":null}`},
	{status: http.StatusOK, body: `{"initial":"true"}`},
	{status: http.StatusOK, body: `{"initial":true,"initial":false}`},
	{status: http.StatusOK, body: `{"initial":true,"but":"not quite"}`},
	{status: http.StatusOK, body: `{"initial":tr`},
	{status: http.StatusOK, body: page},
	{status: http.StatusNoContent},
	{status: http.StatusAccepted, body: `{"initial":true}`},
	{status: http.StatusNotFound, body: `{"initial":true}`},
}

// look takes GET /{worker}/{instance}/state.
func (g *gateway) look(w http.ResponseWriter, r *http.Request) {
	e := history.Event{Kind: history.Look, Begin: g.rec.Now(), Worker: r.PathValue("worker"), Instance: r.PathValue("instance")}
	sights := g.plane.sights
	if sights == nil {
		reply{status: http.StatusNotFound}.write(w)
		return
	}
	after := g.strike(e.Worker)
	defer after()
	m := g.draw()
	initial, shown, name := sights.see(e.Instance)
	e.Initial, e.Evidence = initial, name
	answer, wait := g.sight(shown, &e)
	switch {
	case m.turned:
		answer, e.Answer = m.instead, ""
	case m.wait > 0 && !m.lose && wait > m.wait:
		answer, wait, e.Answer = m.instead, m.wait, ""
	}
	if wait > 0 {
		pause(r, wait)
	}
	e.Status, e.End, e.Gone = answer.status, g.rec.Now(), r.Context().Err() != nil
	if m.lose {
		e.Status, e.Answer = 0, ""
	}
	g.rec.Add(e)
	if m.lose {
		hangUp(w)
		return
	}
	answer.write(w)
	_ = http.NewResponseController(w).Flush() // it is on its way when the worker is killed
}

// sight is what the control plane says to a look, and how long it takes.
func (g *gateway) sight(shown bool, e *history.Event) (answer reply, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	struck := func(k fault.Kind, share float64) bool { return g.moody[k] > 0 && g.rand.Float64() < share }
	shown = shown || struck(fault.LookLie, lyingLook)
	if struck(fault.LookSlow, slowLook) {
		wait = time.Duration(g.rand.Int64N(int64(8 * time.Second)))
	}
	if struck(fault.LookTalk, strangeLook) {
		return odd[g.rand.IntN(len(odd))], wait
	}
	e.Answer = history.SaidNotInitial
	if shown {
		e.Answer = history.SaidInitial
	}
	return reply{status: http.StatusOK, body: fmt.Sprintf(`{"initial":%t,"evidence":%q}`, shown, e.Evidence)}, wait
}

// pause waits while somebody waits for the answer.
func pause(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
}

// arm has the worker killed when it looks next: before it is answered, or right after that. It
// returns what takes that back.
func (g *gateway) arm(worker string, kill func(), after bool) (disarm func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed[worker] = trap{kill, after}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.armed, worker)
	}
}

// trap kills a worker that looks.
type trap struct {
	kill  func()
	after bool
}

// strike kills a worker that is to be killed, or returns what does it.
func (g *gateway) strike(worker string) (after func()) {
	g.mu.Lock()
	t, armed := g.armed[worker]
	delete(g.armed, worker)
	g.mu.Unlock()
	switch {
	case !armed:
		return func() {}
	case t.after:
		return t.kill
	}
	t.kill()
	return func() {}
}
