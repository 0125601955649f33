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
	workersKill  faultKind = "workers-kill"  // the same for all workers at once
	workerFreeze faultKind = "worker-freeze" // SIGSTOP, SIGCONT
	workerSleep  faultKind = "worker-sleep"  // the same, longer than asynq's lease
	leaseAge     faultKind = "lease-age"     // every lease looks a minute older: a clock has jumped
	redisKill    faultKind = "redis-kill"    // SIGKILL, started again on the same files
	failover     faultKind = "failover"      // SIGKILL of a primary, away until a replica has taken over
	redisFull    faultKind = "redis-full"    // CONFIG SET maxmemory: writes fail
	linkCut      faultKind = "cut"           // connections break, new ones are refused
	linkStall    faultKind = "stall"         // connections stay, bytes vanish
	linkDelay    faultKind = "delay"         // bytes take up to half a second longer
	haltAll      faultKind = "halt"          // an operator halts all tenants, and lets them go on
	cancelJob    faultKind = "cancel"        // a random job is cancelled
	retryJob     faultKind = "retry"         // a random job is retried

	replicaFreeze faultKind = "replica-freeze" // SIGSTOP of one replica, SIGCONT
	redisFreeze   faultKind = "redis-freeze"   // SIGSTOP of the one server, SIGCONT
	redisClock    faultKind = "redis-clock"    // a server's clock steps; they differ from the start
	workerClock   faultKind = "worker-clock"   // a worker's clock steps; they differ from the start
	apiClock      faultKind = "api-clock"      // an api's clock steps; they differ from the start
	taskLoss      faultKind = "task-loss"      // somebody deletes tasks, and empty queues, on the asynq dashboard

	gatewayTimeout faultKind = "gateway-timeout" // the gateway does not wait longer than a second
	gatewayRefuse  faultKind = "gateway-refuse"  // it answers calls itself with 429, 503 or 403
	gatewayLose    faultKind = "gateway-lose"    // it gives calls on and hangs up
	gatewayPage    faultKind = "gateway-page"    // it answers with a log-in page and 200
	planeSlow      faultKind = "plane-slow"      // some resets take 10 to 30 s; without this kind none takes more than 4 s
	planeTalk      faultKind = "plane-talk"      // resets are polled, or fail under 200, in many words

	protect  faultKind = "protect"   // instances of a job under way are protected for a while
	move     faultKind = "move"      // they are given to another tenant for a while
	brake    faultKind = "brake"     // Redis is filled up, and an operator stops everything that can be stopped
	oddBatch faultKind = "odd-batch" // a batch whose names are repeated or misspelled is sent

	// Conditions of a whole run.
	fewSlots faultKind = "few-slots" // --driver-concurrency: attempts wait for their turn to call
	giveUp   faultKind = "give-up"   // --give-up-after: items end because their time is over
)

// conditions are what a run has from its start to its end, or not.
var conditions = []faultKind{fewSlots, giveUp}

// The links that can be cut, stalled or delayed. Those to Redis exist if it is one
// server: replicas and Cluster nodes tell clients their own addresses.
const (
	linkCallerToAPI   = "caller-api"
	linkAPIToRedis    = "api-redis"
	linkWorkerToRedis = "worker-redis"
	linkToUpstream    = "worker-upstream"
)

