package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/errgroup"

	"batchreset/api/auth"
	"batchreset/tasks"
)

const (
	// lookInterval is how often the loops of the watchers run and check tokens,
	// streamInterval how often they check a record that somebody streams, and hintLost one
	// whose end somebody waits for: the end is announced, but an announcement can be lost.
	lookInterval   = 250 * time.Millisecond
	streamInterval = 500 * time.Millisecond
	hintLost       = 5 * time.Second
	// looksAtOnce bounds a round trip.
	looksAtOnce = 500
	// notLooked is the tag of no record, not even of one that is gone.
	notLooked = "?"
)

// kind is how a request waits for a record.
type kind string

const (
	poll   kind = "poll"   // for its end
	stream kind = "stream" // for each change
)

// interval is how often one is looked at.
func (t target) interval() time.Duration {
	if t.kind == stream {
		return streamInterval
	}
	return hintLost
}

// subject is a sort of records that requests wait for: jobs, or runs.
type subject struct {
	records
	name string // of its events
	// atOnce is about how many of them tags is asked.
	atOnce int
	// rest is how long a record is left alone after a look at it, whatever is announced. 0: what is
	// announced is told at once, without a look.
	rest time.Duration
}

// records is how those of a subject are read.
type records interface {
	// announced calls heard with each record that is announced, until ctx ends; some may be missed.
	announced(ctx context.Context, heard func(id string)) error
	// tags returns the tags of those records that there are.
	tags(ctx context.Context, ids []string) (map[string]string, error)
	// find returns the ID in the path of a request, if there is such a record of its tenant.
	find(c echo.Context) (id string, err error)
	// now answers a request for the record in its path as it is.
	now(c echo.Context) error
	// read reads a record. reread is for those who were woken: it returns what has been read since the
	// turn in which they were told.
	read(ctx context.Context, id string) (*encodedRecord, error)
	reread(id string, turn int64) (*encodedRecord, error)
}

// tokenLooks is what watchers ask about those who wait.
type tokenLooks interface {
	// TokensByHash returns those of the tokens that there are, ended ones too.
	TokensByHash(ctx context.Context, hashes []string) (map[string]tasks.Token, error)
	// Now is the time by which tokens expire.
	Now() time.Time
}

// watchers wakes requests that wait for records when these have changed, or when their token is no
// longer valid. However many wait, there is one subscription, one check for each record, and one for
// each token.
type watchers struct {
	tokens  tokenLooks
	limit   int // of those who wait at the same time
	log     *slog.Logger
	stopped chan struct{} // closed when run has ended

	mu      sync.Mutex
	watched map[target]*watched
	passes  map[passKey]*pass
	waiting map[kind]int
	tenants map[string]int // of those who wait
	turn    int64          // counts what is told
}

// target is a record with the requests that wait for it in one way: those that wait for its end are
// not woken by every change that others stream.
type target struct {
	subject *subject
	id      string
	kind    kind
}

type watched struct {
	watches map[*watch]struct{}
	told    int64     // turn of the last telling
	tag     string    // at the last look
	looked  time.Time // when that was
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

// watch is one request's interest in a record.
type watch struct {
	target
	pass    passKey
	changed chan struct{} // has something when the record, or the token, may have changed
}

func newWatchers(tokens tokenLooks, limit int, log *slog.Logger) *watchers {
	return &watchers{
		tokens: tokens, limit: limit, log: log, stopped: make(chan struct{}),
		watched: map[target]*watched{}, passes: map[passKey]*pass{}, waiting: map[kind]int{}, tenants: map[string]int{},
	}
}

// run wakes those who wait for records of the subjects until ctx ends, and then all of them for the
// last time.
func (w *watchers) run(ctx context.Context, subjects []*subject) error {
	defer close(w.stopped)
	g, ctx := errgroup.WithContext(ctx)
	var turns []chan struct{}
	for _, s := range subjects { // none of which waits for another
		turn := make(chan struct{}, 1)
		turns = append(turns, turn)
		g.Go(func() error { return s.announced(ctx, func(id string) { w.tell(s, id) }) })
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-turn:
					w.look(ctx, s)
				}
			}
		})
	}
	g.Go(func() error {
		ticker := time.NewTicker(lookInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case now := <-ticker.C:
				w.lookAtTokens(ctx, now) // before anybody is woken
			}
			for _, turn := range turns {
				select {
				case turn <- struct{}{}:
				default: // the look before takes long
				}
			}
		}
	})
	return g.Wait()
}

