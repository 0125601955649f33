package api

import (
	"context"
	"log/slog"
	"slices"
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

// kind is how a request waits for a job.
type kind string

const (
	poll   kind = "poll"   // for its end
	stream kind = "stream" // for each change
)

func (k kind) interval() time.Duration {
	if k == stream {
		return streamInterval
	}
	return hintLost
}

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
	limit   int // of those who wait at the same time
	log     *slog.Logger
	stopped chan struct{} // closed when nobody tells any more

	mu      sync.Mutex
	jobs    map[target]*watchedJob
	waiting map[kind]int
	tenants map[string]int // of those who wait
	turn    int64          // counts what is told
}

// target is a job with those who wait for it in one way: who waits for its end is not
// woken by every change that others stream.
type target struct {
	job  string
	kind kind
}

type watchedJob struct {
	watches map[*watch]struct{}
	told    int64  // turn of the last telling
	tag     string // at the last look
	next    time.Time
}

// watch is one request's interest in a job.
type watch struct {
	target
	tenant  string
	changed chan struct{} // has something when the job may have changed
}

func newWatchers(changes Changes, limit int, log *slog.Logger) *watchers {
	return &watchers{
		changes: changes, limit: limit, log: log, stopped: make(chan struct{}),
		jobs: map[target]*watchedJob{}, waiting: map[kind]int{}, tenants: map[string]int{},
	}
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

// add begins a watch, unless too many wait. What changed before may be told, too.
//
// No tenant may have more watches than are left free: alone it gets half of them, beside
// another one a third, and there is always room for one that comes new.
func (w *watchers) add(tenant, job string, kind kind) (one *watch, ok bool) {
	one = &watch{target{job, kind}, tenant, make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if free := w.limit - w.waiting[poll] - w.waiting[stream]; w.tenants[tenant] >= free {
		return nil, false
	}
	w.waiting[kind]++
	w.tenants[tenant]++
	j := w.jobs[one.target]
	if j == nil {
		w.turn++ // nobody may take what was read for an earlier watch for news
		j = &watchedJob{watches: map[*watch]struct{}{}, told: w.turn, next: time.Now().Add(kind.interval())}
		w.jobs[one.target] = j
	}
	j.watches[one] = struct{}{}
	return one, true
}

func (w *watchers) remove(one *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[one.kind]--
	if w.tenants[one.tenant]--; w.tenants[one.tenant] == 0 {
		delete(w.tenants, one.tenant)
	}
	j := w.jobs[one.target]
	delete(j.watches, one)
	if len(j.watches) == 0 {
		delete(w.jobs, one.target)
	}
}

// count is how many wait now.
func (w *watchers) count(kind kind) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting[kind]
}

// tell wakes all who watch a job.
func (w *watchers) tell(job string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake(target{job, poll})
	w.wake(target{job, stream})
}

func (w *watchers) wake(who target) {
	j := w.jobs[who]
	if j == nil {
		return
	}
	w.turn++
	j.told = w.turn
	for one := range j.watches {
		select {
		case one.changed <- struct{}{}:
		default: // it has not looked yet since it was told
		}
	}
}

// told is the turn in which a watch was told last: what is read from now on is at least
// as new.
func (w *watchers) told(one *watch) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.jobs[one.target].told
}

// tellAgain is for a watch that could not look when it was told: the next look of the
// loop tells, even if nothing changes until then.
func (w *watchers) tellAgain(one *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jobs[one.target].tag = ""
}

// due returns who is to be told if there is something new.
func (w *watchers) due(now time.Time) []target {
	w.mu.Lock()
	defer w.mu.Unlock()
	var due []target
	for who, j := range w.jobs {
		if !now.Before(j.next) {
			due = append(due, who)
			j.next = now.Add(who.kind.interval())
		}
	}
	return due
}

// look tells those whose job has changed since the look before.
func (w *watchers) look(ctx context.Context, now time.Time) {
	for some := range slices.Chunk(w.due(now), looksAtOnce) {
		ids := make([]string, len(some))
		for i, who := range some {
			ids[i] = who.job
		}
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		tags, err := w.changes.Tags(ctx, ids)
		cancel()
		if err != nil {
			w.log.Debug("no look at jobs that are watched", "jobs", len(some), "error", err)
			return // Redis is away; the next look is soon
		}
		w.mu.Lock()
		for _, who := range some {
			if j := w.jobs[who]; j != nil && j.tag != tags[who.job] {
				j.tag = tags[who.job]
				w.wake(who)
			}
		}
		w.mu.Unlock()
	}
}
