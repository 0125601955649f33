package worker

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
)

// looking is a driver that can look: each look takes the next of its sights, the last one again
// and again.
type looking struct {
	driverFunc

	sights []any // a Sight, an error, or text to panic with
	looks  *int
}

func (l looking) Look(context.Context, Attempt) (Sight, error) {
	n := min(*l.looks, len(l.sights)-1)
	*l.looks++
	switch seen := l.sights[n].(type) {
	case Sight:
		return seen, nil
	case error:
		return Sight{}, seen
	default:
		panic(seen)
	}
}

func newLooking(t *testing.T, reset driverFunc, sights ...any) bench {
	t.Helper()
	b := newBench(t, looking{reset, sights, new(int)}, func(cfg *Config) { cfg.LookPatience = 50 * time.Millisecond })
	b.lookPause = time.Millisecond
	return b
}

var (
	seenInitial    = Sight{Initial, "boot 2"}
	seenNotInitial = Sight{NotInitial, "boot 1"}
	seenUnclear    = Sight{Unclear, "no boot"}
	errNoSight     = errors.New("the look was lost")
)

func resets(err error) driverFunc { return func(context.Context, Attempt) error { return err } }

func TestWhatIsCalledDoneIsLookedAt(t *testing.T) {
	unknown := &DriverError{Verdict: Unknown, Message: "the answer was lost"}
	for _, row := range []struct {
		name     string
		answer   error
		sights   []any
		state    tasks.ItemState
		code     tasks.Code
		evidence string
		locked   bool
	}{
		{"done and seen", nil, []any{seenInitial}, tasks.ItemSucceeded, "", "boot 2", false},
		{"done and seen later", nil, []any{errNoSight, seenNotInitial, seenUnclear, seenInitial}, tasks.ItemSucceeded, "", "boot 2", false},
		{"done and never seen", nil, []any{seenNotInitial}, tasks.ItemRetrying, tasks.NotConfirmed, "boot 1", false},
		{"done, and nothing shows it", nil, []any{seenUnclear}, tasks.ItemRetrying, tasks.NotConfirmed, "no boot", true},
		{"done, and nobody can look", nil, []any{errNoSight}, tasks.ItemRetrying, tasks.NotConfirmed, "", true},
		{"done, and the look panics", nil, []any{"out of cheese"}, tasks.ItemRetrying, tasks.ResetFailed, "", true},
		{"in doubt and seen", unknown, []any{seenNotInitial, seenInitial}, tasks.ItemSucceeded, "", "boot 2", true},
		{"in doubt and not seen", unknown, []any{seenNotInitial}, tasks.ItemRetrying, tasks.TimedOut, "boot 1", true},
		{"in doubt, and nobody can look", errors.New("odd"), []any{errNoSight}, tasks.ItemRetrying, tasks.TimedOut, "", true},
		{"refused", &DriverError{Verdict: Retryable, Code: "CPS.0003"}, []any{seenInitial}, tasks.ItemRetrying, "CPS.0003", "", false},
		{"busy", &DriverError{Verdict: Busy}, []any{seenInitial}, tasks.ItemRetrying, tasks.ResetFailed, "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newLooking(t, resets(row.answer), row.sights...)
			job := b.submit(t, "phone-1")
			if err := b.deliver(t, job); (err == nil) != (row.state == tasks.ItemSucceeded) {
				t.Errorf("the task ends with %v", err)
			}
			it := b.item(t, job)
			when, evidence, _ := strings.Cut(it.Evidence, " ")
			if it.State != row.state || it.Code != row.code || evidence != row.evidence {
				t.Errorf("item %+v", it)
			}
			if _, err := time.Parse(time.RFC3339, when); evidence != "" && err != nil {
				t.Errorf("evidence %q does not say when", it.Evidence)
			}
			if b.locked(t, "phone-1") != row.locked {
				t.Errorf("locked: %t", !row.locked)
			}
		})
	}
}

func TestThePatienceIsUsedToItsEnd(t *testing.T) {
	b := newLooking(t, resets(nil), seenNotInitial, seenInitial)
	b.lookPause = time.Hour // the pauses grow longer than what is left of the patience
	job := b.submit(t, "phone-1")
	if err := b.deliver(t, job); err != nil {
		t.Errorf("a second reset is tried, and the first one shows at the end of the patience: %v", err)
	}
}

func TestWhatMayStillShowIsNotResetAgain(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(bench) // the attempt, before the patience is over
	}{
		{"the attempt's time is over", func(b bench) { b.drivers[tasks.DefaultDriver].timeout = 30 * time.Millisecond }},
		{"the worker stops", func(b bench) { time.AfterFunc(30*time.Millisecond, b.interrupt) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			calls := 0
			b := newLooking(t, func(context.Context, Attempt) error { calls++; return nil }, seenNotInitial)
			b.cfg.LookPatience = time.Hour
			job := b.submit(t, "phone-1")
			row.end(b)
			_ = wantAgain(t, b.deliver(t, job))
			if it := b.item(t, job); it.Code != tasks.NotConfirmed || !strings.HasSuffix(it.Evidence, "boot 1") || !b.locked(t, "phone-1") {
				t.Errorf("item %+v, locked: %t", it, b.locked(t, "phone-1"))
			}
			_ = wantAgain(t, b.deliver(t, job))
			if calls != 1 {
				t.Errorf("%d resets: nobody knows yet whether the first one happened", calls)
			}
		})
	}
}

// silent is a driver that fails before it asks whether it may send.
type silent struct{ looking }

func (silent) Reset(context.Context, Attempt) error { return errors.New("no idea") }

