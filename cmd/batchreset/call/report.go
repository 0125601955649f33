package call

import (
	"cmp"
	"io"
	"slices"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// The forms of --output that are reports: of all rows together, for CI systems.
const (
	formJUnit    = "junit"
	formMarkdown = "markdown"
)

var reportNames = []string{formJUnit, formMarkdown}

// reportsByExtension are those of --result.
var reportsByExtension = map[string]func(w io.Writer, head report, rows eachRow) error{
	".xml": writeJUnit,
	".md":  writeMarkdown,
}

// report is what is known of a run, or of jobs, before the first row is: a report begins with the
// counts, and its rows may be too many to keep.
type report struct {
	kind       string // run or job
	id, name   string
	state      string
	total      int
	counts     client.Counts
	failures   []client.RunFailure // the most frequent codes of failed and unknown ones
	listSHA256 string              // of a run
	started    time.Time
	finished   time.Time
}

func reportOfRun(run client.Run) report {
	return report{
		kind: "run", id: run.ID, name: cmp.Or(run.Name, run.ID), state: run.State, total: run.Total, counts: run.Counts, failures: run.Failures,
		listSHA256: run.ListSHA256, started: run.StartedAt, finished: run.FinishedAt,
	}
}

// reportOfJobs is about the only job that there is; a list of which nothing was to be reset has none.
func reportOfJobs(jobs []client.Job) report {
	head := report{kind: "job", name: "no job"}
	head.total, head.counts = sum(jobs)
	byCode := map[string]int{}
	for _, job := range jobs {
		head.id, head.name, head.state, head.started, head.finished = job.ID, job.ID, cmp.Or(job.State, rowAccepted), job.StartedAt, job.FinishedAt
		for _, it := range job.Items {
			if isFailure(it.State) {
				byCode[it.Code]++
			}
		}
	}
	for code, count := range byCode {
		head.failures = append(head.failures, client.RunFailure{Code: code, Count: count})
	}
	slices.SortFunc(head.failures, func(a, b client.RunFailure) int {
		return cmp.Or(b.Count-a.Count, cmp.Compare(a.Code, b.Code))
	})
	return head
}

// isFailure reports whether a report names the instances in this state.
func isFailure(state string) bool {
	return state == string(tasks.ItemFailed) || state == string(tasks.ItemUnknown)
}

// only counts the instances in these states alone; all, if none is named.
func (r report) only(states []string) report {
	if len(states) == 0 {
		return r
	}
	all, some := tasks.Counts(r.counts), tasks.Counts{}
	for _, state := range states { // one that is named twice counts once
		*some.Of(tasks.ItemState(state)) = *all.Of(tasks.ItemState(state))
	}
	r.counts, r.total = client.Counts(some), some.Total()
	return r
}

// reportForms are the forms in which a command can show a report.
func reportForms(head report, rows eachRow) map[terminal.Output]func(io.Writer) error {
	return map[terminal.Output]func(io.Writer) error{
		formJUnit:    func(w io.Writer) error { return writeJUnit(w, head, rows) },
		formMarkdown: func(w io.Writer) error { return writeMarkdown(w, head, rows) },
	}
}
