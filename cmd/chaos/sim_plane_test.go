//go:build !race

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness/faketime"
	"batchreset/worker"
)

// simPlane is a control plane, with a gateway in front that may refuse, give up, or lose
// an answer.
type simPlane struct {
	w          *simWorld
	idempotent bool // it honours keys
	async      bool // it answers at once, and is polled
	slow       int  // of four resets are
	slowest    time.Duration
	failing    float64 // share of resets that fail
	trouble    float64 // share of calls that the gateway or the network spoils
	fates      []simFate
	looks      *simSights // nil: nobody can look

	mu     sync.Mutex
	rand   *rand.Rand
	resets map[string]*simReset // by key and by ID
}

// simReset is one reset on its way, whoever waits for it.
type simReset struct {
	id     string
	done   chan struct{}
	answer string // once it is done
}

// What becomes of a call.
type simFate int

const (
	reached simFate = iota
	unreachable
	gatewayBusy    // 429: it has not reached the plane
	gatewayRefused // 403
	occupied       // 409
	requestGone    // in doubt, and it did not arrive
	answerGone     // in doubt, and it did
	gatewayTimeOut // the same, and soon
	crash          // the same: the driver panics
)

// spoil draws how calls are spoilt: in few ways, but often, so that they come together.
func (p *simPlane) spoil() {
	p.trouble = 0.2 + 0.6*p.rand.Float64()
	inDoubt := []simFate{requestGone, answerGone, gatewayTimeOut, crash}
	notDone := []simFate{unreachable, gatewayBusy, gatewayRefused, occupied}
	p.fates = []simFate{inDoubt[p.rand.IntN(4)], notDone[p.rand.IntN(4)]}
	p.slow = 2 + p.rand.IntN(2)
}

func (p *simPlane) draw() (fate simFate, there, back, length time.Duration, answer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	there, back = rand1(p.rand, 20*time.Millisecond), rand1(p.rand, 20*time.Millisecond)
	length = 50*time.Millisecond + rand1(p.rand, 3*time.Second)
	if p.rand.IntN(4) < p.slow {
		length = rand1(p.rand, p.slowest)
	}
	answer = history.Success
	switch what := p.rand.Float64(); {
	case what < p.failing/10:
		answer = history.Refusal
	case what < p.failing:
		answer = history.Failure
	case p.looks != nil && p.rand.Float64() < p.looks.lying:
		answer = history.Lie
	}
	if p.rand.Float64() < p.trouble {
		fate = p.fates[p.rand.IntN(len(p.fates))]
	}
	return fate, there, back, length, answer
}

// simCall is one call that came to the plane.
type simCall struct {
	*simReset
	e history.Event
}

// reset does a reset, or joins one that a call under the same key has begun.
func (p *simPlane) reset(e history.Event, length time.Duration, answer string) *simCall {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.resets[e.Key]
	if r == nil || !p.idempotent {
		r = &simReset{id: fmt.Sprintf("op-%d", len(p.resets)), done: make(chan struct{})}
		p.resets[e.Key], p.resets[r.id] = r, r
		p.under(e.Instance, answer)
		p.w.all.Go(func() {
			faketime.Pass(length)
			p.mu.Lock()
			r.answer = answer
			p.ended(e.Instance, answer)
			p.mu.Unlock()
			close(r.done)
		})
	}
	c := &simCall{r, e}
	p.w.all.Go(func() { p.record(c) })
	return c
}

// record writes a call down when its reset is done.
func (p *simPlane) record(c *simCall) {
	<-c.done
	p.mu.Lock()
	defer p.mu.Unlock()
	c.e.End, c.e.Answer = p.w.rec.Now(), c.answer
	if c.e.Status == 0 && !c.e.Gone {
		c.e.Status = statusOf[c.answer]
	}
	p.w.rec.Add(c.e)
}

var statusOf = map[string]int{history.Success: http.StatusOK, history.Lie: http.StatusOK, history.Failure: http.StatusServiceUnavailable, history.Refusal: http.StatusNotFound}

// leave notes that nobody waits for a call any more.
func (p *simPlane) leave(c *simCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.e.Gone = true
}

func (p *simPlane) byID(id string) *simReset {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resets[id]
}

func (p *simPlane) repair() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = 0
	if p.looks != nil {
		p.looks.trouble = 0
	}
}