func TestWhatWasNeverSentIsNotLookedFor(t *testing.T) {
	looks := 0
	b := newBench(t, silent{looking{sights: []any{seenInitial}, looks: &looks}})
	job := b.submit(t, "phone-1")
	_ = wantAgain(t, b.deliver(t, job))
	if it := b.item(t, job); it.State == tasks.ItemSucceeded || looks != 0 {
		t.Errorf("item %+v after %d looks", it, looks)
	}
}

// noting is a driver that sees only with the checkpoint that it saved.
type noting struct{ driverFunc }

func (noting) Look(_ context.Context, a Attempt) (Sight, error) {
	return Sight{Initial, "not as " + a.Checkpoint}, nil
}

func TestALookKnowsWhatTheResetHasNoted(t *testing.T) {
	b := newBench(t, noting{func(ctx context.Context, a Attempt) error {
		return errors.Join(a.Save(ctx, "boot 0"), a.Save(ctx, "boot 1"))
	}})
	job := b.submit(t, "phone-1")
	if err := b.deliver(t, job); err != nil {
		t.Fatal(err)
	}
	if it := b.item(t, job); it.State != tasks.ItemSucceeded || !strings.HasSuffix(it.Evidence, "not as boot 1") {
		t.Errorf("item %+v", it)
	}
}

func TestAControlPlaneThatLiesSucceedsNever(t *testing.T) {
	keys := map[string]bool{}
	b := newLooking(t, func(_ context.Context, a Attempt) error {
		keys[a.Key] = true
		return nil
	}, seenNotInitial)
	job := b.submit(t, "phone-1")
	for range 2 {
		_ = wantAgain(t, b.deliver(t, job))
		b.ripen(t, job)
	}
	wantArchived(t, b.deliver(t, job))
	if it := b.item(t, job); it.State != tasks.ItemFailed || it.Code != tasks.NotConfirmed || it.Attempts != 3 || !strings.HasSuffix(it.Message, "boot 1") {
		t.Errorf("item %+v", it)
	}
	if len(keys) != 3 {
		t.Errorf("%d keys: under the same key the control plane would repeat its answer", len(keys))
	}
}

func TestAnAmbiguousAttemptLooksBeforeAnythingElse(t *testing.T) {
	for _, row := range []struct {
		name, checkpoint string
		repeatable       bool
		sights           []any
		calls            int
		state            tasks.ItemState
		evidence         string
	}{
		{"it has happened", "", false, []any{seenInitial}, 0, tasks.ItemSucceeded, "boot 2"},
		{"it has happened, and could be repeated", "", true, []any{seenInitial}, 0, tasks.ItemSucceeded, "boot 2"},
		// It may still come: the worker that sent it may hang.
		{"it has not happened", "", false, []any{seenNotInitial, seenInitial}, 0, tasks.ItemRetrying, "boot 1"},
		{"it has not happened, and can be repeated", "", true, []any{seenNotInitial, seenInitial}, 1, tasks.ItemSucceeded, "boot 2"},
		{"nobody can look", "", false, []any{errNoSight, seenInitial}, 0, tasks.ItemRetrying, ""},
		{"nobody can look, and it can be repeated", "", true, []any{errNoSight, seenInitial}, 1, tasks.ItemSucceeded, "boot 2"},
		{"the call can be asked about", "job 7", false, []any{seenInitial}, 1, tasks.ItemSucceeded, "boot 2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			calls := 0
			b := newLooking(t, func(_ context.Context, a Attempt) error {
				if calls++; !a.Ambiguous || a.Checkpoint != row.checkpoint {
					t.Errorf("the driver was given %+v", a)
				}
				return nil
			}, row.sights...)
			b.drivers[tasks.DefaultDriver].repeatable = row.repeatable
			job := b.submit(t, "phone-1")
			b.loseCall(t, job, row.checkpoint)
			if err := b.deliver(t, job); (err == nil) != (row.state == tasks.ItemSucceeded) {
				t.Fatal(err)
			}
			if it := b.item(t, job); it.State != row.state || !strings.HasSuffix(it.Evidence, row.evidence) {
				t.Errorf("item %+v", it)
			}
			if calls != row.calls {
				t.Errorf("%d calls, want %d", calls, row.calls)
			}
		})
	}
}

// loseCall makes an attempt at the first item of a job that has sent its reset, with a worker that
// is dead.
func (b bench) loseCall(t *testing.T, job tasks.Job, checkpoint string) {
	t.Helper()
	d := job.Deliveries()[0]
	_, err := b.db.Attempts.Begin(t.Context(), d, "dead", "key", time.Minute)
	err = errors.Join(err, b.db.Attempts.Send(t.Context(), d, "dead", ""))
	if checkpoint != "" {
		err = errors.Join(err, b.db.Attempts.Checkpoint(t.Context(), d, "dead", checkpoint))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEvidenceIsShortAndCanBePrinted(t *testing.T) {
	b := newLooking(t, resets(nil), Sight{Initial, " \x1b" + strings.Repeat("é", 200)})
	job := b.submit(t, "phone-1")
	if err := b.deliver(t, job); err != nil {
		t.Fatal(err)
	}
	if e := b.item(t, job).Evidence; len(e) > MaxEvidence || len(e) < MaxEvidence-2 || !strings.HasSuffix(e, "éé") || strings.Contains(e, "\x1b") {
		t.Errorf("%d bytes: %q", len(e), e)
	}
}

func TestAnUpstreamLooksIfItsDriverCan(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if lookerOf(NewUpstream(resets(nil), UpstreamConfig{}, log)) != nil {
		t.Error("a driver that cannot look does")
	}
	if lookerOf(NewUpstream(looking{}, UpstreamConfig{}, log)) == nil {
		t.Error("a driver that can look does not")
	}
}
