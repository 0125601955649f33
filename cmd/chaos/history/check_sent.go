package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

// heardFor is how long after its answer a call's outcome may still get lost on its way to
// the record: a worker writes it with patience.
const heardFor = 40 * time.Second

// checkI10WhatSentNothingIsNotUnknown: an item whose calls never came to the gateway is
// not unknown. Calls may get lost on a link that was disturbed, and a worker that is killed
// or frozen has announced one call, at the most, that it did not make.
func (f facts) checkI10WhatSentNothingIsNotUnknown() (vs []Violation) {
	excused := map[time.Duration]bool{} // by the begin of what excuses
	for item := range f.items {
		if item.State != string(tasks.ItemUnknown) || len(f.byItem[item.ItemID]) > 0 || f.unseen(item) || f.forgottenCall(item) {
			continue
		}
		from, to := f.life(item)
		stopped := slices.IndexFunc(f.faults, func(e Event) bool {
			return f.stopsWorkers(e) && e.during(from, to) && !excused[e.Begin]
		})
		if stopped >= 0 {
			excused[f.faults[stopped].Begin] = true
			continue
		}
		vs = append(vs, Violation{
			"I10", fmt.Sprintf("item %s is unknown (%s) after %d attempts that sent nothing", item.ItemID, item.Code, item.Attempts),
			f.itemStory(item.ItemID),
		})
	}
	return vs
}

// forgottenCall reports whether Redis may have forgotten how an item was doing.
func (f facts) forgottenCall(item client.Item) bool {
	from, to := f.life(item)
	return f.forgettable(from, to, echo)
}

func (f facts) stopsWorkers(e Event) bool {
	return slices.Contains([]fault.Kind{fault.WorkerKill, fault.WorkersKill, fault.WorkerSleep, fault.WorkerFreeze}, e.Fault)
}

// checkI10WhatWasHeardIsNotUnknown: an item is not unknown if its last call was answered
// with a plain success to a worker that was there and could write that down.
func (f facts) checkI10WhatWasHeardIsNotUnknown() (vs []Violation) {
	for item := range f.items {
		calls := f.byItem[item.ItemID]
		if item.State != string(tasks.ItemUnknown) || len(calls) == 0 {
			continue
		}
		last := calls[len(calls)-1]
		if last.Answer != Success || last.Status != 200 || last.Gone || f.hindered(last) || f.Looks && !f.confirmed(last) {
			continue
		}
		// The worker's time begins with the lock, before the call.
		if f.AttemptTimeout > 0 && last.End-last.Begin > f.AttemptTimeout-time.Second {
			continue
		}
		vs = append(vs, Violation{
			"I10", fmt.Sprintf("item %s is unknown (%s), and its call was answered to a worker that lived", item.ItemID, item.Code),
			f.itemStory(item.ItemID),
		})
	}
	return vs
}

// checkI10TheLivingAreNotReplaced: no call for an item begins while another one, of an
// earlier attempt, is waited for by a worker that lives and is in touch with Redis.
func (f facts) checkI10TheLivingAreNotReplaced() (vs []Violation) {
	for item := range f.items {
		calls := f.byItem[item.ItemID]
		for i, a := range calls {
			next := slices.IndexFunc(calls[i+1:], func(b Event) bool { return b.Begin < a.End && b.Attempt > a.Attempt })
			if next < 0 || a.Gone || a.Status != 200 || f.hindered(a) {
				continue
			}
			vs = append(vs, Violation{
				"I10", fmt.Sprintf("attempt %d at item %s was replaced by attempt %d while it lived",
					a.Attempt, item.ItemID, calls[i+1+next].Attempt),
				f.itemStory(item.ItemID),
			})
			break
		}
	}
	return vs
}

// hindered reports whether a call's worker was stopped or cut off, from Redis or from the
// control plane, while it waited for the answer or had to write it down; or Redis was.
func (f facts) hindered(c Event) bool {
	return slices.ContainsFunc(f.faults, func(e Event) bool {
		if !e.during(c.Begin-onTheWay, c.End+heardFor) {
			return false
		}
		switch e.Fault {
		case fault.WorkerKill, fault.WorkerSleep, fault.WorkerFreeze:
			return e.Target == c.Worker
		case fault.WorkersKill, fault.RedisKill, fault.RedisFull, fault.RedisFreeze, fault.ReplicaFreeze, fault.Failover:
			return true
		case fault.LinkCut, fault.LinkStall, fault.LinkDelay:
			return e.Target == fault.WorkerToRedis || e.Target == fault.WorkerToUpstream
		}
		return false
	}) || slices.ContainsFunc(f.brakes, func(e Event) bool { return e.during(c.Begin-onTheWay, c.End+heardFor) })
}

