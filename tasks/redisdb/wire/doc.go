// Package wire is the connection to Redis, and everything in it that is there for speed or
// for the ways of asynq. It knows nothing of jobs. Outside of it code calls Redis and asynq
// plainly.
//
// For speed, each with the row of 'make bench' that pays for it:
//
//   - Run, Each and Grouped send what many goroutines ask at the same time in one round trip
//     (drain: see grouped)
//   - Many runs one script on many items in one call (drain)
//   - Enqueue sends the tasks of a batch in one round trip, asynq sends one for each (submit:
//     see flusher)
//   - a server of NewServer does not ask queues that are known to be empty (idle: see taker),
//     and shares one subscription with all others of the process (idle: see relay)
//   - LookUp asks for a thousand tasks in one round trip, asynq for one (sweep: see inspected)
//
// The last three know asynq by what it sends. Should asynq send something else one day, they
// let it pass. Of asynq's keys none is written, and only through asynq's own client is any
// read.
//
// For truth: Commit waits for replicas, Now is the time by Redis's clock, and what is asked of
// asynq's inspector does not depend on the clock of this machine.
package wire
