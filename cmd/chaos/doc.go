// Command chaos breaks a running batchreset in every way it knows and decides from
// the history whether a promise was broken.
//
//	go run ./cmd/chaos --seeds 20 --duration 60s
//
// # A run
//
// Each seed is one run. It starts real redis-servers with append-only files, one
// or two api and two or three worker processes of the real binary, and inside the
// harness a control plane behind a gateway, which records every reset call with its begin
// and end, and a receiver of webhooks. How
// Redis is run goes round with the seeds, or is what --redis says: one server that
// writes always or everysec, a primary with two replicas and three Sentinels, with or
// without --commit-replicas, or a Cluster of three primaries with a replica each.
//
// With an even seed the control plane honours keys and the workers know
// (--driver-idempotent); with an odd one it does not, and every call is a reset. With two seeds
// of four the workers look (--driver-look-url). A phone is in its initial state if it was wiped
// since it was last used, and no reset of it is under way; it is used again when a job is
// submitted that names it, so that no old wipe passes for a new one.
//
// The links caller to api, api to Redis, worker to Redis and worker to the gateway
// go through toxiproxy (those to Redis only if it is one server). Jobs are submitted in
// an open loop, on instances that several of them ask for at a time, and so are runs of the service, of up
// to 60 instances; some requests are repeated, reuse a key, are for later, or are wrong. Some runs need
// approval, which somebody else gives soon, refuses, or does not think of. Meanwhile faults are injected from a
// schedule that follows from the seed; --faults names the kinds that are wanted:
//
//   - processes are killed and frozen; Redis is killed, fails over, is out of memory or
//     frozen, or one of its replicas is; links are cut, stalled or delayed;
//   - clocks are wrong from the start, and step: those of Redis servers by up to 5 s each
//     way, those of api and worker by up to 100 s;
//   - the gateway answers 500 to 504 after a second while the reset goes on, answers 429,
//     503 or 403 itself, gives a call on and hangs up, or answers with a log-in page and
//     status 200;
//   - the control plane takes 10 to 30 s, longer than an attempt may, or tells of a reset
//     in the words of one of several conventions: to those who poll, or as a failure under
//     status 200;
//   - where workers look, resets are called done that wipe nothing; looks are slow, are answered
//     in words that nobody understands, do not show a wipe at once, or call a phone initial that
//     is not; a worker is killed when it looks, before the answer or right after it. The
//     gateway does to looks what it does to calls;
//   - runs are paused for a while, cancelled and retried, and jobs of them are cancelled;
//   - jobs are cancelled and retried, some as soon as a webhook says that an outcome is
//     unknown; phones of jobs under way are protected or given to another tenant, while
//     attempts wait for one of few slots; an operator halts everything; batches are sent
//     whose names are repeated or misspelled; tasks and empty queues are deleted as on
//     asynq's dashboard;
//   - Redis is filled up, and then an operator halts everybody, cancels a job, pauses or cancels
//     a run, protects and revokes a token, once.
//
// Then everything is repaired except the clocks. Runs that are paused are resumed, with a budget
// that allows all failures, and those that wait for it are approved, until all have ended and their
// results can be read. Every job is read until all are final, or none has become so for --patience,
// and once more.
//
// With --burst, that many instances are submitted at once, each once, and worked off
// while the faults go on.
//
// The schedule, the rates and the control plane's moods follow from the seed; when
// exactly a fault meets which step does not, so a seed that found something may need
// to be run again. With --history-dir the history (one JSON object a line, times in
// nanoseconds since the start), the processes' logs and Redis's files are kept.
//
// Ctrl-C ends a run within seconds: nothing is repaired, and nothing is checked. A second one
// ends the program at once, and on Linux everything that it has started.
//
// Another tree or binary is tested with --source or --binary. Flags that only one of them
// has are not used, but for limits of tenants, which are lifted if there are any.
//
// # Wrong clocks
//
// A small library in front of the C library makes Redis's wall clock wrong; it is compiled
// when it is needed. Go programs do not ask the C library. The binary is therefore built
// with an overlay that changes time.Now in package time, nothing else. Both read how wrong
// the clock is from a file that the process has mapped, so it can step at any moment.
//
// # What is checked
//
// Package history decides from the events of a run whether a promise was broken, and says
// what it checks, and what it excuses.
//
// # The simulation
//
// TestSimulation runs the real worker, sweeper, runner and store, with calls of the store in place
// of the api, inside a bubble of package testing/synctest, where time is simulated: Redis is
// a miniredis, reached over links in memory that lose, delay and repeat what they carry; a
// queue hands out tasks on asynq's keys, in any order, early, twice, or while they are worked
// on; the control plane and its gateway spoil calls. Each seed has some of the faults, on a
// few phones that every job asks for, for a minute or three, and is judged by the same
// checks. All that takes time takes as long as the seed says, to the nanosecond, so a seed
// is a history: what was found can be looked at again, as the failure says.
//
//	go test ./cmd/chaos -run TestSimulation -v -sim.time 1m
//
// Runners are killed at any command about a run, before it is done or after, and stand still
// between two steps, for longer than they have a run for themselves.
//
// A seed takes some 80 ms of one processor. The tests take as many as go into ten seconds,
// without the race detector, which wakes goroutines in random order.
//
// It does not see what is outside: HTTP, asynq itself, real drivers, several nodes of Redis,
// a process that stands still.
//
// # Would anybody notice?
//
// Each of these was broken on purpose, one at a time, and these tests failed:
//
//	the instance lock                 redisdb TestLock; worker TestABusyInstancePutsTheTaskBackUnused
//	the attempt's token               redisdb TestOnlyTheHolderOfTheTokenEndsAnAttempt, TestRandomCommandsKeepTheRecordTrue
//	the delivery check                redisdb TestBeginRefuses; worker TestSweepTakesOverFromADeadWorker
//	the sweeper                       worker TestSweepDeliversWhatIsLost and four others
//	list, create, enqueue, in order   redisdb TestAJobIsListedThenCreatedThenEnqueued
//	the conditional removal from the
//	open index                        worker TestARetryThatComesWhileAJobIsBeingDroppedKeepsItListed
//
// What the simulation finds of these and others by itself, beginning with seed 1, and what
// redisdb TestARecordIsLinearizable does. Without a change neither finds anything, the
// simulation in 818 seeds. That was before its drivers could look, and seeds were other ones.
//
//	broken                                     simulation          linearizability
//	the instance lock                          I3, seed 8          one item has one phone
//	the sweeper                                I1, seed 4          no part of it
//	list, create, enqueue, in order            I1, seed 8          no part of it
//	a refusal leaves an earlier doubt          I12, seed 29        no part of it
//	a panic is in doubt                        I3, seed 32         no part of it
//	times in a record are not negative         I1, seed 35         no
//	a living attempt is not replaced           I10, seed 37        round 0
//	a retry waits for its own doubtful call    I3, seed 41         round 61
//	MaySend marks that something may be sent   I12, seed 176       not tried
//	the attempt's token                        not in 871 seeds    round 0
//	the delivery check                         not in 1039 seeds    round 3
//	the conditional removal from the index     not in 959 seeds    no part of it
//	MaySend looks at the record and the lock   not in 684 seeds    round 0
//	a begin without an answer is given up      not in 810 seeds    no part of it
//	a token that was given up does not begin   not in 452 seeds    round 14
//
// README.md has the same for the rules of looks.
//
// The last look is seldom too late in the simulation, because between begin and it nothing
// takes time there; and an attempt that should have been given up ends with its lock.
package main
