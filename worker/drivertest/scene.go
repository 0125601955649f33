package drivertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"batchreset/worker"
)

const (
	// limit is the time of an attempt that is not to run out of it.
	limit = time.Minute
	// grace is how soon a driver must return when its context has ended: in less than the worker's
	// own patience.
	grace = 5 * time.Second
	// maxMessage is more than the longest message of a driver.
	maxMessage = 4 << 10
)

// scene is one phone, and what the record of its item says.
type scene struct {
	t *testing.T
	Upstream

	driver worker.Driver // of the living worker

	mu         sync.Mutex
	number     int    // of attempts
	checkpoint string // that is stored
	ambiguous  bool
	keys       int // how many there were
	sent       bool
	asked      int
	calls      int // of the record, in this attempt
	// last is how the last attempt ended, and lastKey and lastCheckpoint are for a look after it.
	last                    error
	lastKey, lastCheckpoint string

	// dieAt is the call of the record, from 1, at which the worker dies: half of them before the
	// record has heard it.
	dieAt  int
	cut    int                // the step of the upstream at which it dies
	dead   bool               // it has died at dieAt
	deaf   bool               // it dies when the driver has returned
	cancel context.CancelFunc // of the attempt under way
}

// newScene has a phone whose upstream behaves so.
func newScene(t *testing.T, s Subject, b Behaviour) *scene {
	t.Helper()
	c := &scene{t: t, Upstream: s.New(t), keys: 1}
	if b != Works {
		c.Behave(b)
	}
	c.driver = c.Driver(t)
	return c
}

func (c *scene) repeatable() bool {
	r, ok := c.driver.(worker.Repeater)
	return ok && r.Repeatable()
}

// next is the next attempt of the item, as its record has it.
func (c *scene) next() worker.Attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	c.sent, c.asked, c.calls = false, 0, 0
	a := c.Attempt()
	a.ItemID, a.Number, a.Key = "job-0", c.number, fmt.Sprintf("KEY%d", c.keys)
	a.Ambiguous, a.Checkpoint = c.ambiguous, c.checkpoint
	a.MaySend, a.Save = c.maySend, c.save
	return a
}

var (
	errNo   = errors.New("an operator has halted it")
	errDied = errors.New("the worker has died")
)

// isDead says whether the worker has died. mu is held.
func (c *scene) isDead() bool { return c.dead || c.cut > 0 && c.Steps() >= c.cut }

// heard is one call of the record. It says whether the record hears of it, and whether the worker
// lives to hear the answer.
func (c *scene) heard() (heard, lives bool) {
	if c.isDead() {
		return false, false
	}
	c.calls++
	if heard, lives = c.calls*2-1 != c.dieAt, c.calls*2 != c.dieAt; !heard || !lives {
		c.dead = true
		c.cancel()
		return heard, false
	}
	return true, true
}

func (c *scene) maySend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.Resets()
	heard, lives := c.heard()
	if heard {
		c.asked++
		if c.asked > 1 {
			c.t.Error("MaySend was asked twice in one attempt")
		}
		if before > 0 && !c.ambiguous {
			c.t.Error("the phone was reset before MaySend was asked")
		}
		c.sent = true
	}
	if !lives {
		return errDied
	}
	return nil
}

func (c *scene) save(ctx context.Context, checkpoint string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(checkpoint) == 0 || len(checkpoint) > worker.MaxCheckpoint {
		c.t.Errorf("a checkpoint of %d bytes", len(checkpoint))
	}
	heard, lives := c.heard()
	if heard && ctx.Err() == nil {
		c.checkpoint = checkpoint
	}
	if !lives {
		return errDied
	}
	return ctx.Err()
}

// reset makes the next attempt, with plenty of time, and writes its outcome into the record.
func (c *scene) reset() error {
	c.t.Helper()
	return c.resetWithin(limit, func(*worker.Attempt) {})
}

// resetWithin makes the next attempt with so much time. change may change it. The attempt of a worker that dies
// has no outcome, and errDied is returned.
func (c *scene) resetWithin(d time.Duration, change func(*worker.Attempt)) error {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), d)
	defer cancel()
	a := c.next()
	a.Deadline, _ = ctx.Deadline()
	c.mu.Lock()
	c.cancel = cancel
	c.mu.Unlock()
	change(&a)
	err := c.call(ctx, cancel, a)
	c.mu.Lock()
	dead := c.isDead() || c.deaf
	c.mu.Unlock()
	if dead {
		c.died()
		return errDied
	}
	c.honest(a, err)
	c.ended(err)
	return err
}

