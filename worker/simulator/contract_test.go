package simulator_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"batchreset/worker"
	"batchreset/worker/drivertest"
	"batchreset/worker/simulator"
)

// phone is a phone that there is not. It counts what it is told of.
type phone struct {
	cfg simulator.Config
	id  string

	mu    sync.Mutex
	reset map[string]bool // by driver key
}

func (p *phone) Behave(b drivertest.Behaviour) {
	p.cfg, p.id = simulator.Config{}, "phone-1"
	switch b {
	case drivertest.Slow:
		p.cfg.Latency = 200 * time.Millisecond
	case drivertest.Hangs:
		p.cfg.HangRate = 1
	case drivertest.Fails:
		p.cfg.FailureRate = 1
	case drivertest.Lies:
		p.id = "lies-1"
	}
}

func (p *phone) Attempt() worker.Attempt { return worker.Attempt{InstanceID: p.id} }
func (p *phone) Steps() int              { return 0 }
func (p *phone) CutAt(int)               {}

func (p *phone) Resets() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.reset)
}

func (p *phone) Driver(t *testing.T) worker.Driver {
	t.Helper()
	d, err := simulator.New(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &counting{simulator.Looking{Driver: d}, p}
}

// counting counts what ends well.
type counting struct {
	simulator.Looking

	phone *phone
}

func (c *counting) Reset(ctx context.Context, a worker.Attempt) error {
	err := c.Looking.Reset(ctx, a)
	if err == nil && c.phone.id == "phone-1" {
		c.phone.mu.Lock()
		defer c.phone.mu.Unlock()
		c.phone.reset[a.Key] = true
	}
	return err
}

func TestContract(t *testing.T) {
	const none, alone = "a simulated phone takes every call", "there is nothing between the driver and the phone"
	drivertest.Run(t, drivertest.Subject{
		New: func(*testing.T) drivertest.Upstream {
			p := &phone{reset: map[string]bool{}}
			p.Behave(drivertest.Works)
			return p
		},
		Never: map[drivertest.Behaviour]string{
			drivertest.Lost: alone, drivertest.Dropped: alone, drivertest.Garbage: alone, drivertest.Nonsense: alone, drivertest.Away: alone,
			drivertest.Busy: none, drivertest.Refuses: none,
			drivertest.Remote:    alone,
			drivertest.Remembers: "a simulated phone is as new unless it lies",
		},
	})
}
