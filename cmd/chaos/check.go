package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"batchreset/api/client"
	"batchreset/tasks"
)

const (
	// lossWindow is how much Redis may forget: with appendfsync everysec a second until
	// the write, half of one for the write to be slow. A replica that takes over
	// lags less behind; a primary that is taken for dead and is not goes on accepting
	// about so long.
	lossWindow = 1500 * time.Millisecond
	// echo is how long after a kill a worker may still act on what Redis has
	// forgotten: it repeats begin for 30 s on the lock that it had.
	echo = 35 * time.Second
	// crashEcho is how soon after its call a worker must have died for the call's
	// outcome to be lost with it.
	crashEcho = 2 * time.Second
)

// Violation is a broken promise.
type Violation struct {
	Invariant string // its number in DESIGN, section 3
	What      string
	Story     []Event // what happened around it, in time order
}

func (v Violation) String() string {
	const most = 40 // lines that somebody will read
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", v.Invariant, v.What)
	for i, e := range v.Story {
		if skipped := len(v.Story) - most; skipped > 0 && i >= most/2 && i < most/2+skipped {
			if i == most/2 {
				fmt.Fprintf(&b, "  (%d events left out)\n", skipped)
			}
			continue
		}
		fmt.Fprintf(&b, "  %s\n", e)
	}
	return b.String()
}

// Check decides every invariant on a complete history. It is a pure function.
func Check(h History) []Violation {
	f := index(h)
	return slices.Concat(
		f.checkI1EveryAcceptedJobEnds(),
		f.checkI2RecordsAddUp(),
		f.checkI3OneResetAtATime(),
		f.checkI4NoHiddenCalls(),
		f.checkI4TheRightPhone(),
		f.checkI5FinalIsFinal(),
		f.checkI6SameKeySameJob(),
		f.checkI7CancelledIsNeverCalled(),
		f.checkI8RefusedLeavesNothing(),
		f.checkI9EveryEndIsTold(),
		f.checkI10CrashesAreNoFailures(),
		f.checkI10WhatSentNothingIsNotUnknown(),
		f.checkI10WhatWasHeardIsNotUnknown(),
		f.checkI10TheLivingAreNotReplaced(),
		f.checkI11NeverAStaleWipe(),
		f.checkI11NeverTooEarlyOrTooLate(),
		f.checkI12DoubtStaysDoubt(),
		f.checkI13SuccessWasSeen(),
		f.checkI14WhatIsAskedIsDone(),
		f.checkI15TheBrakeWorks(),
		f.checkHaltHolds(),
	)
}

// facts are a history in the order in which the checks need it.
type facts struct {
	History
	submits    []Event
	cancels    []Event
	retries    []Event
	faults     []Event
	odds       []Event
	brakes     []Event
	taken      []Event            // protected or moved; from End to the Begin of a Free
	frees      map[string][]Event // by instance
	jobs       []string           // every job that was accepted or seen
	reads      map[string][]Event // by job
	told       map[string][]Event // by job
	byInstance map[string][]Event // calls
	byItem     map[string][]Event // calls
}

func index(h History) facts {
	f := facts{
		History: h, frees: map[string][]Event{}, reads: map[string][]Event{}, told: map[string][]Event{},
		byInstance: map[string][]Event{}, byItem: map[string][]Event{},
	}
	f.Events = slices.Clone(h.Events)
	slices.SortStableFunc(f.Events, func(a, b Event) int { return cmp.Compare(a.Begin, b.Begin) })
	jobs := map[string]bool{}
	for _, e := range f.Events {
		switch e.Kind {
		case Submit:
			f.submits = append(f.submits, e)
		case Cancel:
			f.cancels = append(f.cancels, e)
		case Retry:
			f.retries = append(f.retries, e)
		case Fault:
			f.faults = append(f.faults, e)
		case Odd:
			f.odds = append(f.odds, e)
		case Brake:
			f.brakes = append(f.brakes, e)
		case Protect, Move:
			f.taken = append(f.taken, e)
		case Free:
			f.frees[e.Instance] = append(f.frees[e.Instance], e)
		case Told:
			f.told[e.Job] = append(f.told[e.Job], e)
		case Read:
			f.reads[e.Job] = append(f.reads[e.Job], e)
		case Call:
			f.byInstance[e.Instance] = append(f.byInstance[e.Instance], e)
			f.byItem[e.Item] = append(f.byItem[e.Item], e)
		}
		if e.Job != "" {
			jobs[e.Job] = true
		}
	}
	f.jobs = slices.Sorted(maps.Keys(jobs))
	return f
}