// call calls the driver, and ends the context when its worker dies. It must return in time.
func (c *scene) call(ctx context.Context, cancel context.CancelFunc, a worker.Attempt) error {
	c.t.Helper()
	returned := make(chan error, 1)
	driver := c.driver
	go func() { returned <- driver.Reset(ctx, a) }()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	var late <-chan time.Time
	over := ctx.Done()
	for {
		select {
		case err := <-returned:
			return err
		case <-over:
			over, late = nil, time.After(grace)
		case <-late:
			c.t.Fatalf("the driver has not returned %s after the end of its context", grace)
		case <-look.C:
			c.mu.Lock()
			if c.isDead() {
				cancel()
			}
			c.mu.Unlock()
		}
	}
}

// ended writes an outcome into the record, as the worker does.
func (c *scene) ended(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = err
	e, ok := errors.AsType[*worker.DriverError](err)
	switch {
	case err == nil:
		c.ambiguous = false
	case !ok || e.Verdict == worker.Unknown:
		c.ambiguous = true
	case e.EndsDoubt:
		c.ambiguous = false
	}
	c.forget()
}

// died is the end of an attempt whose worker is dead. The record says whether it may have sent.
func (c *scene) died() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ambiguous = c.ambiguous || c.sent
	c.forget()
	c.dieAt, c.cut, c.dead, c.deaf = 0, 0, false, false
	c.CutAt(0)
}

// forget has the next attempt begin afresh, if nothing is in doubt.
func (c *scene) forget() {
	c.lastKey, c.lastCheckpoint = fmt.Sprintf("KEY%d", c.keys), c.checkpoint
	if !c.ambiguous {
		c.checkpoint = ""
		c.keys++
	}
}

// honest makes sure that what a driver says of an attempt is so.
func (c *scene) honest(a worker.Attempt, err error) {
	c.t.Helper()
	resets := c.Resets()
	if resets > 1 {
		c.t.Errorf("the phone was reset %d times", resets)
	}
	if err == nil {
		if resets != 1 {
			c.t.Errorf("the driver says that it is done, and the phone was reset %d times", resets)
		}
		return
	}
	e, ok := errors.AsType[*worker.DriverError](err)
	if !ok {
		c.t.Fatalf("the error is no DriverError: %v", err)
	}
	c.mu.Lock()
	sent := c.sent
	c.mu.Unlock()
	switch e.Verdict {
	case worker.Unknown:
		if !sent && !a.Ambiguous {
			c.t.Errorf("nothing was sent, and it is unknown: %v", e)
		}
	case worker.Retryable, worker.Permanent, worker.Busy, worker.Unreachable, worker.NotSent:
		if resets > 0 && (!a.Ambiguous || e.EndsDoubt) {
			c.t.Errorf("the phone was reset, and the driver says: %v", e)
		}
	default:
		c.t.Errorf("nobody knows the verdict of %v", e)
	}
	c.wellFormed(e)
}

// wellFormed makes sure that an account can be kept and shown.
func (c *scene) wellFormed(e *worker.DriverError) {
	c.t.Helper()
	if e.Message == "" || len(e.Message) > maxMessage {
		c.t.Errorf("a message of %d bytes", len(e.Message))
	}
	if text := e.Code + e.Message; !printable(text) {
		c.t.Errorf("it cannot be shown: %q", text)
	}
	if e.Repeatable && e.Verdict != worker.Unknown {
		c.t.Errorf("repeatable is for what is unknown: %+v", e)
	}
	if e.EndsDoubt && e.Verdict != worker.Retryable && e.Verdict != worker.Permanent {
		c.t.Errorf("this verdict ends no doubt: %+v", e)
	}
	if e.RetryAfter < 0 {
		c.t.Errorf("a delay of %s", e.RetryAfter)
	}
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// wantVerdict makes sure that an attempt ended with one of these.
func (c *scene) wantVerdict(err error, want ...worker.Verdict) {
	c.t.Helper()
	e, _ := errors.AsType[*worker.DriverError](err)
	for _, v := range want {
		if e != nil && e.Verdict == v {
			return
		}
	}
	c.t.Errorf("the attempt ended with %v, want %v", err, want)
}

// recover has another worker go on, with an upstream that works again. What is not in doubt is
// reset in the end, and so is what may be repeated; nothing is reset twice.
func (c *scene) recover() {
	c.t.Helper()
	c.Behave(Works)
	c.driver = c.Driver(c.t)
	var err error
	for range 4 {
		if err = c.reset(); err == nil {
			return
		}
		c.t.Logf("attempt %d: %v", c.number, err)
		if e, _ := errors.AsType[*worker.DriverError](err); e != nil && e.Verdict == worker.Unknown && !e.Repeatable && !c.repeatable() {
			return // people have to look at it
		}
	}
	c.t.Errorf("the phone is not reset in the end: %v", err)
}
