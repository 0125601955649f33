package worker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"batchreset/cmd/harness/faketime"
)

// plane is a driver that returns err, or what answer does when err is nil.
type plane struct {
	err    error
	answer func(ctx context.Context) error
	calls  int
}

func (p *plane) Reset(ctx context.Context, _ Attempt) error {
	p.calls++
	if p.err == nil && p.answer != nil {
		return p.answer(ctx)
	}
	return p.err
}

var errUnreachable = &DriverError{Verdict: Unreachable, Message: "nothing was sent: connection refused"}

func untilInterrupted(ctx context.Context) error {
	<-ctx.Done()
	return errUnreachable
}

func newUpstream(t *testing.T, driver Driver, cfg UpstreamConfig) *Upstream {
	t.Helper()
	return NewUpstream(driver, cfg, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
}

// reset makes one call with a minute for it.
func reset(ctx context.Context, u *Upstream) error {
	deadline := time.Now().Add(time.Minute)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return u.Reset(ctx, Attempt{InstanceID: "phone-1", Deadline: deadline})
}

// turn takes a turn and makes one call, as a worker does.
func turn(ctx context.Context, u *Upstream) error {
	t, _, reason := u.Enter(ctx)
	if t == nil {
		return &DriverError{Verdict: NotSent, Message: reason}
	}
	defer t.Leave()
	t.Take()
	return reset(ctx, u)
}

// wantUnreachable returns when the call may be tried again.
func wantUnreachable(t *testing.T, err error, text string) time.Duration {
	t.Helper()
	e, ok := errors.AsType[*DriverError](err)
	if !ok || e.Verdict != Unreachable || !strings.Contains(e.Message, text) {
		t.Fatalf("the call ends with %v, want unreachable: …%s…", err, text)
	}
	return e.RetryAfter
}

// cutOff makes calls until the breaker opens.
func cutOff(t *testing.T, u *Upstream, p *plane) {
	t.Helper()
	p.err = errUnreachable
	for n := range breakerFailures {
		if _, ok := u.ready(); !ok {
			t.Fatalf("the breaker is open after %d calls", n)
		}
		wantUnreachable(t, reset(t.Context(), u), "connection refused")
	}
	if _, ok := u.ready(); ok {
		t.Fatalf("the breaker is not open after %d calls that reached nobody", breakerFailures)
	}
	p.calls = 0
}

// untilReady sleeps as often and as long as Ready says.
func untilReady(t *testing.T, u *Upstream) (slept time.Duration) {
	t.Helper()
	for start := time.Now(); ; {
		wait, ok := u.ready()
		if ok {
			return time.Since(start)
		}
		if time.Since(start) > time.Minute {
			t.Fatal("not ready for a minute")
		}
		faketime.Pass(wait)
	}
}

func TestTheBreaker(t *testing.T) {
	// run gives each sentence a clock of its own.
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
	run("refuses at once after five calls in a row that reached nobody", func(t *testing.T) {
		p := new(plane)
		u := newUpstream(t, p, UpstreamConfig{Rate: 1})
		cutOff(t, u, p)
		after := wantUnreachable(t, reset(t.Context(), u), "breaker open")
		if after != breakerPause || p.calls != 0 {
			t.Errorf("to be tried again after %s, %d calls", after, p.calls)
		}
		if wait, ok := u.ready(); wait != breakerPause || ok {
			t.Errorf("ready: %t, in %s", ok, wait)
		}
	})
	run("does not count calls that were answered or are in doubt", func(t *testing.T) {
		for _, err := range []error{
			nil,
			errors.New("a driver's bug"),
			&DriverError{Verdict: Retryable},
			&DriverError{Verdict: Permanent},
			&DriverError{Verdict: Busy},
			&DriverError{Verdict: Unknown},
		} {
			p := new(plane)
			u := newUpstream(t, p, UpstreamConfig{})
			for range 3 {
				p.err = errUnreachable
				for range breakerFailures - 1 {
					wantUnreachable(t, reset(t.Context(), u), "connection refused")
				}
				p.err = err
				if got := reset(t.Context(), u); !errors.Is(got, err) {
					t.Errorf("the driver's %v became %v", err, got)
				}
			}
			if _, ok := u.ready(); !ok {
				t.Errorf("the breaker is open in spite of: %v", err)
			}
		}
	})
	run("does not count calls that were interrupted", func(t *testing.T) {
		u := newUpstream(t, &plane{answer: untilInterrupted}, UpstreamConfig{})
		for range 2 * breakerFailures {
			ctx, interrupt := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, interrupt)
			wantUnreachable(t, reset(ctx, u), "connection refused")
		}
		if _, ok := u.ready(); !ok {
			t.Error("the breaker is open")
		}
		if n := metrics(t, u)["unreachable_total"]; n != 0 {
			t.Errorf("%v calls are counted as unreachable", n)
		}
	})
	run("does not count calls that did not have to be sent any more", func(t *testing.T) {
		p := new(plane)
		u := newUpstream(t, p, UpstreamConfig{})
		for range 2 * breakerFailures {
			p.err = &DriverError{Verdict: NotSent}
			if err := reset(t.Context(), u); !errors.Is(err, p.err) {
				t.Fatal(err)
			}
		}
		if _, ok := u.ready(); !ok {
			t.Error("the breaker is open")
		}
		// Nor do they say that the upstream is well.
		for range breakerFailures {
			p.err = errUnreachable
			wantUnreachable(t, reset(t.Context(), u), "connection refused")
			p.err = &DriverError{Verdict: NotSent}
			_ = reset(t.Context(), u)
		}
		if _, ok := u.ready(); ok {
			t.Error("the breaker is closed")
		}
	})
	run("closes when a trial call is answered", func(t *testing.T) {
		p := new(plane)
		u := newUpstream(t, p, UpstreamConfig{})
		cutOff(t, u, p)
		if slept := untilReady(t, u); slept < breakerPause || slept > breakerPause+probePause {
			t.Errorf("ready after %s", slept)
		}
		p.err = nil
		for range 10 {
			if err := reset(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			if _, ok := u.ready(); !ok {
				t.Fatal("the breaker is not closed")
			}
		}
	})
	run("opens again for as long when a trial call reaches nobody", func(t *testing.T) {
		p := new(plane)
		u := newUpstream(t, p, UpstreamConfig{})
		cutOff(t, u, p)
		for range 3 {
			untilReady(t, u)
			wantUnreachable(t, reset(t.Context(), u), "connection refused")
			if after := wantUnreachable(t, reset(t.Context(), u), "breaker open"); after != breakerPause {
				t.Errorf("to be tried again after %s", after)
			}
		}
		if p.calls != 3 {
			t.Errorf("%d calls, want 3", p.calls)
		}
	})
	run("tries again when a trial call was interrupted", func(t *testing.T) {
		p := &plane{answer: untilInterrupted}
		u := newUpstream(t, p, UpstreamConfig{})
		cutOff(t, u, p)
		untilReady(t, u)
		p.err = nil
		ctx, interrupt := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, interrupt)
		wantUnreachable(t, reset(ctx, u), "connection refused")
		if slept := untilReady(t, u); slept > probePause {
			t.Errorf("ready again after %s", slept)
		}
	})
	run("lets only one trial call through", func(t *testing.T) {
		answer := make(chan error)
		p := &plane{answer: func(context.Context) error { return <-answer }}
		u := newUpstream(t, p, UpstreamConfig{})
		cutOff(t, u, p)
		p.err = nil
		faketime.Pass(breakerPause + 1)
		trial := make(chan error)
		go func() { trial <- reset(t.Context(), u) }()
		synctest.Wait()
		for range 3 {
			wantUnreachable(t, reset(t.Context(), u), "breaker open")
			if wait, ok := u.ready(); ok || wait != probePause {
				t.Errorf("ready: %t, in %s", ok, wait)
			}
			faketime.Pass(2 * probePause)
		}
		if p.calls != 1 {
			t.Errorf("%d calls", p.calls)
		}
		answer <- nil
		if err := <-trial; err != nil {
			t.Error(err)
		}
	})
	run("tells one caller a second to go on, until there is a trial call", func(t *testing.T) {
		p := new(plane)
		u := newUpstream(t, p, UpstreamConfig{})
		cutOff(t, u, p)
		faketime.Pass(breakerPause + 1)
		ready := 0
		for range 30 { // 3 s
			for range 5 {
				if _, ok := u.ready(); ok {
					ready++
				}
			}
			faketime.Pass(100 * time.Millisecond)
		}
		if ready != 3 {
			t.Errorf("%d callers in 3 s", ready)
		}
	})
	run("does not wait for the end of a trial call that lasts", func(t *testing.T) {
		p := &plane{answer: func(context.Context) error {
			faketime.Pass(50 * time.Second)
			return nil
		}}
		u := newUpstream(t, p, UpstreamConfig{})
		cutOff(t, u, p)
		untilReady(t, u)
		p.err = nil
		trial := make(chan error)
		go func() { trial <- reset(t.Context(), u) }()
		synctest.Wait()
		if slept := untilReady(t, u); slept < connectTime || slept > connectTime+probePause {
			t.Errorf("ready after %s", slept)
		}
		if err := <-trial; err != nil {
			t.Error(err)
		}
	})
	run("takes a panic for a sign of life", func(t *testing.T) {
		p := &plane{answer: func(context.Context) error { panic("a driver's bug") }}
		u := newUpstream(t, p, UpstreamConfig{Concurrency: 1})
		cutOff(t, u, p)
		untilReady(t, u)
		p.err = nil
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic is lost")
				}
			}()
			_ = reset(t.Context(), u)
		}()
		if _, ok := u.ready(); !ok {
			t.Error("the breaker is not closed")
		}
		p.err = errUnreachable
		wantUnreachable(t, reset(t.Context(), u), "connection refused") // the slot is free
		if n := metrics(t, u)["calls_in_flight"]; n != 0 {
			t.Errorf("%v calls in flight", n)
		}
	})
}

func TestTheBreakerIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		p := new(plane)
		u := NewUpstream(p, UpstreamConfig{}, slog.New(slog.NewTextHandler(&lines, nil)))
		want := func(when string, open, calls, unreachable float64) {
			t.Helper()
			if got, want := metrics(t, u), map[string]float64{
				"breaker_open": open, "calls_in_flight": 0, "calls_total": calls, "unreachable_total": unreachable,
			}; !maps.Equal(got, want) {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		want("at first", 0, 0, 0)
		cutOff(t, u, p)
		want("open", 1, 5, 5)
		faketime.Pass(breakerPause + 1)
		want("half open", 1, 5, 5)
		p.err = nil
		if err := reset(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		want("closed", 0, 6, 5)

		var changes []string
		for line := range strings.Lines(lines.String()) {
			_, change, _ := strings.Cut(strings.TrimSpace(line), "level=")
			changes = append(changes, change)
		}
		if want := []string{
			`WARN msg="breaker of the upstream" from=closed to=open`,
			`INFO msg="breaker of the upstream" from=open to=half-open`,
			`INFO msg="breaker of the upstream" from=half-open to=closed`,
		}; !slices.Equal(changes, want) {
			t.Errorf("logged %q", changes)
		}
	})
}

// metrics returns what Prometheus would read, by name without its prefix.
func metrics(t *testing.T, u *Upstream) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(u)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		m := f.GetMetric()[0]
		values[strings.TrimPrefix(f.GetName(), "batchreset_upstream_")] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return values
}

