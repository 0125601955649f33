package history

// Totals are how much a history is about.
type Totals struct {
	Runs, Jobs, Items, Attempts int // of the last records
	Calls                       int
}

// Count counts what is in a history.
func Count(h Run) (t Totals) {
	f := index(h)
	for _, job := range f.jobs {
		if f.last(job) != nil {
			t.Jobs++
		}
	}
	for _, r := range f.runs {
		if r.last() != nil {
			t.Runs++
		}
	}
	for item := range f.items {
		t.Items++
		t.Attempts += item.Attempts
	}
	for _, calls := range f.byItem {
		t.Calls += len(calls)
	}
	return t
}

// Add adds other to t.
func (t *Totals) Add(other Totals) {
	t.Runs += other.Runs
	t.Jobs += other.Jobs
	t.Items += other.Items
	t.Attempts += other.Attempts
	t.Calls += other.Calls
}
