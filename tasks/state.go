package tasks

import (
	"fmt"
	"slices"
	"strings"
)

// ItemState says where an item stands. DESIGN: pending → running → succeeded,
// failed, unknown or cancelled, with retrying between attempts.
type ItemState string

// The states of an item. Unknown means that the reset was sent and nobody can
// say whether it happened; it is never retried by itself.
const (
	ItemPending   ItemState = "pending"
	ItemRunning   ItemState = "running"
	ItemRetrying  ItemState = "retrying"
	ItemSucceeded ItemState = "succeeded"
	ItemFailed    ItemState = "failed"
	ItemUnknown   ItemState = "unknown"
	ItemCancelled ItemState = "cancelled"
)

// ItemStates lists every item state, in the order of a life.
var ItemStates = []ItemState{
	ItemPending, ItemRunning, ItemRetrying,
	ItemSucceeded, ItemFailed, ItemUnknown, ItemCancelled,
}

// Final reports whether an item in this state changes only when a retry is
// asked for explicitly.
func (s ItemState) Final() bool {
	switch s {
	case ItemSucceeded, ItemFailed, ItemUnknown, ItemCancelled:
		return true
	}
	return false
}

// RetryStates are the states from which a retry can reopen an item: failed, and the others only
// if they are asked for by name. An unknown item's instance may have been reset, and a cancelled
// item was cancelled by somebody.
var RetryStates = []ItemState{ItemFailed, ItemUnknown, ItemCancelled}

// CheckRetryStates returns a sentence that says what is wrong with the states that a retry
// is asked for, or nil.
func CheckRetryStates(states []ItemState) error {
	if len(states) == 0 {
		return fmt.Errorf("must name at least one of %s", InWords(RetryStates))
	}
	for i, state := range states {
		switch {
		case !slices.Contains(RetryStates, state):
			return fmt.Errorf("has %.80q, which is none of %s%s", string(state), InWords(RetryStates), DidYouMean(string(state), RetryStates))
		case slices.Contains(states[:i], state):
			return fmt.Errorf("has %q twice", string(state))
		}
	}
	return nil
}

// NothingToRetry says why no item of a job can be opened from the given states: JobFinal.
func (j Job) NothingToRetry(what Again) error {
	if !j.State.Final() || slices.ContainsFunc(j.Items, what.Takes) { // or was opened meanwhile
		return Errorf(JobFinal, "the job has nothing to retry yet: it has not ended")
	}
	if j.Counts.Succeeded == j.Total {
		return Errorf(JobFinal, "the job has nothing to retry: every item succeeded")
	}
	var others []string
	for _, state := range RetryStates {
		if n := *j.Counts.Of(state); n > 0 {
			others = append(others, fmt.Sprintf("%d %s %s", n, isOrAre(n), state))
		}
	}
	return Errorf(JobFinal, "no item is %s; %s: name the state to retry them", what.InWords(), strings.Join(others, ", "))
}

func isOrAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// InWords is "failed, unknown or cancelled".
func InWords[T ~string](names []T) string {
	words := make([]string, len(names))
	for i, name := range names {
		words[i] = string(name)
	}
	if last := len(words) - 1; last > 0 {
		return strings.Join(words[:last], ", ") + " or " + words[last]
	}
	return strings.Join(words, "")
}

// In is how many items are in one of the states.
func (c Counts) In(states []ItemState) (n int) {
	for _, state := range states {
		n += *c.Of(state)
	}
	return n
}

// Transition is what the end of an attempt does to its item.
type Transition string

// The transitions.
const (
	Succeed   Transition = "succeed"    // the driver confirmed the reset
	Retry     Transition = "retry"      // the attempt ended without success, another follows
	Fail      Transition = "fail"       // the item will not succeed any more
	LoseTrack Transition = "lose track" // nobody can say whether the reset happened
)

// JobState is the sum of a job's items.
type JobState string

// The states of a job.
const (
	JobPending   JobState = "pending"   // no item has begun
	JobRunning   JobState = "running"   // some item is not final
	JobSucceeded JobState = "succeeded" // every item succeeded
	JobFailed    JobState = "failed"    // none succeeded, at least one failed or is unknown
	JobPartial   JobState = "partial"   // some succeeded, some did not
	JobCancelled JobState = "cancelled" // none succeeded, all were cancelled
)

// JobStates lists every job state, in the order of a life.
var JobStates = []JobState{
	JobPending, JobRunning, JobSucceeded, JobFailed, JobPartial, JobCancelled,
}

// Final reports whether every item of a job in this state is final.
func (s JobState) Final() bool { return s != JobPending && s != JobRunning }

// Counts says how many items of a job are in each state.
type Counts struct {
	Pending   int `json:"pending"`
	Running   int `json:"running"`
	Retrying  int `json:"retrying"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Unknown   int `json:"unknown"`
	Cancelled int `json:"cancelled"`
}

// Of returns the counter of a state, to read or to change; nil for a state that
// does not exist.
func (c *Counts) Of(s ItemState) *int {
	switch s {
	case ItemPending:
		return &c.Pending
	case ItemRunning:
		return &c.Running
	case ItemRetrying:
		return &c.Retrying
	case ItemSucceeded:
		return &c.Succeeded
	case ItemFailed:
		return &c.Failed
	case ItemUnknown:
		return &c.Unknown
	case ItemCancelled:
		return &c.Cancelled
	}
	return nil
}

// Count counts items by their state.
func Count(items []Item) Counts {
	var c Counts
	for _, it := range items {
		if n := c.Of(it.State); n != nil {
			*n++
		}
	}
	return c
}

// Total is the number of items counted.
func (c Counts) Total() int { return c.Open() + c.Succeeded + c.Failed + c.Unknown + c.Cancelled }

// Open is the number of items that are not final.
func (c Counts) Open() int { return c.Pending + c.Running + c.Retrying }

// State folds the counts into the state of the job.
func (c Counts) State() JobState {
	total := c.Total()
	switch {
	case c.Pending == total:
		return JobPending
	case c.Open() > 0:
		return JobRunning
	case c.Succeeded == total:
		return JobSucceeded
	case c.Succeeded > 0:
		return JobPartial
	case c.Cancelled == total:
		return JobCancelled
	default:
		return JobFailed
	}
}