func TestTheBounds(t *testing.T) {
	t.Run("never make more calls side by side than allowed, and all get their turn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var now, most, calls atomic.Int64
			u := newUpstream(t, driverFunc(func(context.Context, Attempt) error {
				n := now.Add(1)
				defer now.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				calls.Add(1)
				faketime.Pass(time.Second)
				return nil
			}), UpstreamConfig{Concurrency: 4})
			start := time.Now()
			var g errgroup.Group
			for range 80 {
				g.Go(func() error { return turn(context.Background(), u) })
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); most.Load() != 4 || calls.Load() != 80 || took != 20*time.Second {
				t.Errorf("%d calls, at most %d side by side, in %s", calls.Load(), most.Load(), took)
			}
		})
	})
	t.Run("space the calls evenly, also after a quiet time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var sent []time.Time
			u := newUpstream(t, driverFunc(func(context.Context, Attempt) error {
				sent = append(sent, time.Now())
				return nil
			}), UpstreamConfig{Rate: 4, Concurrency: 1})
			faketime.Pass(time.Hour)
			start := time.Now()
			var g errgroup.Group
			for range 20 {
				g.Go(func() error { return turn(context.Background(), u) })
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			for n, at := range sent {
				if want := time.Duration(n) * 250 * time.Millisecond; at.Sub(start).Round(time.Millisecond) != want {
					t.Errorf("call %d after %s, want %s", n, at.Sub(start), want)
				}
			}
			if len(sent) != 20 {
				t.Errorf("%d calls", len(sent))
			}
		})
	})
	t.Run("let everything through when there are none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			open := make(chan struct{})
			u := newUpstream(t, driverFunc(func(context.Context, Attempt) error { <-open; return nil }), UpstreamConfig{})
			var g errgroup.Group
			for range 1000 {
				g.Go(func() error { return turn(context.Background(), u) })
			}
			synctest.Wait()
			if n := metrics(t, u)["calls_in_flight"]; n != 1000 {
				t.Errorf("%v calls in flight", n)
			}
			close(open)
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		})
	})

	for _, bound := range []struct {
		name string
		cfg  UpstreamConfig
	}{
		{"concurrency", UpstreamConfig{Concurrency: 1}},
		{"rate", UpstreamConfig{Rate: 1. / 40, Concurrency: 2}},
	} {
		// occupy makes a call that keeps others from theirs for 40 s.
		occupy := func(t *testing.T) (u *Upstream, p *plane, wait func() error) {
			p = &plane{answer: func(context.Context) error {
				faketime.Pass(40 * time.Second)
				return nil
			}}
			u = newUpstream(t, p, bound.cfg)
			var g errgroup.Group
			g.Go(func() error { return turn(context.Background(), u) })
			synctest.Wait()
			return u, p, g.Wait
		}
		t.Run("let an item go that has no turn for half a minute, for another worker: "+bound.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u, p, wait := occupy(t)
				start := time.Now()
				turn, again, reason := u.Enter(t.Context())
				if turn != nil || again != time.Second || !strings.Contains(reason, "--driver-rate and --driver-concurrency") {
					t.Errorf("turn %v, again in %s: %s", turn, again, reason)
				}
				if took := time.Since(start); took != turnPatience || p.calls != 1 {
					t.Errorf("gave up after %s, with %d calls", took, p.calls)
				}
				if err := wait(); err != nil {
					t.Error(err)
				}
				if !u.slots.TryAcquire(int64(bound.cfg.Concurrency)) {
					t.Error("a slot is not given back")
				}
			})
		})
		t.Run("let go of an item at once that is interrupted, and serve the next: "+bound.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u, p, wait := occupy(t)
				faketime.Pass(20 * time.Second) // now a turn would come in time
				start := time.Now()
				ctx, interrupt := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, interrupt)
				if turn, _, _ := u.Enter(ctx); turn != nil {
					t.Error("it has a turn")
				}
				if took := time.Since(start); took != time.Second || p.calls != 1 {
					t.Errorf("returned after %s, with %d calls", took, p.calls)
				}
				if err := turn(t.Context(), u); err != nil {
					t.Errorf("the next call: %v", err)
				}
				if took := time.Since(start); took < 20*time.Second || took > 62*time.Second {
					t.Errorf("it ended after %s", took)
				}
				if err := wait(); err != nil {
					t.Error(err)
				}
			})
		})
	}

	t.Run("give a turn that was not used to the next", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			u := newUpstream(t, new(plane), UpstreamConfig{Rate: 1})
			start := time.Now()
			for range 100 { // whose instances are busy
				turn, _, reason := u.Enter(t.Context())
				if turn == nil {
					t.Fatal(reason)
				}
				turn.Leave()
				turn.Leave() // again does no harm
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("100 turns that came to nothing took %s", took)
			}
			for range 3 {
				if err := turn(t.Context(), u); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(start); took < 2*time.Second {
				t.Errorf("3 calls at 1 per second took %s", took)
			}
		})
	})
	t.Run("let nothing begin that waited while the breaker opened", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &plane{err: errUnreachable}
			u := newUpstream(t, p, UpstreamConfig{Rate: 1})
			var g errgroup.Group
			for range 2 * breakerFailures {
				g.Go(func() error {
					_ = turn(context.Background(), u)
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			if p.calls != breakerFailures {
				t.Errorf("%d calls", p.calls)
			}
		})
	})
}

