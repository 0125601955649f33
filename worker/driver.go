package worker

import (
	"context"
	"strings"
	"time"

	"batchreset/tasks"
)

// Driver is what really resets an instance. Package worker/drivertest has this contract, and that of
// [Looker], as tests that every driver must pass.
type Driver interface {
	// Reset returns the instance to its initial state and blocks until that is
	// known. It must return soon after ctx ends, and must not send anything once
	// ctx has ended. nil means that the reset is confirmed. An error should be a
	// [*DriverError], which says what to do next; any other error is taken as
	// [Unknown].
	Reset(ctx context.Context, a Attempt) error
}

// Repeater is implemented by a driver that knows whether calling it again for
// the same item, under the same driver key, is harmless. Without it the worker
// assumes that it is not, and an attempt whose outcome is in doubt ends the item
// as unknown.
type Repeater interface {
	Repeatable() bool
}

// Looker is implemented by a driver that can see whether an instance is in its initial state.
type Looker interface {
	// Look says what state the instance is in now, and how that is known. It changes nothing, and
	// may be called at any time: after a reset that the upstream calls done, and before anything
	// else when an earlier call is in doubt. a.Checkpoint is the last one of this item, from this
	// attempt too. It must return soon after ctx ends. An error says that the driver could not
	// look, or did not understand what it saw: the worker looks again.
	//
	// A look sees a state, not a deed. Where a call is in doubt, an instance that was in its initial
	// state before it counts as reset. So Initial must not be said while a reset is under way or
	// waits for its turn, and a driver that can tell an old wipe from a new one must do so.
	Look(ctx context.Context, a Attempt) (Sight, error)
}

// Sight is what a [Looker] saw.
type Sight struct {
	State SightState
	// Evidence is what was seen and by which call, such as a boot ID or the time of birth of the
	// data, at most MaxEvidence bytes; what is longer is cut. It is kept with the item.
	Evidence string
}

// SightState is the state of an instance as far as a [Looker] can see.
type SightState string

// The states of an instance. NotInitial is certain: the reset has not happened, and may be tried
// again. Unclear is neither: the item stays in doubt.
const (
	Initial    SightState = "initial"
	NotInitial SightState = "not initial"
	Unclear    SightState = "unclear"
)

// MaxEvidence is the size limit of evidence in bytes.
const MaxEvidence = 256

// Gate is implemented by a driver that decides when an attempt may begin: when the upstream can
// be reached, and within the limits of rate and concurrency.
type Gate interface {
	// Enter waits for a turn. It returns nil if none came, with when to ask again and why.
	Enter(ctx context.Context) (turn Turn, wait time.Duration, reason string)
}

// Turn is the permission to begin one attempt.
type Turn interface {
	// Take says that the driver is called: the turn is used.
	Take()
	// Leave ends the turn. If it was not taken, somebody else gets it. It may be called more
	// than once.
	Leave()
}

// Attempt is what a driver is given: one try at resetting one item.
type Attempt struct {
	InstanceID string
	// Address is where the driver finds the instance, as the fleet has it; empty: by its ID.
	Address string
	// Labels are those of the instance in the fleet. They must not be changed.
	Labels map[string]string

	ItemID string
	Number int // from 1; counts every attempt of the item

	// Key is the driver key: the same for every call whose predecessor's
	// outcome is not known, so that a control plane that honours idempotency
	// keys does the reset once.
	Key string

	// Deadline is when ctx ends.
	Deadline time.Time

	// MaySend is the last check before a reset is sent. It also marks in the record that the
	// reset may have been sent. A driver must call it once, just before it sends: meanwhile
	// another worker may have taken the item, the instance may have a new owner or be
	// protected, the job may be cancelled, or an operator may have halted the tenant. It takes
	// a round trip to Redis. After an error nothing may be sent, and the driver returns
	// NotSent. An attempt that has not called it counts as one that has sent nothing.
	MaySend func() error

	// Ambiguous says that an earlier call for this item may have been sent and
	// its outcome is not known. The driver looks, repeats if that is safe, or
	// returns Unknown.
	Ambiguous bool

	// Checkpoint is what an earlier attempt saved, or empty. A driver that has
	// one resumes there instead of resetting again.
	Checkpoint string

	// Save stores a checkpoint with the item, at most MaxCheckpoint bytes. Call
	// it as soon as there is something to resume from.
	Save func(ctx context.Context, checkpoint string) error
}

// MaxCheckpoint is the size limit of a checkpoint in bytes.
const MaxCheckpoint = 2048

// Verdict says what an error of a driver means for the item.
type Verdict string

// The verdicts. Retryable, Permanent, Busy, Unreachable and NotSent are only for
// calls that certainly did not reset the instance.
const (
	Retryable   Verdict = "retryable"   // failed; try again, within the retry budget
	Permanent   Verdict = "permanent"   // failed; trying again is of no use
	Busy        Verdict = "busy"        // the instance is occupied; put back, no retry used
	Unreachable Verdict = "unreachable" // no connection, or our credentials are refused; put back, no retry used
	NotSent     Verdict = "not sent"    // MaySend said no; put back, no retry used
	Unknown     Verdict = "unknown"     // sent, and nobody can say whether the reset happened
)

// DriverError is a driver's account of an attempt that did not succeed.
type DriverError struct {
	Verdict Verdict
	// Code and Message are the upstream's own, where it gave them.
	Code    string
	Message string
	// RetryAfter is the delay that the upstream asks for, or 0.
	RetryAfter time.Duration
	// Repeatable goes with Unknown: a repeat under the same key is harmless, so
	// the item is tried again instead of ending as unknown.
	Repeatable bool
	// EndsDoubt says that this answer is about the earlier call that was in doubt, too (see
	// Attempt.Ambiguous): nothing is in doubt any more. A refusal of a repeat is no such
	// answer.
	EndsDoubt bool

	notCalled bool // an [Upstream] has not let the call through
}

// NotUnderstood is the code of an answer to a reset that says neither that it is done nor
// that it failed. The verdict is Unknown.
const NotUnderstood = string(tasks.NotUnderstood)

func (e *DriverError) Error() string {
	s := string(e.Verdict)
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// text is what the upstream said.
func (e *DriverError) text() string { return strings.TrimSpace(e.Code + " " + e.Message) }
