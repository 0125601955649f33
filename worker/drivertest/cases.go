package drivertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/worker"
)

// answers has each behaviour of an upstream, a look at what came of it, and then one that works again.
func answers(t *testing.T, s Subject) {
	const doubt = worker.Unknown
	done := func(c *scene) {
		if err := c.reset(); err != nil || c.asked != 1 {
			c.t.Errorf("%v, asked %d times", err, c.asked)
		}
	}
	// What cannot be understood may be found out about in another way, and honest looks at that.
	found := func(c *scene) {
		if err := c.reset(); err != nil && !c.ambiguous && c.sent {
			c.t.Errorf("it ended with %v", err)
		}
	}
	refused := func(want ...worker.Verdict) func(*scene) {
		return func(c *scene) {
			c.wantVerdict(c.resetWithin(2*time.Second, func(*worker.Attempt) {}), want...)
			if n := c.Resets(); n > 0 {
				c.t.Errorf("the phone was reset %d times", n)
			}
		}
	}
	for b, test := range map[Behaviour]func(*scene){
		Works:    done,
		Slow:     done,
		Lost:     found,
		Dropped:  found,
		Garbage:  found,
		Nonsense: found,
		Busy:     refused(worker.Busy),
		Refuses:  refused(worker.Permanent),
		Fails:    refused(worker.Retryable, worker.Permanent),
		Away:     refused(worker.Unreachable),
		Hangs: func(c *scene) {
			err := c.resetWithin(700*time.Millisecond, func(*worker.Attempt) {})
			c.wantVerdict(err, doubt)
		},
	} {
		s.having(t, b, func(t *testing.T) {
			c := newScene(t, s, b)
			test(c)
			if _, can := c.driver.(worker.Looker); can && b != Away && s.Never[Remembers] == "" {
				c.lookAfter()
			}
			if c.Resets() == 0 || c.ambiguous {
				c.recover()
			}
		})
	}
}

