// Package redisdb keeps jobs and instance locks in Redis, and hands items to the workers
// through asynq. It puts the parts of the store together: see DB.
//
//	wire      the connection to Redis, and all that is there for speed or for asynq's ways
//	codec     how things are written: keys, letters of states, job records
//	registry  what people decide: tokens, operators, fleet, endpoints, policies, audit trail
//	views     what people look things up by
//	redisdb   what happens to a job: Records, Attempts, Sweep, Queues, Notices
//
// One job record is one hash, changed only by the scripts in lua/, so every
// change is atomic and touches one slot of a Redis Cluster. The commit point of
// a submit is the script that creates the record; the tasks are enqueued after
// it, and the record is their outbox.
//
// Every script may be sent twice, because the client library repeats a command
// whose answer was lost. Each is written so that the second time changes
// nothing.
//
// Keys (the braces make Redis Cluster keep what belongs together in one slot; those of
// registry and views are in their doc.go):
//
//	reset:{<job>}             the job record, see lua/lib/record.lua
//	reset:open                open jobs by the time of their next sweep
//	reset:lock:{<instance>}   the item that is resetting the instance
//	reset:lock:{<instance>}:<token>  an attempt that was given up before it had the lock
//	reset:worker:{<id>}       a worker process that is alive
//	reset:worker:{<id>}:beats how often it has shown that
//	reset:worker:{<id>:<n>}:beats  the same on another primary of a Cluster
//	reset:sweeper             the process that looks for dead workers
//
// and the channels reset:enqueued, which tells workers the queue of new work, and
// reset:finished, which tells who waits that a job has ended. Both are hints.
package redisdb
