package fault

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// table has all kinds, with the limits of how long each lasts and the time
// that it takes to get over it.
var table = []struct {
	kind                  Kind
	least, most, recovery time.Duration
	target                string // what kind of thing is broken; requests have none
}{
	{APIKill, 0, 0, time.Second, "api"},
	{APIFreeze, time.Second, 8 * time.Second, time.Second, "api"},
	{WorkerKill, 0, 0, time.Second, "worker"},
	{WorkersKill, 0, 0, time.Second, "workers"},
	{WorkerFreeze, time.Second, 9 * time.Second, time.Second, "worker"},
	{WorkerSleep, 35 * time.Second, 45 * time.Second, time.Second, "worker"},
	{LeaseAge, 0, 0, time.Second, "leases"},
	{RedisKill, 100 * time.Millisecond, 4 * time.Second, time.Second, "redis"},
	{Failover, 8 * time.Second, 12 * time.Second, 8 * time.Second, "redis"},
	{RedisFull, 500 * time.Millisecond, 4 * time.Second, time.Second, "redis"},
	{LinkCut, 200 * time.Millisecond, 5 * time.Second, time.Second, "link"},
	{LinkStall, 500 * time.Millisecond, 8 * time.Second, time.Second, "link"},
	{LinkDelay, time.Second, 8 * time.Second, time.Second, "link"},
	{HaltAll, 2 * time.Second, 5 * time.Second, 2 * time.Second, "operator"},
	{ReplicaFreeze, 35 * time.Second, 50 * time.Second, time.Second, "replica"},
	{RedisFreeze, 35 * time.Second, 70 * time.Second, time.Second, "redis"},
	{RedisClock, 0, 0, time.Second, "clock"},
	{WorkerClock, 0, 0, time.Second, "worker's clock"},
	{APIClock, 0, 0, time.Second, "api's clock"},
	{TaskLoss, 0, 0, time.Second, "tasks"},
	{GatewayTimeout, 5 * time.Second, 15 * time.Second, time.Second, "gateway's patience"},
	{GatewayRefuse, 3 * time.Second, 10 * time.Second, time.Second, "gateway's mind"},
	{GatewayLose, 3 * time.Second, 10 * time.Second, time.Second, "gateway's memory"},
	{GatewayPage, 3 * time.Second, 10 * time.Second, time.Second, "gateway's login"},
	{PlaneSlow, 3 * time.Second, 10 * time.Second, time.Second, "plane's speed"},
	{PlaneTalk, 5 * time.Second, 15 * time.Second, time.Second, "plane's words"},
	{PlaneLie, 3 * time.Second, 10 * time.Second, time.Second, "plane's honesty"},
	{LookLate, 3 * time.Second, 10 * time.Second, time.Second, "plane's eyes"},
	{LookSlow, 3 * time.Second, 10 * time.Second, time.Second, "look's speed"},
	{LookTalk, 3 * time.Second, 10 * time.Second, time.Second, "look's words"},
	{LookLie, time.Second, 5 * time.Second, time.Second, "look's honesty"},
	{LookKill, 2 * time.Second, 6 * time.Second, time.Second, "worker"},
	{Protect, 2 * time.Second, 8 * time.Second, 0, "fleet"},
	{Move, 2 * time.Second, 8 * time.Second, 0, "fleet"},
	{Brake, time.Second, 3 * time.Second, 5 * time.Second, "operator"},
	{FewSlots, 0, 0, 0, ""},
	{GiveUp, 0, 0, 0, ""},
	{OddBatch, 0, 0, 0, ""},
	{CancelJob, 0, 0, 0, ""},
	{RetryJob, 0, 0, 0, ""},
	{PauseRun, 2 * time.Second, 5 * time.Second, 0, ""},
	{CancelRun, 0, 0, 0, ""},
	{RetryRun, 0, 0, 0, ""},
}

// Requests, which break nothing.
var (
	aboutJobs = []Kind{CancelJob, RetryJob, OddBatch}
	aboutRuns = []Kind{PauseRun, CancelRun, RetryRun}
)

// All are all kinds, in the order of the table that is printed.
func All() (all []Kind) {
	for _, k := range table {
		all = append(all, k.kind)
	}
	return all
}

// Parse reads a list such as "redis-kill,cut"; "all" is every kind. Kinds that
// Redis cannot have, with replicas that take over or without, are left out.
func Parse(list string, replicated bool) ([]Kind, error) {
	known := All()
	kinds := slices.Clone(known)
	if list != "all" {
		kinds = nil
		for name := range strings.SplitSeq(list, ",") {
			kind := Kind(strings.TrimSpace(name))
			if !slices.Contains(known, kind) {
				return nil, fmt.Errorf("--faults: %q is none of %v", name, known)
			}
			kinds = append(kinds, kind)
		}
	}
	return slices.DeleteFunc(kinds, func(k Kind) bool {
		return (k == RedisKill || k == RedisFreeze) && replicated || (k == Failover || k == ReplicaFreeze) && !replicated
	}), nil
}

// Planned is an entry of a schedule.
type Planned struct {
	At, Length time.Duration
	Kind       Kind
	Target     string // a process or a link
}

// Schedule plans the faults of a run: a new one every second or so, never two at a
// time on one target, all over by the end. targets are the names of what can be broken,
// by its kind; of other kinds there is one. The same arguments give the same faults.
func Schedule(r *rand.Rand, duration time.Duration, kinds []Kind, targets map[string][]string) []Planned {
	// Requests are frequent, because each is about one job only.
	const gap, requestsPerFault = time.Second, 2
	busy := map[string]time.Duration{} // until when
	var faults []Planned
	add := func(at time.Duration, kind Kind) {
		for _, k := range table {
			if k.kind != kind {
				continue
			}
			f := Planned{At: at, Kind: kind}
			if k.target != "" {
				f.Target = k.target
				if some := targets[k.target]; len(some) > 0 {
					f.Target = some[r.IntN(len(some))]
				}
			}
			if k.most > 0 {
				f.Length = k.least + time.Duration(r.Int64N(int64(k.most-k.least)))
			}
			if at+f.Length > duration || (f.Target != "" && at < busy[f.Target]) {
				return
			}
			busy[f.Target] = at + f.Length + k.recovery
			faults = append(faults, f)
		}
	}
	var others, requests []Kind
	for _, kind := range kinds {
		switch {
		case slices.Contains(conditions, kind):
		case slices.Contains(aboutJobs, kind), slices.Contains(aboutRuns, kind):
			requests = append(requests, kind)
		default:
			others = append(others, kind)
		}
	}
	for at := time.Second; at < duration; at += gap/2 + time.Duration(r.Int64N(int64(gap))) {
		if len(others) > 0 {
			add(at, others[r.IntN(len(others))])
		}
		for _, kind := range requests {
			n := requestsPerFault
			switch {
			case kind == OddBatch:
				n = 1
			case slices.Contains(aboutRuns, kind): // there are fewer runs than jobs
				n = r.IntN(8) / 7
			}
			for range n {
				add(at+time.Duration(r.Int64N(int64(gap))), kind)
			}
		}
	}
	slices.SortStableFunc(faults, func(a, b Planned) int { return int(a.At - b.At) })
	return faults
}
