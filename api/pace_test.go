package api

import (
	"net/http"
	"testing"
	"time"

	"batchreset/tasks"
)

func TestWhenToAskAgain(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	before := func(d time.Duration) tasks.Time { return tasks.Time{Time: now.Add(-d)} }
	// job was created 100 s ago, or as long as its first item says.
	job := func(items ...tasks.Item) tasks.Job {
		j := tasks.Job{CreatedAt: before(100 * time.Second), Items: items}
		for _, it := range items {
			if j.StartedAt.IsZero() || !it.StartedAt.IsZero() && it.StartedAt.Before(j.StartedAt.Time) {
				j.StartedAt = it.StartedAt
			}
		}
		return j
	}
	pending := tasks.Item{State: tasks.ItemPending}
	tried := tasks.Item{State: tasks.ItemRetrying, Attempts: 1, StartedAt: before(time.Hour)}
	running := func(since time.Duration) tasks.Item {
		return tasks.Item{State: tasks.ItemRunning, Attempts: 1, StartedAt: before(since)}
	}
	ended := func(from, to time.Duration) tasks.Item {
		return tasks.Item{State: tasks.ItemSucceeded, Attempts: 1, StartedAt: before(from), FinishedAt: before(to)}
	}
	fresh := tasks.Job{CreatedAt: before(0), Items: []tasks.Item{pending}}
	putOff := func(d time.Duration) tasks.Job {
		j := job(pending)
		j.NotBefore = before(-d)
		return j
	}
	for _, row := range []struct {
		name string
		job  tasks.Job
		want string
	}{
		{"just accepted", fresh, "1"},
		{"nothing begins", job(pending, pending), "30"},
		{"not before in a moment", putOff(time.Millisecond), "1"},
		{"not before in 12.3 s", putOff(12300 * time.Millisecond), "13"},
		{"not before tomorrow", putOff(24 * time.Hour), "60"},
		{"the time has come", putOff(-time.Second), "30"},
		{"none has ended in 7 s", job(running(7*time.Second), running(8*time.Second), pending), "7"},
		{"none has ended in an hour", job(running(time.Hour)), "30"},
		{"half is done in 10 s", job(ended(12*time.Second, 3*time.Second), ended(13*time.Second, 5*time.Second), running(time.Second), pending), "10"},
		{"1 of 3 is done in 8.1 s", job(ended(10*time.Second, 1900*time.Millisecond), pending, pending), "17"},
		{"nearly all is done", job(ended(2*time.Second, time.Second), ended(2*time.Second, time.Second), pending), "1"},
		{"done at once", job(ended(time.Second, time.Second), pending), "1"},
		{"a retry of one of three, a day later", job(ended(24*time.Hour, 24*time.Hour-6*time.Second), ended(24*time.Hour, 24*time.Hour-6*time.Second), tried), "3"},
		{"a retry of all", job(tried, tried), "1"},
		{"a retry of all that has begun", job(tried, running(4*time.Second)), "4"},
		{"a cancelled item and one that runs", job(tasks.Item{State: tasks.ItemCancelled, FinishedAt: before(3 * time.Second)}, running(5*time.Second)), "2"},
		{"the clocks differ", job(running(-time.Minute)), "1"},
		{"no items", tasks.Job{CreatedAt: before(0)}, "1"},
	} {
		h := http.Header{}
		setRetryAfter(h, paceOf(row.job).retryAfter(now))
		if got := h.Get("Retry-After"); got != row.want {
			t.Errorf("%s: Retry-After %s, want %s", row.name, got, row.want)
		}
	}
}
