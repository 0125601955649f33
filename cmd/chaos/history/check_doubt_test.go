package history

import (
	"strings"
	"testing"

	"batchreset/api/client"
	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

// answered is a call that the worker was told about with this status.
func answered(status int, e Event) Event {
	e.Status = status
	return e
}

func ended(kind Kind, begin, end float64) Event {
	return Event{Kind: kind, Begin: at(begin), End: at(end), Job: jobA, Instance: "phone-1"}
}

func asked(e Event, states ...string) Event {
	e.States = states
	return e
}

// keyless is a history with a control plane that does not honour keys.
func keyless(h Run) Run {
	h.Repeatable = false
	return h
}

// limited is a history of an api with --give-up-after 20s.
func limited(h Run) Run {
	h.GiveUpAfter = at(20)
	return h
}

func skewed(h Run) Run {
	h.Skew = at(5)
	return h
}

// verdict is what the checks must say of a history: how the violation begins; empty if
// there is none.
type verdict struct {
	name, want string
	h          Run
}

func judged(t *testing.T, rows []verdict) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			vs := Check(row.h)
			if row.want == "" {
				for _, v := range vs {
					t.Error(v)
				}
				return
			}
			if len(vs) == 0 {
				t.Fatalf("not found: %s", row.want)
			}
			for _, v := range vs {
				if !strings.HasPrefix(v.String(), row.want) {
					t.Errorf("got %v\nwant %s", v, row.want)
				}
			}
		})
	}
}

func TestOneResetAtATimeBehindAGateway(t *testing.T) {
	first := answered(504, called(1, 20, itemA, "k1", 1, Success))
	end := read(30, 31, jobA, tasks.ItemSucceeded, 2, "")
	judged(t, []verdict{
		{"a call under another key after a 504", "I3: two resets of phone-1", history("always", first, called(3, 4, itemA, "k2", 2, Success), end)},
		{"a call under the same key after a 504", "", history("always", first, answered(200, called(3, 20, itemA, "k1", 2, Success)), end)},
		{"the same where keys are not honoured", "I3: two resets of phone-1", keyless(history("always", first, called(3, 4, itemA, "k1", 2, Success), end))},
		{"a call that the gateway turned away", "", history("always", first, answered(429, called(3, 3, itemA, "k2", 2, TurnedAway)), end)},
	})
}

func TestWhatSentNothingIsNotUnknown(t *testing.T) {
	lost := read(80, 81, jobA, tasks.ItemUnknown, 1, tasks.WorkerLost)
	const want = "I10: item "
	judged(t, []verdict{
		{"no call at all", want, history("always", submitted(), lost)},
		{"no call, while a replica was frozen", want, history("cluster", submitted(), broke(1, 46, fault.ReplicaFreeze, "redis-4"), lost)},
		{"a call without an answer", "", history("always", submitted(), called(1, 20, itemA, "k1", 1, Success), lost)},
		{"a call that the gateway turned away", "", history("always", submitted(), answered(200, called(1, 1, itemA, "k1", 1, TurnedAway)), lost)},
		{"a call that got lost on the way", "", history("always", submitted(), broke(2, 5, fault.LinkCut, fault.WorkerToUpstream), lost)},
		{"a call that was announced by a worker that was killed", "", history("always", submitted(), broke(2, 2, fault.WorkerKill, "worker-1"), lost)},
		{"a killed worker long after it", want, history("always", submitted(), broke(70, 70, fault.WorkerKill, "worker-1"), lost)},
		{"two, and one worker was killed", want, history("always",
			submitted(), broke(2, 2, fault.WorkerKill, "worker-1"), lost, read(80, 81, jobB, tasks.ItemUnknown, 1, tasks.WorkerLost))},
	})
}

func TestWhatWasHeardIsNotUnknown(t *testing.T) {
	end := read(80, 81, jobA, tasks.ItemUnknown, 1, tasks.WorkerLost)
	call := answered(200, called(1, 20, itemA, "k1", 1, Success))
	judged(t, []verdict{
		{"an answered call", "I10: item " + itemA + " is unknown", history("always", submitted(), call, end)},
		{"an answer that was lost", "", history("always", submitted(), answered(0, call), end)},
		{"a worker that had gone", "", history("always", submitted(), gone(call), end)},
		{"a worker that was frozen", "", history("always", submitted(), call, broke(5, 40, fault.WorkerSleep, "worker-1"), end)},
		{"another worker that was frozen", "I10: item " + itemA, history("always", submitted(), call, broke(5, 40, fault.WorkerSleep, "worker-2"), end)},
		{"a worker that could not write it down", "", history("always", submitted(), call, broke(5, 40, fault.RedisFreeze, "redis"), end)},
		{"a Redis that was away long before", "I10: item " + itemA, history("always", submitted(), call, broke(-5, -4, fault.RedisKill, "redis"), end)},
	})
}

