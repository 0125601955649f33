package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/semaphore"
)

const (
	// breakerFailures is how many calls in a row must reach nobody before the
	// breaker opens.
	breakerFailures = 5
	// breakerPause is how long the breaker then lets nothing through.
	breakerPause = 5 * time.Second
	// probePause is the time between two permissions to begin the attempt that
	// finds out whether the upstream is back. A permission may come to nothing,
	// for example because the item's instance is locked.
	probePause = time.Second
	// turnPatience is how long an item waits for its turn before it is put back, so that
	// another worker may have it.
	turnPatience = 30 * time.Second
	// connectTime is when a call that has not returned counts as one that has
	// reached the upstream. It is longer than a driver needs to find out that it
	// cannot, and much shorter than a reset: the first call after an outage must
	// not keep all others waiting until its reset is done.
	connectTime = 30 * time.Second
)

// UpstreamConfig bounds what one process sends upstream.
type UpstreamConfig struct {
	Rate        float64 // calls of the driver per second, evenly spaced; 0 = no bound
	Concurrency int     // calls of the driver side by side; 0 = no bound
}

// Check returns an error that names the first setting that cannot work, by its
// flag.
func (c UpstreamConfig) Check() error {
	switch {
	case math.IsNaN(c.Rate) || math.IsInf(c.Rate, 0) || c.Rate < 0:
		return fmt.Errorf("--driver-rate must be a number of calls per second, or 0 for no bound, not %v", c.Rate)
	case c.Concurrency < 0:
		return fmt.Errorf("--driver-concurrency must not be negative; 0 is no bound")
	}
	return nil
}

// Upstream is a driver behind a breaker and the bounds of an UpstreamConfig.
//
// The breaker counts calls that ended as Unreachable, and nothing else: any
// other answer, and any doubt, shows that the upstream is there. After five in a row it
// opens. For five seconds Reset then returns Unreachable without calling the
// driver; after that a single call is let through, and how it ends closes the
// breaker or opens it again. All instances share the breaker, so it is meant for
// drivers whose calls all go to one control plane.
type Upstream struct {
	prometheus.Collector
	driver  Driver
	cfg     UpstreamConfig
	slots   *semaphore.Weighted
	pace    *pace
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]

	mu   sync.Mutex
	next time.Time // when an attempt may begin, while the breaker is not closed
	seen upstreamState

	calls, unreachable prometheus.Counter
	inFlight           prometheus.Gauge
}

// NewUpstream puts a driver behind a breaker and the bounds of cfg, which must
// pass its Check. The breaker tells log when it opens and closes.
func NewUpstream(driver Driver, cfg UpstreamConfig, log *slog.Logger) *Upstream {
	slots := int64(math.MaxInt64)
	if cfg.Concurrency > 0 {
		slots = int64(cfg.Concurrency)
	}
	registry := prometheus.NewRegistry()
	factory := promauto.With(registry)
	u := &Upstream{
		Collector: registry,
		driver:    driver,
		cfg:       cfg,
		slots:     semaphore.NewWeighted(slots),
		pace:      newPace(cfg.Rate),
		calls: factory.NewCounter(prometheus.CounterOpts{
			Name: "batchreset_upstream_calls_total", Help: "Calls of the driver.",
		}),
		unreachable: factory.NewCounter(prometheus.CounterOpts{
			Name: "batchreset_upstream_unreachable_total", Help: "Calls of the driver that could not reach the upstream; nothing was sent.",
		}),
		inFlight: factory.NewGauge(prometheus.GaugeOpts{
			Name: "batchreset_upstream_calls_in_flight", Help: "Calls of the driver that have not returned.",
		}),
	}
	u.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1,
		Timeout:     breakerPause,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerFailures },
		IsExcluded:  func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			level := slog.LevelInfo
			if to == gobreaker.StateOpen {
				level = slog.LevelWarn
				u.pauseFor(breakerPause)
			}
			u.noteBreaker(to == gobreaker.StateClosed)
			log.Log(context.Background(), level, "breaker of the upstream", "from", from.String(), "to", to.String())
		},
	})
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "batchreset_upstream_breaker_open", Help: "1 while the upstream counts as unreachable, trial calls included; else 0.",
	}, func() float64 {
		if u.breaker.State() == gobreaker.StateClosed {
			return 0
		}
		return 1
	})
	return u
}

// upstreamState is what people are told of the upstream. Its times are by this machine's clock.
type upstreamState struct {
	openSince   time.Time // zero: the breaker is closed
	lastError   string    // of the last call that did not reach it
	lastErrorAt time.Time
}

func (u *Upstream) state() upstreamState {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen
}

func (u *Upstream) noteBreaker(closed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case closed:
		u.seen.openSince = time.Time{}
	case u.seen.openSince.IsZero(): // trials do not end it
		u.seen.openSince = time.Now()
	}
}

