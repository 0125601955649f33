package tasks

import (
	"slices"
	"strings"
	"time"
)

// HoldReason says why an item that could begin does not.
type HoldReason string

// The reasons.
const (
	HoldHalt        HoldReason = "halt"               // operators have halted all tenants
	HoldTenantHalt  HoldReason = "tenant_halt"        // operators have halted its tenant
	HoldOwnHalt     HoldReason = "own_halt"           // its tenant has halted itself
	HoldRunPaused   HoldReason = "run_paused"         // its run is paused, or is being cancelled
	HoldNotBefore   HoldReason = "not_before"         // the time of its job has not come
	HoldUnserved    HoldReason = "driver_unserved"    // no living worker has its driver
	HoldQueuePaused HoldReason = "queue_paused"       // somebody has paused its queue on asynq's dashboard
	HoldUnreachable HoldReason = "driver_unreachable" // no worker reaches what its driver calls
	HoldQuota       HoldReason = "quota"              // its tenant's resets of this hour are used up
)

// HoldReasons are all of them. An item has one reason, the first of these that applies: what people have decided, then what
// time or a repair ends, and last the quota, because it is looked at last before an attempt.
var HoldReasons = []HoldReason{
	HoldHalt, HoldTenantHalt, HoldOwnHalt, HoldRunPaused, HoldNotBefore, HoldUnserved, HoldQueuePaused, HoldUnreachable, HoldQuota,
}

// Work counts items that have not ended. Each is either waiting, running, or held.
type Work struct {
	// Waiting could begin now, Later among them when their next try is due.
	Waiting int `json:"waiting,omitempty"`
	Later   int `json:"later,omitempty"`
	Running int `json:"running,omitempty"`
	// Held could begin but for a reason.
	Held map[HoldReason]int `json:"held,omitempty"`
	// ToCome are instances of runs that go on which are in no job yet; they are in none of the other numbers.
	ToCome int `json:"to_come,omitempty"`
	// Oldest is since when the item could have begun that has waited longest, of those that could begin now; zero: none
	// waits.
	Oldest Time `json:"oldest,omitzero"`
}

// Open are the items that are waiting or running.
func (w Work) Open() int { return w.Waiting + w.Running }

// HeldItems is how many items are held, whatever for.
func (w Work) HeldItems() (n int) {
	for _, some := range w.Held {
		n += some
	}
	return n
}

// Ahead is how much there is to do that nothing holds.
func (w Work) Ahead() int { return w.Open() + w.ToCome }

// Holding is one thing that holds items.
type Holding struct {
	Reason HoldReason `json:"reason"`
	// Why is what somebody gave as reason, if any.
	Why string `json:"why,omitempty"`
	// Since is when it began; of a quota, a driver and a queue when it was first seen. Until is when it ends by itself, for the
	// first of the items; zero: it does not, or nobody knows.
	Since Time `json:"since,omitzero"`
	Until Time `json:"until,omitzero"`
	Items int  `json:"items"`
	// Tenant to Job are those of all its items, or empty if they have not the same.
	Tenant string `json:"tenant,omitempty"`
	Run    string `json:"run,omitempty"`
	Driver string `json:"driver,omitempty"`
	Queue  string `json:"queue,omitempty"`
	Job    string `json:"job,omitempty"`
}

// Text says what holds the items.
func (h Holding) Text() string {
	text := ""
	switch h.Reason {
	case HoldHalt:
		text = "resets of all tenants are halted"
	case HoldTenantHalt:
		text = "resets of the tenant are halted"
	case HoldOwnHalt:
		text = "the tenant has halted its resets itself"
	case HoldRunPaused:
		switch {
		case strings.HasPrefix(h.Why, "paused "):
			return "the run is " + h.Why
		case strings.HasPrefix(h.Why, "the run "):
			return h.Why
		}
		text = "the run is paused"
	case HoldNotBefore:
		text = "the time that was asked for (not_before) has not come"
	case HoldUnserved:
		text = "no living worker has the driver " + h.Driver
	case HoldQueuePaused:
		text = "the queue " + h.Queue + " is paused"
	case HoldUnreachable:
		text = "no worker reaches the control plane of the driver " + h.Driver
	case HoldQuota:
		text = "the tenant's quota of resets per hour is used up"
	}
	if h.Why != "" {
		text += ": " + h.Why
	}
	return text
}

// CensusNames is of how many tenants, runs and drivers a census has numbers, and how many holdings it has.
const CensusNames = 2000

// Census counts the work that is open, as it was at a time.
type Census struct {
	At Time `json:"at"`
	// Next is before when nobody counts again: counting costs.
	Next Time `json:"next"`
	// OpenJobs have an item that has not ended.
	OpenJobs int `json:"open_jobs"`
	// Unreadable are jobs whose records cannot be read, Uncounted those beyond the number that are looked at. Their items are
	// in no number.
	Unreadable int `json:"unreadable,omitempty"`
	Uncounted  int `json:"uncounted,omitempty"`
	Work
	// Holdings are in the order of HoldReasons, those with most items first.
	Holdings []Holding `json:"holdings,omitempty"`
	// Tenants, Runs and Drivers are the numbers of each, of CensusNames at the most.
	Tenants map[string]Work `json:"tenants,omitempty"`
	Runs    map[string]Work `json:"runs,omitempty"`
	Drivers map[string]Work `json:"drivers,omitempty"`
}

// SortHoldings puts them in their order, and drops those that are too many.
func (c *Census) SortHoldings() {
	slices.SortFunc(c.Holdings, func(a, b Holding) int {
		if a.Reason != b.Reason {
			return slices.Index(HoldReasons, a.Reason) - slices.Index(HoldReasons, b.Reason)
		}
		if a.Items != b.Items {
			return b.Items - a.Items
		}
		return strings.Compare(a.Tenant+" "+a.Run+" "+a.Driver+" "+a.Queue, b.Tenant+" "+b.Run+" "+b.Driver+" "+b.Queue)
	})
	c.Holdings = c.Holdings[:min(len(c.Holdings), CensusNames)]
}

// OldestAge is how long the item has waited that has waited longest of those that could begin; 0: none waits.
func (c Census) OldestAge() time.Duration {
	if c.Oldest.IsZero() {
		return 0
	}
	return max(0, c.At.Sub(c.Oldest.Time))
}

// PaceWindow are the last full minutes, from which it is told how fast items end.
const PaceWindow = 5 * time.Minute

// Pace is how fast items end.
type Pace struct {
	// PerSecond is from the last full minutes, without what was cancelled.
	PerSecond float64
	// Empty is when nothing is left to do at this pace, the held aside; zero: nothing ends, or nothing is to be done.
	Empty Time
}

// PaceOf is the pace at which so many items ended in a time before now, with so many ahead.
func PaceOf(ended int64, within time.Duration, ahead int, now time.Time) (p Pace) {
	if ended <= 0 || within <= 0 {
		return p
	}
	p.PerSecond = float64(ended) / within.Seconds()
	if seconds := float64(ahead) / p.PerSecond; ahead > 0 && seconds < float64(100*24*time.Hour/time.Second) {
		p.Empty = Time{now.Add(time.Duration(seconds * float64(time.Second)))}
	}
	return p
}
