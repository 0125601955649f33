package login

import (
	"context"
	"errors"
	"slices"
	"sort"
	"sync"
)

// maxWaiting is more than get their turn before they are tired of waiting.
const maxWaiting = 64

// errCrowd says that too many wait for their turn.
var errCrowd = errors.New("too many wait for their turn")

// turns lets few at a time do what keeps a processor busy. The next is who has tried least
// often lately, so that nobody holds others up by trying more often. Among equals it is the
// last to come: with many strangers at as many addresses, somebody is served at once or
// hardly ever in any order, and this way nobody waits for all who came before.
type turns struct {
	mu      sync.Mutex
	free    int
	waiting []*turn // the next one is the last
}

type turn struct {
	before int       // tries
	called chan bool // false: away, because others go first
}

// wait returns when it is the turn of somebody who has tried before so many times. Unless it
// fails, done must follow.
func (t *turns) wait(ctx context.Context, before int) error {
	mine := t.join(before)
	select {
	case mayGo := <-mine.called:
		if !mayGo {
			return errCrowd
		}
		return nil
	case <-ctx.Done():
		if !t.leave(mine) && <-mine.called {
			t.done() // called just now
		}
		return ctx.Err()
	}
}

func (t *turns) join(before int) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := &turn{before: before, called: make(chan bool, 1)}
	place := sort.Search(len(t.waiting), func(i int) bool { return t.waiting[i].before < before })
	t.waiting = slices.Insert(t.waiting, place, mine)
	t.call()
	if len(t.waiting) > maxWaiting {
		t.waiting[0].called <- false
		t.waiting = slices.Delete(t.waiting, 0, 1)
	}
	return mine
}

func (t *turns) leave(mine *turn) (waited bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	place := slices.Index(t.waiting, mine)
	if place >= 0 {
		t.waiting = slices.Delete(t.waiting, place, place+1)
	}
	return place >= 0
}

func (t *turns) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	t.call()
}

// call gives what is free to who is next.
func (t *turns) call() {
	for ; t.free > 0 && len(t.waiting) > 0; t.free-- {
		last := len(t.waiting) - 1
		t.waiting[last].called <- true
		t.waiting = slices.Delete(t.waiting, last, last+1)
	}
}
