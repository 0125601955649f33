package main

import (
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
)

// plane is the recording control plane: what is behind the gateway. If it honours keys,
// calls with a key that it has seen wait for the same reset and get the same answer;
// otherwise every call is a reset.
type plane struct {
	rec        *history.Recorder
	repeatable bool // it honours keys
	moods      moods
	sights     *sights // what looks see; nil: nobody looks

	mu     sync.Mutex
	rand   *rand.Rand
	resets map[string]*reset  // by Idempotency-Key, or by number
	moody  map[fault.Kind]int // what it is, beside its moods: planeSlow, planeTalk
	under  sync.WaitGroup     // resets that have not ended

	interrupted <-chan struct{} // closed when nobody wants to know their ends any more; nil: never
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

// Shares of the resets that are struck while the plane is slow or talks strangely.
const (
	slowShare   = 0.08
	strangeTalk = 0.4
	lyingShare  = 0.4
)

// reset is one reset of a phone, or what fails to become one.
type reset struct {
	id      string
	dialect *dialect // how it is told; nil: plainly, when it has ended
	done    chan struct{}
	// Valid once done is closed.
	answer string
	end    time.Duration
}

func newPlane(rec *history.Recorder, r *rand.Rand, repeatable bool) *plane {
	return &plane{
		rec: rec, repeatable: repeatable, moods: drawMoods(r), rand: r,
		resets: map[string]*reset{}, moody: map[fault.Kind]int{},
	}
}

// be puts the plane into a mood until the returned function is called.
func (p *plane) be(kind fault.Kind) (over func()) {
	add := func(n int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.moody[kind] += n
	}
	add(1)
	return func() { add(-1) }
}

// begin begins the reset that a call asks for, or finds the one that its key stands for.
// A reset is not cut short when its caller goes away: a phone would not notice either.
func (p *plane) begin(key, instance string) *reset {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.resets[key]; known != nil && p.repeatable {
		return known
	}
	mine := &reset{id: strconv.Itoa(len(p.resets)), done: make(chan struct{})}
	if p.repeatable {
		mine.id = key
	}
	p.resets[mine.id] = mine
	latency, answer := p.draw(instance)
	if p.sights != nil && answer == history.Success && p.moody[fault.PlaneLie] > 0 && p.rand.Float64() < lyingShare {
		answer = history.Lie
	}
	p.sights.begin(instance, answer)
	late := p.moody[fault.LookLate] > 0
	if p.moody[fault.PlaneTalk] > 0 && p.rand.Float64() < strangeTalk {
		mine.dialect, latency = drawDialect(p.rand, answer, latency)
	}
	p.under.Go(func() {
		select {
		case <-time.After(latency):
		case <-p.interrupted:
		}
		mine.answer, mine.end = answer, p.sights.end(instance, answer, late, p.rec.Now)
		close(mine.done)
	})
	return mine
}

// find returns a reset by its ID, or nil.
func (p *plane) find(id string) *reset {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resets[id]
}

func (p *plane) draw(instance string) (latency time.Duration, answer string) {
	latency = p.moods.latency/2 + time.Duration(p.rand.Int64N(int64(p.moods.latency)))
	switch kind := p.rand.Float64(); {
	case p.moody[fault.PlaneSlow] > 0 && kind < slowShare:
		latency = 10*time.Second + time.Duration(p.rand.Int64N(int64(20*time.Second)))
	case kind < p.moods.hanging:
		latency = 6*time.Second + time.Duration(p.rand.Int64N(int64(2*time.Second)))
	case kind < p.moods.hanging+p.moods.slow:
		latency = time.Duration(p.rand.Int64N(int64(3 * time.Second)))
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(instance)) // never fails
	switch n := hash.Sum32(); {
	case n%p.moods.gone == 1:
		return latency, history.Refusal
	case n%p.moods.broken == 0, p.rand.Float64() < p.moods.failing:
		return latency, history.Failure
	}
	return latency, history.Success
}

// plainly is what a plane without a dialect of its own says of an ended reset. A failure
// is told in a way that leaves no doubt about it.
func plainly(answer string) reply {
	switch answer {
	case history.Failure:
		return reply{status: http.StatusServiceUnavailable, retryAfter: "1", body: `{"error_code":"PLANE.0503","error_msg":"try again"}`}
	case history.Refusal:
		return reply{status: http.StatusNotFound, body: `{"error_code":"PLANE.0404","error_msg":"no such phone"}`}
	}
	return reply{status: http.StatusOK, body: `{}`}
}
