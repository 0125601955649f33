package api

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// lookInterval is how often the loop of the watchers turns, streamInterval how often
	// it looks at a job that somebody streams, and hintLost at one that somebody waits
	// for: its end is announced, and an announcement can be lost.
	lookInterval   = 250 * time.Millisecond
	streamInterval = 500 * time.Millisecond
	hintLost       = 5 * time.Second
	// looksAtOnce bounds a round trip.
	looksAtOnce = 500
)

// Changes is what watchers ask of the record store.
type Changes interface {
	// Finished calls heard with each job that ends, until ctx ends; some may be missed.
	Finished(ctx context.Context, heard func(job string)) error
	// Tags returns the tags of the jobs that there are.
	Tags(ctx context.Context, jobs []string) (map[string]string, error)
}

// watchers tell requests that wait for jobs when these have changed. However many wait,
// there is one subscription, one loop, and one look for each job.
type watchers struct {
	changes Changes
	log     *slog.Logger
	stopped chan struct{} // closed when nobody tells any more

	mu   sync.Mutex
	jobs map[string]*watchedJob
}

type watchedJob struct {
	watches map[*watch]struct{}
	tag     string // at the last look
	next    time.Time
}

// watch is one request's interest in a job.
type watch struct {
	job      string
	interval time.Duration
	changed  chan struct{} // has something when the job may have changed
}

func newWatchers(changes Changes, log *slog.Logger) *watchers {
	return &watchers{changes: changes, log: log, stopped: make(chan struct{}), jobs: map[string]*watchedJob{}}
}

// run tells until ctx ends, and then everyone that this was it.
func (w *watchers) run(ctx context.Context) error {
	defer close(w.stopped)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.changes.Finished(ctx, w.tell) })
	g.Go(func() error {
		ticker := time.NewTicker(lookInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case now := <-ticker.C:
				w.look(ctx, now)
			}
		}
	})
	return g.Wait()
}

// add begins a watch. What changed before may be told, too.
func (w *watchers) add(job string, interval time.Duration) *watch {
	one := &watch{job: job, interval: interval, changed: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.jobs[job]
	if j == nil {
		j = &watchedJob{watches: map[*watch]struct{}{}}
		w.jobs[job] = j
	}
	j.watches[one] = struct{}{}
	if next := time.Now().Add(interval); j.next.IsZero() || next.Before(j.next) {
		j.next = next
	}
	return one
}

func (w *watchers) remove(one *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.jobs[one.job]
	delete(j.watches, one)
	if len(j.watches) == 0 {
		delete(w.jobs, one.job)
	}
}

// tell wakes those who watch a job.
func (w *watchers) tell(job string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j := w.jobs[job]; j != nil {
		j.tell()
	}
}

func (j *watchedJob) tell() {
	for one := range j.watches {
		select {
		case one.changed <- struct{}{}:
		default: // it has not looked yet since it was told
		}
	}
}

// due returns the jobs that are to be looked at, and when each is next.
func (w *watchers) due(now time.Time) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var due []string
	for id, j := range w.jobs {
		if now.Before(j.next) {
			continue
		}
		due = append(due, id)
		interval := hintLost
		for one := range j.watches {
			interval = min(interval, one.interval)
		}
		j.next = now.Add(interval)
	}
	return due
}

// look tells those whose job has changed since the look before.
func (w *watchers) look(ctx context.Context, now time.Time) {
	due := w.due(now)
	for len(due) > 0 {
		some := due[:min(len(due), looksAtOnce)]
		due = due[len(some):]
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		tags, err := w.changes.Tags(ctx, some)
		cancel()
		if err != nil {
			w.log.Debug("no look at jobs that are watched", "jobs", len(some), "error", err)
			return // Redis is away; the next look is soon
		}
		w.mu.Lock()
		for _, id := range some {
			if j := w.jobs[id]; j != nil && j.tag != tags[id] {
				j.tag = tags[id]
				j.tell()
			}
		}
		w.mu.Unlock()
	}
}
