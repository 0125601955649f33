package wire

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Look is something that many ask about, and that one of them looks at for all: when it is
// asked for and what is known is too old. Nobody looks while nobody asks.
type Look[T any] struct {
	fresh    time.Duration
	patience time.Duration
	read     func(ctx context.Context, last *T) (T, error)
	last     atomic.Pointer[seen[T]]
	group    singleflight.Group
	running  sync.WaitGroup
}

type seen[T any] struct {
	value T
	at    time.Time
}

// NewLook makes a Look that is good for fresh and takes patience at most. read is given what
// was read last, nil if nothing was.
func NewLook[T any](fresh, patience time.Duration, read func(ctx context.Context, last *T) (T, error)) *Look[T] {
	return &Look[T]{fresh: fresh, patience: patience, read: read}
}

// Get returns what is known if that is fresh, else what a look finds. Errors: that of the
// look, or of ctx, which does not end the look: others wait for it, too.
func (l *Look[T]) Get(ctx context.Context) (T, error) {
	if last := l.last.Load(); last != nil && time.Since(last.at) < l.fresh {
		return last.value, nil
	}
	select {
	case found := <-l.start():
		return found.value, found.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// Last returns what was found last, however old; ok is false if nothing was.
func (l *Look[T]) Last() (value T, ok bool) {
	if last := l.last.Load(); last != nil {
		return last.value, true
	}
	return value, false
}

// Recent is Last after a look has begun, if what is known is not fresh. It waits for the look
// only if what is known is stale, and then for a short time. ok is false if nothing is known.
func (l *Look[T]) Recent(stale, wait time.Duration) (value T, ok bool) {
	last := l.last.Load()
	if last == nil || time.Since(last.at) > l.fresh {
		looking := l.start()
		if last == nil || time.Since(last.at) > stale {
			select {
			case <-looking:
			case <-time.After(wait):
			}
		}
	}
	return l.Last()
}

// Forget has the next one who asks look.
func (l *Look[T]) Forget() { l.last.Store(nil) }

// Wait waits for the looks that are under way. Nobody may ask any more.
func (l *Look[T]) Wait() { l.running.Wait() }

type found[T any] struct {
	value T
	err   error
}

// start begins a look, or joins the one that is under way.
func (l *Look[T]) start() <-chan found[T] {
	answer := make(chan found[T], 1)
	l.running.Go(func() {
		value, err, _ := l.group.Do("", func() (any, error) { return l.look() })
		v, _ := value.(T)
		answer <- found[T]{v, err}
	})
	return answer
}

func (l *Look[T]) look() (any, error) {
	// It is not one caller's alone.
	ctx, cancel := context.WithTimeout(context.Background(), l.patience)
	defer cancel()
	start := time.Now() // what changes from here on is not certain to be seen
	var before *T
	if last := l.last.Load(); last != nil {
		before = &last.value
	}
	value, err := l.read(ctx, before)
	if err != nil {
		return value, err
	}
	l.last.Store(&seen[T]{value, start})
	return value, nil
}
