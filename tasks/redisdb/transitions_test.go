package redisdb_test

import (
	"testing"

	"pgregory.net/rapid"

	"batchreset/tasks"
)

// Transitions that are not the end of an attempt.
const (
	begin  tasks.Transition = "begin"  // an attempt starts
	cancel tasks.Transition = "cancel" // the caller took the item back
	reopen tasks.Transition = "reopen" // the caller asked for a retry of a final item
)

// transitions is the drawing in the documentation of package tasks as a table: whatever is not
// listed does not happen.
var transitions = map[tasks.ItemState]map[tasks.Transition]tasks.ItemState{
	tasks.ItemPending: {
		begin:      tasks.ItemRunning,
		tasks.Fail: tasks.ItemFailed, // busy too long, no longer the tenant's, time over
		cancel:     tasks.ItemCancelled,
		// It was retried while an earlier call was in doubt.
		tasks.LoseTrack: tasks.ItemUnknown,
	},
	tasks.ItemRunning: {
		begin:           tasks.ItemRunning, // the attempt before was lost
		tasks.Succeed:   tasks.ItemSucceeded,
		tasks.Retry:     tasks.ItemRetrying,
		tasks.Fail:      tasks.ItemFailed,
		tasks.LoseTrack: tasks.ItemUnknown,
	},
	tasks.ItemRetrying: {
		begin:           tasks.ItemRunning,
		tasks.Fail:      tasks.ItemFailed,
		tasks.LoseTrack: tasks.ItemUnknown, // time is over while an earlier call is in doubt
		cancel:          tasks.ItemCancelled,
	},
	tasks.ItemFailed:    {reopen: tasks.ItemPending},
	tasks.ItemUnknown:   {reopen: tasks.ItemPending},
	tasks.ItemCancelled: {reopen: tasks.ItemPending},
}

// stateAfter returns the state after a transition, or false when it cannot happen in this one.
func stateAfter(s tasks.ItemState, by tasks.Transition) (tasks.ItemState, bool) {
	to, ok := transitions[s][by]
	return to, ok
}

var allTransitions = []tasks.Transition{begin, tasks.Succeed, tasks.Retry, tasks.Fail, tasks.LoseTrack, cancel, reopen}

func TestNoSequenceOfTransitionsBreaksAJob(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := make([]tasks.Item, rapid.IntRange(1, 6).Draw(t, "items"))
		for i := range items {
			items[i].State = tasks.ItemPending
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			item := &items[rapid.IntRange(0, len(items)-1).Draw(t, "item")]
			by := rapid.SampledFrom(allTransitions).Draw(t, "transition")
			to, possible := stateAfter(item.State, by)
			if item.State.Final() && possible && by != reopen {
				t.Fatalf("%s: final item changed by %s", item.State, by)
			}
			if !item.State.Final() && by == reopen && possible {
				t.Fatalf("%s: open item can be reopened", item.State)
			}
			if possible {
				item.State = to
			}
			counts := tasks.Count(items)
			if counts.Total() != len(items) {
				t.Fatalf("counts %+v do not add up to %d", counts, len(items))
			}
			if state := counts.State(); state.Final() != (counts.Open() == 0) {
				t.Fatalf("job is %s with %d open items", state, counts.Open())
			}
		}
	})
}

func TestEveryStateCanBeReachedAndLeftAsDrawn(t *testing.T) {
	reached := map[tasks.ItemState]bool{tasks.ItemPending: true}
	for _, from := range tasks.ItemStates {
		for _, by := range allTransitions {
			if to, ok := stateAfter(from, by); ok {
				reached[to] = true
			}
		}
	}
	for _, state := range tasks.ItemStates {
		if !reached[state] {
			t.Errorf("no transition leads to %s", state)
		}
	}
	if _, ok := stateAfter(tasks.ItemRunning, cancel); ok {
		t.Error("a running item can be cancelled: its reset may already have been sent")
	}
	if _, ok := stateAfter(tasks.ItemSucceeded, reopen); ok {
		t.Error("a succeeded item can be reset again")
	}
}