// last returns what the last read of a job showed, or nil.
func (f facts) last(job string) *client.Job {
	reads := f.reads[job]
	if len(reads) == 0 {
		return nil
	}
	return slices.MaxFunc(reads, func(a, b Event) int { return cmp.Compare(a.End, b.End) }).Record
}

// items yields the last known state of every item.
func (f facts) items(yield func(client.Item) bool) {
	for _, job := range f.jobs {
		record := f.last(job)
		if record == nil {
			continue
		}
		for _, item := range record.Items {
			if !yield(item) {
				return
			}
		}
	}
}

// forgettable reports whether Redis may have forgotten something that was written
// between from and to and led to what was seen at most later after a kill.
func (f facts) forgettable(from, to, later time.Duration) bool {
	return f.Forgets != "" && slices.ContainsFunc(f.faults, func(e Event) bool {
		return e.Fault == f.Forgets && from <= e.Begin+later+lossWindow && to >= e.Begin-lossWindow
	})
}

// unconfirmed reports whether what a read has shown may be known to a primary alone that was
// lost then, and to nobody who changed it: its replica was frozen, or had no time to hear of
// it.
func (f facts) unconfirmed(read Event) bool {
	return f.forgettable(read.Begin, read.End, 0) || slices.ContainsFunc(f.faults, func(lost Event) bool {
		if lost.Fault != failover || read.Begin > lost.End {
			return false
		}
		return read.End >= lost.Begin-lossWindow || slices.ContainsFunc(f.faults, func(frozen Event) bool {
			return frozen.Fault == replicaFreeze && frozen.during(lost.Begin, lost.Begin) && read.End >= frozen.Begin
		})
	})
}

// forgettableCall is forgettable for a call, which follows its lock and its begin
// by up to echo.
func (f facts) forgettableCall(c Event) bool { return f.forgettable(c.Begin, c.Begin, echo) }

// story selects events, and adds the faults that they met.
func (f facts) story(belongs func(Event) bool) []Event {
	from, to := time.Duration(-1), time.Duration(0)
	for _, e := range f.Events {
		if belongs(e) {
			if from < 0 {
				from = e.Begin
			}
			to = max(to, e.End)
		}
	}
	var story []Event
	shown := map[string]*client.Job{} // the same record again tells nothing
	for _, e := range f.Events {
		if e.Kind == Read && e.Record != nil && belongs(e) {
			if old := shown[e.Job]; old != nil && reflect.DeepEqual(old, e.Record) {
				continue
			}
			shown[e.Job] = e.Record
		}
		if belongs(e) || e.Kind == Fault && from >= 0 && e.during(from-lossWindow, to) {
			story = append(story, e)
		}
	}
	return story
}

// jobStory is what is known of a job.
func (f facts) jobStory(job string) []Event {
	return f.story(func(e Event) bool {
		return e.Job == job || e.Kind == Submit && e.tried() == job || e.Kind == Call && strings.HasPrefix(e.Item, job+"-")
	})
}

