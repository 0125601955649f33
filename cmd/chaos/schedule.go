package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// faultKind says how something is broken. Its text is what --faults takes.
type faultKind string

const (
	apiKill      faultKind = "api-kill"      // SIGKILL, started again at once
	apiFreeze    faultKind = "api-freeze"    // SIGSTOP, SIGCONT
	workerKill   faultKind = "worker-kill"   // SIGKILL, started again at once
	workerFreeze faultKind = "worker-freeze" // SIGSTOP, SIGCONT
	workerSleep  faultKind = "worker-sleep"  // the same, longer than asynq's lease
	redisKill    faultKind = "redis-kill"    // SIGKILL, started again on the same files
	redisFull    faultKind = "redis-full"    // CONFIG SET maxmemory: writes fail
	linkCut      faultKind = "cut"           // connections break, new ones are refused
	linkStall    faultKind = "stall"         // connections stay, bytes vanish
	linkDelay    faultKind = "delay"         // bytes take up to half a second longer
	cancelJob    faultKind = "cancel"        // a random job is cancelled
)

// The links that can be cut, stalled or delayed.
const (
	linkAPIToRedis    = "api-redis"
	linkWorkerToRedis = "worker-redis"
	linkToUpstream    = "worker-upstream"
)

var links = []string{linkAPIToRedis, linkWorkerToRedis, linkToUpstream}

// faultKinds are all of them, with the limits of how long each lasts.
var faultKinds = []struct {
	kind          faultKind
	least, most   time.Duration
	targetsPrefix string
}{
	{apiKill, 0, 0, "api"},
	{apiFreeze, time.Second, 8 * time.Second, "api"},
	{workerKill, 0, 0, "worker"},
	{workerFreeze, time.Second, 9 * time.Second, "worker"},
	{workerSleep, 35 * time.Second, 45 * time.Second, "worker"},
	{redisKill, 100 * time.Millisecond, 4 * time.Second, "redis"},
	{redisFull, 500 * time.Millisecond, 4 * time.Second, "redis"},
	{linkCut, 200 * time.Millisecond, 5 * time.Second, "link"},
	{linkStall, 500 * time.Millisecond, 8 * time.Second, "link"},
	{linkDelay, time.Second, 8 * time.Second, "link"},
	{cancelJob, 0, 0, ""},
}

// parseFaults reads a list such as "redis-kill,cut"; "all" is every kind.
func parseFaults(list string) ([]faultKind, error) {
	var kinds, known []faultKind
	for _, k := range faultKinds {
		known = append(known, k.kind)
	}
	if list == "all" {
		return known, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		kind := faultKind(strings.TrimSpace(name))
		if !slices.Contains(known, kind) {
			return nil, fmt.Errorf("--faults: %q is none of %v", name, known)
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

// plannedFault is an entry of a schedule.
type plannedFault struct {
	at, length time.Duration
	kind       faultKind
	target     string // a process or a link
}

// schedule plans the faults of a run: a new one every second or so, never two at a
// time on one target, all over by the end. The same arguments give the same faults.
func schedule(r *rand.Rand, duration time.Duration, kinds []faultKind, apis, workers []string) []plannedFault {
	targets := map[string][]string{"api": apis, "worker": workers, "redis": {"redis"}, "link": links, "": {""}}
	// Cancels are frequent, because each hits one job only.
	const gap, cancelsPerFault = 1500 * time.Millisecond, 3
	busy := map[string]time.Duration{} // until when
	var faults []plannedFault
	add := func(at time.Duration, kind faultKind) {
		for _, k := range faultKinds {
			if k.kind != kind {
				continue
			}
			names := targets[k.targetsPrefix]
			f := plannedFault{at: at, kind: kind, target: names[r.IntN(len(names))]}
			if k.most > 0 {
				f.length = k.least + time.Duration(r.Int64N(int64(k.most-k.least)))
			}
			if at+f.length > duration || (f.target != "" && at < busy[f.target]) {
				return
			}
			busy[f.target] = at + f.length + time.Second // time to come back
			faults = append(faults, f)
		}
	}
	others := slices.DeleteFunc(slices.Clone(kinds), func(k faultKind) bool { return k == cancelJob })
	for at := time.Second; at < duration; at += gap/2 + time.Duration(r.Int64N(int64(gap))) {
		if len(others) > 0 {
			add(at, others[r.IntN(len(others))])
		}
		if len(others) < len(kinds) {
			for range cancelsPerFault {
				add(at+time.Duration(r.Int64N(int64(gap))), cancelJob)
			}
		}
	}
	slices.SortStableFunc(faults, func(a, b plannedFault) int { return int(a.at - b.at) })
	return faults
}