func (u *Upstream) noteError(e *DriverError) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen.lastError, u.seen.lastErrorAt = e.text(), time.Now()
}

// Repeatable is the driver's own answer, or false if it has none.
func (u *Upstream) Repeatable() bool {
	r, ok := u.driver.(Repeater)
	return ok && r.Repeatable()
}

// Enter implements Gate: it waits for one of the slots and for the rate, in this order, and
// says no while the upstream cannot be reached, so that an item can be put back without an
// attempt. While the breaker waits for a trial call, one caller a second is told to go on.
func (u *Upstream) Enter(ctx context.Context) (turn Turn, wait time.Duration, reason string) {
	if wait, ok := u.reachable(ctx); !ok {
		return nil, wait, "the control plane cannot be reached"
	}
	ctx, cancel := context.WithTimeout(ctx, turnPatience)
	defer cancel()
	const noTurn = "no turn came under --driver-rate and --driver-concurrency"
	if u.slots.Acquire(ctx, 1) != nil {
		return nil, probePause, noTurn
	}
	t := &upstreamTurn{u: u}
	if !u.pace.wait(ctx) {
		u.slots.Release(1)
		<-ctx.Done() // otherwise a long queue would circle through Redis all the time
		return nil, probePause, noTurn
	}
	if u.breaker.State() == gobreaker.StateOpen { // since
		t.Leave()
		return nil, u.untilNext(), "the control plane cannot be reached"
	}
	return t, 0, ""
}

// upstreamTurn is a slot, and a place in the rate until it is taken.
type upstreamTurn struct {
	u     *Upstream
	taken atomic.Bool
	left  atomic.Bool
}

// Take implements Turn.
func (t *upstreamTurn) Take() { t.taken.Store(true) }

// Leave implements Turn.
func (t *upstreamTurn) Leave() {
	if t.left.Swap(true) {
		return
	}
	t.u.slots.Release(1)
	if !t.taken.Load() {
		t.u.pace.giveBack()
	}
}

// reachable waits for a moment while the upstream cannot be reached, and says whether it can
// be now, and if not, when to ask again: from one to five seconds.
func (u *Upstream) reachable(ctx context.Context) (wait time.Duration, ok bool) {
	if wait, ok = u.ready(); ok {
		return 0, true
	}
	select {
	case <-time.After(wait):
		return u.ready()
	case <-ctx.Done():
		return wait, false
	}
}

func (u *Upstream) ready() (wait time.Duration, ok bool) {
	switch u.breaker.State() {
	case gobreaker.StateClosed:
		return 0, true
	case gobreaker.StateHalfOpen:
		// What is not excluded is on its way: its end would change the state.
		c := u.breaker.Counts()
		if c.Requests == c.TotalExclusions && u.takeTurn() {
			return 0, true
		}
	}
	return u.untilNext(), false
}

// takeTurn takes the permission to try the upstream, if it is there.
func (u *Upstream) takeTurn() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	if now.Before(u.next) {
		return false
	}
	u.next = now.Add(probePause)
	return true
}

func (u *Upstream) pauseFor(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next = time.Now().Add(d)
}

func (u *Upstream) untilNext() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return max(time.Until(u.next), probePause)
}

// Reset calls the driver, unless the breaker is open.
func (u *Upstream) Reset(ctx context.Context, a Attempt) error {
	report, err := u.breaker.Allow()
	if err != nil {
		return u.refusal()
	}
	return u.call(ctx, a, report)
}

func (u *Upstream) refusal() error {
	return &DriverError{
		Verdict:    Unreachable,
		Message:    "the control plane cannot be reached (breaker open)",
		RetryAfter: u.untilNext(),
		notCalled:  true,
	}
}

// call calls the driver and reports once to the breaker how it went.
func (u *Upstream) call(ctx context.Context, a Attempt, report func(error)) error {
	var once sync.Once
	reportOnce := func(err error) { once.Do(func() { report(err) }) }
	connected := time.AfterFunc(connectTime, func() { reportOnce(nil) })
	defer connected.Stop()
	defer reportOnce(nil) // for a driver that panics

	u.calls.Inc()
	u.inFlight.Inc()
	defer u.inFlight.Dec()
	err := u.driver.Reset(ctx, a)
	if e, ok := errors.AsType[*DriverError](err); ok {
		switch {
		case e.Verdict == NotSent, e.Verdict == Unreachable && errors.Is(ctx.Err(), context.Canceled):
			reportOnce(context.Canceled) // by us, which says nothing about the upstream
		case e.Verdict == Unreachable:
			u.unreachable.Inc()
			u.noteError(e)
			reportOnce(err)
		}
	}
	return err
}
