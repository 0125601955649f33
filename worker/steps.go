package worker

import (
	"sync/atomic"
	"time"

	"batchreset/tasks"
)

// steps is when an attempt did what: ms since it began, plus 1; 0: it did not. A driver that was left behind may still
// write them.
type steps struct{ sent, saved, looked atomic.Int64 }

// sinceBegun is now, as steps have it. An attempt has begun when this process knows it.
func (a *attempt) sinceBegun() int64 { return time.Since(a.since).Milliseconds() + 1 }

// first notes a step that counts when it is made for the first time.
func (a *attempt) first(step *atomic.Int64) { step.CompareAndSwap(0, a.sinceBegun()) }

// text is what the record keeps.
func (s *steps) text() (text tasks.Steps) {
	for _, step := range []struct {
		kind tasks.StepKind
		at   *atomic.Int64
	}{{tasks.StepSent, &s.sent}, {tasks.StepSaved, &s.saved}, {tasks.StepLooked, &s.looked}} {
		if at := step.at.Load(); at > 0 {
			text = text.With(step.kind, time.Duration(at-1)*time.Millisecond)
		}
	}
	return text
}
