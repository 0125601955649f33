// Package simulator is a driver without phones: resets take time, fail or hang as
// its settings say. The same seed gives the same outcomes, whatever the order in
// which items run.
//
// Some instances have a character, by the beginning of their ID:
//
//	flaky-…  the first attempt fails
//	lies-…   the reset is called done, and a look shows that nothing has happened
//	slow-…   a reset takes ten times as long
package simulator

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"batchreset/worker"
)

// Config are the settings of the simulated phones.
type Config struct {
	Latency     time.Duration // a reset takes half to one and a half of it
	FailureRate float64       // share of attempts that fail, 0 to 1
	HangRate    float64       // share of attempts that never answer, 0 to 1
	Seed        int64         // any number, 0 included, stands for outcomes of its own
}

// Driver simulates resets.
type Driver struct{ cfg Config }

// New returns a simulator. Errors begin with the name of the setting.
func New(cfg Config) (*Driver, error) {
	switch {
	case cfg.Latency < 0:
		return nil, errors.New("latency must not be negative")
	case !isShare(cfg.FailureRate):
		return nil, errors.New("failure_rate must be from 0 to 1")
	case !isShare(cfg.HangRate):
		return nil, errors.New("hang_rate must be from 0 to 1")
	}
	return &Driver{cfg}, nil
}

func isShare(f float64) bool { return f >= 0 && f <= 1 } // NaN is none

// Repeatable says that a simulated reset may be repeated.
func (d *Driver) Repeatable() bool { return true }

// Reset waits, and fails or hangs as often as the settings say.
func (d *Driver) Reset(ctx context.Context, a worker.Attempt) error {
	// What happens depends on the instance and the attempt alone, not on the order
	// of attempts or the job's random ID: that makes a run repeatable.
	h := fnv.New64a()
	_, _ = h.Write([]byte(a.InstanceID + " " + strconv.Itoa(a.Number))) // never fails
	random := rand.New(rand.NewPCG(uint64(d.cfg.Seed), h.Sum64()))
	latency := time.Duration(float64(d.cfg.Latency) * (0.5 + random.Float64()))
	if strings.HasPrefix(a.InstanceID, "slow-") {
		latency *= 10
	}
	fails := random.Float64() < d.cfg.FailureRate || strings.HasPrefix(a.InstanceID, "flaky-") && a.Number == 1
	hangs := random.Float64() < d.cfg.HangRate

	if err := maySend(ctx, a); err != nil {
		return &worker.DriverError{Verdict: worker.NotSent, Message: "nothing was sent: " + err.Error()}
	}
	var answer <-chan time.Time
	if !hangs {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		answer = timer.C
	}
	select {
	case <-ctx.Done():
		return &worker.DriverError{Verdict: worker.Unknown, Message: "the simulated phone did not answer", Repeatable: true}
	case <-answer:
	}
	if fails {
		return &worker.DriverError{Verdict: worker.Retryable, Code: "CPS.0003", Message: "simulated failure"}
	}
	return nil
}

// maySend is the last check. Nothing may be sent once ctx has ended.
func maySend(ctx context.Context, a worker.Attempt) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := a.MaySend(); err != nil {
		return err
	}
	return ctx.Err() // asking took its time
}

// Looking is a Driver that can look: a [worker.Looker].
type Looking struct{ *Driver }

// Look sees every instance in its initial state, but for those that lie.
func (Looking) Look(_ context.Context, a worker.Attempt) (worker.Sight, error) {
	if strings.HasPrefix(a.InstanceID, "lies-") {
		return worker.Sight{State: worker.NotInitial, Evidence: "simulated: the data is still there"}, nil
	}
	return worker.Sight{State: worker.Initial, Evidence: "simulated: no data"}, nil
}
