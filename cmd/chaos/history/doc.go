// Package history keeps the events of a run and decides from them whether a promise was
// broken.
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
//   - I3: no two calls for one instance overlap, unless they have the same driver key and
//     the control plane honours keys. A call whose worker has gone, or was told something
//     by the gateway, lasts until the control plane is done.
//   - I4: an item has no more calls than recorded attempts; a call is for the instance of
//     its item.
//   - I5: a final item's state and attempts never change, unless a retry of items in that
//     state was asked for.
//   - I6: requests under one key that were accepted were equal and are one job, which
//     is about the instances that they named.
//   - I7: an item that was cancelled before its first attempt has no call.
//   - I8: every job that exists was asked for by a request that was not refused.
//   - I9: the last end of every job was told to a webhook, and two ends never under one ID.
//   - I10: an item that failed has spent --max-attempts failures; calls whose worker
//     was killed do not count. Items with another reason are told by their code. An item
//     that no call was made for is not unknown, nor is one whose call was answered to a
//     worker that lived; and no attempt is replaced while it lives.
//   - I11: no call is sent for a phone that is protected or another tenant's, for a job
//     that was cancelled, before its not_before, or after --give-up-after.
//   - I12: no item fails or is cancelled while a call of it is under way, or although one
//     has succeeded, unless a retry was asked for. Where the workers look, a phone is not wiped
//     twice for an item, unless a retry was asked for, or a look between the two wipes said
//     that the phone is not in its initial state, and that was true or --look-patience was over.
//   - I13: nobody is told that an item succeeded before a reset of it has ended well.
//     Where the workers look, nobody is told so unless the look that the record has as its
//     evidence said that the phone is in its initial state, and, if that was true, the phone
//     was wiped since the job was submitted. Evidence is what was said at the last look of
//     its attempt. An item whose reset was called done and wiped nothing does not succeed:
//     if that call was its last one it fails with RESET.1010, or is unknown.
//   - I14: a batch whose names are repeated or misspelled resets nothing that it does not
//     name in every reading.
//   - I15: while Redis is full, halt, cancel, protect and revoke work at the first try, and
//     a revoked token is refused. So do pause and cancel of a run.
//   - I16: an acknowledged run exists and has ended at the end, and is about the list that was
//     asked for. At every look its counts add up to its total, what has ended becomes no less, and
//     is no less than what its jobs had said before; at the end they are what its jobs say, and so
//     are its results, which have each instance once. No instance is in two jobs of one round. No
//     call of it comes before its approval, its not_before, or the end of the wave before; nor after
//     the canary before all of it has succeeded and the soak is over, or somebody has resumed the run
//     since it failed. By the record no more instances are open at a time than max_parallel. While
//     too many have failed, no more begin than max_parallel. No call comes later than a second
//     after a pause, cancel or rejection was acknowledged, until a resume or retry, unless it was
//     held up on its way. A run that was retried is judged in each round, if there are two.
//
// What is said of jobs holds for those of runs: they were asked for when the run was.
//
// And: no call begins later than a second after an operator halted all tenants, until
// they are resumed, unless it was held up on its way.
//
// # What is excused
//
// With everysec, Redis may forget what it was told in the 1.5 s before it is killed, and
// without --commit-replicas what its replicas do not have yet when one takes over. A job
// that was accepted in that window may be missing, and a read in it proves nothing. Calls
// count for nothing from then until 35 s after the kill: a worker repeats begin for up to
// 30 s on a lock that Redis may have forgotten. Killing the process loses less than
// killing the machine would, because what Redis has written is in the kernel's hands.
// With always, and with --commit-replicas, nothing of that is excused, but a read: it shows
// what the primary has, also what no replica has and nobody was told to be done. So if a
// primary is lost while its replica is frozen, or 1.5 s after the read, the read proves
// nothing. For a change of the fleet nobody waits, so a replica that takes over within 1.5 s
// of it may not know it.
//
// A call may come up to a second after it was sent, and later while the link to the
// gateway is disturbed. A worker that is killed or frozen may have announced one call that
// it did not make: that is one unknown item for each of them. Nobody can see through a look that
// calls a phone initial which is not: then the record has what was said, and no more is
// promised. A wipe that does not show may fail its item. What stops something may fail
// while Redis or the api is not there at all, or was not 5 s before.
package history
