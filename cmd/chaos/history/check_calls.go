package history

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

// checkI3OneResetAtATime: no two calls for one instance overlap, unless they have
// the same driver key and the control plane honours it. A call lasts until the control
// plane is done, even if its worker is not there any more, or was told something else.
func (f facts) checkI3OneResetAtATime() (vs []Violation) {
	for _, instance := range slices.Sorted(maps.Keys(f.byInstance)) {
		calls := slices.DeleteFunc(slices.Clone(f.byInstance[instance]), func(c Event) bool { return c.Answer == TurnedAway })
		for i, a := range calls {
			for _, b := range calls[i+1:] {
				if a.Key == b.Key && f.Repeatable || !b.during(a.Begin, a.End) || f.forgettableCall(a) || f.forgettableCall(b) {
					continue
				}
				vs = append(vs, Violation{
					"I3", fmt.Sprintf("two resets of %s at a time", instance),
					f.story(func(e Event) bool {
						return e.Kind == Call && e.Instance == instance && e.during(a.Begin, max(a.End, b.End))
					}),
				})
				break // the others tell the same story
			}
		}
	}
	return vs
}

// checkI4NoHiddenCalls: the control plane saw no more calls for an item than the
// record has attempts.
func (f facts) checkI4NoHiddenCalls() (vs []Violation) {
	for item := range f.items {
		calls := slices.DeleteFunc(slices.Clone(f.byItem[item.ItemID]), f.forgettableCall)
		if len(calls) > item.Attempts {
			vs = append(vs, Violation{
				"I4", fmt.Sprintf("item %s has %d attempts in its record and %d calls", item.ItemID, item.Attempts, len(calls)),
				f.itemStory(item.ItemID),
			})
		}
	}
	return vs
}

// checkI4TheRightPhone: a call is for the instance that its item has.
func (f facts) checkI4TheRightPhone() (vs []Violation) {
	for item := range f.items {
		for _, c := range f.byItem[item.ItemID] {
			if c.Instance != item.InstanceID {
				vs = append(vs, Violation{
					"I4", fmt.Sprintf("item %s is about %s, and %s was reset", item.ItemID, item.InstanceID, c.Instance),
					f.itemStory(item.ItemID),
				})
			}
		}
	}
	return vs
}

// checkI7CancelledIsNeverCalled: an item that was cancelled before its first
// attempt has no call.
func (f facts) checkI7CancelledIsNeverCalled() (vs []Violation) {
	for item := range f.items {
		if item.State != string(tasks.ItemCancelled) || item.Attempts > 0 {
			continue
		}
		if calls := f.byItem[item.ItemID]; slices.ContainsFunc(calls, func(c Event) bool { return !f.forgettableCall(c) }) {
			vs = append(vs, Violation{"I7", "item " + item.ItemID + " was cancelled before it started and reset all the same", f.itemStory(item.ItemID)})
		}
	}
	return vs
}

// checkI10CrashesAreNoFailures: an item that failed had as many failures as
// --max-attempts, or was refused for good, or its code names another reason; one is
// enough in a job that was cancelled or may have been stopped by its failures. Calls whose
// worker was killed do not count, whatever the control plane answered after that.
func (f facts) checkI10CrashesAreNoFailures() (vs []Violation) {
	for item := range f.items {
		if item.State != string(tasks.ItemFailed) {
			continue
		}
		calls := f.byItem[item.ItemID]
		switch tasks.Code(item.Code) {
		case tasks.BusyTooLong, tasks.Stopped, tasks.NoLongerAllowed, tasks.NotInTime:
			continue
		}
		if slices.ContainsFunc(calls, func(c Event) bool {
			return c.Answer == Refusal || c.Answer == TurnedAway && c.Status/100 == 4 && c.Status != http.StatusTooManyRequests
		}) {
			continue
		}
		failures := 0
		for _, c := range calls {
			// A worker that is killed after the answer may have written the failure down before, and
			// its write may have come late: it may count.
			if (c.Answer == Failure || f.refuted(c)) && !c.Gone || !f.killed(c.Worker, c.Begin, c.End) {
				failures++
			}
		}
		if f.unseen(item) {
			failures += max(0, item.Attempts-len(calls))
		}
		budget := f.MaxAttempts
		if job, _, _ := tasks.ParseItemID(item.ItemID); f.stoppable(job) {
			budget = 1
		}
		if failures < budget {
			vs = append(vs, Violation{
				"I10", fmt.Sprintf("item %s failed after %d failures, it had %d to spend", item.ItemID, failures, budget),
				f.itemStory(item.ItemID),
			})
		}
	}
	return vs
}

// stoppable reports whether a job may have ended early: someone asked to cancel it or its
// run, or it may have max_failures.
func (f facts) stoppable(job string) bool {
	if r := f.runOf[job]; r != nil && len(r.asks[CancelRun]) > 0 {
		return true
	}
	limited := func(e Event) bool { return e.MaxFailures > 0 && cmp.Or(e.Job, e.Tried()) == job }
	return slices.ContainsFunc(f.submits, limited) || slices.ContainsFunc(f.cancels, func(e Event) bool { return e.Job == job })
}

func (f facts) killed(worker string, from, to time.Duration) bool {
	return slices.ContainsFunc(f.faults, func(e Event) bool {
		return (e.Fault == fault.WorkerKill && e.Target == worker || e.Fault == fault.WorkersKill) && e.during(from, to)
	})
}

// unseen reports whether calls for the item may have got lost on their way to the
// control plane, after the worker had sent them.
func (f facts) unseen(item client.Item) bool {
	from, to := f.life(item)
	return slices.ContainsFunc(f.faults, func(e Event) bool {
		return e.Target == fault.WorkerToUpstream && e.during(from, to)
	})
}

// life is when an item was worked on, by the harness's clock: the record's times are
// Redis's.
func (f facts) life(item client.Item) (from, to time.Duration) {
	return item.StartedAt.Sub(f.Start) - f.Skew, item.FinishedAt.Sub(f.Start) + f.Skew
}
