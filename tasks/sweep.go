package tasks

// Fate is what has become of a delivery's task if nobody will run it any more. The empty one
// is that of a task which waits or runs.
type Fate string

// The fates.
const (
	Orphaned   Fate = "orphaned"   // its worker is dead
	Missing    Fate = "missing"    // it was never enqueued, or somebody removed it
	Completed  Fate = "completed"  // without an end in the record
	Archived   Fate = "archived"   // by somebody on the dashboard
	Unreadable Fate = "unreadable" // asynq itself cannot read it
)

// Fates are all of them.
var Fates = []Fate{Orphaned, Missing, Completed, Archived, Unreadable}

// TaskLook is what is known of a delivery's task.
type TaskLook struct {
	Fate Fate
	Err  error // nothing is known of it
}

// Read is a record that was asked for, or why it could not be read.
type Read struct {
	Job Job
	Err error // JobGone if there is none
}

// ActiveTask is a task that a worker has taken from its queue and not put back.
type ActiveTask struct {
	ID       string
	Delivery Delivery
	// Handling is another number if the task was put back and taken again meanwhile.
	Handling int64
}

// Hold says whether somebody works on an item, by its record.
type Hold struct {
	Open  bool // the item is not final, and waits for this delivery
	Alive bool // an attempt is running, and its worker is alive
	Err   error
}
