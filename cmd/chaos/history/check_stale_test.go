package history

import (
	"testing"

	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

func TestNeverAStaleWipe(t *testing.T) {
	taken, free := ended(Protect, 9, 10), ended(Free, 30, 31)
	taken.Job, free.Job = "", ""
	moved := taken
	moved.Kind = Move
	wiped := func(when float64) []Event {
		return []Event{submitted(), answered(200, called(when, when+1, itemA, "k1", 1, Success)), read(50, 51, jobA, tasks.ItemSucceeded, 1, "")}
	}
	with := func(redis string, when float64, others ...Event) Run {
		return history(redis, append(others, wiped(when)...)...)
	}
	failed := taken
	failed.Error = "OOM"
	cancelled := ended(Cancel, 9, 10)
	refused := cancelled
	refused.Error = "answered 409"
	judged(t, []verdict{
		{"a protected phone", "I11: phone-1 was reset 2s after it was protected", with("always", 12, taken, free)},
		{"another tenant's phone", "I11: phone-1 was reset 2s after it was given to another tenant", with("always", 12, moved, free)},
		{"a protected phone at once", "", with("always", 10.5, taken, free)},
		{"a phone that is not protected any more", "", with("always", 30.1, taken, free)},
		{"a phone whose protection failed", "", with("always", 12, failed)},
		{"a call that was held up on its way", "", with("always", 12, taken, free, broke(9, 11.5, fault.LinkStall, fault.WorkerToUpstream))},
		{"a protection that a failover forgot", "", with("sentinel", 12, taken, free, broke(10.5, 20, fault.Failover, "redis"))},
		{"a failover long after it", "I11: phone-1 was reset", with("sentinel", 25, taken, free, broke(13, 20, fault.Failover, "redis"))},
		{"an item of a cancelled job", "I11: phone-1 was reset 2s after its job was cancelled", with("always", 12, cancelled)},
		{"one whose cancel was refused", "", with("always", 12, refused)},
		{"one that was tried again since", "", with("always", 12, cancelled, asked(ended(Retry, 11, 11.5), "cancelled"))},
	})
}

func TestNeverTooEarlyOrTooLate(t *testing.T) {
	call := func(when float64) Event { return answered(200, called(when, when+1, itemA, "k1", 1, Success)) }
	end := read(60, 61, jobA, tasks.ItemSucceeded, 1, "")
	later := submitted()
	later.NotBefore = at(15)
	refused := later
	refused.Job, refused.Status = "", 400
	judged(t, []verdict{
		{"in time", "", limited(history("always", submitted(), call(20), end))},
		{"after its time", "I11: phone-1 was reset 2.9s after its job's time was over", limited(history("always", submitted(), call(23), end))},
		{"after its time, by a clock that may be right", "", skewed(limited(history("always", submitted(), call(23), end)))},
		{"after its time, which people asked for", "", limited(history("always", submitted(), asked(ended(Retry, 21, 22)), call(23), end))},
		{"after its time, held up on its way", "", limited(history("always", submitted(), call(23), end, broke(19, 22.5, fault.LinkStall, fault.WorkerToUpstream)))},
		{"long after any time where there is no limit", "", history("always", submitted(), call(50), end)},
		{"before its time", "I11: phone-1 was reset 1s before its time", history("always", later, call(14), end)},
		{"at its time", "", limited(history("always", later, call(34), end))},
		{"refused as if its time were over", "I11: a job was refused whose time comes 15s later", history("always", refused)},
	})
}

func TestTheBrakeWorks(t *testing.T) {
	worked := Event{Kind: Brake, Begin: at(10), End: at(11), Target: "halt"}
	failed := worked
	failed.Error = "OOM command not allowed"
	judged(t, []verdict{
		{"it works", "", history("always", worked)},
		{"it fails", "I15: halt failed while Redis was full: OOM", history("always", failed)},
		{"it fails while Redis is away", "", history("always", failed, broke(10.5, 12, fault.RedisKill, "redis"))},
		{"it fails long after Redis was away", "I15: halt failed", history("always", failed, broke(1, 2, fault.RedisKill, "redis"))},
		{"it fails while a worker is cut off", "I15: halt failed", history("always", failed, broke(9, 12, fault.LinkCut, fault.WorkerToRedis))},
	})
}
