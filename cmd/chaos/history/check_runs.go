package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"batchreset/api/client"
	"batchreset/tasks"
)

// checkI16EveryRunEnds: a run that was accepted exists and has ended, and one that exists was asked for by a request
// that was not refused.
func (f facts) checkI16EveryRunEnds() (vs []Violation) {
	for _, r := range f.runs {
		what := ""
		switch last := r.last(); {
		case last == nil && slices.ContainsFunc(r.submits, func(s Event) bool { return s.Run != "" && !f.forgettable(s.Begin, s.End, 0) }):
			what = "was accepted and does not exist"
		case last != nil && !last.Final():
			what = "is still " + last.State + " at the end"
		case last != nil && !r.wanted():
			what = "exists, and every request for it was refused"
		}
		if what != "" {
			vs = append(vs, Violation{"I16", "run " + r.id + " " + what, f.runStory(r, "")})
		}
	}
	return vs
}

// checkI16ARunIsWhatWasAsked: requests under one key that were accepted are one run, about the list that they had.
func (f facts) checkI16ARunIsWhatWasAsked() (vs []Violation) {
	for _, r := range f.runs {
		what := ""
		for _, s := range r.submits {
			switch {
			case s.Run == "" || f.forgettable(s.Begin, s.End, 0):
			case s.Run != s.TriedRun():
				what = "is not the one of key " + s.Key
			case !slices.Equal(s.Instances, r.asked.Instances):
				what = "was accepted for two lists"
			}
		}
		if last := r.last(); last != nil && what == "" &&
			(last.Total != len(r.asked.Instances) || last.ListSHA256 != tasks.ListHash(r.asked.Instances)) {
			what = fmt.Sprintf("is about %d instances, and %d were asked for", last.Total, len(r.asked.Instances))
		}
		if what != "" {
			vs = append(vs, Violation{"I16", "run " + r.id + " " + what, f.runStory(r, "")})
		}
	}
	return vs
}

// finals are the counts that only grow.
var finals = []tasks.ItemState{tasks.ItemSucceeded, tasks.ItemFailed, tasks.ItemUnknown, tasks.ItemCancelled}

// countOf is how many of the counts are in a state.
func countOf(c client.Counts, state tasks.ItemState) int {
	counts := tasks.Counts(c)
	return *counts.Of(state)
}

// checkI16CountsAddUp: at every look a run's counts add up to its total, what has ended becomes no less, and is no less
// than what its jobs had said before. At the end they are what its jobs say.
func (f facts) checkI16CountsAddUp() (vs []Violation) {
	for _, r := range f.runs {
		for n, read := range r.reads {
			if read.RunRecord == nil {
				continue
			}
			if what := f.miscount(r, n); what != "" {
				vs = append(vs, Violation{"I16", "run " + r.id + ": " + what, f.runStory(r, "")})
				break // one such record of a run is enough
			}
		}
		if last := r.last(); last != nil && last.Final() {
			if what := f.unlikeItsJobs(r, last); what != "" {
				vs = append(vs, Violation{"I16", "run " + r.id + ": " + what, f.runStory(r, "")})
			}
		}
	}
	return vs
}

// miscount says what is wrong with the counts of the nth read of a run.
func (f facts) miscount(r *run, n int) string {
	read := r.reads[n]
	if counts := tasks.Counts(read.RunRecord.Counts); counts.Total() != read.RunRecord.Total {
		return fmt.Sprintf("its counts %+v are not its total %d", counts, read.RunRecord.Total)
	}
	for _, before := range r.reads[:n] {
		// Of two reads at the same time either may be the older.
		if before.RunRecord == nil || before.End > read.Begin || f.unconfirmed(before) {
			continue
		}
		for _, state := range finals {
			if r.retried(state, before.Begin, read.End) {
				continue
			}
			if was, is := countOf(before.RunRecord.Counts, state), countOf(read.RunRecord.Counts, state); is < was {
				return fmt.Sprintf("%d were %s, and later %d", was, state, is)
			}
		}
	}
	said := map[tasks.ItemState]int{}
	for _, job := range r.jobs {
		if before := f.before(job, read); before != nil {
			for _, state := range finals {
				said[state] += countOf(before.Counts, state)
			}
		}
	}
	for _, state := range finals {
		if is := countOf(read.RunRecord.Counts, state); is < said[state] && !r.retried(state, 0, read.End) {
			return fmt.Sprintf("%d are %s, and its jobs had said %d", is, state, said[state])
		}
	}
	return ""
}

// before is what the last read of a job showed that had ended when another one began, or nil.
func (f facts) before(job string, read Event) (record *client.Job) {
	for _, e := range f.reads[job] {
		if e.End <= read.Begin && e.Record != nil && !f.unconfirmed(e) {
			record = e.Record
		}
	}
	return record
}

