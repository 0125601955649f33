package worker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
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
	locked     []string // items, again
	halts      []string // whose, and reasons
}

func (f *forgetful) Beat(context.Context, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.beat
}

func (f *forgetful) Relock(_ context.Context, d tasks.Delivery, token string, ttl time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.halt == nil {
		f.locked = append(f.locked, d.ItemID+" "+token+" "+ttl.String())
	}
	return f.halt
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
			{"it has forgotten a moment, as a failover does", &tasks.WentBackError{By: 3 * time.Second}, nil, false, 1},
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

// What may have been sent is locked again before anything else is done, however little is forgotten.
func TestWhatIsUnderWayIsLockedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &forgetful{}
		w := &Worker{id: "12345678", store: Store{Attempts: f, Policies: f}, log: slog.New(slog.DiscardHandler)}
		for _, it := range []struct {
			id              string
			sent, ambiguous bool
			left            time.Duration
		}{
			{"sent", true, false, time.Minute}, {"begun", false, false, time.Minute}, {"goes on with an earlier call", false, true, time.Hour}, {"late", true, false, 0},
		} {
			a := &attempt{Worker: w, d: tasks.Delivery{ItemID: it.id}, token: "t", deadline: time.Now().Add(it.left), begun: tasks.Begun{Ambiguous: it.ambiguous}}
			a.sent.Store(it.sent)
			w.under.add(a)
		}
		f.halt = errors.New("connection refused")
		if err := w.mend(t.Context(), &tasks.WentBackError{By: time.Minute}); err == nil || len(f.halts) > 0 {
			t.Errorf("%v, halts %q", err, f.halts)
		}
		f.halt = nil
		for halts, by := range []time.Duration{0, time.Minute} {
			f.locked = nil
			if err := w.mend(t.Context(), &tasks.WentBackError{By: by}); err != nil || len(f.halts) != halts {
				t.Errorf("%v, halts %q", err, f.halts)
			}
			slices.Sort(f.locked)
			if want := []string{"goes on with an earlier call t 1h1m0s", "sent t 2m0s"}; !slices.Equal(f.locked, want) {
				t.Errorf("locked again are %q, want %q", f.locked, want)
			}
		}
	})
}