// add begins a watch, unless too many wait. It may be woken for an earlier change, too.
//
// No tenant may have more watches than are free: a single tenant gets half of all, two get a third
// each, and there is always room for a new one.
func (w *watchers) add(token tasks.Token, of target) (one *watch, ok bool) {
	one = &watch{of, passKey{token.Hash, token.Tenant}, make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if free := w.limit - w.waiting[poll] - w.waiting[stream]; w.tenants[token.Tenant] >= free {
		return nil, false
	}
	w.waiting[one.kind]++
	w.tenants[token.Tenant]++
	p := w.passes[one.pass]
	if p == nil {
		p = &pass{watches: map[*watch]struct{}{}}
		w.passes[one.pass] = p
	}
	p.watches[one] = struct{}{}
	r := w.watched[one.target]
	if r == nil {
		w.turn++ // nobody may take what was read for an earlier watch as new
		r = &watched{watches: map[*watch]struct{}{}, told: w.turn, tag: notLooked, next: time.Now().Add(one.interval())}
		w.watched[one.target] = r
	}
	r.watches[one] = struct{}{}
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
	r := w.watched[one.target]
	delete(r.watches, one)
	if len(r.watches) == 0 {
		delete(w.watched, one.target)
	}
}

// count is how many wait now.
func (w *watchers) count(kind kind) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting[kind]
}

// tell wakes all who watch a record, or has it looked at as soon as that may be.
func (w *watchers) tell(s *subject, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var looked time.Time
	for _, r := range w.of(s, id) {
		looked = latest(looked, r.looked)
	}
	soon := looked.Add(s.rest)
	for _, r := range w.of(s, id) {
		switch {
		case s.rest == 0:
			w.wake(r)
		case soon.Before(r.next):
			r.next = soon
		}
	}
}

// of are those who wait for a record, in each way.
func (w *watchers) of(s *subject, id string) iter.Seq2[target, *watched] {
	return func(yield func(target, *watched) bool) {
		for _, kind := range []kind{poll, stream} {
			who := target{s, id, kind}
			if r := w.watched[who]; r != nil && !yield(who, r) {
				return
			}
		}
	}
}

func (w *watchers) wake(r *watched) {
	w.turn++
	r.told = w.turn
	wakeAll(r.watches)
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
	return w.watched[one.target].told, w.passes[one.pass].refused
}

// tellAgain is for a watch that could not read when it was woken: the next look wakes it again, even
// if nothing changes until then.
func (w *watchers) tellAgain(one *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watched[one.target].tag = notLooked
}

// due returns the records of a subject that are to be looked at, and who is to be told if there is
// something new: those, too, for whom there would have to be another look before the record had its rest.
func (w *watchers) due(s *subject) map[string][]target {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	due := map[string][]target{}
	for who, r := range w.watched {
		if who.subject == s && !now.Before(r.next) {
			due[who.id] = nil
		}
	}
	for id := range due {
		for who, r := range w.of(s, id) {
			if !now.Add(s.rest).Before(r.next) {
				due[id] = append(due[id], who)
				r.looked, r.next = now, now.Add(max(who.interval(), s.rest))
			}
		}
	}
	return due
}

// look tells those for whom a record of a subject has changed since the look before.
func (w *watchers) look(ctx context.Context, s *subject) {
	due := w.due(s)
	for ids := range slices.Chunk(slices.Collect(maps.Keys(due)), s.atOnce) {
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		tags, err := s.tags(ctx, ids)
		away := ctx.Err() != nil
		cancel()
		if err != nil {
			w.log.Debug("no look at records that are watched", "subject", s.name, "records", len(ids), "error", err)
		}
		switch {
		case away:
			return // so is Redis; the next look is soon
		case err != nil:
			continue
		}
		w.mu.Lock()
		for _, id := range ids {
			for _, who := range due[id] {
				if r := w.watched[who]; r != nil && r.tag != tags[id] {
					r.tag = tags[id]
					w.wake(r)
				}
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
	tokens, err := w.tokens.TokensByHash(ctx, hashes)
	if err != nil {
		err = fmt.Errorf("look at the tokens of those who wait: %w", err)
		w.log.Debug("no look at tokens", "tokens", len(hashes), "error", err)
	}
	doubt, partly := errors.AsType[auth.InDoubt](err)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range passes {
		p := w.passes[key]
		if p == nil {
			continue
		}
		p.looked = now
		if p.refused = err; err != nil && (!partly || doubt[key.hash] != nil) {
			continue
		}
		if p.refused = key.refusal(tokens, w.tokens.Now()); p.refused != nil {
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
