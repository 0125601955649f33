package tasks

import "time"

// Activity is what happened to items within a minute.
type Activity struct {
	Submitted, Succeeded, Failed, Unknown, Cancelled int64
}

// Finished is how many items ended.
func (a Activity) Finished() int64 { return a.Succeeded + a.Failed + a.Unknown + a.Cancelled }

// Overview is the state of the service, as Redis knows it.
type Overview struct {
	At Time
	// Accepting says that there is room for new work.
	Accepting bool
	// Minutes are the last hour, oldest first; the last one is not over.
	Minutes []Activity
	// OpenJobs are those that have not ended, and some that ended in the last minutes.
	OpenJobs int64
	Queues   []QueueState
	Workers  []WorkerProcess
	// Unserved are drivers that instances wait for and that no living worker has.
	Unserved []string
	Redis    []RedisNode
}

// Running is how many attempts are under way.
func (o Overview) Running() (n int) {
	for _, q := range o.Queues {
		n += q.Active
	}
	return n
}

// Waiting is how many items wait to be attempted.
func (o Overview) Waiting() (n int) {
	for _, q := range o.Queues {
		n += q.Pending + q.Later
	}
	return n
}

// QueueState is a queue of items.
type QueueState struct {
	Name string
	// Pending can be taken at once; Later waits for its time, after a failure for
	// example; Active is being worked on.
	Pending, Later, Active int
	// Oldest is how long the task has been waiting that is taken next.
	Oldest time.Duration
	Paused bool
}

// WorkerProcess is a worker that lives, or was seen in the last seconds.
type WorkerProcess struct {
	Host    string
	PID     int
	Started Time
	Lanes   int
	Drivers []string // whose instances it resets
	// Busy is how many tasks it has.
	Busy int
}

// RedisNode is a Redis server that jobs are kept in.
type RedisNode struct {
	Address, Version string
	// Policy is what it does when its memory is full, in its own words; it must be noeviction.
	Policy string
	// AppendOnly says that it writes each change to a file.
	AppendOnly bool
	// Durability is a sentence on what a crash of the server may lose.
	Durability string
	// Problem is a sentence on what is wrong with it, or empty.
	Problem            string
	Memory, MaxMemory  int64 // bytes; MaxMemory 0 = no bound
	Replicas, Commands int64 // Commands are per second
}

// Fill is how full the server is, from 0 to 1; 0 if it has no bound.
func (n RedisNode) Fill() float64 {
	if n.MaxMemory == 0 {
		return 0
	}
	return float64(n.Memory) / float64(n.MaxMemory)
}