// simDriver is the driver in one worker process.
type simDriver struct {
	*simPlane
	link *simLink
}

// Repeatable implements worker.Repeater.
func (d *simDriver) Repeatable() bool { return d.idempotent }

var errInDoubt = &worker.DriverError{Verdict: worker.Unknown, Message: "no answer"}

// Reset implements worker.Driver.
func (d *simDriver) Reset(ctx context.Context, a worker.Attempt) error {
	if a.Checkpoint != "" {
		return d.poll(ctx, a.Checkpoint, true)
	}
	if a.Ambiguous && !d.idempotent && d.looks == nil { // who looks decides for the driver
		return errInDoubt
	}
	if err := a.MaySend(); err != nil {
		return &worker.DriverError{Verdict: worker.NotSent, Message: err.Error()}
	}
	fate, there, back, length, answer := d.draw()
	if !d.travel(ctx, there) {
		return &worker.DriverError{Verdict: worker.Unreachable, Message: "gave up before it was sent"}
	}
	e := history.Event{
		Kind: history.Call, Begin: d.w.rec.Now(), Worker: d.link.name, Instance: a.InstanceID, Item: a.ItemID,
		Attempt: a.Number, Key: a.Key,
	}
	atGateway := func(status int, err *worker.DriverError) error {
		e.End, e.Answer, e.Status = e.Begin, history.TurnedAway, status
		d.w.rec.Add(e)
		return err
	}
	switch fate {
	case unreachable:
		return &worker.DriverError{Verdict: worker.Unreachable, Message: "refused"}
	case gatewayBusy:
		return atGateway(http.StatusTooManyRequests, &worker.DriverError{Verdict: worker.Retryable, Code: "GW.0429", Message: "too many", RetryAfter: there * 100})
	case gatewayRefused:
		return atGateway(http.StatusForbidden, &worker.DriverError{Verdict: worker.Permanent, Code: "GW.0403", Message: "not you"})
	case occupied:
		return atGateway(http.StatusConflict, &worker.DriverError{Verdict: worker.Busy, Message: "occupied"})
	case requestGone:
		d.w.rec.Add(history.Event{Kind: history.Fault, Fault: fault.LinkStall, Target: fault.WorkerToUpstream, Begin: e.Begin - time.Second, End: e.Begin + time.Minute})
		d.travel(ctx, length*3)
		return errInDoubt
	}
	e.Gone = fate != reached
	if d.async {
		e.Status = http.StatusAccepted
	}
	c := d.reset(e, length, answer)
	switch fate {
	case answerGone:
		d.travel(ctx, time.Hour)
		return errInDoubt
	case gatewayTimeOut:
		d.travel(ctx, 2*time.Second+back)
		return errInDoubt
	case crash:
		panic("simulated")
	}
	d.travel(ctx, back)
	if d.async {
		_ = a.Save(ctx, c.id) // then it is polled by this attempt at least
		return d.poll(ctx, c.id, d.idempotent)
	}
	select {
	case <-c.done:
		return d.verdict(c.simReset, d.idempotent)
	case <-ctx.Done():
		d.leave(c)
		return errInDoubt
	}
}

// travel is the time on the network; false if the caller gave up, or is not there any more.
func (d *simDriver) travel(ctx context.Context, t time.Duration) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil && !d.link.isDead()
}

// poll asks for a reset again and again.
func (d *simDriver) poll(ctx context.Context, id string, endsDoubt bool) error {
	r := d.byID(id)
	for d.travel(ctx, time.Second+max(0, d.link.frozen())) {
		select {
		case <-r.done:
			if fate, _, _, _, _ := d.draw(); fate == reached {
				return d.verdict(r, endsDoubt)
			}
		default:
		}
	}
	return errInDoubt
}

// verdict is what a reset came to. endsDoubt says that it is about earlier calls, too.
func (p *simPlane) verdict(r *simReset, endsDoubt bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.answer {
	case history.Failure:
		return &worker.DriverError{Verdict: worker.Retryable, Code: "PLANE.0503", Message: "try again", EndsDoubt: endsDoubt}
	case history.Refusal:
		return &worker.DriverError{Verdict: worker.Permanent, Code: "PLANE.0404", Message: "no such phone", EndsDoubt: endsDoubt}
	}
	return nil
}
