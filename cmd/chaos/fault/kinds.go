// Package fault has the kinds of faults that a run can have, and plans which of them
// happen when. A plan follows from a seed.
package fault

// Kind says how something is broken. Its text is what --faults takes.
type Kind string

// The kinds of faults.
const (
	APIKill      Kind = "api-kill"      // SIGKILL, started again at once
	APIFreeze    Kind = "api-freeze"    // SIGSTOP, SIGCONT
	WorkerKill   Kind = "worker-kill"   // SIGKILL, started again at once
	WorkersKill  Kind = "workers-kill"  // the same for all workers at once
	WorkerFreeze Kind = "worker-freeze" // SIGSTOP, SIGCONT
	WorkerSleep  Kind = "worker-sleep"  // the same, longer than asynq's lease
	LeaseAge     Kind = "lease-age"     // every lease looks a minute older: a clock has jumped
	RedisKill    Kind = "redis-kill"    // SIGKILL, started again on the same files
	Failover     Kind = "failover"      // SIGKILL of a primary, away until a replica has taken over
	RedisFull    Kind = "redis-full"    // CONFIG SET maxmemory: writes fail
	LinkCut      Kind = "cut"           // connections break, new ones are refused
	LinkStall    Kind = "stall"         // connections stay, bytes vanish
	LinkDelay    Kind = "delay"         // bytes take up to half a second longer
	HaltAll      Kind = "halt"          // an operator halts all tenants, and lets them go on
	CancelJob    Kind = "cancel"        // a random job is cancelled
	RetryJob     Kind = "retry"         // a random job is retried
	PauseRun     Kind = "run-pause"     // a run is paused for a while
	CancelRun    Kind = "run-cancel"    // a run is cancelled
	RetryRun     Kind = "run-retry"     // a run is retried

	ReplicaFreeze Kind = "replica-freeze" // SIGSTOP of one replica, SIGCONT
	RedisFreeze   Kind = "redis-freeze"   // SIGSTOP of the one server, SIGCONT
	RedisClock    Kind = "redis-clock"    // a server's clock steps; they differ from the start
	WorkerClock   Kind = "worker-clock"   // a worker's clock steps; they differ from the start
	APIClock      Kind = "api-clock"      // an api's clock steps; they differ from the start
	TaskLoss      Kind = "task-loss"      // somebody deletes tasks, and empty queues, on the asynq dashboard

	GatewayTimeout Kind = "gateway-timeout" // the gateway does not wait longer than a second
	GatewayRefuse  Kind = "gateway-refuse"  // it answers calls itself with 429, 503 or 403
	GatewayLose    Kind = "gateway-lose"    // it gives calls on and hangs up
	GatewayPage    Kind = "gateway-page"    // it answers with a log-in page and 200
	PlaneSlow      Kind = "plane-slow"      // some resets take 10 to 30 s; without this kind none takes more than 4 s
	PlaneTalk      Kind = "plane-talk"      // resets are polled, or fail under 200, in many words

	// Those of runs in which the workers look.
	PlaneLie Kind = "plane-lie" // resets are called done that wipe nothing
	LookLate Kind = "look-late" // looks do not show a wipe at once, some for longer than anybody waits
	LookSlow Kind = "look-slow" // looks are answered after up to 8 s with what was true at first
	LookTalk Kind = "look-talk" // looks are answered with what nobody understands
	LookLie  Kind = "look-lie"  // looks call phones initial that are not
	LookKill Kind = "look-kill" // SIGKILL of the worker when it looks: before the answer, or right after it

	Protect  Kind = "protect"   // instances of a job under way are protected for a while
	Move     Kind = "move"      // they are given to another tenant for a while
	Brake    Kind = "brake"     // Redis is filled up, and an operator stops everything that can be stopped
	OddBatch Kind = "odd-batch" // a batch whose names are repeated or misspelled is sent

	// Conditions of a whole run.
	FewSlots Kind = "few-slots" // --driver-concurrency: attempts wait for their turn to call
	GiveUp   Kind = "give-up"   // --give-up-after: items end because their time is over
)

// conditions are what a run has from its start to its end, or not.
var conditions = []Kind{FewSlots, GiveUp}

// Looking are the kinds that only runs have in which the workers look.
func Looking() []Kind { return []Kind{PlaneLie, LookLate, LookSlow, LookTalk, LookLie, LookKill} }

// The links that can be cut, stalled or delayed. Those to Redis exist if it is one
// server: replicas and Cluster nodes tell clients their own addresses.
const (
	CallerToAPI      = "caller-api"
	APIToRedis       = "api-redis"
	WorkerToRedis    = "worker-redis"
	WorkerToUpstream = "worker-upstream"
)
