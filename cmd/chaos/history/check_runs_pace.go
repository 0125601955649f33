package history

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"batchreset/api/client"
	"batchreset/tasks"
)

// imprecision is how far times may be off that are compared with each other: of two machines' clocks, or of
// one that is asked and one that is guessed.
const imprecision = 50 * time.Millisecond

// waveEnd is what has become of a wave.
type waveEnd struct {
	items  int
	ended  time.Duration // the last one
	failed time.Duration // the first one that did not succeed; never, if all have
}

const never = time.Duration(math.MaxInt64)

// checkI16WavesComeInTurn: nothing of a run begins before its time and its approval, nor before the wave before its own
// has ended: after the canary, once all of it has succeeded and the soak is over, or somebody has resumed the run since.
// That holds for each round.
func (f facts) checkI16WavesComeInTurn() (vs []Violation) {
	for _, r := range f.runs {
		for _, one := range r.rounds() {
			place := map[string]int{}
			for n, id := range one.list {
				place[id] = n
			}
			waves, ends := r.waves(len(one.list)), map[int]*waveEnd{}
			for _, it := range one.items {
				n, listed := place[it.InstanceID]
				if !listed {
					continue // which is found elsewhere
				}
				if ends[waves[n]] == nil {
					ends[waves[n]] = &waveEnd{failed: never}
				}
				ends[waves[n]].add(it)
			}
			for _, it := range one.items {
				n, listed := place[it.InstanceID]
				if !listed || len(it.calls) == 0 {
					continue
				}
				what := f.tooEarly(r, it)
				if waves[n] > 0 && what == "" {
					what = f.outOfTurn(r, ends[waves[n]-1], count(waves, waves[n]-1), waves[n], it)
				}
				if what != "" {
					vs = append(vs, Violation{"I16", fmt.Sprintf("run %s: %s %s", r.id, it.InstanceID, what), f.runStory(r, it.ItemID)})
					break // the others tell the same story
				}
			}
		}
	}
	return vs
}

func (w *waveEnd) add(it runItem) {
	w.items++
	end := it.ended
	if end == 0 {
		end = never
	}
	w.ended = max(w.ended, end)
	if it.State != string(tasks.ItemSucceeded) {
		w.failed = min(w.failed, it.ended)
	}
}

// tooEarly says why nothing of a run should have begun when an item did.
func (f facts) tooEarly(r *run, it runItem) string {
	begin, due := it.calls[0].Begin, r.asked.Request.NotBefore
	if !due.IsZero() && begin < f.at(due)-2*f.Skew-imprecision {
		return fmt.Sprintf("was reset %s before the run's time", f.at(due)-begin)
	}
	if r.asked.Request.Approval && !slices.ContainsFunc(r.asks[ApproveRun], func(e Event) bool { return e.Begin <= begin }) {
		return "was reset before anybody had approved the run"
	}
	return ""
}

// outOfTurn says why an item of a wave should not have begun when it did, after the wave before, which has so many.
func (f facts) outOfTurn(r *run, before *waveEnd, size, wave int, it runItem) string {
	begin, slack := it.calls[0].Begin, 2*f.Skew+imprecision
	before = cmp.Or(before, &waveEnd{ended: never, failed: never})
	soak := time.Duration(0)
	if wave == 1 {
		soak = r.soak()
	}
	_, forgot := f.forgets(begin-echo, before.ended)
	switch {
	case f.forgettableCall(it.calls[0]) || forgot:
		return ""
	case before.items < size || begin < before.ended-slack:
		return fmt.Sprintf("of wave %d was reset before wave %d had ended", wave, wave-1)
	case begin < before.ended+soak-slack:
		return fmt.Sprintf("was reset %s after the canary, whose soak is %s", begin-before.ended, soak)
	case wave == 1 && before.failed != never && !r.resumedSince(before.failed-slack, begin):
		return "was reset after a canary that had failed, and nobody had resumed the run"
	}
	return ""
}

func count(waves []int, wave int) (n int) {
	for _, w := range waves {
		if w == wave {
			n++
		}
	}
	return n
}

// resumedSince reports whether somebody may have resumed the run in this time.
func (r *run) resumedSince(from, to time.Duration) bool {
	return slices.ContainsFunc(r.asks[ResumeRun], func(e Event) bool { return e.Begin <= to && e.settled() >= from })
}

// checkI16Pace: by the record no more instances of a run are open at a time than max_parallel.
func (f facts) checkI16Pace() (vs []Violation) {
	for _, r := range f.runs {
		changes := map[time.Duration]int{}
		for _, it := range r.items {
			end := it.ended
			if end == 0 {
				end = never
			}
			if from, forgot := f.forgets(it.made, end); forgot {
				end = from
			}
			if begin := it.made + f.Skew + imprecision; begin < end-f.Skew {
				changes[begin]++
				changes[end-f.Skew]--
			}
		}
		open := 0
		for _, at := range slices.Sorted(maps.Keys(changes)) {
			if open += changes[at]; open > r.maxParallel() {
				vs = append(vs, Violation{
					"I16", fmt.Sprintf("run %s: %d instances are open %s after the start, and at most %d may be", r.id, open, at, r.maxParallel()), f.runStory(r, ""),
				})
				break
			}
		}
	}
	return vs
}

