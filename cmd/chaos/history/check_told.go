package history

import (
	"fmt"
	"slices"
)

// Untold are the IDs of the jobs among the events whose last end was not told.
func Untold(events []Event) []string { return index(Run{Events: events}).untold() }

func (f facts) untold() (jobs []string) {
	for _, job := range f.jobs {
		end := f.last(job)
		if end != nil && end.Final() && !slices.ContainsFunc(f.told[job], func(e Event) bool {
			return e.Record.State == end.State && e.Record.FinishedAt.Equal(end.FinishedAt)
		}) {
			jobs = append(jobs, job)
		}
	}
	return jobs
}

// checkI9EveryEndIsTold: the last end of every job was told, and two ends never have one
// event ID.
func (f facts) checkI9EveryEndIsTold() (vs []Violation) {
	for _, job := range f.untold() {
		end := f.last(job)
		if at := end.FinishedAt.Sub(f.Start); !f.forgettable(at-f.Skew, at+f.Skew, 0) {
			vs = append(vs, Violation{"I9", fmt.Sprintf("job %s was %s and nobody was told", job, end.State), f.jobStory(job)})
		}
	}
	for _, job := range f.jobs {
		ends := map[string]Event{}
		for _, e := range f.told[job] {
			first, again := ends[e.Key]
			if again && !first.Record.FinishedAt.Equal(e.Record.FinishedAt) && f.Forgets == "" {
				vs = append(vs, Violation{"I9", fmt.Sprintf("job %s: two ends are told as %s", job, e.Key), f.jobStory(job)})
			}
			ends[e.Key] = e
		}
	}
	return vs
}
