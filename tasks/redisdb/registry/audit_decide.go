package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/wire"
)

const (
	// entryPatience is how long a decision that stops something waits for its entry to be
	// written: it leaves time for the decision itself.
	entryPatience = 500 * time.Millisecond
	// lateEvery is how often entries that could not be written are tried again.
	lateEvery = time.Second
)

// ErrUnchanged is what a decision returns that has nothing to change: there will be no entry.
var ErrUnchanged = errors.New("nothing has to be changed")

// Decide writes a decision to the audit trail and carries it out with act: nothing is done
// without an entry. What act refuses with a tasks.Error, a tasks.Refusal or
// tasks.ErrNoEndpoint has changed nothing, and its entry is taken back.
//
// What stops or removes something is done all the same when its entry cannot be written.
// Whoever is told has the entry then, and WriteTrail writes it later.
func (a *Audit) Decide(ctx context.Context, e tasks.AuditEntry, act func(context.Context) error) error {
	id, missing := a.enter(ctx, &e)
	if missing != nil {
		if !e.Stops() {
			return OrFull(missing)
		}
		a.Announce(e, missing) // before it is done: nothing else would tell of it
	}
	// A caller who hangs up now would leave an entry of something that was not done.
	ctx, cancel := wire.Outlive(ctx)
	defer cancel()
	err := act(ctx)
	switch {
	case nothingDone(err):
		if err := a.TakeBack(ctx, id); err != nil {
			return err
		}
		if errors.Is(err, ErrUnchanged) {
			return nil
		}
	case missing == nil:
		a.Announce(e, nil)
	case !a.late.add(e) && a.late.bound > 0:
		a.Announce(e, fmt.Errorf("%d entries wait to be written, this one will not be", a.late.bound))
	}
	return err
}

// decideAll is Decide for what has several entries.
func (a *Audit) decideAll(ctx context.Context, entries []tasks.AuditEntry, act func(context.Context) error) error {
	if len(entries) == 0 {
		return act(ctx)
	}
	return a.Decide(ctx, entries[0], func(ctx context.Context) error { return a.decideAll(ctx, entries[1:], act) })
}

// nothingDone reports whether an error says that a decision was refused as a whole.
func nothingDone(err error) bool {
	if _, refused := errors.AsType[*tasks.Error](err); refused {
		return true
	}
	if _, refused := errors.AsType[tasks.Refusal](err); refused {
		return true
	}
	return errors.Is(err, tasks.ErrNoEndpoint) || errors.Is(err, ErrUnchanged)
}

// enter writes an entry and returns its ID. An error of a decision that stops something
// means that Redis does not have it; of another one, that it may be too few replicas.
func (a *Audit) enter(ctx context.Context, e *tasks.AuditEntry) (id string, err error) {
	if e.Stops() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, entryPatience)
		defer cancel()
	}
	decided := a.redis.Now()
	now, err := a.redis.Time(ctx).Result()
	if err == nil {
		decided = now
		id, err = a.enterAt(ctx, *e, now)
	}
	if id != "" && e.Stops() {
		return id, nil
	}
	if err != nil {
		e.DecidedAt = tasks.FromMillis(decided.UnixMilli())
		return "", fmt.Errorf("write audit trail: %w", err)
	}
	return id, nil
}

func (a *Audit) enterNow(ctx context.Context, e tasks.AuditEntry) error {
	now, err := a.redis.Time(ctx).Result()
	if err == nil {
		_, err = a.enterAt(ctx, e, now)
	}
	return err
}

func (a *Audit) enterAt(ctx context.Context, e tasks.AuditEntry, now time.Time) (id string, err error) {
	add, err := a.args(e, now)
	if err != nil {
		return "", err
	}
	return a.write(ctx, add)
}

// Write writes the entry of a decision that somebody else carries out now, and returns its ID
// for TakeBack.
func (a *Audit) Write(ctx context.Context, e tasks.AuditEntry, now time.Time) (id string, err error) {
	return a.enterAt(ctx, e, now)
}

// WriteIn is Write in a pipeline. The ID is in the answer.
func (a *Audit) WriteIn(ctx context.Context, pipe redis.Pipeliner, e tasks.AuditEntry, now time.Time) (*redis.StringCmd, error) {
	add, err := a.args(e, now)
	if err != nil {
		return nil, err
	}
	return pipe.XAdd(ctx, add), nil
}

// TakeBack takes an entry out of the trail whose decision was refused.
func (a *Audit) TakeBack(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	if err := a.redis.XDel(ctx, auditKey, id).Err(); err != nil {
		return fmt.Errorf("take an entry out of the audit trail again, because it was refused: %w", err)
	}
	return nil
}

// Announce tells the listener of [NewAudit] of an entry: missing is nil if it is in the trail.
func (a *Audit) Announce(e tasks.AuditEntry, missing error) {
	if a.told != nil {
		a.told(e, missing)
	}
}

// WriteTrail writes the entries that could not be written when they had to be, as soon as
// they can, and those that log-ins which failed share, until ctx ends. One whose answer was lost may be in the
// trail twice.
func (a *Audit) WriteTrail(ctx context.Context) error {
	ticker, minute := time.NewTicker(lateEvery), time.NewTicker(failedEvery)
	defer ticker.Stop()
	defer minute.Stop()
	for {
		select {
		case <-ticker.C:
			a.writeLate(ctx)
		case <-minute.C:
			a.writeFailedLogins(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// Flush is WriteTrail once, for a process that ends.
func (a *Audit) Flush(ctx context.Context) {
	a.writeLate(ctx)
	a.writeFailedLogins(ctx)
}

// Waiting is how many entries wait to be written.
func (a *Audit) Waiting() int { return a.late.len() }

func (a *Audit) writeLate(ctx context.Context) {
	for {
		e, waits := a.late.first()
		if !waits {
			return
		}
		if a.enterNow(ctx, e) != nil {
			return
		}
		a.late.drop()
		a.Announce(e, nil)
	}
}

// late are entries that could not be written, in order; one goroutine writes them.
type late struct {
	mu      sync.Mutex
	entries []tasks.AuditEntry
	bound   int
}

// add keeps an entry, unless there are too many.
func (l *late) add(e tasks.AuditEntry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) >= l.bound {
		return false
	}
	l.entries = append(l.entries, e)
	return true
}

func (l *late) first() (e tasks.AuditEntry, waits bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) == 0 {
		return e, false
	}
	return l.entries[0], true
}

func (l *late) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = l.entries[1:]
}

func (l *late) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}
