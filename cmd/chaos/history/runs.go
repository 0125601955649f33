package history

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

// run is what is known of a run.
type run struct {
	id             string
	asked          Event // the request that has become the run, as far as that can be known
	submits, reads []Event
	asks           map[Kind][]Event // to change it; those that were not refused
	results        []Event
	jobs           []string
	items          []runItem
}

// runItem is an instance that has come into a job, as the job's last read showed it.
type runItem struct {
	client.Item

	job         string
	part        int           // that the job is
	place       int           // in the list; -1: it is not there
	made, ended time.Duration // its job, by the record, and itself: 0 = it has not
	calls       []Event
}

// indexRuns collects what is known of each run.
func (f *facts) indexRuns() {
	runs := map[string]*run{}
	of := func(id string) *run {
		if runs[id] == nil {
			runs[id] = &run{id: id, asks: map[Kind][]Event{}}
		}
		return runs[id]
	}
	for _, e := range f.Events {
		switch e.Kind {
		case SubmitRun:
			r := of(cmp.Or(e.Run, e.TriedRun()))
			r.submits = append(r.submits, e)
		case ReadRun:
			r := of(e.Run)
			r.reads = append(r.reads, e)
		case Results:
			r := of(e.Run)
			r.results = append(r.results, e)
		case PauseRun, ResumeRun, CancelRun, RetryRun, ApproveRun, RejectRun:
			if r := of(e.Run); !e.refused() {
				r.asks[e.Kind] = append(r.asks[e.Kind], e)
			}
		}
	}
	f.runOf = map[string]*run{}
	for _, job := range f.jobs {
		if record := f.last(job); record != nil && record.RunID != "" {
			r := of(record.RunID)
			r.jobs = append(r.jobs, job)
			f.runOf[job] = r
		}
	}
	for _, id := range slices.Sorted(maps.Keys(runs)) {
		r := runs[id]
		r.asked = r.request()
		f.addItems(r)
		f.runs = append(f.runs, r)
	}
}

// request is the request that a run is of: one that was accepted, or else one that has its list.
func (r *run) request() Event {
	last := r.last()
	for _, fits := range []func(Event) bool{
		func(s Event) bool { return s.Run != "" },
		func(s Event) bool {
			return last != nil && !s.refused() && tasks.ListHash(s.Instances) == last.ListSHA256
		},
	} {
		if n := slices.IndexFunc(r.submits, fits); n >= 0 {
			return r.submits[n]
		}
	}
	return Event{Request: &client.RunRequest{}}
}

func (f *facts) addItems(r *run) {
	place := map[string]int{}
	for n, id := range r.asked.Instances {
		place[id] = n
	}
	parts := map[string]int{} // each round has no more than there are instances
	for n := range len(place) * (1 + len(r.asks[RetryRun])) {
		parts[tasks.PartJobID(r.id, n)] = n
	}
	for _, job := range r.jobs {
		record := f.last(job)
		for _, it := range record.Items {
			item := runItem{Item: it, job: job, part: parts[job], place: -1, made: f.at(record.CreatedAt), calls: f.byItem[it.ItemID]}
			if n, listed := place[it.InstanceID]; listed {
				item.place = n
			}
			if tasks.ItemState(it.State).Final() && !it.FinishedAt.IsZero() {
				item.ended = f.at(it.FinishedAt)
			}
			r.items = append(r.items, item)
		}
	}
	slices.SortFunc(r.items, func(a, b runItem) int {
		return cmp.Or(cmp.Compare(a.part, b.part), cmp.Compare(a.ItemID, b.ItemID))
	})
}

// round is a part of a run: the list that it began with, or what of it was asked for again.
type round struct {
	list  []string
	items []runItem
}

// rounds are those of a run, as far as they can be told apart: the first, and a second if there was one retry.
func (r *run) rounds() []round {
	if len(r.asks[RetryRun]) == 0 {
		return []round{{r.asked.Instances, r.items}}
	}
	first, second := round{list: r.asked.Instances}, round{}
	parts := r.parts(r.waves(len(first.list)))
	for _, it := range r.items {
		if it.part < parts {
			first.items = append(first.items, it)
			continue
		}
		second.list, second.items = append(second.list, it.InstanceID), append(second.items, it)
	}
	if len(r.asks[RetryRun]) > 1 {
		return []round{first}
	}
	return []round{first, second}
}