// exceeded reports whether so many failures, of so many that have ended, are more than a budget allows.
func exceeded(budget client.Budget, failures, ended int) bool {
	if percent, ok := strings.CutSuffix(string(budget), "%"); ok {
		most, err := strconv.ParseFloat(percent, 64)
		return err == nil && ended >= 20 && float64(failures)*100 > most*float64(ended)
	}
	most, err := strconv.Atoi(string(budget))
	return err == nil && failures > most
}

// checkI16Budget: while too many of a round of a run have failed, no more of it begins than was open or about to be, which
// is max_parallel.
func (f facts) checkI16Budget() (vs []Violation) {
	for _, r := range f.runs {
		budget, from := r.asked.Request.MaxFailures, time.Duration(0)
		for _, e := range append(slices.Clone(r.asks[ResumeRun]), Event{Begin: never, Budget: "0", Status: 200}) {
			if e.Budget == "" {
				continue
			}
			for _, one := range r.rounds() {
				if n, since := f.begunBeyond(one.items, budget, from, e.Begin); n > r.maxParallel() {
					vs = append(vs, Violation{
						"I16", fmt.Sprintf("run %s: %d began after %s, when more had failed than %s allows, and at most %d were open", r.id, n, since, budget, r.maxParallel()),
						f.runStory(r, ""),
					})
				}
			}
			if budget, from = e.Budget, e.settled(); e.Status != 200 {
				break // nobody knows which budget it has
			}
		}
	}
	return vs
}

// begunBeyond is the largest number of items that began while the budget, from a time to another, was exceeded without
// a break.
func (f facts) begunBeyond(items []runItem, budget client.Budget, from, to time.Duration) (most int, since time.Duration) {
	type end struct {
		at     time.Duration
		failed bool
	}
	var ends []end
	for _, it := range items {
		if failed := it.State == string(tasks.ItemFailed) || it.State == string(tasks.ItemUnknown); it.ended > 0 && (failed || it.State == string(tasks.ItemSucceeded)) {
			ends = append(ends, end{it.ended, failed})
		}
	}
	slices.SortFunc(ends, func(a, b end) int { return cmp.Compare(a.at, b.at) })
	begun := func(from, to time.Duration) (n int, last time.Duration) {
		for _, it := range items {
			if len(it.calls) > 0 && it.calls[0].Begin > from && it.calls[0].Begin < to {
				n, last = n+1, max(last, it.calls[0].Begin)
			}
		}
		return n, last
	}
	failures, over := 0, never
	note := func(until time.Duration) {
		if over == never {
			return
		}
		begin := max(over, from) + f.Skew + imprecision
		n, last := begun(begin, min(until, to))
		if _, forgot := f.forgets(over-echo, last); n > most && !forgot {
			most, since = n, begin
		}
	}
	for n, e := range ends {
		if e.failed {
			failures++
		}
		switch beyond := exceeded(budget, failures, n+1); {
		case beyond && over == never:
			over = e.at
		case !beyond:
			note(e.at)
			over = never
		}
	}
	note(never)
	return most, since
}

// checkI16BrakesHold: no call of a run comes later than a second after a pause of it was acknowledged, until somebody
// resumes it, nor after a cancel or a rejection, until somebody retries it, unless it was held up on its way.
func (f facts) checkI16BrakesHold() (vs []Violation) {
	for _, r := range f.runs {
		for _, e := range slices.Concat(r.asks[PauseRun], r.asks[CancelRun], r.asks[RejectRun]) {
			if e.Status != 200 || f.forgettable(e.Begin, e.End, 0) {
				continue
			}
			until := never
			for _, on := range slices.Concat(r.asks[ResumeRun], r.asks[RetryRun]) {
				if (e.Kind == PauseRun || on.Kind == RetryRun) && on.settled() >= e.Begin {
					until = min(until, on.Begin)
				}
			}
			if it, late := f.begunAfter(r, e, until); late > 0 {
				vs = append(vs, Violation{
					"I16", fmt.Sprintf("run %s: %s was reset %s after %s was acknowledged", r.id, it.InstanceID, late, e.Kind), f.runStory(r, it.ItemID),
				})
				break
			}
		}
	}
	return vs
}

// begunAfter is an item that was called later after a decision than it may be, and how late.
func (f facts) begunAfter(r *run, decision Event, until time.Duration) (it runItem, late time.Duration) {
	for _, it := range r.items {
		for _, c := range it.calls {
			if c.Begin > decision.End+haltWithin && c.Begin < until && !f.delayed(c, decision.End) {
				return it, c.Begin - decision.End
			}
		}
	}
	return runItem{}, 0
}
