package tasks_test

import (
	"testing"

	"batchreset/tasks"
)

func TestJobStateIsTheFoldOfItsItems(t *testing.T) {
	for _, row := range []struct {
		name   string
		counts tasks.Counts
		want   tasks.JobState
	}{
		{"pending until an item begins", tasks.Counts{Pending: 2}, tasks.JobPending},
		{"running while an item runs", tasks.Counts{Pending: 1, Running: 1}, tasks.JobRunning},
		{"running while an item waits for its retry", tasks.Counts{Retrying: 1}, tasks.JobRunning},
		{"running while an item is pending beside final ones", tasks.Counts{Pending: 1, Failed: 1}, tasks.JobRunning},
		{"succeeded when every item did", tasks.Counts{Succeeded: 2}, tasks.JobSucceeded},
		{"partial when some succeeded and some failed", tasks.Counts{Succeeded: 1, Failed: 1}, tasks.JobPartial},
		{"partial when some succeeded and some are unknown", tasks.Counts{Succeeded: 1, Unknown: 1}, tasks.JobPartial},
		{"partial when some succeeded and the rest was cancelled", tasks.Counts{Succeeded: 1, Cancelled: 1}, tasks.JobPartial},
		{"failed when all failed", tasks.Counts{Failed: 2}, tasks.JobFailed},
		{"failed when all are unknown", tasks.Counts{Unknown: 2}, tasks.JobFailed},
		{"failed when one failed and the rest was cancelled", tasks.Counts{Failed: 1, Cancelled: 3}, tasks.JobFailed},
		{"cancelled when all were cancelled", tasks.Counts{Cancelled: 2}, tasks.JobCancelled},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := row.counts.State(); got != row.want {
				t.Errorf("%+v folds to %s, want %s", row.counts, got, row.want)
			}
		})
	}
}

func TestWhatARetryCanBeAskedFor(t *testing.T) {
	for _, row := range []struct {
		states []tasks.ItemState
		want   string
	}{
		{[]tasks.ItemState{"failed"}, ""},
		{[]tasks.ItemState{"cancelled", "unknown", "failed"}, ""},
		{nil, "must name at least one of failed, unknown or cancelled"},
		{[]tasks.ItemState{}, "must name at least one of failed, unknown or cancelled"},
		{[]tasks.ItemState{"failed", "failed"}, `has "failed" twice`},
		{[]tasks.ItemState{"unknown", "failed", "unknown"}, `has "unknown" twice`},
		{[]tasks.ItemState{"succeeded"}, `has "succeeded", which is none of failed, unknown or cancelled`},
		{[]tasks.ItemState{"failed", "running"}, `has "running", which is none of failed, unknown or cancelled`},
		{[]tasks.ItemState{"Failed"}, `has "Failed", which is none of failed, unknown or cancelled; did you mean "failed"?`},
		{[]tasks.ItemState{"canceled"}, `has "canceled", which is none of failed, unknown or cancelled; did you mean "cancelled"?`},
		{[]tasks.ItemState{""}, `has "", which is none of failed, unknown or cancelled`},
		{[]tasks.ItemState{"all"}, `has "all", which is none of failed, unknown or cancelled`},
	} {
		got := ""
		if err := tasks.CheckRetryStates(row.states); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%v: %q, want %q", row.states, got, row.want)
		}
	}
}
