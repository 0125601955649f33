package tasks

import (
	"errors"
	"time"
)

// Begun is an attempt that the record has accepted.
type Begun struct {
	Number   int // from 1; counts every attempt of the item
	Failures int // definite failures before this attempt: the used part of the retry budget
	Lost     int // earlier attempts whose worker died
	// Unanswered counts earlier attempts whose call had no answer.
	Unanswered int
	// Key is the driver key. It is the key of the call before for as long as that
	// call's outcome is not known.
	Key        string
	Checkpoint string // what an earlier attempt saved, or empty
	// Address and Labels of the instance are those of the fleet.
	Address string
	Labels  map[string]string
	// Ambiguous says that an earlier call may have been sent and its outcome is
	// not known.
	Ambiguous bool
}

// Outcome is how an attempt ended, as it goes into the record.
type Outcome struct {
	// Transition is Succeed, Retry, Fail or LoseTrack.
	Transition Transition
	Code       Code
	Message    string // at most MaxMessage bytes
	// Failure says that the attempt counts against the retry budget.
	Failure bool
	// InDoubt says that the outcome of a call is not known: the driver key and
	// the checkpoint are kept for the next attempt.
	InDoubt bool
	// Unanswered says that the call had no answer. Such attempts have a budget of
	// their own: they are no definite failures, and must not go on for ever.
	Unanswered bool
	// Evidence is what was seen of the instance after the call, or empty.
	Evidence string
	// Steps are how far it came. They are kept with the item unless it is one that succeeds at once, without evidence.
	Steps Steps
	// Busy says that the instance was occupied.
	Busy bool
	// Delay is when the next attempt is due after Retry; 0 = not known yet.
	Delay time.Duration
	// MaxFailures stops the rest of the job once so many of its items failed, besides
	// what the job itself says; 0 = never.
	MaxFailures int
}

// BeatEvery is how often a worker process shows that it is alive.
const BeatEvery = 3 * time.Second

// MaxMessage is how many bytes of an error message are kept with an item. It is
// the limit of KooPhone's execute_msg.
const MaxMessage = 1024

// Ended is the record's answer to an outcome.
type Ended struct {
	// State is what the item came to be. A job that was stopped turns a retry into
	// a failure.
	State ItemState
	// BusyFor is how long the item has been waiting for a busy instance.
	BusyFor time.Duration
	// JobFinal says that this was the last open item of the job.
	JobFinal bool
}

// Refusal says why a delivery may not go on with its item.
type Refusal string

// The refusals. The first six are about the instance; all others say that the record
// has moved on without the delivery, or must not go on.
const (
	InstanceBusy  Refusal = "the instance is being reset by another item"
	NotAllowed    Refusal = "the instance is protected or no longer the tenant's"
	Moved         Refusal = "the instance has another address now"
	Rerouted      Refusal = "the instance has another driver now"
	Reassigned    Refusal = "the instance was assigned again since: it has another generation than the request says"
	InPlace       Refusal = "the item is where its driver looks for it"
	JobGone       Refusal = "there is no such job or item"
	WrongInstance Refusal = "the record names another instance"
	AlreadyFinal  Refusal = "the item is final"
	OldDelivery   Refusal = "the item was delivered again since"
	TooEarly      Refusal = "the item's time has not come"
	TooLate       Refusal = "the item's time is over"
	JobStopped    Refusal = "the job was cancelled or stopped"
	WrongToken    Refusal = "the attempt was closed or replaced"
	AttemptAlive  Refusal = "another attempt at the item is under way"
)

// ErrBrokenRecord is in the chain of an error that a record's own content is the cause of:
// asking again does not help.
var ErrBrokenRecord = errors.New("the record is broken")

// WentBackError says that Redis, or one server of a Cluster, has an older state than it had before, as after a restore: what was
// done since is not in it.
type WentBackError struct{ By time.Duration } // at the least; 0: by some seconds at the most

func (e *WentBackError) Error() string {
	return "Redis has gone back in time by " + e.By.Round(time.Second).String() + " or more"
}

func (r Refusal) Error() string { return string(r) }

// EarlyError is TooEarly with the time that is left.
type EarlyError struct{ Wait time.Duration }

func (e *EarlyError) Error() string { return TooEarly.Error() }

func (e *EarlyError) Unwrap() error { return TooEarly }