// permission has MaySend say no.
func permission(t *testing.T, s Subject) {
	t.Run("is refused at the last moment", func(t *testing.T) {
		t.Parallel()
		c := newScene(t, s, Works)
		asked := 0
		err := c.resetWithin(limit, func(a *worker.Attempt) {
			a.MaySend = func() error { asked++; return errNo }
		})
		c.wantVerdict(err, worker.NotSent)
		if asked != 1 || c.Resets() != 0 || !strings.Contains(fmt.Sprint(err), errNo.Error()) {
			t.Errorf("asked %d times, reset %d times, %v", asked, c.Resets(), err)
		}
		c.recover()
	})
	t.Run("is refused to one that was frozen, while another has reset the phone", func(t *testing.T) {
		t.Parallel()
		c := newScene(t, s, Works)
		frozen, thaw := make(chan struct{}), make(chan struct{})
		late := c.next()
		late.MaySend = func() error {
			close(frozen)
			<-thaw
			return errNo
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		returned := make(chan error, 1)
		go func() { returned <- c.driver.Reset(ctx, late) }()
		select {
		case <-frozen:
		case err := <-returned:
			close(thaw)
			t.Fatalf("it ended with %v and did not ask", err)
		}
		c.ended(&worker.DriverError{Verdict: worker.NotSent}) // it has sent nothing, and is given up
		c.recover()
		close(thaw)
		c.wantVerdict(<-returned, worker.NotSent)
		if n := c.Resets(); n != 1 {
			t.Errorf("the phone was reset %d times", n)
		}
	})
}

// ended has the attempt's time end before it is sent. That it ends after that is one of answers.
func ended(t *testing.T, s Subject) {
	for name, end := range map[string]func(a *worker.Attempt, cancel context.CancelFunc){
		"before it begins": func(_ *worker.Attempt, cancel context.CancelFunc) { cancel() },
		"while MaySend is asked": func(a *worker.Attempt, cancel context.CancelFunc) {
			a.MaySend = func() error { cancel(); return nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newScene(t, s, Works)
			for range 3 { // a driver that leaves it to chance is found out
				err := c.resetWithin(limit, func(a *worker.Attempt) { end(a, c.cancel) })
				c.wantVerdict(err, worker.NotSent, worker.Unreachable)
				if n := c.Resets(); n > 0 {
					t.Fatalf("the phone was reset %d times", n)
				}
			}
			c.recover()
		})
	}
}

// inDoubt begins with a call of which nothing is known, and of which the upstream knows nothing.
func inDoubt(t *testing.T, s Subject) {
	for _, b := range []Behaviour{Works, Busy, Refuses, Away} {
		s.having(t, b, func(t *testing.T) {
			c := newScene(t, s, b)
			c.ambiguous = true
			err := c.resetWithin(2*time.Second, func(*worker.Attempt) {})
			e, _ := errors.AsType[*worker.DriverError](err)
			switch {
			case !c.repeatable() && (c.sent || c.Resets() > 0):
				t.Errorf("it was repeated, and ended with %v", err)
			case e != nil && e.EndsDoubt:
				t.Errorf("this is no answer about the call in doubt: %v", err)
			case b == Works && c.repeatable() && e != nil && e.Verdict != worker.Unknown:
				t.Errorf("nothing stands in the way, and it ended with %v", err)
			case err == nil && b != Works:
				t.Error("it is said to be done")
			}
		})
	}
}

// twoAttempts has one worker take over from another that is at work still.
func twoAttempts(t *testing.T, s Subject) {
	s.having(t, Slow, func(t *testing.T) {
		c := newScene(t, s, Slow)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		c.cancel = cancel
		var errs [2]error
		var both sync.WaitGroup
		asked := make(chan struct{})
		first := c.next()
		first.MaySend = func() error { defer close(asked); return c.maySend() }
		slow := c.driver
		both.Go(func() { errs[0] = slow.Reset(ctx, first) })
		select {
		case <-asked:
		case <-ctx.Done():
		}
		c.mu.Lock()
		c.ambiguous = true
		c.mu.Unlock()
		second := c.next()
		other := c.Driver(t)
		both.Go(func() { errs[1] = other.Reset(ctx, second) })
		both.Wait()
		t.Log(errs)
		if n := c.Resets(); n > 1 || errs[0] == nil && n == 0 || errs[1] == nil && n == 0 {
			t.Errorf("the phone was reset %d times, and they ended with %v", n, errs)
		}
		for n, err := range errs {
			e, _ := errors.AsType[*worker.DriverError](err)
			if definite := e != nil && e.Verdict != worker.Unknown; definite && c.Resets() > 0 && (n == 0 || e.EndsDoubt) {
				t.Errorf("the phone was reset, and attempt %d ended with %v", n+1, err)
			}
		}
	})
}

// crashes has a worker die between any two steps, and another one go on.
func crashes(t *testing.T, s Subject) {
	whole := newScene(t, s, Works)
	if err := whole.reset(); err != nil {
		t.Fatal(err)
	}
	steps := whole.Steps()
	if steps == 0 && s.Never[Remote] == "" {
		t.Error("the upstream counts no steps")
	}
	crash := func(name string, prepare func(c *scene)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newScene(t, s, Works)
			prepare(c)
			if err := c.reset(); !errors.Is(err, errDied) {
				t.Logf("it did not come to that: %v", err)
				return
			}
			c.recover()
		})
	}
	t.Run("after its end, before the record has heard", func(t *testing.T) {
		t.Parallel()
		c := newScene(t, s, Works)
		_ = c.resetWithin(limit, func(*worker.Attempt) { c.deaf = true })
		c.recover()
	})
	for n := range steps {
		crash(fmt.Sprintf("at step %d of the upstream", n+1), func(c *scene) {
			c.cut = n + 1
			c.CutAt(n + 1)
		})
	}
	for n := range 2 * whole.calls {
		crash(fmt.Sprintf("at step %d of the record", n+1), func(c *scene) { c.dieAt = n + 1 })
	}
}
