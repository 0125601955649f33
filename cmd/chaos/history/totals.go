package history

// Totals are how much a history is about.
type Totals struct {
	Jobs, Items, Attempts int // of the last records
	Calls                 int
}

// Count counts what is in a history.
func Count(h Run) (t Totals) {
	f := index(h)
	for _, job := range f.jobs {
		if f.last(job) != nil {
			t.Jobs++
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
	t.Jobs += other.Jobs
	t.Items += other.Items
	t.Attempts += other.Attempts
	t.Calls += other.Calls
}
