package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"batchreset/api/client"
	"batchreset/tasks"
)

// lookOf is the look that a record's evidence is about.
func (f facts) lookOf(item client.Item) (look Event, known bool) {
	words := strings.Fields(item.Evidence)
	if len(words) == 0 {
		return Event{}, false
	}
	look, known = f.evidence[words[len(words)-1]]
	return look, known
}

// refuted reports whether a look said, after a call's reset had ended and before the next one,
// that the instance is not in its initial state; of the item's own looks one before its own next call.
func (f facts) refuted(c Event) bool {
	no := func(l Event) bool { return l.Answer == SaidNotInitial }
	return slices.ContainsFunc(f.looksAfter(c), no) || slices.ContainsFunc(f.looks[c.Instance], func(l Event) bool {
		return no(l) && l.Item != "" && l.Item == c.Item && l.Begin >= c.End && !slices.ContainsFunc(f.byItem[c.Item], func(next Event) bool {
			return next.Begin > c.End && next.Begin < l.Begin
		})
	})
}

// oneReset reports whether two calls of an item are one reset for the control plane.
func (f facts) oneReset(a, b Event) bool { return f.Repeatable && a.Key == b.Key }

// looksAfter are the looks at an instance from the end of a call's reset to the next reset's call.
func (f facts) looksAfter(c Event) []Event {
	next := time.Duration(1<<63 - 1)
	for _, other := range f.byInstance[c.Instance] {
		if other.Begin > c.End && other.Answer != TurnedAway && !f.oneReset(c, other) {
			next = min(next, other.Begin)
		}
	}
	return slices.DeleteFunc(slices.Clone(f.looks[c.Instance]), func(l Event) bool { return l.End < c.End || l.Begin > next })
}

// confirmed reports whether the first look after a call, by the same worker, plainly showed that
// the reset had happened.
func (f facts) confirmed(c Event) bool {
	looks := slices.DeleteFunc(f.looksAfter(c), func(l Event) bool { return l.Worker != c.Worker || l.Begin < c.End })
	return len(looks) > 0 && looks[0].Answer == SaidInitial && looks[0].Status == 200 && !looks[0].Gone &&
		looks[0].End-looks[0].Begin < time.Second && looks[0].Begin-c.End < time.Second
}

// submitted is when each job was asked for first.
func (f facts) submitted() map[string]time.Duration {
	first := map[string]time.Duration{}
	for _, s := range f.submits {
		job := cmp.Or(s.Job, s.Tried())
		if begin, again := first[job]; !again || s.Begin < begin {
			first[job] = s.Begin
		}
	}
	for job, r := range f.runOf {
		first[job] = r.asked.Begin
	}
	return first
}

// checkI13SuccessWasLookedAt: nobody is told that an item succeeded without a look that said that
// the instance is in its initial state. If the look told the truth, the instance was wiped since
// the job was submitted.
func (f facts) checkI13SuccessWasLookedAt() (vs []Violation) {
	if !f.Looks {
		return nil
	}
	submitted, seen := f.submitted(), map[string]bool{}
	for _, e := range f.Events {
		if e.Record == nil {
			continue
		}
		for _, item := range e.Record.Items {
			if item.State != string(tasks.ItemSucceeded) || seen[item.ItemID] {
				continue
			}
			if what := f.unseenSuccess(item, submitted); what != "" {
				seen[item.ItemID] = true
				vs = append(vs, Violation{"I13", "item " + item.ItemID + " succeeded " + what, f.itemStory(item.ItemID)})
			}
		}
	}
	return vs
}

// unseenSuccess says what is wrong with a success that a record shows.
func (f facts) unseenSuccess(item client.Item, submitted map[string]time.Duration) string {
	look, known := f.lookOf(item)
	switch {
	case !known:
		return fmt.Sprintf("and nobody looked: its evidence is %q", item.Evidence)
	case look.Instance != item.InstanceID, look.Item != "" && look.Item != item.ItemID:
		return "by a look for another one"
	case look.Answer != SaidInitial:
		return "although the look said that it had not happened"
	case !look.Initial: // a lie, which nobody can see through
		return ""
	}
	job, _, _ := tasks.ParseItemID(item.ItemID)
	if !slices.ContainsFunc(f.byInstance[item.InstanceID], func(c Event) bool {
		return c.Answer == Success && c.End >= submitted[job] && c.End <= look.End
	}) {
		return "and its instance was not wiped since it was asked for"
	}
	return ""
}

