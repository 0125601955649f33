package history

import (
	"testing"

	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

// looked is a look at phone-1 by worker-1, which was told what it was asked.
func looked(begin, end float64, name, said string, initial bool) Event {
	return Event{
		Kind: Look, Begin: at(begin), End: at(end), Worker: "worker-1", Instance: "phone-1",
		Status: 200, Answer: said, Initial: initial, Evidence: name,
	}
}

// showing is a read of a record with evidence.
func showing(e Event, name string) Event {
	e.Record.Items[0].Evidence = "2026-11-22T10:00:05Z GET /worker-1/phone-1/state: " + name
	return e
}

// sighted is a history of workers that look for five seconds, at a control plane that does not
// honour keys.
func sighted(events ...Event) Run {
	h := keyless(history("always", events...))
	h.Looks, h.LookPatience = true, at(5)
	return h
}

func TestSuccessWasLookedAt(t *testing.T) {
	call := answered(200, called(1, 2, itemA, "k1", 1, Success))
	seen := looked(2.1, 2.2, "look-1", SaidInitial, true)
	end := func() Event { return read(10, 11, jobA, tasks.ItemSucceeded, 1, "") }
	of := func(e Event, worker, instance string) Event {
		e.Worker, e.Instance = worker, instance
		return e
	}
	judged(t, []verdict{
		{"wiped and seen", "", sighted(submitted(), call, seen, showing(end(), "look-1"))},
		{"wiped and seen, and the answer to the call was lost", "", sighted(submitted(), gone(answered(0, call)), seen, showing(end(), "look-1"))},
		{"nobody looked", "I13: item " + itemA + " succeeded and nobody looked", sighted(submitted(), call, end())},
		{"a look that nobody made", "I13: item " + itemA, sighted(submitted(), call, showing(end(), "look-9"))},
		{"a look at another phone", "I13: item " + itemA, sighted(submitted(), call, of(seen, "worker-1", "phone-2"), showing(end(), "look-1"))},
		{
			"a look that says no", "I13: item " + itemA + " succeeded although the look said",
			sighted(submitted(), call, looked(2.1, 2.2, "look-1", SaidNotInitial, false), showing(end(), "look-1")),
		},
		{
			"a lie that was seen through by nobody", "",
			sighted(submitted(), answered(200, called(1, 2, itemA, "k1", 1, Lie)), looked(2.1, 2.2, "look-1", SaidInitial, false), showing(end(), "look-1")),
		},
		{
			"a wipe from before the job", "I13: item " + itemA + " succeeded and its instance was not wiped since",
			sighted(answered(200, called(-9, -8, itemB, "k0", 1, Success)), submitted(), seen, showing(end(), "look-1")),
		},
		{
			"older evidence than there is", "I13: item " + itemA + " is succeeded () with evidence that is older than look-2",
			sighted(submitted(), call, seen, looked(3, 3.1, "look-2", SaidNotInitial, false), showing(end(), "look-1")),
		},
		{"a look of somebody else", "", sighted(submitted(), call, seen, of(looked(3, 3.1, "look-2", SaidNotInitial, false), "worker-2", "phone-1"), showing(end(), "look-1"))},
	})
}

func TestALieIsNoSuccess(t *testing.T) {
	lie := answered(200, called(1, 2, itemA, "k1", 1, Lie))
	thrice := func(events ...Event) Run {
		return sighted(append(events, submitted(), lie, answered(200, called(3, 4, itemA, "k2", 2, Lie)), answered(200, called(5, 6, itemA, "k3", 3, Lie)))...)
	}
	no := looked(8, 8.1, "look-1", SaidNotInitial, false)
	failed := func(code tasks.Code) Event { return read(10, 11, jobA, tasks.ItemFailed, 3, code) }
	judged(t, []verdict{
		{"not confirmed", "", thrice(no, showing(failed(tasks.NotConfirmed), "look-1"))},
		{"unknown", "", sighted(submitted(), lie, no, showing(read(10, 11, jobA, tasks.ItemUnknown, 3, tasks.NotConfirmed), "look-1"))},
		{"another code", "I13: item " + itemA + " is failed (PLANE.0503), and its reset was called done", thrice(no, failed("PLANE.0503"))},
		{
			"not confirmed by a look that says yes", "I13: item " + itemA + " is failed (RESET.1010) with evidence that does not say",
			thrice(looked(8, 8.1, "look-1", SaidInitial, false), showing(failed(tasks.NotConfirmed), "look-1")),
		},
	})
}

func TestNeverTwice(t *testing.T) {
	first, second := answered(200, called(1, 2, itemA, "k1", 1, Success)), answered(200, called(20, 21, itemA, "k2", 2, Success))
	seen := looked(21.1, 21.2, "look-9", SaidInitial, true)
	with := func(events ...Event) Run {
		return sighted(append(events, submitted(), first, second, seen, showing(read(30, 31, jobA, tasks.ItemSucceeded, 2, ""), "look-9"))...)
	}
	const want = "I12: phone-1 was wiped twice for item "
	repeatable := with()
	repeatable.Repeatable = true
	judged(t, []verdict{
		{"for no reason", want, with()},
		{"where keys are honoured", want, repeatable},
		{"after a look that was not understood", want, with(looked(3, 3.1, "look-1", "", true))},
		{"after a look within the patience", want, with(looked(6, 6.1, "look-1", SaidNotInitial, true))},
		{"after a look at its end", "", with(looked(7.1, 7.2, "look-1", SaidNotInitial, true))},
		{"after the phone was used", "", with(looked(3, 3.1, "look-1", SaidNotInitial, false))},
		{"after somebody asked for it", "", with(asked(ended(Retry, 10, 11), "unknown"))},
	})
}

func TestAWipeThatDoesNotShowMayFail(t *testing.T) {
	calls := []Event{
		answered(200, called(1, 2, itemA, "k1", 1, Success)), looked(7.1, 7.2, "look-1", SaidNotInitial, false),
		answered(200, called(10, 11, itemA, "k2", 2, Success)), looked(17.1, 17.2, "look-2", SaidNotInitial, false),
		answered(200, called(20, 21, itemA, "k3", 3, Success)), submitted(),
	}
	no := looked(27.1, 27.2, "look-3", SaidNotInitial, false)
	end := showing(read(30, 31, jobA, tasks.ItemFailed, 3, tasks.NotConfirmed), "look-3")
	judged(t, []verdict{
		{"its looks say no", "", sighted(append(calls, no, end)...)},
		{"the last one says nothing", "I1", sighted(append(calls, looked(27.1, 27.2, "look-3", "", true), end)...)},
	})
}

func TestWhatWasSeenIsNotUnknown(t *testing.T) {
	call := answered(200, called(1, 2, itemA, "k1", 1, Success))
	end := read(80, 81, jobA, tasks.ItemUnknown, 1, tasks.TimedOut)
	judged(t, []verdict{
		{"seen at once", "I10: item " + itemA + " is unknown", sighted(submitted(), call, looked(2.1, 2.2, "look-1", SaidInitial, true), end)},
		{"not understood", "", sighted(submitted(), call, looked(2.1, 2.2, "look-1", "", true), end)},
		{"seen late", "", sighted(submitted(), call, looked(2.1, 9, "look-1", SaidInitial, true), end)},
		{"seen by a worker that was killed", "", sighted(submitted(), call, looked(2.1, 2.2, "look-1", SaidInitial, true), broke(2.2, 2.3, fault.WorkerKill, "worker-1"), end)},
	})
}