// unlikeItsJobs says how the counts and the state of a run that has ended differ from what its jobs say. What has not
// come into a job was cancelled.
func (f facts) unlikeItsJobs(r *run, last *client.Run) string {
	items := r.latest()
	counts := countsOf(items, last.Total)
	if counts != tasks.Counts(last.Counts) {
		for instance, it := range items {
			if f.leftBehind(r, it) {
				delete(items, instance)
			}
		}
		counts = countsOf(items, last.Total)
	}
	over := last.State == string(tasks.RunRejected) || last.State == string(tasks.RunExpired)
	switch {
	case counts != tasks.Counts(last.Counts):
		return fmt.Sprintf("its counts are %+v, and its jobs say %+v", last.Counts, counts)
	case over && len(items) > 0, !over && last.State != string(counts.State()):
		return fmt.Sprintf("it is %s with %+v", last.State, last.Counts)
	case len(items) < last.Total && len(r.asks[CancelRun]) == 0 && !over:
		return fmt.Sprintf("%d of %d came into a job, and nobody cancelled it", len(items), last.Total)
	}
	return ""
}

// countsOf are the counts of a run with these items: the others were cancelled.
func countsOf(items map[string]runItem, total int) (counts tasks.Counts) {
	for _, it := range items {
		*counts.Of(tasks.ItemState(it.State))++
	}
	counts.Cancelled += total - len(items)
	return counts
}

// leftBehind reports whether a retry may have taken an item into a round that was cancelled before it had made the
// instance's job: then its instance is in no job of the last round.
func (f facts) leftBehind(r *run, it runItem) bool {
	return len(r.asks[CancelRun]) > 0 && r.retried(tasks.ItemState(it.State), it.ended-f.Skew, math.MaxInt64)
}

// checkI16OneJobForEach: no instance is in two jobs of a run, unless it had ended without success and somebody asked for
// it again; and all are of its list.
func (f facts) checkI16OneJobForEach() (vs []Violation) {
	for _, r := range f.runs {
		jobs := map[string]runItem{}
		for _, it := range r.items {
			first, again := jobs[it.InstanceID]
			switch {
			case again && !r.retried(tasks.ItemState(first.State), first.ended-f.Skew, it.made+f.Skew+imprecision):
				vs = append(vs, Violation{"I16", fmt.Sprintf("run %s: %s is in jobs %s and %s", r.id, it.InstanceID, first.job, it.job), f.runStory(r, it.ItemID)})
			case it.place < 0:
				vs = append(vs, Violation{"I16", fmt.Sprintf("run %s: %s is in job %s, and not in the list", r.id, it.InstanceID, it.job), f.runStory(r, it.ItemID)})
			}
			jobs[it.InstanceID] = it
		}
	}
	return vs
}

// checkI16ResultsAreWhole: the results of a run that has ended have each instance of the list once, with what its last
// job says; in the order of the list, as long as nothing was tried again.
func (f facts) checkI16ResultsAreWhole() (vs []Violation) {
	for _, r := range f.runs {
		for _, e := range r.results {
			list, rows := slices.Clone(r.asked.Instances), slices.Clone(e.Rows)
			if len(r.asks[RetryRun]) > 0 {
				slices.Sort(list)
				slices.SortFunc(rows, func(a, b client.RunResult) int { return cmp.Compare(a.InstanceID, b.InstanceID) })
			}
			last := r.latest()
			for _, row := range rows {
				if it, made := last[row.InstanceID]; made && row.ItemID == "" && f.leftBehind(r, it) {
					delete(last, row.InstanceID)
				}
			}
			if what := misreported(rows, list, last); what != "" {
				vs = append(vs, Violation{"I16", "run " + r.id + ": " + what, f.runStory(r, "")})
			}
		}
	}
	return vs
}

// misreported says what is wrong with results.
func misreported(rows []client.RunResult, list []string, items map[string]runItem) string {
	if len(rows) != len(list) {
		return fmt.Sprintf("its results have %d rows for %d instances", len(rows), len(list))
	}
	for n, row := range rows {
		it, made := items[list[n]]
		state := it.State
		if !made {
			state = string(tasks.ItemCancelled)
		}
		if row.InstanceID != list[n] || row.State != state || row.JobID != it.job || row.ItemID != it.ItemID {
			return fmt.Sprintf("row %d of its results is %s %s of item %q, and should be %s %s of item %q",
				n+1, row.InstanceID, row.State, row.ItemID, list[n], state, it.ItemID)
		}
	}
	return ""
}
