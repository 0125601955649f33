package api

import (
	"net/http"
	"strconv"
	"time"

	"batchreset/tasks"
)

const (
	minRetryAfter = time.Second
	maxRetryAfter = 30 * time.Second
	// maxPutOff is for a job that may not begin yet.
	maxPutOff = time.Minute
)

// pace is what a record says about when its job will have ended.
type pace struct {
	notBefore time.Time
	// rest is how long the items that have not ended will take, at the rate of those that
	// have; 0 when none has.
	rest time.Duration
	// since is when the running items began, as long as no item has ended; zero if that is
	// not known.
	since time.Time
}

func paceOf(job tasks.Job) pace {
	var (
		ended, tried  int
		last, running time.Time
	)
	for _, it := range job.Items {
		switch {
		case it.State.Final():
			ended++
			last = latest(last, it.FinishedAt.Time)
		case it.State == tasks.ItemRunning:
			running = latest(running, it.StartedAt.Time)
		case it.Attempts > 0:
			tried++
		}
	}
	p := pace{notBefore: job.NotBefore.Time, since: running}
	if running.IsZero() && tried == 0 { // otherwise nobody can say what it waits for
		p.since = job.CreatedAt.Time
	}
	// Up to the last end and not up to now: before a retry a job may have done nothing for a
	// long time.
	if !last.IsZero() && !job.StartedAt.IsZero() {
		p.rest = max(1, last.Sub(job.StartedAt.Time)*time.Duration(len(job.Items)-ended)/time.Duration(ended))
	}
	return p
}

// paceOfRun is that of a run. One that is paused waits for people.
func paceOfRun(run tasks.Run, now time.Time) pace {
	if run.State == tasks.RunPaused {
		return pace{rest: maxRetryAfter}
	}
	p := pace{notBefore: run.NotBefore.Time, since: latest(run.StartedAt.Time, run.CreatedAt.Time)}
	if !run.EstimatedFinishAt.IsZero() {
		p.rest = max(1, run.EstimatedFinishAt.Sub(now))
	}
	return p
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// retryAfter is when it makes sense to ask for the job again. An item that has run for some time
// is expected to take that long once more.
func (p pace) retryAfter(now time.Time) time.Duration {
	wait := p.rest
	switch {
	case p.notBefore.After(now):
		return min(max(p.notBefore.Sub(now), minRetryAfter), maxPutOff)
	case wait == 0 && !p.since.IsZero():
		wait = now.Sub(p.since)
	}
	return min(max(wait, minRetryAfter), maxRetryAfter)
}

// setRetryAfter rounds up: a caller who asks too early has to ask twice.
func setRetryAfter(h http.Header, wait time.Duration) {
	h.Set("Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10))
}