func TestTheLivingAreNotReplaced(t *testing.T) {
	first := answered(200, called(1, 20, itemA, "k1", 1, Success))
	second := answered(200, called(5, 20, itemA, "k1", 2, Success))
	end := read(30, 31, jobA, tasks.ItemSucceeded, 2, "")
	judged(t, []verdict{
		{"a second attempt while the first is waited for", "I10: attempt 1 at item " + itemA + " was replaced by attempt 2", history("always", first, second, end)},
		{"after its worker had gone", "", history("always", gone(first), second, end)},
		{"after its worker was frozen", "", history("always", first, broke(2, 4, fault.WorkerSleep, "worker-1"), second, end)},
		{"after its end", "", history("always", first, answered(200, called(21, 22, itemA, "k1", 2, Success)), end)},
		{"of another item", "", history("always", first, answered(200, called(21, 22, itemB, "k2", 1, Success)), end, read(30, 31, jobB, tasks.ItemSucceeded, 1, ""))},
	})
}

func TestDoubtStaysDoubt(t *testing.T) {
	doubtful := answered(504, called(1, 20, itemA, "k1", 1, Success))
	refused := answered(403, called(3, 3, itemA, "k1", 2, TurnedAway))
	failed := read(10, 11, jobA, tasks.ItemFailed, 2, "PLANE.0403")
	judged(t, []verdict{
		{"failed while the reset is under way", "I12: item " + itemA + " is failed (PLANE.0403) while its reset is under way", history("always", submitted(), doubtful, refused, failed)},
		{
			"failed although the reset was done", "I12: item " + itemA + " is failed (PLANE.0403) although its reset was done",
			history("always", submitted(), doubtful, refused, read(30, 31, jobA, tasks.ItemFailed, 2, "PLANE.0403")),
		},
		{"cancelled while the reset is under way", "I12: item " + itemA + " is cancelled", history("always", submitted(), doubtful, read(10, 11, jobA, tasks.ItemCancelled, 1, tasks.Cancelled))},
		{"unknown", "", history("always", submitted(), doubtful, refused, read(10, 11, jobA, tasks.ItemUnknown, 2, tasks.TimedOut))},
		{"failed after a refusal without doubt", "", history("always", submitted(), refused, failed)},
		{"failed after a failed reset", "", history("always", submitted(), answered(503, called(1, 2, itemA, "k1", 1, Failure)), refused, failed)},
		{"failed in the second try that people asked for", "", history("always", submitted(), doubtful,
			asked(ended(Retry, 22, 23), "unknown"), answered(403, called(24, 24, itemA, "k2", 2, TurnedAway)), read(30, 31, jobA, tasks.ItemFailed, 2, "PLANE.0403"))},
	})
}

func TestSuccessWasSeen(t *testing.T) {
	seen := read(10, 11, jobA, tasks.ItemSucceeded, 1, "")
	judged(t, []verdict{
		{"a reset that ended", "", history("always", answered(200, called(1, 9, itemA, "k1", 1, Success)), seen)},
		{"a reset that ended while the record was read", "", history("always", answered(202, called(1, 10.5, itemA, "k1", 1, Success)), seen)},
		{"a reset that goes on", "I13: item " + itemA + " succeeded before its reset had ended", history("always", answered(202, called(1, 12, itemA, "k1", 1, Success)), seen)},
		{"a reset that failed", "I13: item " + itemA + " succeeded without a reset", history("always", answered(200, called(1, 2, itemA, "k1", 1, Failure)), seen)},
		{"a log-in page", "I13: item " + itemA + " succeeded without a reset", history("always", answered(200, called(1, 1, itemA, "k1", 1, TurnedAway)), seen)},
	})
}

func TestARetryIsAboutTheStatesThatItNames(t *testing.T) {
	unknown := read(9, 10, jobA, tasks.ItemUnknown, 1, tasks.TimedOut)
	events := []Event{answered(0, called(1, 8, itemA, "k1", 1, Success)), unknown, answered(200, called(80, 81, itemA, "k2", 2, Success)), read(90, 91, jobA, tasks.ItemSucceeded, 2, "")}
	judged(t, []verdict{
		{"named", "", history("always", append(events, asked(ended(Retry, 70, 71), "failed", "unknown"))...)},
		{"not named", "I5: item " + itemA + " was unknown after 1 attempts and later succeeded", history("always", append(events, asked(ended(Retry, 70, 71), "failed"))...)},
	})
}

func TestWhatIsAskedIsDone(t *testing.T) {
	odd := Event{Kind: Odd, Key: "a", Job: jobA, Status: 200, Body: `{"instance_ids":["phone-1"],"INSTANCE_IDS":["phone-2"]}`, Instances: []string{"phone-1"}}
	dry := Event{Kind: Odd, Key: "a", Status: 200, Body: `{"instance_ids":["phone-1"],"dry_run":true,"dry_run":false}`}
	other := changed(read(8, 9, jobA, tasks.ItemCancelled, 0, tasks.Cancelled), func(j *client.Job) { j.Items[0].InstanceID = "phone-2" })
	judged(t, []verdict{
		{"the other list", "I14: " + odd.Body + " was accepted as a reset of phone-2", history("always", odd, other)},
		{"the list in its own name", "", history("always", odd, read(8, 9, jobA, tasks.ItemCancelled, 0, tasks.Cancelled))},
		{"a dry run that was none", "I14: " + dry.Body, history("always", dry, read(8, 9, jobA, tasks.ItemCancelled, 0, tasks.Cancelled))},
		{"refused", "", history("always", Event{Kind: Odd, Key: "a", Status: 400}, missing(8, 9, jobA))},
	})
}
