// Package drivertest is the contract of [worker.Driver] and [worker.Looker] as tests: one suite,
// for every driver. What only one driver has, such as the answers of its upstream, is for that
// driver's own tests.
//
// A driver's package says in a [Subject] how its upstream is made to misbehave, and runs [Run].
//
// What must hold, whatever the upstream does and whoever dies:
//
//   - nil means that the phone was reset, once.
//   - Any verdict but unknown means that it was not, or at least not by this call.
//   - MaySend is asked once, before anything is done. After a no, and once the context has ended,
//     nothing is done, and the verdict says so.
//   - An attempt that has sent nothing is not unknown.
//   - Attempts under one driver key, one after the other or at the same time, reset a phone once.
//     A driver that is not to be repeated does nothing while an earlier call is in doubt and has no
//     checkpoint.
//   - Only an answer about the call in doubt ends the doubt.
//   - A driver returns soon after its context has ended.
//   - A look changes nothing and asks nobody, and says initial or not initial only if that is so.
package drivertest

import (
	"testing"

	"batchreset/worker"
)

// Behaviour is what an upstream does when it is asked to reset its phone.
type Behaviour string

// The behaviours of an upstream.
const (
	Works    Behaviour = "works"
	Slow     Behaviour = "is slow"                           // works, and takes some tenths of a second
	Hangs    Behaviour = "does it, and does not answer"      // until who asks hangs up
	Lost     Behaviour = "does it, and the answer is lost"   // the connection ends
	Dropped  Behaviour = "does nothing, and does not answer" // the connection ends
	Garbage  Behaviour = "does it, and answers in garbage"   // which has control characters in it
	Nonsense Behaviour = "does nothing, and answers in garbage"
	Busy     Behaviour = "says that the phone is busy"
	Refuses  Behaviour = "refuses" // for good
	Fails    Behaviour = "says that it has failed"
	Away     Behaviour = "cannot be reached"
	Lies     Behaviour = "does nothing, and says that it is done"
)

// What a subject may have no use for, beside behaviours.
const (
	// Remote is an upstream with steps of its own, between which a worker can die.
	Remote Behaviour = "has steps"
	// Remembers is an upstream that knows whether its phone was reset.
	Remembers Behaviour = "remembers"
)

// Subject is a driver with its settings.
type Subject struct {
	// New starts an upstream that has one phone, which somebody has used. It ends with the test.
	New func(t *testing.T) Upstream
	// Never are the behaviours that this upstream cannot have, each with the reason.
	Never map[Behaviour]string
}

// Upstream is what a driver is tried on.
type Upstream interface {
	// Behave says how it behaves from now on. It is called before the drivers are made that are to
	// find it so. A new upstream works.
	Behave(b Behaviour)
	// Driver returns a new driver, as in a worker that has just started. It ends with the test.
	Driver(t *testing.T) worker.Driver
	// Attempt is an attempt at the phone: its ID, and what else the fleet has of it.
	Attempt() worker.Attempt
	// Resets is how often the phone was reset so far. What an upstream does once, because it knows
	// the key, counts once.
	Resets() int
	// Steps counts the moments so far at which the death of a worker makes a difference: when a
	// question or an order arrives, and when it is done and not answered yet.
	Steps() int
	// CutAt has the worker die at a step, as Steps counts them: from there on nothing that it
	// asks arrives, and it gets no answer. 0 is for the next worker: nobody dies.
	CutAt(step int)
}

// Run tries a driver.
func Run(t *testing.T, s Subject) {
	t.Helper()
	for name, test := range map[string]func(t *testing.T, s Subject){
		"answers":      answers,
		"permission":   permission,
		"ended":        ended,
		"in doubt":     inDoubt,
		"two attempts": twoAttempts,
		"crash":        crashes,
		"look":         looks,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// having runs a test in parallel if the upstream can behave so.
func (s Subject) having(t *testing.T, what Behaviour, test func(t *testing.T)) {
	t.Helper()
	if reason := s.Never[what]; reason != "" {
		t.Logf("no upstream of this driver %s: %s", what, reason)
		return
	}
	t.Run(string(what), func(t *testing.T) {
		t.Parallel()
		test(t)
	})
}
