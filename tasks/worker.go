package tasks

import (
	"cmp"
	"slices"
	"time"
)

const (
	// ReportEvery is how often a worker process tells what it does, and asks what it is ordered to do.
	ReportEvery = 2 * time.Second
	// MaxReportItems is how many items under way a report names, the oldest ones.
	MaxReportItems = 100
	// NotHeardAfter is how long a worker may show nothing before people are told.
	NotHeardAfter = 2*BeatEvery + time.Second
	// ClockTolerance is how far the clock of a machine may be from Redis's before people are told.
	ClockTolerance = time.Second
)

// WorkerCondition is what a worker process does with new work.
type WorkerCondition string

// The conditions of a worker process.
const (
	WorkerWorks  WorkerCondition = "working"
	WorkerQuiet  WorkerCondition = "quiet"    // takes nothing new until it is told to
	WorkerDrains WorkerCondition = "draining" // stops: its attempts end, and then the process
)

// WorkerReport is what a worker process tells of itself. Its times are by Redis's clock.
type WorkerReport struct {
	ID      string          `json:"id"`
	Host    string          `json:"host"`
	PID     int             `json:"pid"`
	Version string          `json:"version"`
	Started Time            `json:"started"`
	State   WorkerCondition `json:"state"`
	Since   Time            `json:"since,omitzero"` // of the state; zero: from the start
	// Whole says that the process is all of the service, its site included, so that the site cannot stop it.
	Whole bool `json:"whole,omitempty"`
	// ShutdownTimeout is how many milliseconds its attempts have to end when it stops.
	ShutdownTimeout int64 `json:"shutdown_timeout_ms,omitempty"`
	// ClockOffset is by how many milliseconds its machine's clock is ahead of Redis's; nil: not known.
	ClockOffset *int64         `json:"clock_offset_ms,omitempty"`
	Drivers     []WorkerDriver `json:"drivers"`
	// Items are the attempts under way, oldest first, at most MaxReportItems; More is how many there are beside them.
	Items []ItemUnderWay `json:"items,omitempty"`
	More  int            `json:"more,omitempty"`
}

// WorkerDriver is a driver in a worker process.
type WorkerDriver struct {
	Name  string `json:"name"`
	Lanes int    `json:"lanes"`
	// Slots is how many items it can have side by side, Busy how many it has, with those that wait for their turn.
	Slots int `json:"slots"`
	Busy  int `json:"busy"`
	// Rate bounds the calls per second, Concurrency those side by side; 0 = no bound.
	Rate        float64 `json:"rate,omitempty"`
	Concurrency int     `json:"concurrency,omitempty"`
	Timeout     int64   `json:"timeout_ms,omitempty"` // for one attempt
	// OpenSince is since when its breaker lets nothing through but trials; zero: it lets everything through.
	OpenSince Time `json:"open_since,omitzero"`
	// LastError is why the control plane could not be reached last.
	LastError   string `json:"last_error,omitempty"`
	LastErrorAt Time   `json:"last_error_at,omitzero"`
}

// AttemptTimeout is the time for one attempt; 0: not known.
func (d WorkerDriver) AttemptTimeout() time.Duration {
	return time.Duration(d.Timeout) * time.Millisecond
}

// ItemUnderWay is an item that a worker process has an attempt at.
type ItemUnderWay struct {
	ItemID     string `json:"item"`
	InstanceID string `json:"instance"`
	Tenant     string `json:"tenant"`
	Driver     string `json:"driver"`
	Attempt    int    `json:"attempt,omitempty"` // its number; 0: not known
	Since      Time   `json:"since"`
}

// Job is the job of the item.
func (i ItemUnderWay) Job() string {
	job, _, _ := ParseItemID(i.ItemID)
	return job
}

// WorkerView is a worker process as others know it.
type WorkerView struct {
	WorkerReport

	// Reports says that it has told of itself. Otherwise it is of an older version, and what is here is what
	// asynq knows: it has no ID, and nobody can order it anything.
	Reports bool
	// At is when this was looked at, and Silent how long the process had shown nothing then.
	At     Time
	Silent time.Duration
}

// Heard reports whether it has shown itself lately: it counts as living.
func (w WorkerView) Heard() bool { return w.Silent <= NotHeardAfter }

// Slots is how many items it can have side by side, over all drivers.
func (w WorkerView) Slots() (n int) {
	for _, d := range w.Drivers {
		n += d.Slots
	}
	return n
}

// Busy is how many items it has.
func (w WorkerView) Busy() (n int) {
	for _, d := range w.Drivers {
		n += d.Busy
	}
	return n
}

// UnderWay is how many attempts it has.
func (w WorkerView) UnderWay() int { return len(w.Items) + w.More }

// Age is how long an item has been under way.
func (w WorkerView) Age(i ItemUnderWay) time.Duration { return max(w.At.Sub(i.Since.Time), 0) }

// Oldest is how long the item has been under way that it has had for the longest time; 0 = it has none.
func (w WorkerView) Oldest() time.Duration {
	if len(w.Items) == 0 {
		return 0
	}
	return w.Age(slices.MinFunc(w.Items, func(a, b ItemUnderWay) int { return a.Since.Compare(b.Since.Time) }))
}

// Offset is by how much its machine's clock is ahead of Redis's, and Wrong whether that is too much.
func (w WorkerView) Offset() time.Duration {
	if w.ClockOffset == nil {
		return 0
	}
	return time.Duration(*w.ClockOffset) * time.Millisecond
}

// ClockWrong reports whether its machine's clock is too far from Redis's.
func (w WorkerView) ClockWrong() bool { return w.Offset().Abs() > ClockTolerance }

// Driver is what it says of one of its drivers.
func (w WorkerView) Driver(name string) (d WorkerDriver, has bool) {
	at := slices.IndexFunc(w.Drivers, func(d WorkerDriver) bool { return d.Name == name })
	if at < 0 {
		return d, false
	}
	return w.Drivers[at], true
}

// Takes reports whether it takes new work, as far as is known.
func (w WorkerView) Takes() bool {
	return w.Heard() && cmp.Or(w.State, WorkerWorks) == WorkerWorks
}

// WorkerOrder is what people tell a worker process to do.
type WorkerOrder string

// The orders. A process that was told nothing goes on as it is.
const (
	OrderQuiet WorkerOrder = "quiet" // take nothing new
	OrderTake  WorkerOrder = "take"  // take work again
	OrderStop  WorkerOrder = "stop"  // end, as after SIGTERM
)

// WorkerOrders lists every order.
var WorkerOrders = []WorkerOrder{OrderQuiet, OrderTake, OrderStop}

// Action is what the audit trail calls the order.
func (o WorkerOrder) Action() Action { return Action("worker-" + string(o)) }

// UnreachableDrivers are the drivers whose control plane no worker can reach, with since when that is so: every
// living worker that has the driver and takes work has its breaker open. One that does not tell may reach it.
func UnreachableDrivers(workers []WorkerView) map[string]Time {
	since, reached := map[string]Time{}, map[string]bool{}
	for _, w := range workers {
		if !w.Takes() {
			continue
		}
		for _, d := range w.Drivers {
			if !w.Reports || d.OpenSince.IsZero() {
				reached[d.Name] = true
			} else if d.OpenSince.After(since[d.Name].Time) {
				since[d.Name] = d.OpenSince
			}
		}
	}
	for driver := range reached {
		delete(since, driver)
	}
	return since
}
