// Package redisdb keeps jobs, instance locks, the fleet and tokens in Redis, and
// hands items to the workers through asynq.
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
// Keys (the braces make Redis Cluster keep what belongs together in one slot):
//
//	reset:{<job>}             the job record, see lua/record.lua
//	reset:open                open jobs by the time of their next sweep
//	reset:jobs:{<tenant>}     a tenant's jobs by creation time
//	reset:jobs                the jobs of all tenants by creation time
//	reset:instances:<day>     jobs by instance, see instances.go
//	reset:failures            kinds of failures by the time of the last one
//	reset:failures:{<driver> <code>}  items that failed so, by time
//	reset:activity:<minute>   numbers of items, for charts
//	reset:lock:{<instance>}   the item that is resetting the instance
//	reset:lock:{<instance>}:<token>  an attempt that was given up before it had the lock
//	reset:worker:{<id>}       a worker process that is alive
//	reset:fleet:{<instance>}  owner and protection
//	reset:fleet               index of the fleet
//	reset:token:{<sha256>}    tenant, scopes, expiry of a token
//	reset:tokens              index of the tokens
//	reset:webhook:{<tenant>}       IDs of a tenant's webhook endpoints
//	reset:webhook:{<tenant>}:<id>  an endpoint: URL, events, secrets, state
//	reset:webhooks            index of the endpoints: their tenants
//	reset:sweeper             the process that looks for dead workers
//	reset:audit               stream of decisions, see tasks.AuditEntry
//	reset:operators           who may log in to the operators' site
//	reset:first:{reset:operators}  links that make the first of them, in the same slot
//	reset:session:{<sha256>}  who has logged in
//	reset:ticket-key          what tickets for streams are sealed with
//	reset:policies            halts and limits, of tenants and of all of them
//	reset:accepted:{<tenant>} instances accepted in the last hour, by minute
//	reset:begun:{<tenant>}    resets begun in the last hour, by minute
//	reset:held:{<tenant>}     open instances, by job
//	reset:pace:{<tenant>}     when the next request is due, if there is a rate
//
// and the channels reset:enqueued, which tells workers the queue of new work, and
// reset:finished, which tells who waits that a job has ended. Both are hints.
//
// What many goroutines ask at the same time goes in groups, see grouped.
//
// Of asynq's keys none is written, and only through asynq's own client is any read.
// Three wrappers around that client know asynq by what it sends: flusher, which lets
// the scripts of a batch travel together, taker, which answers for queues that are known
// to be empty and lets all asynq servers share one subscription (see relay), and inspected,
// through which the sweeper looks at many tasks at once and believes no machine's clock.
// Should asynq send something else one day, all let it pass.
package redisdb
