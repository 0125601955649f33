package history

import (
	"fmt"
	"slices"
	"testing"

	"batchreset/api/client"
	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

// The run of the key "r", which is about phone-1, phone-2 and so on.
var runR = Event{Key: "r"}.TriedRun()

// listed asks for runR, and was answered 0.1 s after the start.
func listed(phones int, asked client.RunRequest) Event {
	e := Event{Kind: SubmitRun, End: at(0.1), Run: runR, Key: "r", Request: &asked}
	for n := range phones {
		e.Instances = append(e.Instances, fmt.Sprintf("phone-%d", n+1))
	}
	return e
}

// outcome is what has become of a phone: when it began and ended, in seconds; 0 = it never did.
type outcome struct {
	phone        int
	state        tasks.ItemState
	began, ended float64
}

func succeeded(phone int, began, ended float64) outcome {
	return outcome{phone, tasks.ItemSucceeded, began, ended}
}

func failed(phone int, began, ended float64) outcome {
	return outcome{phone, tasks.ItemFailed, began, ended}
}

// part is the job of a part of runR, made at a time, as it is read at the end, and the calls that belong to it.
func part(n int, made float64, outcomes ...outcome) (events []Event) {
	start := history("always").Start
	job := client.Job{ID: tasks.PartJobID(runR, n), RunID: runR, CreatedAt: start.Add(at(made)), Total: len(outcomes)}
	var counts tasks.Counts
	for i, o := range outcomes {
		it := client.Item{
			ItemID: tasks.ItemID(job.ID, i), InstanceID: fmt.Sprintf("phone-%d", o.phone), State: string(o.state), FinishedAt: start.Add(at(o.ended)),
		}
		if o.began > 0 {
			it.Attempts, it.StartedAt = 1, start.Add(at(o.began))
			answer := map[tasks.ItemState]string{tasks.ItemSucceeded: Success, tasks.ItemFailed: Refusal}[o.state]
			call := called(o.began, o.ended, it.ItemID, it.ItemID, 1, answer)
			call.Instance = it.InstanceID
			events = append(events, call)
		}
		*counts.Of(o.state)++
		job.Items = append(job.Items, it)
	}
	job.Counts, job.State = client.Counts(counts), string(counts.State())
	return append(events, Event{Kind: Read, Begin: at(90), End: at(91), Job: job.ID, Record: &job})
}

// shown is a read of runR.
func shown(begin float64, list Event, counts client.Counts, state ...string) Event {
	record := client.Run{ID: runR, State: "running", Total: len(list.Instances), Counts: counts, ListSHA256: tasks.ListHash(list.Instances)}
	if c := tasks.Counts(counts); c.Open() == 0 {
		record.State = string(c.State())
	}
	if len(state) > 0 {
		record.State = state[0]
	}
	return Event{Kind: ReadRun, Begin: at(begin), End: at(begin + 0.1), Run: runR, RunRecord: &record}
}

// decided is an answered request about runR.
func decided(kind Kind, begin, end float64, status int) Event {
	return Event{Kind: kind, Begin: at(begin), End: at(end), Run: runR, Status: status}
}

// runHistory is a history of a run, its jobs and what else happened. The run was looked at in the end.
func runHistory(redis string, list Event, parts [][]Event, others ...Event) Run {
	events := append(slices.Concat(parts...), list)
	if !slices.ContainsFunc(others, func(e Event) bool { return e.Kind == ReadRun && e.Begin >= at(90) }) {
		var counts tasks.Counts
		for _, e := range events {
			if e.Record != nil {
				for _, it := range e.Record.Items {
					*counts.Of(tasks.ItemState(it.State))++
				}
			}
		}
		counts.Cancelled += max(0, len(list.Instances)-counts.Total())
		events = append(events, shown(92, list, client.Counts(counts)))
	}
	return history(redis, append(events, others...)...)
}

func TestARunEnds(t *testing.T) {
	list := listed(2, client.RunRequest{})
	parts := [][]Event{part(0, 1, succeeded(1, 2, 3), succeeded(2, 2, 3))}
	lost := list
	lost.Run, lost.Error = "", "no answer"
	refused := list
	refused.Run, refused.Status = "", 400
	other := lost
	other.Instances = []string{"phone-3", "phone-4"}
	accepted := other
	accepted.Run = runR
	gone := Event{Kind: ReadRun, Begin: at(92), End: at(93), Run: runR}
	judged(t, []verdict{
		{"it does", "", runHistory("always", list, parts)},
		{"one whose answer was lost", "", runHistory("always", lost, parts)},
		{"one with a key that another list was sent with", "", runHistory("always", lost, parts, other)},
		{"it does not", "I16: run " + runR + " is still running at the end", runHistory("always", list, parts, shown(92, list, client.Counts{Succeeded: 2}, "running"))},
		{"it is gone", "I16: run " + runR + " was accepted and does not exist", runHistory("always", list, nil, gone)},
		{"it was never found again", "I16: run " + runR + " was accepted and does not exist", history("always", list)},
		{"it is gone, and everysec excuses that", "", runHistory("everysec", list, nil, gone, broke(1.5, 3, fault.RedisKill, "redis"))},
		{"it was refused", "I", runHistory("always", refused, parts)},
		{"it was accepted for two lists", "I16: run " + runR + " was accepted for two lists", runHistory("always", list, parts, accepted)},
		{"it is about another list", "I16: run " + runR + " is about 2 instances, and 3 were asked for", runHistory("always", listed(3, client.RunRequest{}), nil, shown(92, list, client.Counts{Cancelled: 2}), decided(CancelRun, 1, 2, 200))},
		{"it is another one than its key's", "I16: run ", history("always", func() Event { e := list; e.Key = "s"; return e }())},
	})
}

func TestTheCountsOfARun(t *testing.T) {
	list := listed(3, client.RunRequest{})
	parts := [][]Event{part(0, 1, succeeded(1, 2, 3), failed(2, 2, 4)), part(1, 1, succeeded(3, 2, 5))}
	early := part(1, 1, succeeded(3, 2, 5))[1]
	early.Begin, early.End = at(5.5), at(5.6)
	judged(t, []verdict{
		{"they add up", "", runHistory("always", list, parts, shown(2.5, list, client.Counts{Running: 2, Pending: 1}), early, shown(6, list, client.Counts{Succeeded: 2, Failed: 1}))},
		{"they are too many", "I16: run " + runR + ": its counts", runHistory("always", list, parts, shown(2.5, list, client.Counts{Running: 2, Pending: 2}))},
		{"they are too few", "I16: run " + runR + ": its counts", runHistory("always", list, parts, shown(2.5, list, client.Counts{Running: 2}))},
		{"fewer than before have ended", "I16: run " + runR + ": 1 were succeeded, and later 0", runHistory("always", list, parts, shown(4, list, client.Counts{Succeeded: 1, Running: 2}), shown(4.5, list, client.Counts{Running: 3}))},
		{
			"fewer than before, of two reads at the same time", "",
			runHistory("always", list, parts, shown(4, list, client.Counts{Succeeded: 1, Running: 2}), shown(4.05, list, client.Counts{Running: 3})),
		},
		{
			"fewer than before, which everysec forgot", "",
			runHistory("everysec", list, parts, shown(4, list, client.Counts{Succeeded: 1, Running: 2}), shown(6, list, client.Counts{Running: 3}), broke(4.5, 5, fault.RedisKill, "redis")),
		},
		{"fewer than a job had said", "I16: run " + runR + ": 0 are succeeded, and its jobs had said 1", runHistory("always", list, parts, early, shown(6, list, client.Counts{Failed: 1, Running: 2}))},
		{"others than the jobs say in the end", "I16: run " + runR + ": its counts are", runHistory("always", list, [][]Event{part(0, 1, succeeded(1, 2, 3), succeeded(2, 2, 4))}, shown(92, list, client.Counts{Succeeded: 2, Failed: 1}))},
		{"one came into no job", "I16: run " + runR + ": 2 of 3 came into a job", runHistory("always", list, parts[:1])},
		{"one came into no job of a run that was cancelled", "", runHistory("always", list, parts[:1], decided(CancelRun, 6, 7, 200))},
	})
}

func TestNoInstanceIsInTwoJobsOfARun(t *testing.T) {
	judged(t, []verdict{
		{"one is", "I16: run " + runR + ": ", runHistory("always", listed(2, client.RunRequest{}), [][]Event{
			part(0, 1, succeeded(1, 2, 3), succeeded(2, 2, 3)), part(1, 1, succeeded(2, 4, 5)),
		}, shown(92, listed(2, client.RunRequest{}), client.Counts{Succeeded: 2}))},
		{"one is not of the list", "I16: run " + runR + ": phone-3 is in job", runHistory("always", listed(2, client.RunRequest{}), [][]Event{
			part(0, 1, succeeded(1, 2, 3), succeeded(3, 2, 3)),
		})},
	})
}

func TestTheResultsOfARun(t *testing.T) {
	list := listed(3, client.RunRequest{})
	parts := [][]Event{part(0, 1, succeeded(1, 2, 3), failed(2, 2, 4))}
	cancel := decided(CancelRun, 6, 7, 200)
	job := tasks.PartJobID(runR, 0)
	rows := func(change func(rows []client.RunResult) []client.RunResult) Event {
		return Event{Kind: Results, Begin: at(93), End: at(94), Run: runR, Rows: change([]client.RunResult{
			{InstanceID: "phone-1", JobID: job, ItemID: job + "-0", State: "succeeded"},
			{InstanceID: "phone-2", JobID: job, ItemID: job + "-1", State: "failed"},
			{InstanceID: "phone-3", State: "cancelled"},
		})}
	}
	const want = "I16: run "
	judged(t, []verdict{
		{"they are whole", "", runHistory("always", list, parts, cancel, rows(func(r []client.RunResult) []client.RunResult { return r }))},
		{"one is missing", want, runHistory("always", list, parts, cancel, rows(func(r []client.RunResult) []client.RunResult { return r[:2] }))},
		{"one is there twice", want, runHistory("always", list, parts, cancel, rows(func(r []client.RunResult) []client.RunResult { return append(r, r[0]) }))},
		{"one is there instead of another", want, runHistory("always", list, parts, cancel, rows(func(r []client.RunResult) []client.RunResult { r[2] = r[1]; return r }))},
		{"one has another state", want, runHistory("always", list, parts, cancel, rows(func(r []client.RunResult) []client.RunResult { r[1].State = "succeeded"; return r }))},
		{"one is of another job", want, runHistory("always", list, parts, cancel, rows(func(r []client.RunResult) []client.RunResult { r[1].JobID = jobA; return r }))},
	})
}

func TestWavesComeInTurn(t *testing.T) {
	canary := client.RunRequest{Canary: 1, Growth: 2, Soak: "5s"}
	list, three := listed(4, canary), listed(7, canary)
	first := part(0, 1, succeeded(1, 2, 10))
	bad := part(0, 1, failed(1, 2, 10))
	rest := func(began float64) []Event { return part(1, began, succeeded(2, began, 30), succeeded(3, began, 31)) }
	last := part(2, 32, succeeded(4, 32, 33))
	due := listed(1, client.RunRequest{NotBefore: history("always").Start.Add(at(20))})
	in := func(list Event, parts ...[]Event) [][]Event { return parts }
	const before, soak, resumed = " of wave 1 was reset before wave 0 had ended", " was reset 3s after the canary, whose soak is 5s", " was reset after a canary that had failed, and nobody had resumed the run"
	of := func(phone int, what string) string { return fmt.Sprintf("I16: run %s: phone-%d%s", runR, phone, what) }
	judged(t, []verdict{
		{"in turn", "", runHistory("always", list, in(list, first, rest(15), last))},
		{"before the canary had ended", of(2, before), runHistory("always", list, in(list, first, rest(9), last))},
		{"before the soak was over", of(2, soak), runHistory("always", list, in(list, first, rest(13), last))},
		{"before the soak was over, by a clock that may be right", "", skewed(runHistory("always", list, in(list, first, rest(13), last)))},
		{"after a canary that failed", of(2, resumed), runHistory("always", list, in(list, bad, rest(16), last))},
		{"after a canary that failed, and a resume", "", runHistory("always", list, in(list, bad, rest(16), last), decided(ResumeRun, 11, 12, 200))},
		{"after a resume that came before that", of(2, resumed), runHistory("always", list, in(list, bad, rest(16), last), decided(ResumeRun, 8, 9, 200))},
		{"after a resume whose answer was lost", "", runHistory("always", list, in(list, bad, rest(16), last), decided(ResumeRun, 8, 9, 0))},
		{"after a resume that was refused", of(2, resumed), runHistory("always", list, in(list, bad, rest(16), last), decided(ResumeRun, 11, 12, 409))},
		{"after a part of the canary", of(3, before), runHistory("always", listed(3, client.RunRequest{Canary: 2}), in(list, first, part(1, 15, succeeded(3, 15, 30))), decided(CancelRun, 40, 41, 200))},
		{"in the third wave, before the second had ended", of(4, " of wave 2 was reset before wave 1 had ended"), runHistory("always", three, in(three, first, rest(15), part(2, 30.5, succeeded(4, 30.5, 33))), decided(CancelRun, 40, 41, 200))},
		{
			"before an end that a failover forgot", "",
			runHistory("cluster", list, in(list, first, part(1, 15, succeeded(2, 15, 30), succeeded(3, 15, 50)), last), broke(35, 45, fault.Failover, "redis")),
		},
		{"before the run's time", of(1, " was reset 1s before the run's time"), runHistory("always", due, in(due, part(0, 1, succeeded(1, 19, 20))))},
		{"at the run's time", "", runHistory("always", due, in(due, part(0, 1, succeeded(1, 20, 21))))},
	})
}

func TestARunThatIsRetried(t *testing.T) {
	list := listed(4, client.RunRequest{Canary: 1, MaxFailures: "2"})
	again := asked(decided(RetryRun, 12, 12.1, 200), "failed")
	canary := part(0, 1, succeeded(1, 2, 3))
	round := [][]Event{canary, part(1, 4, failed(2, 5, 10), failed(3, 5, 10)), part(2, 10.2, failed(4, 10.3, 11))}
	second := append(slices.Clone(round), part(3, 13, succeeded(2, 14, 15)), part(4, 16, succeeded(3, 17, 18), succeeded(4, 17, 18)))
	end := client.Counts{Succeeded: 4}
	results := func(states ...string) Event {
		e := Event{Kind: Results, Begin: at(93), End: at(94), Run: runR}
		for n, at := range []struct{ part, item int }{{0, 0}, {3, 0}, {4, 0}, {4, 1}} {
			job := tasks.PartJobID(runR, at.part)
			e.Rows = append(e.Rows, client.RunResult{
				InstanceID: fmt.Sprintf("phone-%d", n+1), JobID: job, ItemID: tasks.ItemID(job, at.item), State: states[n],
			})
		}
		return e
	}
	before := shown(11.5, list, client.Counts{Succeeded: 1, Failed: 3})
	good := results("succeeded", "succeeded", "succeeded", "succeeded")
	judged(t, []verdict{
		{"the second round goes as it should", "", runHistory("always", list, second, again, before, shown(12.5, list, client.Counts{Succeeded: 1, Pending: 3}), shown(92, list, end), good)},
		{"nobody asked for it", "I16", runHistory("always", list, second, before, shown(92, list, end))},
		{"what had succeeded is there again", "I16: run " + runR + ": phone-1 is in jobs ", runHistory("always", list, append(slices.Clone(second), part(5, 20, succeeded(1, 21, 22))), again, shown(90.5, list, end))},
		{"what had succeeded is less", "I16: run " + runR + ": 1 were succeeded, and later 0", runHistory("always", list, second, again, before, shown(12.5, list, client.Counts{Pending: 4}), shown(92, list, end))},
		{"its canary did not end", "I16: run " + runR + ": phone-3 of wave 1 was reset before wave 0 had ended", runHistory("always", list, append(slices.Clone(round), part(3, 13, succeeded(2, 14, 19)), part(4, 16, succeeded(3, 17, 18), succeeded(4, 17, 18))), again, shown(92, list, end))},
		{"the results have the first round", "I16: run ", runHistory("always", list, second, again, shown(92, list, end), results("succeeded", "failed", "succeeded", "succeeded"))},
	})
}

// A retry that is cancelled before its job is made leaves an instance that has a job, of the round before, and yet is in none
// by its results.
func TestARoundThatWasCancelledAtOnce(t *testing.T) {
	list := listed(1, client.RunRequest{})
	first := [][]Event{part(0, 1, failed(1, 2, 3))}
	again, cancel := asked(decided(RetryRun, 12, 12.1, 200), "failed"), decided(CancelRun, 12.2, 12.3, 200)
	end := shown(92, list, client.Counts{Cancelled: 1}, "cancelled")
	results := Event{Kind: Results, Begin: at(93), End: at(94), Run: runR, Rows: []client.RunResult{{InstanceID: "phone-1", State: "cancelled"}}}
	judged(t, []verdict{
		{"after a retry", "", runHistory("always", list, first, again, cancel, end, results)},
		{"without one", "I16: run ", runHistory("always", list, first, cancel, end, results)},
	})
}

func TestTheApprovalOfARun(t *testing.T) {
	list := listed(1, client.RunRequest{Approval: true})
	begun := [][]Event{part(0, 1, succeeded(1, 12, 13))}
	ends := func(state string) Event { return shown(92, list, client.Counts{Cancelled: 1}, state) }
	const early = " was reset before anybody had approved the run"
	judged(t, []verdict{
		{"before the run began", "", runHistory("always", list, begun, decided(ApproveRun, 9, 10, 200))},
		{"without an answer", "", runHistory("always", list, begun, decided(ApproveRun, 9, 10, 0))},
		{"none", "I16: run " + runR + ": phone-1" + early, runHistory("always", list, begun)},
		{"one that came later", "I16: run " + runR + ": phone-1" + early, runHistory("always", list, begun, decided(ApproveRun, 20, 21, 200))},
		{"one that was refused", "I16: run " + runR + ": phone-1" + early, runHistory("always", list, begun, decided(ApproveRun, 9, 10, 403))},
		{"a rejection", "", runHistory("always", list, nil, decided(RejectRun, 9, 10, 200), ends("rejected"))},
		{"nobody decided", "", runHistory("always", list, nil, ends("expired"))},
		{"a rejected run that began", "I16: run " + runR + ": it is rejected with ", runHistory("always", list, [][]Event{part(0, 1, outcome{1, tasks.ItemCancelled, 0, 13})}, decided(RejectRun, 9, 10, 200), ends("rejected"))},
	})
}

func TestThePaceOfARun(t *testing.T) {
	list := listed(3, client.RunRequest{MaxParallel: 2})
	third := func(made float64) []Event { return part(1, made, succeeded(3, made+1, 40)) }
	first := part(0, 1, succeeded(1, 2, 10), succeeded(2, 2, 20))
	const want = "I16: run "
	judged(t, []verdict{
		{"two at a time", "", runHistory("always", list, [][]Event{first, third(10)})},
		{"three at a time", want + runR + ": 3 instances are open ", runHistory("always", list, [][]Event{first, third(9)})},
		{"three at a time, by a clock that may be right", "", skewed(runHistory("always", list, [][]Event{first, third(9)}))},
		{"three at a time for long, by any clock", want, skewed(runHistory("always", listed(3, client.RunRequest{MaxParallel: 2}), [][]Event{part(0, 1, succeeded(1, 2, 30), succeeded(2, 2, 30)), third(2)}))},
		{"three at a time, because a failover forgot an end", "", runHistory("cluster", list, [][]Event{part(0, 1, succeeded(1, 2, 30), succeeded(2, 2, 30)), third(9)}, broke(10, 20, fault.Failover, "redis"))},
	})
}

func TestTheBudgetOfARun(t *testing.T) {
	list := listed(6, client.RunRequest{MaxParallel: 2, MaxFailures: "0"})
	bad := part(0, 1, failed(1, 2, 10), succeeded(2, 2, 10))
	more := func(phones ...int) (parts [][]Event) {
		for n, phone := range phones {
			began := 11 + 2*float64(n)
			parts = append(parts, part(1+n, began, succeeded(phone, began, began+1)))
		}
		return append(parts, bad)
	}
	cancel := decided(CancelRun, 80, 81, 200)
	resume := func(status int, budget client.Budget) Event {
		e := decided(ResumeRun, 10.1, 10.2, status)
		e.Budget = budget
		return e
	}
	const want = "I16: run "
	percent := func(budget client.Budget) Event {
		return listed(40, client.RunRequest{MaxParallel: 10, MaxFailures: budget})
	}
	twenty := func(bad int) (parts [][]Event) { // have ended, and as many begin
		for n := range 4 {
			made := []float64{0.2, 2.1, 4, 5.1}[n]
			var ten []outcome
			for phone := n*10 + 1; phone <= n*10+10; phone++ {
				o := succeeded(phone, made+0.2, made+0.8)
				if phone <= bad {
					o.state = tasks.ItemFailed
				}
				ten = append(ten, o)
			}
			parts = append(parts, part(n, made, ten...))
		}
		return parts
	}
	judged(t, []verdict{
		{"as many began as may be open", "", runHistory("always", list, more(3, 4), cancel)},
		{"more began", want + runR + ": 3 began after ", runHistory("always", list, more(3, 4, 5), cancel)},
		{"more began, and somebody gave a larger budget", "", runHistory("always", list, more(3, 4, 5), cancel, resume(200, "1"))},
		{"more began, and somebody may have given a larger budget", "", runHistory("always", list, more(3, 4, 5), cancel, resume(0, "1"))},
		{"more began, and the resume had the same budget", want, runHistory("always", list, more(3, 4, 5), cancel, resume(200, "0"))},
		{"more began, and the resume had no budget", want, runHistory("always", list, more(3, 4, 5), cancel, resume(200, ""))},
		{"more began, and the resume was refused", want, runHistory("always", list, more(3, 4, 5), cancel, resume(409, "1"))},
		{"more than a percentage", want, runHistory("always", percent("10%"), twenty(5))},
		{"no more than a percentage", "", runHistory("always", percent("10%"), twenty(2))},
	})
}

func TestTheBrakesOfARun(t *testing.T) {
	list := listed(1, client.RunRequest{})
	begun := func(when float64) [][]Event { return [][]Event{part(0, 1, succeeded(1, when, when+1))} }
	pause, cancel := decided(PauseRun, 9, 10, 200), decided(CancelRun, 9, 10, 200)
	stalled := broke(9, 11.5, fault.LinkStall, fault.WorkerToUpstream)
	const paused, cancels = "I16: run ", "I16: run "
	judged(t, []verdict{
		{"within a second of a pause", "", runHistory("always", list, begun(10.9), pause)},
		{"after a pause", paused + runR + ": phone-1 was reset 2s after pause-run", runHistory("always", list, begun(12), pause)},
		{"after a pause that was refused", "", runHistory("always", list, begun(12), decided(PauseRun, 9, 10, 409))},
		{"after a pause without an answer", "", runHistory("always", list, begun(12), decided(PauseRun, 9, 10, 0))},
		{"after a pause, held up on its way", "", runHistory("always", list, begun(12), pause, stalled)},
		{"after a pause and a resume", "", runHistory("always", list, begun(12), pause, decided(ResumeRun, 11, 11.5, 200))},
		{"after a pause and a resume that was refused", paused, runHistory("always", list, begun(12), pause, decided(ResumeRun, 11, 11.5, 409))},
		{"after a pause, and a resume that came before", paused, runHistory("always", list, begun(12), pause, decided(ResumeRun, 7, 8, 200))},
		{"after a pause, and a resume that may have come late", "", runHistory("always", list, begun(12), pause, decided(ResumeRun, 7, 8, 0))},
		{"after a pause that everysec forgot", "", runHistory("everysec", list, begun(12), pause, broke(10.5, 11, fault.RedisKill, "redis"))},
		{"after a cancel", cancels + runR + ": phone-1 was reset 2s after cancel-run", runHistory("always", list, begun(12), cancel)},
		{"after a cancel and a resume", cancels, runHistory("always", list, begun(12), cancel, decided(ResumeRun, 11, 11.5, 200))},
	})
}
