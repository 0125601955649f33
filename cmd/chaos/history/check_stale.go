package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

// checkI11NeverAStaleWipe: no call is sent for an instance that is protected or another
// tenant's, nor for an item of a job that was cancelled.
func (f facts) checkI11NeverAStaleWipe() (vs []Violation) {
	for _, e := range f.taken {
		if e.Error != "" || f.unreplicated(e) {
			continue
		}
		what := map[Kind]string{Protect: "it was protected", Move: "it was given to another tenant"}[e.Kind]
		vs = append(vs, f.staleCalls(e, f.freed(e), what, func(c Event) bool { return c.Instance == e.Instance })...)
	}
	for _, e := range f.cancels {
		if e.Error != "" || f.forgettable(e.Begin, e.End, 0) {
			continue
		}
		again := time.Duration(1<<63 - 1)
		for _, r := range f.retries {
			if r.Job == e.Job && r.End > e.Begin {
				again = min(again, r.Begin)
			}
		}
		vs = append(vs, f.staleCalls(e, again, "its job was cancelled", func(c Event) bool {
			job, _, _ := tasks.ParseItemID(c.Item)
			return job == e.Job
		})...)
	}
	return vs
}

// freed is when an instance that was taken away began to be given back.
func (f facts) freed(taken Event) time.Duration {
	for _, e := range f.frees[taken.Instance] {
		if e.Begin >= taken.End {
			return e.Begin
		}
	}
	return 1<<63 - 1
}

// unreplicated reports whether a replica may have taken over that did not know of a change
// for which nobody waits: that of a fleet entry.
func (f facts) unreplicated(change Event) bool {
	return slices.ContainsFunc(f.faults, func(e Event) bool {
		return e.Fault == fault.Failover && change.during(e.Begin-lossWindow, e.End+lossWindow)
	}) || f.forgettable(change.Begin, change.End, 0)
}

// staleCalls finds the first call that was sent after a decision against it had been
// acknowledged, and before it was taken back.
func (f facts) staleCalls(decision Event, until time.Duration, what string, about func(Event) bool) []Violation {
	for _, c := range f.Events {
		if c.Kind != Call || !about(c) || c.Begin <= decision.End+onTheWay || c.Begin >= until || f.delayed(c, decision.End) {
			continue
		}
		return []Violation{{
			"I11", fmt.Sprintf("%s was reset %s after %s", c.Instance, (c.Begin - decision.End).Round(time.Millisecond), what),
			f.story(func(e Event) bool {
				return e.Kind == decision.Kind && e.Begin == decision.Begin && e.Instance == decision.Instance && e.Job == decision.Job ||
					e.Kind == Call && e.Item == c.Item
			}),
		}}
	}
	return nil
}

// delayed reports whether a call that came after a moment may have been sent before it.
func (f facts) delayed(c Event, moment time.Duration) bool {
	return slices.ContainsFunc(f.faults, func(e Event) bool {
		return e.Target == fault.WorkerToUpstream && e.during(moment-onTheWay, c.Begin) && c.Begin <= e.End+onTheWay
	})
}

// checkI11NeverTooEarlyOrTooLate: no call is sent before its job's not_before, nor after
// the time that the job has, by Redis's clock; and a job in the future is not refused as
// one in the past.
func (f facts) checkI11NeverTooEarlyOrTooLate() (vs []Violation) {
	begins := map[string]Event{} // the first submit of each job that was accepted
	for _, s := range f.submits {
		if s.NotBefore > s.End+f.Skew+time.Second && s.Status == 400 && !slices.Contains(s.Instances, BadInstance) && !f.takenAway(s) {
			vs = append(vs, Violation{
				"I11", fmt.Sprintf("a job was refused whose time comes %s later", (s.NotBefore - s.Begin).Round(time.Millisecond)), []Event{s},
			})
		}
		if first, again := begins[s.Job]; s.Job != "" && (!again || s.End < first.End) {
			begins[s.Job] = s
		}
	}
	for job := range f.runOf {
		if record := f.last(job); record != nil {
			begins[job] = Event{End: f.at(record.CreatedAt)}
		}
	}
	for item, calls := range f.byItem {
		job, _, _ := tasks.ParseItemID(item)
		s, known := begins[job]
		if !known || slices.ContainsFunc(f.retries, func(e Event) bool { return e.Job == job }) {
			continue
		}
		for _, c := range calls {
			what := ""
			switch late := max(s.End, s.NotBefore) + f.GiveUpAfter + 2*f.Skew + onTheWay; {
			case c.Begin < s.NotBefore-2*f.Skew-10*time.Millisecond:
				what = fmt.Sprintf("%s was reset %s before its time", c.Instance, (s.NotBefore - c.Begin).Round(time.Millisecond))
			case f.GiveUpAfter > 0 && c.Begin > late && !f.delayed(c, late-onTheWay):
				what = fmt.Sprintf("%s was reset %s after its job's time was over", c.Instance, (c.Begin - late + onTheWay).Round(time.Millisecond))
			}
			if what != "" {
				vs = append(vs, Violation{"I11", what, f.itemStory(item)})
				break
			}
		}
	}
	slices.SortFunc(vs, func(a, b Violation) int { return cmp.Compare(a.What, b.What) })
	return vs
}

// takenAway reports whether a submit may rightly have been refused for its instances.
func (f facts) takenAway(s Event) bool {
	return slices.ContainsFunc(f.taken, func(e Event) bool {
		return slices.Contains(s.Instances, e.Instance) && e.Begin <= s.End && f.freed(e) >= s.Begin-echo
	})
}

// checkI15TheBrakeWorks: what stops something works while Redis is full, unless Redis or
// the api was not there at all.
func (f facts) checkI15TheBrakeWorks() (vs []Violation) {
	for _, b := range f.brakes {
		if b.Error == "" || f.absent(b) {
			continue
		}
		vs = append(vs, Violation{
			"I15", fmt.Sprintf("%s failed while Redis was full: %.300s", b.Target, b.Error),
			f.story(func(e Event) bool { return e.Kind == Brake && e.during(b.Begin-10*time.Second, b.End) }),
		})
	}
	return vs
}

// absent reports whether Redis, an api or the way to it was disturbed while something
// was to be stopped.
func (f facts) absent(b Event) bool {
	return slices.ContainsFunc(f.faults, func(e Event) bool {
		switch e.Fault {
		case fault.APIKill, fault.APIFreeze, fault.RedisKill, fault.RedisFreeze, fault.ReplicaFreeze, fault.Failover:
			return e.during(b.Begin-absence, b.End)
		case fault.LinkCut, fault.LinkStall, fault.LinkDelay:
			return e.Target != fault.WorkerToUpstream && e.Target != fault.WorkerToRedis && e.during(b.Begin-absence, b.End)
		}
		return false
	})
}

// absence is how long after its return something may not be in use again.
const absence = 5 * time.Second
