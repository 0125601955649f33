package main

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
)

// gateway is what stands between the workers and the control plane, and takes itself too
// seriously. It records every call: what it was told, and what came of it behind it.
type gateway struct {
	rec   *history.Recorder
	plane *plane

	mu    sync.Mutex
	rand  *rand.Rand
	moody map[fault.Kind]int
	armed map[string]trap // by worker
	calls sync.WaitGroup  // that are not recorded yet
}

func newGateway(rec *history.Recorder, p *plane, r *rand.Rand) *gateway {
	return &gateway{rec: rec, plane: p, rand: r, moody: map[fault.Kind]int{}, armed: map[string]trap{}}
}

// struckShare is the share of the calls that meet a mood of the gateway.
const struckShare = 0.2

// be puts the gateway into a mood until the returned function is called.
func (g *gateway) be(kind fault.Kind) (over func()) {
	add := func(n int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.moody[kind] += n
	}
	add(1)
	return func() { add(-1) }
}

// manner is what the gateway does with one call.
type manner struct {
	turned  bool          // it answers by itself
	lose    bool          // it gives the call on and closes the connection after wait
	wait    time.Duration // how long it waits for the plane; 0 = until there is an answer
	instead reply         // what it says by itself, or after wait
}

const page = "<!DOCTYPE html><html><body><form>Log in</form></body></html>"

// draw draws what the gateway does with the next call.
func (g *gateway) draw() manner {
	g.mu.Lock()
	defer g.mu.Unlock()
	struck := func(k fault.Kind) bool { return g.moody[k] > 0 && g.rand.Float64() < struckShare }
	pick := func(of ...reply) reply { return of[g.rand.IntN(len(of))] }
	switch {
	case struck(fault.GatewayRefuse):
		return manner{turned: true, instead: pick(
			reply{status: http.StatusTooManyRequests, body: "slow down", retryAfter: "1"},
			reply{status: http.StatusTooManyRequests, body: "slow down"},
			reply{status: http.StatusServiceUnavailable, body: "<html>", retryAfter: "1"},
			reply{status: http.StatusForbidden, body: page},
		)}
	case struck(fault.GatewayPage):
		return manner{turned: true, instead: reply{status: http.StatusOK, body: page}}
	case struck(fault.GatewayLose):
		return manner{lose: true, wait: time.Millisecond + time.Duration(g.rand.Int64N(int64(200*time.Millisecond)))}
	case g.moody[fault.GatewayTimeout] > 0:
		return manner{wait: time.Second, instead: pick(
			reply{status: http.StatusBadGateway, body: page}, reply{status: http.StatusGatewayTimeout},
			reply{status: http.StatusInternalServerError, body: `{"message":"upstream"}`}, reply{status: http.StatusServiceUnavailable},
		)}
	}
	return manner{}
}

// ServeHTTP takes POST /{worker}/{instance}.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := history.Event{Kind: history.Call, Begin: g.rec.Now(), Worker: r.PathValue("worker")}
	var body struct {
		Instance string `json:"instance_id"`
		Item     string `json:"item_id"`
		Attempt  int    `json:"attempt"`
	}
	e.Key = r.Header.Get("Idempotency-Key")
	err := json.NewDecoder(r.Body).Decode(&body)
	if err != nil || e.Key == "" || body.Instance != r.PathValue("instance") {
		reply{status: http.StatusBadRequest, body: `{"error_code":"PLANE.0400","error_msg":"not a reset"}`}.write(w)
		return
	}
	e.Instance, e.Item, e.Attempt = body.Instance, body.Item, body.Attempt
	m := g.draw()
	if m.turned {
		e.End, e.Answer, e.Status = g.rec.Now(), history.TurnedAway, m.instead.status
		g.rec.Add(e)
		m.instead.write(w)
		return
	}
	reset := g.plane.begin(e.Key, e.Instance)
	said := reset.heard(m)
	e.Status, e.Gone = said.status, r.Context().Err() != nil
	g.mu.Lock() // who waits for the calls takes it first: a connection that is hung up orders nothing
	g.calls.Go(func() {
		<-reset.done
		e.End, e.Answer = max(e.Begin, reset.end), reset.answer
		g.rec.Add(e)
	})
	g.mu.Unlock()
	if m.lose {
		hangUp(w)
		return
	}
	said.write(w)
}

// heard is what the worker hears of a reset through the gateway; nothing if it is lost.
func (r *reset) heard(m manner) reply {
	switch {
	case m.lose:
		r.await(m.wait)
		return reply{}
	case r.dialect.polls() || r.await(m.wait):
		return r.reply()
	}
	return m.instead
}

// await waits for the end of a reset, or for so long.
func (r *reset) await(d time.Duration) (ended bool) {
	if d == 0 {
		<-r.done
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-r.done:
		return true
	case <-timer.C:
		return false
	}
}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// poll takes GET /poll/{id}.
func (g *gateway) poll(w http.ResponseWriter, r *http.Request) {
	if m := g.draw(); m.turned && m.instead.status != http.StatusForbidden {
		m.instead.write(w)
		return
	}
	reset := g.plane.find(r.PathValue("id"))
	if reset == nil || !reset.dialect.polls() {
		reply{status: http.StatusNotFound}.write(w)
		return
	}
	reset.poll().write(w)
}
