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

// looks has a driver look, if it can, before and after what may happen to a phone.
func looks(t *testing.T, s Subject) {
	if _, can := newScene(t, s, Works).driver.(worker.Looker); !can {
		t.Log("this driver cannot look")
		return
	}
	s.having(t, Remembers, func(t *testing.T) {
		c := newScene(t, s, Works)
		c.lastKey = "KEY1"
		if sight, err := c.look(); err != nil || sight.State == worker.Initial {
			t.Errorf("nothing has happened yet, and it sees %+v, %v", sight, err)
		}
	})
	seen := []Behaviour{Works, Lies}
	if s.Never[Remembers] == "" {
		seen = append(seen, Lost, Dropped, Garbage, Nonsense, Fails)
	}
	for _, b := range seen {
		s.having(t, b, func(t *testing.T) {
			c := newScene(t, s, b)
			if b == Lies {
				c.lie()
				return
			}
			err := c.reset()
			c.Behave(Works)
			c.driver = c.Driver(t)
			sight, trouble := c.look()
			t.Logf("%v; %+v, %v", err, sight, trouble)
			if err == nil && (trouble != nil || sight.State != worker.Initial) {
				t.Errorf("it is done, and the driver sees %+v, %v", sight, trouble)
			}
		})
	}
	t.Run("returns when its time is over", func(t *testing.T) {
		t.Parallel()
		c := newScene(t, s, Works)
		if err := c.reset(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		_, _ = c.driver.(worker.Looker).Look(ctx, c.Attempt()) // what needs no time may be seen all the same
		if took := time.Since(began); took > grace {
			t.Errorf("it took %s", took)
		}
	})
	s.having(t, Away, func(t *testing.T) {
		c := newScene(t, s, Works)
		if err := c.reset(); err != nil {
			t.Fatal(err)
		}
		c.Behave(Away)
		c.driver = c.Driver(t)
		if sight, err := c.look(); err == nil && sight.State != worker.Unclear {
			t.Errorf("nobody is there, and it saw %+v", sight)
		}
	})
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