// once is a driver whose calls must not be repeated, and that says so.
type once struct{ driverFunc }

func (once) Repeatable() bool { return false }

func TestUpstreamIsRepeatableIfItsDriverSaysSo(t *testing.T) {
	for _, c := range []struct {
		name   string
		driver Driver
		want   bool
	}{
		{"yes", repeatable{}, true},
		{"no", once{}, false},
		{"not a word", new(plane), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := newUpstream(t, c.driver, UpstreamConfig{}).Repeatable(); got != c.want {
				t.Errorf("repeatable: %t", got)
			}
		})
	}
}

func TestUpstreamConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  UpstreamConfig
		want string // the flag at fault
	}{
		{"may be empty", UpstreamConfig{}, ""},
		{"may bound both", UpstreamConfig{Rate: 0.1, Concurrency: 3}, ""},
		{"refuses a negative rate", UpstreamConfig{Rate: -1}, "--driver-rate"},
		{"refuses a rate that is no number", UpstreamConfig{Rate: math.NaN()}, "--driver-rate"},
		{"refuses an infinite rate", UpstreamConfig{Rate: math.Inf(1)}, "--driver-rate"},
		{"refuses a negative concurrency", UpstreamConfig{Concurrency: -1}, "--driver-concurrency"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.cfg.Check()
			if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}