// faultKinds are all of them, with the limits of how long each lasts and the time
// that it takes to get over it.
var faultKinds = []struct {
	kind                  faultKind
	least, most, recovery time.Duration
	target                string // what kind of thing is broken; requests have none
}{
	{apiKill, 0, 0, time.Second, "api"},
	{apiFreeze, time.Second, 8 * time.Second, time.Second, "api"},
	{workerKill, 0, 0, time.Second, "worker"},
	{workersKill, 0, 0, time.Second, "workers"},
	{workerFreeze, time.Second, 9 * time.Second, time.Second, "worker"},
	{workerSleep, 35 * time.Second, 45 * time.Second, time.Second, "worker"},
	{leaseAge, 0, 0, time.Second, "leases"},
	{redisKill, 100 * time.Millisecond, 4 * time.Second, time.Second, "redis"},
	{failover, 8 * time.Second, 12 * time.Second, 8 * time.Second, "redis"},
	{redisFull, 500 * time.Millisecond, 4 * time.Second, time.Second, "redis"},
	{linkCut, 200 * time.Millisecond, 5 * time.Second, time.Second, "link"},
	{linkStall, 500 * time.Millisecond, 8 * time.Second, time.Second, "link"},
	{linkDelay, time.Second, 8 * time.Second, time.Second, "link"},
	{haltAll, 2 * time.Second, 5 * time.Second, 2 * time.Second, "operator"},
	{replicaFreeze, 35 * time.Second, 50 * time.Second, time.Second, "replica"},
	{redisFreeze, 35 * time.Second, 70 * time.Second, time.Second, "redis"},
	{redisClock, 0, 0, time.Second, "clock"},
	{workerClock, 0, 0, time.Second, "worker's clock"},
	{apiClock, 0, 0, time.Second, "api's clock"},
	{taskLoss, 0, 0, time.Second, "tasks"},
	{gatewayTimeout, 5 * time.Second, 15 * time.Second, time.Second, "gateway's patience"},
	{gatewayRefuse, 3 * time.Second, 10 * time.Second, time.Second, "gateway's mind"},
	{gatewayLose, 3 * time.Second, 10 * time.Second, time.Second, "gateway's memory"},
	{gatewayPage, 3 * time.Second, 10 * time.Second, time.Second, "gateway's login"},
	{planeSlow, 3 * time.Second, 10 * time.Second, time.Second, "plane's speed"},
	{planeTalk, 5 * time.Second, 15 * time.Second, time.Second, "plane's words"},
	{protect, 2 * time.Second, 8 * time.Second, 0, "fleet"},
	{move, 2 * time.Second, 8 * time.Second, 0, "fleet"},
	{brake, time.Second, 3 * time.Second, 5 * time.Second, "operator"},
	{fewSlots, 0, 0, 0, ""},
	{giveUp, 0, 0, 0, ""},
	{oddBatch, 0, 0, 0, ""},
	{cancelJob, 0, 0, 0, ""},
	{retryJob, 0, 0, 0, ""},
}

// parseFaults reads a list such as "redis-kill,cut"; "all" is every kind. Kinds that
// the setup cannot have are left out.
func parseFaults(list string, s setup) ([]faultKind, error) {
	var known []faultKind
	for _, k := range faultKinds {
		known = append(known, k.kind)
	}
	kinds := slices.Clone(known)
	if list != "all" {
		kinds = nil
		for name := range strings.SplitSeq(list, ",") {
			kind := faultKind(strings.TrimSpace(name))
			if !slices.Contains(known, kind) {
				return nil, fmt.Errorf("--faults: %q is none of %v", name, known)
			}
			kinds = append(kinds, kind)
		}
	}
	return slices.DeleteFunc(kinds, func(k faultKind) bool {
		return (k == redisKill || k == redisFreeze) && s.replicated() || (k == failover || k == replicaFreeze) && !s.replicated()
	}), nil
}

// plannedFault is an entry of a schedule.
type plannedFault struct {
	at, length time.Duration
	kind       faultKind
	target     string // a process or a link
}

// schedule plans the faults of a run: a new one every second or so, never two at a
// time on one target, all over by the end. targets are the names of what can be broken,
// by its kind; of other kinds there is one. The same arguments give the same faults.
func schedule(r *rand.Rand, duration time.Duration, kinds []faultKind, targets map[string][]string) []plannedFault {
	// Requests are frequent, because each is about one job only.
	const gap, requestsPerFault = time.Second, 2
	busy := map[string]time.Duration{} // until when
	var faults []plannedFault
	add := func(at time.Duration, kind faultKind) {
		for _, k := range faultKinds {
			if k.kind != kind {
				continue
			}
			f := plannedFault{at: at, kind: kind}
			if k.target != "" {
				f.target = k.target
				if some := targets[k.target]; len(some) > 0 {
					f.target = some[r.IntN(len(some))]
				}
			}
			if k.most > 0 {
				f.length = k.least + time.Duration(r.Int64N(int64(k.most-k.least)))
			}
			if at+f.length > duration || (f.target != "" && at < busy[f.target]) {
				return
			}
			busy[f.target] = at + f.length + k.recovery
			faults = append(faults, f)
		}
	}
	var others, requests []faultKind
	for _, kind := range kinds {
		switch {
		case slices.Contains(conditions, kind):
		case kind == cancelJob || kind == retryJob || kind == oddBatch:
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
			if kind == oddBatch {
				n = 1
			}
			for range n {
				add(at+time.Duration(r.Int64N(int64(gap))), kind)
			}
		}
	}
	slices.SortStableFunc(faults, func(a, b plannedFault) int { return int(a.at - b.at) })
	return faults
}
