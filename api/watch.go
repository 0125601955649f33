package api

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/tasks"
)

const (
	// lookInterval is how often the loop of the watchers runs and checks tokens,
	// streamInterval how often it checks a job that somebody streams, and hintLost a job
	// whose end somebody waits for: the end is announced, but an announcement can be lost.
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
	// TokensByHash returns those of the tokens that there are, ended ones too.
	TokensByHash(ctx context.Context, hashes []string) (map[string]tasks.Token, error)
	// Now is the time by which tokens expire.
	Now() time.Time
}

// watchers wakes requests that wait for jobs when the jobs have changed, or when their token is no
// longer valid. However many wait, there is one subscription, one check for each job, and one for
// each token.
type watchers struct {
	changes Changes
	limit   int // of those who wait at the same time
	log     *slog.Logger
	stopped chan struct{} // closed when run has ended

	mu      sync.Mutex
	jobs    map[target]*watchedJob
	passes  map[passKey]*pass
	waiting map[kind]int
	tenants map[string]int // of those who wait
	turn    int64          // counts what is told
}

// target is a job with the requests that wait for it in one way: those that wait for its end are
// not woken by every change that others stream.
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

// passKey is a token, and whose it was when somebody came with it.
type passKey struct{ hash, tenant string }

// pass is what some wait with.
type pass struct {
	watches map[*watch]struct{}
	looked  time.Time // at the token
	refused error     // what who comes with it is answered now; nil: the record
}

// watch is one request's interest in a job.
type watch struct {
	target
	pass    passKey
	changed chan struct{} // has something when the job, or the token, may have changed
}

func newWatchers(changes Changes, limit int, log *slog.Logger) *watchers {
	return &watchers{
		changes: changes, limit: limit, log: log, stopped: make(chan struct{}),
		jobs: map[target]*watchedJob{}, passes: map[passKey]*pass{}, waiting: map[kind]int{}, tenants: map[string]int{},
	}
}

// run wakes watches until ctx ends, and then all of them for the last time.
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
				w.lookAtTokens(ctx, now) // before anybody is woken
				w.look(ctx, now)
			}
		}
	})
	return g.Wait()
}

// add begins a watch, unless too many wait. It may be woken for an earlier change, too.
//
// No tenant may have more watches than are free: a single tenant gets half of all, two get a third
// each, and there is always room for a new one.
func (w *watchers) add(token tasks.Token, job string, kind kind) (one *watch, ok bool) {
	one = &watch{target{job, kind}, passKey{token.Hash, token.Tenant}, make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if free := w.limit - w.waiting[poll] - w.waiting[stream]; w.tenants[token.Tenant] >= free {
		return nil, false
	}
	w.waiting[kind]++
	w.tenants[token.Tenant]++
	p := w.passes[one.pass]
	if p == nil {
		p = &pass{watches: map[*watch]struct{}{}}
		w.passes[one.pass] = p
	}
	p.watches[one] = struct{}{}
	j := w.jobs[one.target]
	if j == nil {
		w.turn++ // nobody may take what was read for an earlier watch as new
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
	if w.tenants[one.pass.tenant]--; w.tenants[one.pass.tenant] == 0 {
		delete(w.tenants, one.pass.tenant)
	}
	p := w.passes[one.pass]
	if delete(p.watches, one); len(p.watches) == 0 {
		delete(w.passes, one.pass)
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
	wakeAll(j.watches)
}

func wakeAll(watches map[*watch]struct{}) {
	for one := range watches {
		select {
		case one.changed <- struct{}{}:
		default: // it has not looked yet since it was told
		}
	}
}

// told is the turn in which a watch was told last: what is read from now on is at least
// as new. An error is what its token is refused with.
func (w *watchers) told(one *watch) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.jobs[one.target].told, w.passes[one.pass].refused
}

// tellAgain is for a watch that could not read when it was woken: the next turn of the loop wakes
// it again, even if nothing changes until then.
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

// lookAtTokens ends the waiting of those who may not wait any more. While a token cannot be
// looked at, nothing new is told to those who came with it.
func (w *watchers) lookAtTokens(ctx context.Context, now time.Time) {
	passes := w.leastLookedAt()
	if len(passes) == 0 {
		return
	}
	hashes := make([]string, len(passes))
	for i, key := range passes {
		hashes[i] = key.hash
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	tokens, err := w.changes.TokensByHash(ctx, hashes)
	if err != nil {
		err = fmt.Errorf("look at the tokens of those who wait: %w", err)
		w.log.Debug("no look at tokens", "tokens", len(hashes), "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range passes {
		p := w.passes[key]
		if p == nil {
			continue
		}
		p.looked = now
		if p.refused = err; err != nil {
			continue
		}
		if p.refused = key.refusal(tokens, w.changes.Now()); p.refused != nil {
			wakeAll(p.watches)
		}
	}
}

// leastLookedAt returns the passes that are checked in this turn: all, unless there are very many,
// then those that were checked longest ago.
func (w *watchers) leastLookedAt() []passKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Collect(maps.Keys(w.passes))
	if len(all) <= looksAtOnce {
		return all
	}
	slices.SortFunc(all, func(a, b passKey) int { return w.passes[a].looked.Compare(w.passes[b].looked) })
	return all[:looksAtOnce]
}

// refusal is what a request with a pass is answered now; nil: what it asks for.
func (p passKey) refusal(tokens map[string]tasks.Token, now time.Time) error {
	token, found := tokens[p.hash]
	switch {
	case !found:
		return tasks.Errorf(tasks.BadToken, "X-Auth-Token is no longer valid")
	case token.Tenant != p.tenant:
		return tasks.Errorf(tasks.BadToken, "X-Auth-Token is another tenant's now")
	}
	return cmp.Or(token.Check(now), token.Allow(tasks.ScopeRead))
}
