// Command chaos breaks a running batchreset in every way it knows and decides from
// the history whether a promise was broken.
//
//	go run ./cmd/chaos --seeds 20 --duration 60s
//
// # A run
//
// Each seed is one run. It starts real redis-servers with append-only files, one
// or two api and two or three worker processes of the real binary, and a control
// plane inside the harness that records every reset call with its begin and end, and a
// receiver of webhooks. How
// Redis is run goes round with the seeds, or is what --redis says: one server that
// writes always or everysec, a primary with two replicas and three Sentinels, with or
// without --commit-replicas, or a Cluster of three primaries with a replica each.
//
// The links caller to api, api to Redis, worker to Redis and worker to control plane
// go through toxiproxy (those to Redis only if it is one server). Jobs are submitted in
// an open loop, on instances that several of them ask for at a time; some requests are
// repeated, reuse a key, or are wrong. Meanwhile faults are injected from a schedule that
// follows from the seed: processes are killed and frozen, Redis is killed, fails over or
// is out of memory, links are cut, stalled or delayed, leases age, jobs are cancelled and
// retried, and an operator halts everything. Then everything is mended, and every job is read until all are final, or none
// has become so for 150 s, and once more.
//
// With --burst, that many instances are submitted at once, each once, and worked off
// while the faults go on.
//
// The schedule, the rates and the control plane's moods follow from the seed; when
// exactly a fault meets which step does not, so a seed that found something may need
// to be run again. With --history-dir the history (one JSON object a line, times in
// nanoseconds since the start), the processes' logs and Redis's files are kept.
//
// # What is checked
//
// [Check] is a pure function from a history to violations, each with the events that
// tell its story. The numbers are those of the design's promises.
//
//   - I1: an acknowledged job exists and is final at the end; so is one whose answer
//     was lost, if it exists.
//   - I2: in every record ever read, the counts and the job's state follow from the
//     items.
//   - I3: no two calls for one instance overlap, unless they have the same driver key.
//     A call whose worker has gone lasts until the control plane is done.
//   - I4: an item has no more calls than recorded attempts, and none succeeds without
//     a call that did; a call is for the instance of its item.
//   - I5: a final item's state and attempts never change, unless a retry was asked for.
//   - I6: requests under one key that were accepted were equal and are one job, which
//     is about the instances that they named.
//   - I7: an item that was cancelled before its first attempt has no call.
//   - I8: every job that exists was asked for by a request that was not refused.
//   - I9: the last end of every job was told to a webhook, and two ends never under one ID.
//   - I10: an item that failed has spent --max-attempts failures; calls whose worker
//     was killed do not count. Items with another reason are told by their code.
//
// And: no call begins later than a second after an operator halted all tenants, until he
// lets them go on, unless it was held up on its way.
//
// I11 is defended by tests of the packages that keep them.
//
// # What Redis may forget
//
// With everysec, Redis may forget what it was told in the 1.5 s before it is killed, and
// without --commit-replicas what its replicas do not have yet when one takes over. A job
// that was accepted in that window may be missing, and a read in it proves nothing. Calls
// count for nothing from then until 35 s after the kill: a worker repeats begin for up to
// 30 s on a lock that Redis may have forgotten. Killing the process loses less than
// killing the machine would, because what Redis has written is in the kernel's hands.
// With always, and with --commit-replicas, nothing is excused.
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
package main
