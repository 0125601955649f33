package tasks

import "time"

// Activity is what happened to items within a minute.
type Activity struct {
	Submitted, Succeeded, Failed, Unknown, Cancelled int64
}

// Tried is how many items ended that were not cancelled.
func (a Activity) Tried() int64 { return a.Succeeded + a.Failed + a.Unknown }

// Finished is how many items ended.
func (a Activity) Finished() int64 { return a.Succeeded + a.Failed + a.Unknown + a.Cancelled }

// Overview is the state of the service, as Redis knows it.
type Overview struct {
	At Time
	// Accepting says that there is room for new work.
	Accepting bool
	// FullAt is how many percent of its memory Redis may use before no new work is accepted.
	FullAt int
	// Minutes are the last hour, oldest first; the last one is not over.
	Minutes []Activity
	// Work is what is open; it may be a little older than the rest.
	Work    Census
	Queues  []QueueState
	Workers []WorkerProcess
	// Unserved are drivers that instances wait for and that no living worker has.
	Unserved []string
	Redis    []RedisNode
}

// Pace is how fast items end, and when nothing is left to do.
func (o Overview) Pace() Pace {
	window, ended := int(PaceWindow/time.Minute), int64(0)
	took := PaceWindow
	if full := len(o.Minutes) - 1; full >= window { // the last one is not over
		for _, minute := range o.Minutes[full-window : full] {
			if ended += minute.Tried(); ended == 0 && took > time.Minute {
				took -= time.Minute // before there was anything to do
			}
		}
	}
	return PaceOf(ended, took, o.Work.Ahead(), o.At.Time)
}

// Fullest is the server that has used most of its memory.
func (o Overview) Fullest() (fullest RedisNode) {
	for _, node := range o.Redis {
		if node.Fill() >= fullest.Fill() {
			fullest = node
		}
	}
	return fullest
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
	// Busy is how many tasks it has, Slots how many it can have, SlotsOf by driver.
	Busy, Slots int
	SlotsOf     map[string]int
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
	Problem string
	// FileFails says that the append-only file cannot be written, SnapshotFails that the last snapshot could not be; SavedAt is
	// when one was, zero if Redis does not say.
	FileFails, SnapshotFails bool
	SavedAt                  Time

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
