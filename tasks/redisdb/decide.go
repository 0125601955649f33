package redisdb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"batchreset/tasks"
)

const (
	// entryPatience is how long a decision that stops something waits for its entry to be
	// written: it leaves time for the decision itself.
	entryPatience = 500 * time.Millisecond
	// lateEvery is how often entries that could not be written are tried again.
	lateEvery = time.Second
)

// errUnchanged says that a decision had nothing to change.
var errUnchanged = errors.New("nothing has to be changed")

// Decide writes a decision to the audit trail and carries it out with act: nothing is done
// without an entry. What act refuses with a tasks.Error, a tasks.Refusal or
// tasks.ErrNoEndpoint has changed nothing, and its entry is taken back.
//
// What stops or removes something is done all the same when its entry cannot be written.
// Options.Audited has the entry then, and WriteTrail writes it later.
func (db *DB) Decide(ctx context.Context, e tasks.AuditEntry, act func(context.Context) error) error {
	id, missing := db.enter(ctx, &e)
	if missing != nil {
		if !e.Stops() {
			return orFull(missing)
		}
		db.audited(e, missing) // before it is done: nothing else would tell of it
	}
	// A caller who hangs up now would leave an entry of something that was not done.
	ctx, cancel := outlive(ctx)
	defer cancel()
	err := act(ctx)
	switch {
	case nothingDone(err):
		if err := db.takeBack(ctx, id); err != nil {
			return err
		}
		if errors.Is(err, errUnchanged) {
			return nil
		}
	case missing == nil:
		db.audited(e, nil)
	case !db.late.add(e) && db.opts.LateEntries > 0:
		db.audited(e, fmt.Errorf("%d entries wait to be written, this one will not be", db.opts.LateEntries))
	}
	return err
}

// nothingDone reports whether an error says that a decision was refused as a whole.
func nothingDone(err error) bool {
	if _, refused := errors.AsType[*tasks.Error](err); refused {
		return true
	}
	if _, refused := errors.AsType[tasks.Refusal](err); refused {
		return true
	}
	return errors.Is(err, tasks.ErrNoEndpoint) || errors.Is(err, errUnchanged)
}

// enter writes an entry and returns its ID. An error of a decision that stops something
// means that Redis does not have it; of another one, that it may be too few replicas.
func (db *DB) enter(ctx context.Context, e *tasks.AuditEntry) (id string, err error) {
	if e.Stops() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, entryPatience)
		defer cancel()
	}
	decided := db.Now()
	now, err := db.rdb.Time(ctx).Result()
	if err == nil {
		decided = now
		id, err = db.enterAt(ctx, *e, now)
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

func (db *DB) enterNow(ctx context.Context, e tasks.AuditEntry) error {
	now, err := db.rdb.Time(ctx).Result()
	if err == nil {
		_, err = db.enterAt(ctx, e, now)
	}
	return err
}

func (db *DB) enterAt(ctx context.Context, e tasks.AuditEntry, now time.Time) (id string, err error) {
	add, err := db.auditArgs(e, now)
	if err != nil {
		return "", err
	}
	return db.writeAudit(ctx, add)
}

// takeBack takes an entry out of the trail whose decision was refused.
func (db *DB) takeBack(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	if err := db.rdb.XDel(ctx, auditKey, id).Err(); err != nil {
		return fmt.Errorf("take an entry out of the audit trail again, because it was refused: %w", err)
	}
	return nil
}

// audited tells of an entry: missing is nil if it is in the trail.
func (db *DB) audited(e tasks.AuditEntry, missing error) {
	if db.opts.Audited != nil {
		db.opts.Audited(e, missing)
	}
}

// WriteTrail writes the entries that could not be written when they had to be, as soon as
// they can, and those that log-ins which failed share, until ctx ends; Close tries once more. One whose answer was lost may be in the
// trail twice.
func (db *DB) WriteTrail(ctx context.Context) error {
	ticker, minute := time.NewTicker(lateEvery), time.NewTicker(failedEvery)
	defer ticker.Stop()
	defer minute.Stop()
	for {
		select {
		case <-ticker.C:
			db.writeLate(ctx)
		case <-minute.C:
			db.writeFailedLogins(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (db *DB) writeLate(ctx context.Context) {
	for {
		e, waits := db.late.first()
		if !waits {
			return
		}
		if db.enterNow(ctx, e) != nil {
			return
		}
		db.late.drop()
		db.audited(e, nil)
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
