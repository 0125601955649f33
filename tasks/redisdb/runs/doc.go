// Package runs keeps the records of runs: a list of any length that is reset as one thing.
//
// Redis keys, all of one run in one slot:
//
//	reset:run:{<run>}         the record: header, options, progress
//	reset:run:{<run>}:list    its list, in parts of which each becomes one job
//	reset:run:{<run>}:failed  which of its parts have failed or unknown instances, once their jobs have ended
//	reset:run:{<run>}:lock    the runner that works on it
//	reset:runs                the runs that have not ended, by when a runner looks at them next
//	reset:runs:{<tenant>}     a tenant's runs by creation time
//	reset:runs:all            those of all tenants
//
// A part is taken in the record before its job is made, and its job's ID follows from run and part:
// a runner that dies in between, or that thaws when another one has gone on, makes no second job.
// A job that has ended is counted in the record once, because its part is closed with it. What is
// paused or cancelled is also said in the policies, which every attempt asks before it begins: a runner
// that has not heard of it begins nothing.
//
// What endpoints are to be told of is in the record, too, written by the script that changes it: an api that dies after a
// decision, or a runner after the end, leaves it there. A runner takes it out when the notices are enqueued, and a run
// leaves the index after that.
package runs
