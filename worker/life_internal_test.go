package worker

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/tasks"
)

// forgetful is a Redis that answers signs of life as the test says, and takes halts if it says so.
type forgetful struct {
	Attempts
	Policies

	mu         sync.Mutex
	beat, halt error
	halts      []string // whose, and reasons
}

func (f *forgetful) Beat(context.Context, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.beat
}

func (f *forgetful) Halt(_ context.Context, tenant string, whose tasks.Halter, actor tasks.Actor) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.halt == nil {
		f.halts = append(f.halts, tenant+string(whose)+" "+actor.Reason)
	}
	return f.halt
}

func TestNothingBeginsUntilRedisIsWhatItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &forgetful{}
		w := &Worker{id: "12345678", store: Store{Attempts: f, Policies: f}, log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.live(ctx)
		}()
		away := errors.New("connection refused")
		time.Sleep(tasks.BeatEvery / 30) // between two signs of life
		for _, step := range []struct {
			what       string
			beat, halt error
			unsure     bool
			halts      int
		}{
			{"Redis answers", nil, nil, false, 0},
			{"it is away", away, nil, true, 0},
			{"it is back, and what it was", nil, nil, false, 0},
			{"it is away again", away, nil, true, 0},
			{"it is back, and has forgotten something, but takes no halt", &tasks.WentBackError{By: time.Minute}, away, true, 0},
			{"it still does not, though it says only once that it has forgotten", nil, away, true, 0},
			{"it takes the halt", nil, nil, false, 1},
			{"it is well, and halted once", nil, nil, false, 1},
			{"it forgets between two signs of life", &tasks.WentBackError{By: time.Minute}, nil, false, 2},
		} {
			f.mu.Lock()
			f.beat, f.halt = step.beat, step.halt
			f.mu.Unlock()
			time.Sleep(tasks.BeatEvery) // there is one more sign of life then
			synctest.Wait()
			f.mu.Lock()
			if w.unsure.Load() != step.unsure || len(f.halts) != step.halts {
				t.Errorf("%s: unsure %t, halts %q", step.what, w.unsure.Load(), f.halts)
			}
			f.mu.Unlock()
		}
		for _, halt := range f.halts {
			if !strings.HasPrefix(halt, "operator Redis has gone back in time by 1m0s or more") {
				t.Errorf("halt %q", halt)
			}
		}
		cancel()
		<-done
	})
}
