package drivertest

import (
	"context"
	"testing"
	"time"

	"batchreset/worker"
)

// look looks, with what the record has, and makes sure that what is seen is so.
func (c *scene) look() (worker.Sight, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
	defer cancel()
	a := c.Attempt()
	a.ItemID, a.Number, a.Key = "job-0", c.number, c.lastKey
	a.Ambiguous, a.Checkpoint = c.ambiguous, c.lastCheckpoint
	a.MaySend = func() error { c.t.Error("a look asks for leave"); return errNo }
	a.Save = func(context.Context, string) error { c.t.Error("a look saves"); return errNo }
	before := c.Resets()
	sight, err := c.driver.(worker.Looker).Look(ctx, a)
	after := c.Resets()
	if before != after {
		c.t.Errorf("a look has reset the phone")
	}
	if err != nil {
		return sight, err
	}
	switch sight.State {
	case worker.Initial, worker.NotInitial:
		if initial := sight.State == worker.Initial; initial != (after > 0) {
			c.t.Errorf("the phone was reset %d times, and the driver sees %+v", after, sight)
		}
		if sight.Evidence == "" {
			c.t.Error("there is no evidence")
		}
	case worker.Unclear:
	default:
		c.t.Errorf("nobody knows the state of %+v", sight)
	}
	return sight, nil
}

// lookAfter looks at what came of an attempt.
func (c *scene) lookAfter() {
	c.t.Helper()
	sight, trouble := c.look()
	c.t.Logf("%v; %+v, %v", c.last, sight, trouble)
	if c.last == nil && (trouble != nil || sight.State != worker.Initial) {
		c.t.Errorf("it is done, and the driver sees %+v, %v", sight, trouble)
	}
}

// looks has a driver look, if it can. That it looks after an attempt is one of answers.
func looks(t *testing.T, s Subject) {
	c := newScene(t, s, Works)
	if _, can := c.driver.(worker.Looker); !can {
		t.Log("this driver cannot look")
		return
	}
	if s.Never[Remembers] == "" {
		c.lastKey = "KEY1"
		if sight, err := c.look(); err != nil || sight.State == worker.Initial {
			t.Errorf("nothing has happened yet, and it sees %+v, %v", sight, err)
		}
	}
	if err := c.reset(); err != nil {
		t.Fatal(err)
	}
	c.lookAfter()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	_, _ = c.driver.(worker.Looker).Look(ended, c.Attempt()) // what needs no time may be seen all the same
	if took := time.Since(began); took > grace {
		t.Errorf("a look whose time is over took %s", took)
	}
	if s.Never[Away] == "" {
		c.Behave(Away)
		c.driver = c.Driver(t)
		if sight, err := c.look(); err == nil && sight.State != worker.Unclear {
			t.Errorf("nobody is there, and it saw %+v", sight)
		}
	}
	s.having(t, Lies, func(t *testing.T) { newScene(t, s, Lies).lie() })
}

// lie makes an attempt with an upstream that lies. Either the driver finds out itself, or a look does.
func (c *scene) lie() {
	c.t.Helper()
	a := c.next()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	err := c.driver.Reset(ctx, a)
	c.lastKey, c.lastCheckpoint = a.Key, c.checkpoint
	sight, trouble := c.look()
	c.t.Logf("%v; %+v, %v", err, sight, trouble)
	if err == nil && trouble == nil && sight.State == worker.Initial {
		c.t.Error("nobody has found out")
	}
}