// checkI12DoubtStaysDoubt: an item does not end as failed or cancelled while a call of it
// is still under way at the control plane, nor if one has succeeded and nobody asked for a
// retry.
func (f facts) checkI12DoubtStaysDoubt() (vs []Violation) {
	for _, job := range f.jobs {
		seen := map[string]bool{}
		for _, read := range f.reads[job] {
			if read.Record == nil || f.unconfirmed(read) {
				continue
			}
			for _, item := range read.Record.Items {
				what := f.droppedDoubt(item, job, read)
				if what == "" || seen[item.ItemID] {
					continue
				}
				seen[item.ItemID] = true
				vs = append(vs, Violation{
					"I12", fmt.Sprintf("item %s is %s (%s) %s", item.ItemID, item.State, item.Code, what), f.itemStory(item.ItemID),
				})
			}
		}
	}
	return vs
}

// droppedDoubt says which call speaks against the end of an item that a read shows. After
// a retry that people asked for, it is about the calls that came later.
func (f facts) droppedDoubt(item client.Item, job string, read Event) string {
	if item.Attempts == 0 || item.State != string(tasks.ItemFailed) && item.State != string(tasks.ItemCancelled) ||
		slices.ContainsFunc(f.retries, func(e Event) bool { return e.Job == job }) {
		return ""
	}
	for _, c := range f.byItem[item.ItemID] {
		switch {
		case c.Answer == TurnedAway || f.forgettableCall(c):
		case c.Begin < read.Begin && c.End > read.End:
			return "while its reset is under way"
		case c.Answer == Success && c.End < read.Begin && !f.refuted(c):
			return "although its reset was done"
		}
	}
	return ""
}

// checkI13SuccessWasSeen: nobody is told that an item succeeded before a reset of it has
// ended well. Where the driver looks, it is checkI13SuccessWasLookedAt's.
func (f facts) checkI13SuccessWasSeen() (vs []Violation) {
	if f.Looks {
		return nil
	}
	done := map[string]time.Duration{} // by item; the first time
	for item, calls := range f.byItem {
		for _, c := range calls {
			if first, again := done[item]; c.Answer == Success && (!again || c.End < first) {
				done[item] = c.End
			}
		}
	}
	seen := map[string]bool{}
	for _, e := range f.Events {
		if e.Record == nil {
			continue
		}
		for _, item := range e.Record.Items {
			if end, ok := done[item.ItemID]; item.State != string(tasks.ItemSucceeded) || ok && end <= e.End || seen[item.ItemID] {
				continue
			}
			seen[item.ItemID] = true
			what := "without a reset"
			if _, ok := done[item.ItemID]; ok {
				what = "before its reset had ended"
			}
			vs = append(vs, Violation{"I13", "item " + item.ItemID + " succeeded " + what, f.itemStory(item.ItemID)})
		}
	}
	return vs
}

// checkI14WhatIsAskedIsDone: a batch whose names are repeated or misspelled is refused, or
// is about no more than it says in every reading.
func (f facts) checkI14WhatIsAskedIsDone() (vs []Violation) {
	for _, odd := range f.odds {
		job := odd.Tried()
		if odd.Job != "" {
			job = odd.Job
		}
		record := f.last(job)
		if record == nil {
			continue
		}
		for _, item := range record.Items {
			if !slices.Contains(odd.Instances, item.InstanceID) {
				vs = append(vs, Violation{
					"I14", fmt.Sprintf("%s was accepted as a reset of %s", odd.Body, item.InstanceID),
					f.story(func(e Event) bool {
						return e.Kind == Odd && e.Key == odd.Key || e.Job == job || strings.HasPrefix(e.Item, job+"-")
					}),
				})
				break
			}
		}
	}
	return vs
}