// parts is how many parts a list with such waves has: a part has 32 instances at most, and no more than may be
// open.
func (r *run) parts(waves []int) (n int) {
	size := min(32, r.maxParallel())
	for from, at := 0, 0; at < len(waves); at++ {
		if at+1 == len(waves) || waves[at+1] != waves[at] || at+1-from == size {
			n, from = n+1, at+1
		}
	}
	return n
}

// latest are the items that say what has become of each instance: those of the last round that it was in.
func (r *run) latest() map[string]runItem {
	items := map[string]runItem{}
	for _, it := range r.items { // in the order of parts, and so of rounds
		items[it.InstanceID] = it
	}
	return items
}

// retried reports whether the run's instances in a state may have been taken into another round in this time.
func (r *run) retried(state tasks.ItemState, from, to time.Duration) bool {
	return slices.ContainsFunc(r.asks[RetryRun], func(e Event) bool {
		return e.Begin <= to && e.settled() >= from && slices.Contains(e.States, string(state))
	})
}

// at is a time of a record on the events' clock, up to Skew off.
func (f facts) at(t time.Time) time.Duration { return t.Sub(f.Start) }

// last returns what the last read of the run showed, or nil.
func (r *run) last() *client.Run {
	if len(r.reads) == 0 {
		return nil
	}
	return slices.MaxFunc(r.reads, func(a, b Event) int { return cmp.Compare(a.End, b.End) }).RunRecord
}

// wanted reports whether a request for the run was not refused.
func (r *run) wanted() bool {
	return slices.ContainsFunc(r.submits, func(s Event) bool { return !s.refused() })
}

// maxParallel is how many instances of the run may be open at a time.
func (r *run) maxParallel() int { return cmp.Or(r.asked.Request.MaxParallel, tasks.DefaultMaxParallel) }

// soak is how long the run waits after its canary.
func (r *run) soak() time.Duration {
	d, _ := time.ParseDuration(r.asked.Request.Soak) // "" is none
	return d
}

// waves has the wave of each place in a list of so many: 0 is the canary, or everything if there is none. Each is larger by
// the factor, rounded up, until it would be all that is left, or as much as may be open at a time.
func (r *run) waves(total int) []int {
	asked := r.asked.Request
	waves := make([]int, 0, total)
	size := cmp.Or(asked.Canary, total)
	for wave := 0; len(waves) < total; wave++ {
		waves = append(waves, slices.Repeat([]int{wave}, min(size, total-len(waves)))...)
		grown := math.Ceil(float64(asked.Canary) * math.Pow(cmp.Or(asked.Growth, tasks.DefaultGrowth), float64(wave+1)))
		if size = total; grown < float64(r.maxParallel()) {
			size = int(grown)
		}
	}
	return waves
}

// runStory is what is known of a run besides its jobs, and of one of its items.
func (f facts) runStory(r *run, item string) []Event {
	return f.story(func(e Event) bool {
		return e.Kind != Results && (e.Run == r.id || e.Kind == SubmitRun && e.TriedRun() == r.id || e.Kind == Call && e.Item == item)
	})
}

// forgets returns the first moment after which something may have been written that a primary, lost between
// from and to, was alone to know.
func (f facts) forgets(from, to time.Duration) (at time.Duration, some bool) {
	at = to
	for _, lost := range f.faults {
		if lost.Fault != fault.Failover && lost.Fault != f.Forgets || !lost.during(from, to) {
			continue
		}
		some = true
		at = min(at, lost.Begin-lossWindow)
		for _, frozen := range f.faults {
			if frozen.Fault == fault.ReplicaFreeze && frozen.during(lost.Begin, lost.Begin) {
				at = min(at, frozen.Begin)
			}
		}
	}
	return at, some
}
