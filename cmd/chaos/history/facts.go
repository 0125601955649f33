package history

import (
	"cmp"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

const (
	// lossWindow is how much Redis may forget: with appendfsync everysec a second until
	// the write, half of one for the write to be slow. A replica that takes over
	// lags less behind; a primary that is taken for dead and is not goes on accepting
	// about so long.
	lossWindow = 1500 * time.Millisecond
	// echo is how long after a kill a worker may still act on what Redis has
	// forgotten: it repeats begin for 30 s on the lock that it had.
	echo = 35 * time.Second
)

// facts are a history in the order in which the checks need it.
type facts struct {
	Run
	submits    []Event
	cancels    []Event
	retries    []Event
	faults     []Event
	odds       []Event
	brakes     []Event
	taken      []Event            // protected or moved; from End to the Begin of a Free
	frees      map[string][]Event // by instance
	jobs       []string           // every job that was accepted or seen
	reads      map[string][]Event // by job
	told       map[string][]Event // by job
	byInstance map[string][]Event // calls
	byItem     map[string][]Event // calls
	looks      map[string][]Event // by instance
	evidence   map[string]Event   // looks by their evidence
	runs       []*run             // by ID
	runOf      map[string]*run    // by job
}

func index(h Run) facts {
	f := facts{
		Run: h, frees: map[string][]Event{}, reads: map[string][]Event{}, told: map[string][]Event{},
		byInstance: map[string][]Event{}, byItem: map[string][]Event{}, looks: map[string][]Event{}, evidence: map[string]Event{},
	}
	f.Events = slices.Clone(h.Events)
	slices.SortStableFunc(f.Events, func(a, b Event) int { return cmp.Compare(a.Begin, b.Begin) })
	jobs := map[string]bool{}
	for _, e := range f.Events {
		switch e.Kind {
		case Submit:
			f.submits = append(f.submits, e)
		case Cancel:
			f.cancels = append(f.cancels, e)
		case Retry:
			if !e.refused() {
				f.retries = append(f.retries, e)
			}
		case Fault:
			f.faults = append(f.faults, e)
		case Odd:
			f.odds = append(f.odds, e)
		case Brake:
			f.brakes = append(f.brakes, e)
		case Protect, Move:
			f.taken = append(f.taken, e)
		case Free:
			f.frees[e.Instance] = append(f.frees[e.Instance], e)
		case Told:
			f.told[e.Job] = append(f.told[e.Job], e)
		case Read:
			f.reads[e.Job] = append(f.reads[e.Job], e)
		case Look:
			f.looks[e.Instance] = append(f.looks[e.Instance], e)
			f.evidence[e.Evidence] = e
		case Call:
			f.byInstance[e.Instance] = append(f.byInstance[e.Instance], e)
			f.byItem[e.Item] = append(f.byItem[e.Item], e)
		}
		if e.Job != "" {
			jobs[e.Job] = true
		}
	}
	f.jobs = slices.Sorted(maps.Keys(jobs))
	f.indexRuns()
	return f
}

// last returns what the last read of a job showed, or nil.
func (f facts) last(job string) *client.Job {
	reads := f.reads[job]
	if len(reads) == 0 {
		return nil
	}
	return slices.MaxFunc(reads, func(a, b Event) int { return cmp.Compare(a.End, b.End) }).Record
}

// LastItems are the items of every job of a history, as the job's last read showed them.
func LastItems(h Run) iter.Seq[client.Item] { return index(h).items }

// items yields the last known state of every item.
func (f facts) items(yield func(client.Item) bool) {
	for _, job := range f.jobs {
		record := f.last(job)
		if record == nil {
			continue
		}
		for _, item := range record.Items {
			if !yield(item) {
				return
			}
		}
	}
}

// forgettable reports whether Redis may have forgotten something that was written
// between from and to and led to what was seen at most later after a kill.
func (f facts) forgettable(from, to, later time.Duration) bool {
	return f.Forgets != "" && slices.ContainsFunc(f.faults, func(e Event) bool {
		return e.Fault == f.Forgets && from <= e.Begin+later+lossWindow && to >= e.Begin-lossWindow
	})
}

// unconfirmed reports whether what a read has shown may be known to a primary alone that was
// lost then, and to nobody who changed it: its replica was frozen, or had no time to hear of
// it.
func (f facts) unconfirmed(read Event) bool {
	return f.forgettable(read.Begin, read.End, 0) || slices.ContainsFunc(f.faults, func(lost Event) bool {
		if lost.Fault != fault.Failover || read.Begin > lost.End {
			return false
		}
		return read.End >= lost.Begin-lossWindow || slices.ContainsFunc(f.faults, func(frozen Event) bool {
			return frozen.Fault == fault.ReplicaFreeze && frozen.during(lost.Begin, lost.Begin) && read.End >= frozen.Begin
		})
	})
}

// forgettableCall is forgettable for a call, which follows its lock and its begin
// by up to echo.
func (f facts) forgettableCall(c Event) bool { return f.forgettable(c.Begin, c.Begin, echo) }

// story selects events, and adds the faults that they met.
func (f facts) story(belongs func(Event) bool) []Event {
	from, to := time.Duration(-1), time.Duration(0)
	for _, e := range f.Events {
		if belongs(e) {
			if from < 0 {
				from = e.Begin
			}
			to = max(to, e.End)
		}
	}
	var story []Event
	shown := map[string]*client.Job{} // the same record again tells nothing
	for _, e := range f.Events {
		if e.Kind == Read && e.Record != nil && belongs(e) {
			if old := shown[e.Job]; old != nil && reflect.DeepEqual(old, e.Record) {
				continue
			}
			shown[e.Job] = e.Record
		}
		if belongs(e) || e.Kind == Fault && from >= 0 && e.during(from-lossWindow, to) {
			story = append(story, e)
		}
	}
	return story
}

// jobStory is what is known of a job.
func (f facts) jobStory(job string) []Event {
	return f.story(func(e Event) bool {
		return e.Job == job || e.Kind == Submit && e.Tried() == job || e.Kind == Call && strings.HasPrefix(e.Item, job+"-")
	})
}

// itemStory is what is known of an item: the records are cut down to it.
func (f facts) itemStory(item string) []Event {
	job, _, _ := tasks.ParseItemID(item)
	calls := f.byItem[item]
	looked := func(e Event) bool {
		return e.Kind == Look && len(calls) > 0 && e.Instance == calls[0].Instance && e.Begin >= calls[0].Begin
	}
	story := f.story(func(e Event) bool { return e.Job == job || e.Item == item || looked(e) })
	for i, e := range story {
		if e.Record == nil {
			continue
		}
		record := *e.Record
		record.Items = slices.DeleteFunc(slices.Clone(record.Items), func(it client.Item) bool { return it.ItemID != item })
		story[i].Record = &record
	}
	return story
}