// checkI13ALieIsNoSuccess: an item whose last call was called done and wiped nothing has failed
// as not confirmed, or is unknown, unless it ended for a reason that is not the call's.
func (f facts) checkI13ALieIsNoSuccess() (vs []Violation) {
	for item := range f.items {
		calls := slices.DeleteFunc(slices.Clone(f.byItem[item.ItemID]), func(c Event) bool { return c.Answer == TurnedAway })
		if len(calls) == 0 || calls[len(calls)-1].Answer != Lie || item.State != string(tasks.ItemFailed) {
			continue
		}
		switch tasks.Code(item.Code) {
		case tasks.NotConfirmed, tasks.BusyTooLong, tasks.Stopped, tasks.NoLongerAllowed, tasks.NotInTime:
			continue
		}
		if len(f.byItem[item.ItemID]) > len(calls) { // the gateway turned one away for good
			continue
		}
		vs = append(vs, Violation{
			"I13", fmt.Sprintf("item %s is %s (%s), and its reset was called done and wiped nothing", item.ItemID, item.State, item.Code),
			f.itemStory(item.ItemID),
		})
	}
	return vs
}

// checkI13EvidenceIsTheLastLook: the evidence in a final record is what was said at the last look
// of its attempt, and fits the item's end.
func (f facts) checkI13EvidenceIsTheLastLook() (vs []Violation) {
	for item := range f.items {
		if item.Evidence == "" || !tasks.ItemState(item.State).Final() {
			continue
		}
		look, known := f.lookOf(item)
		what := ""
		switch {
		case !known:
			what = "that nobody gave"
		case look.Instance != item.InstanceID:
			what = "of " + look.Instance
		case item.State == string(tasks.ItemFailed) && item.Code == string(tasks.NotConfirmed) && look.Answer != SaidNotInitial:
			what = "that does not say that it is not in its initial state"
		default:
			if later, ok := f.laterLook(look, item); ok {
				what = "that is older than " + later.Evidence
			}
		}
		if what != "" {
			vs = append(vs, Violation{
				"I13", fmt.Sprintf("item %s is %s (%s) with evidence %s: %s", item.ItemID, item.State, item.Code, what, item.Evidence),
				f.itemStory(item.ItemID),
			})
		}
	}
	return vs
}

// laterLook is a look of the same attempt that came after the one in the record, and was answered.
// A control plane that is not told for which item it looks knows the worker only.
func (f facts) laterLook(look Event, item client.Item) (later Event, ok bool) {
	_, to := f.life(item)
	if look.Item == "" && item.State != string(tasks.ItemSucceeded) && item.Code != string(tasks.NotConfirmed) {
		return Event{}, false // it may have ended long after that attempt
	}
	for _, l := range f.looks[item.InstanceID] {
		same := l.Item == look.Item && l.Attempt == look.Attempt && l.Worker == look.Worker
		if look.Item == "" { // it must have come before the item's end, by any clock
			same = same && l.End < to-2*f.Skew-onTheWay && !f.hindered(look)
		}
		if same && l.Begin > look.End && l.Status != 0 && !l.Gone {
			return l, true
		}
	}
	return Event{}, false
}

// checkI12NeverTwice: an item's instance is wiped once, unless somebody asked for a retry, or a look
// said truly, or after its whole patience, that the first wipe had not happened. Where nobody
// looks, a second call is found by what it breaks besides.
func (f facts) checkI12NeverTwice() (vs []Violation) {
	if !f.Looks {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(f.byItem)) {
		job, _, _ := tasks.ParseItemID(id)
		if slices.ContainsFunc(f.retries, func(e Event) bool { return e.Job == job }) {
			continue
		}
		wipes := slices.DeleteFunc(slices.Clone(f.byItem[id]), func(c Event) bool { return c.Answer != Success || f.forgettableCall(c) })
		for i, a := range wipes {
			next := slices.IndexFunc(wipes[i+1:], func(b Event) bool { return !f.oneReset(a, b) })
			if next < 0 || f.missed(a, wipes[i+1+next]) {
				continue
			}
			vs = append(vs, Violation{"I12", fmt.Sprintf("%s was wiped twice for item %s", a.Instance, id), f.itemStory(id)})
			break
		}
	}
	return vs
}

// missed reports whether looks between two wipes of an instance gave a reason for the second.
func (f facts) missed(a, b Event) bool {
	return slices.ContainsFunc(f.looks[a.Instance], func(l Event) bool {
		return l.Answer == SaidNotInitial && l.End >= a.End && l.Begin <= b.Begin && (!l.Initial || l.Begin >= a.End+f.LookPatience)
	})
}
