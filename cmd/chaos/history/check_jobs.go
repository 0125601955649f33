package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"batchreset/api/client"
	"batchreset/tasks"
)

// checkI1EveryAcceptedJobEnds: an acknowledged job exists and is final at the end,
// and so is a job that was accepted although its answer was lost.
func (f facts) checkI1EveryAcceptedJobEnds() (vs []Violation) {
	for _, s := range f.submits {
		if s.Job == "" || f.last(s.Job) != nil || f.forgettable(s.Begin, s.End, 0) {
			continue
		}
		vs = append(vs, Violation{"I1", "job " + s.Job + " was accepted and does not exist", f.jobStory(s.Job)})
	}
	for _, job := range f.jobs {
		if record := f.last(job); record != nil && !record.Final() {
			vs = append(vs, Violation{"I1", fmt.Sprintf("job %s is still %s at the end", job, record.State), f.jobStory(job)})
		}
	}
	return vs
}

// checkI2RecordsAddUp: in every record that was ever read the counts and the job's
// state follow from the items.
func (f facts) checkI2RecordsAddUp() (vs []Violation) {
	for _, job := range f.jobs {
		for _, read := range f.reads[job] {
			if read.Record == nil {
				continue
			}
			items := make([]tasks.Item, len(read.Record.Items))
			for i, it := range read.Record.Items {
				items[i].State = tasks.ItemState(it.State)
			}
			counted := tasks.Count(items)
			if counted == tasks.Counts(read.Record.Counts) && counted.Total() == read.Record.Total &&
				string(counted.State()) == read.Record.State {
				continue
			}
			vs = append(vs, Violation{"I2", fmt.Sprintf("job %s: a record does not add up to %+v", job, counted), []Event{read}})
			break // one such record of a job is enough
		}
	}
	return vs
}

// checkI5FinalIsFinal: what a record once said of a final item it says ever after,
// unless a retry was asked for.
func (f facts) checkI5FinalIsFinal() (vs []Violation) {
	for _, job := range f.jobs {
		reads := f.reads[job]
		changed := map[string]bool{}
		for i, before := range reads {
			if before.Record == nil || f.unconfirmed(before) {
				continue
			}
			for _, after := range reads[i+1:] {
				// Of two reads at the same time either may be the older.
				if after.Begin < before.End || after.Record == nil {
					continue
				}
				for n, old := range before.Record.Items {
					if !tasks.ItemState(old.State).Final() || n >= len(after.Record.Items) || changed[old.ItemID] {
						continue
					}
					now := after.Record.Items[n]
					if (now.State != old.State || now.Attempts != old.Attempts) && !f.retried(job, old.State, before.Begin, after.End) {
						changed[old.ItemID] = true
						vs = append(vs, Violation{
							"I5", fmt.Sprintf("item %s was %s after %d attempts and later %s after %d",
								old.ItemID, old.State, old.Attempts, now.State, now.Attempts),
							f.itemStory(old.ItemID),
						})
					}
				}
			}
		}
	}
	return vs
}

// retried reports whether a retry of the job's items in a state was asked for before to
// and may have been carried out after from: it may be under way long after its caller
// gave up. One that names no state is about any.
func (f facts) retried(job, state string, from, to time.Duration) bool {
	return slices.ContainsFunc(f.retries, func(e Event) bool {
		return e.Job == job && e.Begin <= to && e.End+echo >= from && (len(e.States) == 0 || slices.Contains(e.States, state))
	})
}

// checkI6SameKeySameJob: requests under one key that were accepted were the same
// request, and became the job that the key stands for, which is about what they asked.
func (f facts) checkI6SameKeySameJob() (vs []Violation) {
	accepted := map[string]Event{} // by key
	for _, s := range f.submits {
		if s.Job == "" || s.Key == "" || f.forgettable(s.Begin, s.End, 0) {
			continue
		}
		what := ""
		first, again := accepted[s.Key]
		switch record := f.last(s.Job); {
		case s.Job != s.Tried():
			what = "became another job"
		case again && (!slices.Equal(first.Instances, s.Instances) || first.MaxFailures != s.MaxFailures):
			what = "was accepted for two requests"
		case record != nil && !slices.EqualFunc(record.Items, s.Instances, func(it client.Item, id string) bool { return it.InstanceID == id }):
			what = "became a job about other instances"
		}
		if what != "" {
			vs = append(vs, Violation{"I6", "key " + s.Key + " " + what, f.jobStory(s.Tried())})
		}
		accepted[s.Key] = s
	}
	return vs
}

// checkI8RefusedLeavesNothing: a job that exists was asked for by a request that was
// not refused.
func (f facts) checkI8RefusedLeavesNothing() (vs []Violation) {
	asked := map[string]bool{}
	for _, s := range f.submits {
		if s.Status < 400 || s.Status >= 500 {
			asked[cmp.Or(s.Job, s.Tried())] = true
		}
	}
	for _, s := range f.odds { // what they are about is for another check
		asked[cmp.Or(s.Job, s.Tried())] = s.Status < 400 || s.Status >= 500
	}
	for _, job := range f.jobs {
		if r := f.runOf[job]; r != nil && r.wanted() {
			continue
		}
		if f.last(job) != nil && !asked[job] {
			vs = append(vs, Violation{"I8", "job " + job + " exists, and every request for it was refused", f.jobStory(job)})
		}
	}
	return vs
}
