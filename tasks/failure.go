package tasks

import "time"

// FailureKind is what failures have in common.
type FailureKind struct {
	Driver string // name of the one that was to reset the instance
	Code   Code
}

// FailureCount is how many items have failed in one way.
type FailureCount struct {
	FailureKind
	Last Time
	// Over are the numbers in equal parts of the time that was asked for, oldest first.
	Over []int64
	// More says that there are more than were looked at, which was the newest ones.
	More bool
}

// Total is their number in all that time.
func (c FailureCount) Total() int64 {
	var n int64
	for _, part := range c.Over {
		n += part
	}
	return n
}

// Failure is an item that failed, or whose outcome is unknown.
type Failure struct {
	At  Time
	Job Job
	// Item is as it is now: it may have been tried again.
	Item Item
}

// FailureFilter selects failures of a kind by the time at which they ended.
type FailureFilter struct {
	FailureKind
	Tenant, Run string // only theirs; empty: of all
	Since       time.Time
	Limit       int    // at least 1
	Cursor      string // from the answer before
}

// Match reports whether the job of a failure fits.
func (f FailureFilter) Match(job Job) bool {
	return (f.Tenant == "" || f.Tenant == job.Tenant) && (f.Run == "" || f.Run == job.RunID)
}