// itemStory is what is known of an item: the records are cut down to it.
func (f facts) itemStory(item string) []Event {
	job, _, _ := tasks.ParseItemID(item)
	story := f.story(func(e Event) bool { return e.Job == job || e.Item == item })
	for i, e := range story {
		if e.Record == nil {
			continue
		}
		record := *e.Record
		record.Items = slices.DeleteFunc(slices.Clone(record.Items), func(it client.Item) bool { return it.ItemID != item })
		story[i].Record = &record
	}
	return story
}

// checkI1EveryAcceptedJobEnds: an acknowledged job exists and is final at the end,
// and so is a job that was accepted although its answer was lost.
func (f facts) checkI1EveryAcceptedJobEnds() (vs []Violation) {
	for _, s := range f.submits {
		if s.Job == "" || f.last(s.Job) != nil || f.forgettable(s.Begin, s.End, 0) {
			continue
		}
		vs = append(vs, Violation{"I1", "job " + s.Job + " was accepted and does not exist", f.jobStory(s.Job)})
	}
	for _, job := range f.jobs {
		if record := f.last(job); record != nil && !record.Final() {
			vs = append(vs, Violation{"I1", fmt.Sprintf("job %s is still %s at the end", job, record.State), f.jobStory(job)})
		}
	}
	return vs
}

// checkI2RecordsAddUp: in every record that was ever read the counts and the job's
// state follow from the items.
func (f facts) checkI2RecordsAddUp() (vs []Violation) {
	for _, job := range f.jobs {
		for _, read := range f.reads[job] {
			if read.Record == nil {
				continue
			}
			items := make([]tasks.Item, len(read.Record.Items))
			for i, it := range read.Record.Items {
				items[i].State = tasks.ItemState(it.State)
			}
			counted := tasks.Count(items)
			if counted == tasks.Counts(read.Record.Counts) && counted.Total() == read.Record.Total &&
				string(counted.State()) == read.Record.State {
				continue
			}
			vs = append(vs, Violation{"I2", fmt.Sprintf("job %s: a record does not add up to %+v", job, counted), []Event{read}})
			break // one such record of a job is enough
		}
	}
	return vs
}

