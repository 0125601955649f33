// Package worker resets instances: it takes deliveries from asynq, makes one
// attempt at each through a [Driver], and writes the outcome into the record.
//
// An attempt goes: wait for a turn, lock the instance, begin in the record, call the driver,
// which looks once more and sends, finish and unlock; each step is sent only after the answer
// to the one before.
// The record decides everything. What a handler returns moves the task about in
// asynq, for its dashboard and for the next delivery; asynq's own timeout, retry
// counter and hooks decide nothing.
//
// # Two attempts at one item
//
// A worker that loses its lease (frozen, cut off) may come back while its
// successor is at work. It cannot end the attempt, because the record has a new
// token, nor release the lock, because the lock has it too. What it could still do
// is send a request that it was about to send: a driver asks [Attempt.MaySend]
// once more just before it sends, and both attempts use the same driver key.
//
// # Doubt
//
// A call is in doubt when it may have been sent and nobody can say what came of it. MaySend
// marks in the record that an attempt may have sent: one that is lost without the mark has
// sent nothing. Only an answer about that very call ends the doubt (see
// [DriverError.EndsDoubt]); until then driver key, checkpoint and lock stay.
//
// The answer to a begin may be lost, or come late. So an attempt whose begin has no answer is
// given up by its token, however long that takes. An outcome is written for as long as this
// process lives: nobody else takes over an attempt of a living process.
//
// # Lost tasks
//
// Every worker process has a [Sweeper]. They share the open jobs: each claims some of those
// that are due by moving their time in the index, so that no other sweeper sees them. If it
// dies, they are due again soon. One sweeper at a time looks for the tasks of dead workers.
// A worker is dead if neither its asynq server nor the worker itself has shown a sign of life
// for some time. Redis lets these signs lapse by its own clock, and the sweeper measures the
// time by its own. No clock of another machine is trusted: asynq's leases are times of the
// worker's clock, and asynq decides what is orphaned by the clock of whoever asks.
//
// The sweeper that looks for the dead also looks whether every open job and run is listed as open:
// in a Cluster the list and the records are on different nodes, which a restore or a failover can put
// back to different moments.
//
// # Webhooks
//
// The process that ends a job has its tenant's endpoints told: the store enqueues a notice for
// each. If it dies before that, the [Sweeper] does it; a job leaves the index of open jobs only
// when this is done. Package worker/webhook sends the notices.
//
// # Lanes
//
// An asynq server takes one task per round trip, so a worker runs several, its
// lanes, on one client whose calls share round trips. Only the first looks after
// what is scheduled and what has expired.
package worker
