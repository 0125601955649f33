package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// plane is the recording control plane. It honours keys: calls with a key that it
// has seen wait for the same reset and get the same answer.
type plane struct {
	rec   *recorder
	moods moods

	mu     sync.Mutex
	rand   *rand.Rand
	resets map[string]*reset // by Idempotency-Key
}

// moods are the rates and latencies of a control plane.
type moods struct {
	latency       time.Duration // of most resets, about
	slow, hanging float64       // shares of resets that take up to 3 s, 6 s to 8 s
	failing       float64       // share of resets that fail
	broken, gone  uint32        // one in so many instances always fails, is refused
}

func drawMoods(r *rand.Rand) moods {
	return moods{
		latency: 10*time.Millisecond + time.Duration(r.Int64N(int64(100*time.Millisecond))),
		slow:    0.03, hanging: 0.005, failing: 0.15 * r.Float64(),
		broken: 100, gone: 200,
	}
}

type reset struct {
	done   chan struct{}
	answer string // valid once done is closed
}

func newPlane(rec *recorder, r *rand.Rand) *plane {
	return &plane{rec: rec, moods: drawMoods(r), rand: r, resets: map[string]*reset{}}
}

// ServeHTTP takes POST /{worker}/{instance}.
func (p *plane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := p.rec.now()
	var body struct {
		Instance string `json:"instance_id"`
		Item     string `json:"item_id"`
		Attempt  int    `json:"attempt"`
	}
	key := r.Header.Get("Idempotency-Key")
	err := json.NewDecoder(r.Body).Decode(&body)
	if err != nil || key == "" || body.Instance != r.PathValue("instance") {
		http.Error(w, `{"error_code":"PLANE.0400","error_msg":"not a reset"}`, http.StatusBadRequest)
		return
	}
	answer := p.reset(key, body.Instance)
	p.rec.add(Event{
		Kind: Call, Begin: begin, End: p.rec.now(), Worker: r.PathValue("worker"),
		Instance: body.Instance, Item: body.Item, Attempt: body.Attempt, Key: key,
		Answer: answer, Gone: r.Context().Err() != nil,
	})
	w.Header().Set("Content-Type", "application/json")
	switch answer {
	case failure:
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprint(w, `{"error_code":"PLANE.0503","error_msg":"try again"}`)
	case refusal:
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"error_code":"PLANE.0404","error_msg":"no such phone"}`)
	default:
		_, _ = fmt.Fprint(w, `{}`)
	}
}

// reset does the reset of a key, or waits for it. It is not cut short when the
// caller goes away: a phone would not notice either.
func (p *plane) reset(key, instance string) (answer string) {
	p.mu.Lock()
	known := p.resets[key]
	if known != nil {
		p.mu.Unlock()
		<-known.done
		return known.answer
	}
	mine := &reset{done: make(chan struct{})}
	p.resets[key] = mine
	latency, answer := p.draw(instance)
	p.mu.Unlock()
	time.Sleep(latency)
	mine.answer = answer
	close(mine.done)
	return answer
}

func (p *plane) draw(instance string) (latency time.Duration, answer string) {
	latency = p.moods.latency/2 + time.Duration(p.rand.Int64N(int64(p.moods.latency)))
	switch kind := p.rand.Float64(); {
	case kind < p.moods.hanging:
		latency = 6*time.Second + time.Duration(p.rand.Int64N(int64(2*time.Second)))
	case kind < p.moods.hanging+p.moods.slow:
		latency = time.Duration(p.rand.Int64N(int64(3 * time.Second)))
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(instance)) // never fails
	switch n := hash.Sum32(); {
	case n%p.moods.gone == 1:
		return latency, refusal
	case n%p.moods.broken == 0, p.rand.Float64() < p.moods.failing:
		return latency, failure
	}
	return latency, success
}