// checkI3OneResetAtATime: no two calls for one instance overlap, unless they have
// the same driver key and the control plane honours it. A call lasts until the control
// plane is done, even if its worker is not there any more, or was told something else.
func (f facts) checkI3OneResetAtATime() (vs []Violation) {
	for _, instance := range slices.Sorted(maps.Keys(f.byInstance)) {
		calls := slices.DeleteFunc(slices.Clone(f.byInstance[instance]), func(c Event) bool { return c.Answer == turned })
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

// checkI5FinalIsFinal: what a record once said of a final item it says ever after,
// unless a retry was asked for.
func (f facts) checkI5FinalIsFinal() (vs []Violation) {
	for _, job := range f.jobs {
		reads := f.reads[job]
		changed := map[string]bool{}
		for i, before := range reads {
			if before.Record == nil || f.unconfirmed(before) {
				continue
			}
			for _, after := range reads[i+1:] {
				// Of two reads at the same time either may be the older.
				if after.Begin < before.End || after.Record == nil {
					continue
				}
				for n, old := range before.Record.Items {
					if !tasks.ItemState(old.State).Final() || n >= len(after.Record.Items) || changed[old.ItemID] {
						continue
					}
					now := after.Record.Items[n]
					if (now.State != old.State || now.Attempts != old.Attempts) && !f.retried(job, old.State, before.Begin, after.End) {
						changed[old.ItemID] = true
						vs = append(vs, Violation{
							"I5", fmt.Sprintf("item %s was %s after %d attempts and later %s after %d",
								old.ItemID, old.State, old.Attempts, now.State, now.Attempts),
							f.itemStory(old.ItemID),
						})
					}
				}
			}
		}
	}
	return vs
}

// retried reports whether a retry of the job's items in a state was asked for before to
// and may have been carried out after from: it may be under way long after its caller
// gave up. One that names no state is about any.
func (f facts) retried(job, state string, from, to time.Duration) bool {
	return slices.ContainsFunc(f.retries, func(e Event) bool {
		return e.Job == job && e.Begin <= to && e.End+echo >= from && (len(e.States) == 0 || slices.Contains(e.States, state))
	})
}

// checkI6SameKeySameJob: requests under one key that were accepted were the same
// request, and became the job that the key stands for, which is about what they asked.
func (f facts) checkI6SameKeySameJob() (vs []Violation) {
	accepted := map[string]Event{} // by key
	for _, s := range f.submits {
		if s.Job == "" || s.Key == "" || f.forgettable(s.Begin, s.End, 0) {
			continue
		}
		what := ""
		first, again := accepted[s.Key]
		switch record := f.last(s.Job); {
		case s.Job != s.tried():
			what = "became another job"
		case again && (!slices.Equal(first.Instances, s.Instances) || first.MaxFailures != s.MaxFailures):
			what = "was accepted for two requests"
		case record != nil && !slices.EqualFunc(record.Items, s.Instances, func(it client.Item, id string) bool { return it.InstanceID == id }):
			what = "became a job about other instances"
		}
		if what != "" {
			vs = append(vs, Violation{"I6", "key " + s.Key + " " + what, f.jobStory(s.tried())})
		}
		accepted[s.Key] = s
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

// checkI8RefusedLeavesNothing: a job that exists was asked for by a request that was
// not refused.
func (f facts) checkI8RefusedLeavesNothing() (vs []Violation) {
	asked := map[string]bool{}
	for _, s := range f.submits {
		if s.Status < 400 || s.Status >= 500 {
			asked[cmp.Or(s.Job, s.tried())] = true
		}
	}
	for _, s := range f.odds { // what they are about is for another check
		asked[cmp.Or(s.Job, s.tried())] = s.Status < 400 || s.Status >= 500
	}
	for _, job := range f.jobs {
		if f.last(job) != nil && !asked[job] {
			vs = append(vs, Violation{"I8", "job " + job + " exists, and every request for it was refused", f.jobStory(job)})
		}
	}
	return vs
}

// checkI10CrashesAreNoFailures: an item that failed had as many failures as
// --max-attempts, or was refused for good, or its code names another reason; one is
// enough in a job that was cancelled or may have been stopped by its failures. Calls whose worker was killed do not count, whatever the control plane answered
// after that.
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
			return c.Answer == refusal || c.Answer == turned && c.Status/100 == 4 && c.Status != http.StatusTooManyRequests
		}) {
			continue
		}
		failures := 0
		for _, c := range calls {
			if c.Answer == failure && !c.Gone || !f.killed(c.Worker, c.Begin, c.End+crashEcho) {
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

// stoppable reports whether a job may have ended early: someone asked to cancel it,
// or it may have max_failures.
func (f facts) stoppable(job string) bool {
	limited := func(e Event) bool { return e.MaxFailures > 0 && cmp.Or(e.Job, e.tried()) == job }
	return slices.ContainsFunc(f.submits, limited) || slices.ContainsFunc(f.cancels, func(e Event) bool { return e.Job == job })
}

func (f facts) killed(worker string, from, to time.Duration) bool {
	return slices.ContainsFunc(f.faults, func(e Event) bool {
		return (e.Fault == workerKill && e.Target == worker || e.Fault == workersKill) && e.during(from, to)
	})
}

// unseen reports whether calls for the item may have got lost on their way to the
// control plane, after the worker had sent them.
func (f facts) unseen(item client.Item) bool {
	from, to := f.life(item)
	return slices.ContainsFunc(f.faults, func(e Event) bool {
		return e.Target == linkToUpstream && e.during(from, to)
	})
}

// life is when an item was worked on, by the harness's clock: the record's times are
// Redis's.
func (f facts) life(item client.Item) (from, to time.Duration) {
	return item.StartedAt.Sub(f.Start) - f.Skew, item.FinishedAt.Sub(f.Start) + f.Skew
}
