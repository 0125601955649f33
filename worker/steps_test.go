package worker

import (
	"context"
	"testing"
	"time"

	"batchreset/tasks"
)

// wantSteps wants kinds of steps, one after the other.
func wantSteps(t *testing.T, what string, steps tasks.Steps, want string) {
	t.Helper()
	kinds, last := "", time.Duration(0)
	for _, step := range steps.All() {
		kinds += string(rune(step.Kind))
		if step.After < last || step.After > time.Minute {
			t.Errorf("%s: %q", what, steps)
		}
		last = step.After
	}
	if kinds != want {
		t.Errorf("%s: the steps are %q, want %q", what, steps, want)
	}
}

// plainLooker is a driver that does nothing by itself, and sees each instance in its initial state.
type plainLooker func(ctx context.Context, a Attempt) error

func (f plainLooker) Reset(ctx context.Context, a Attempt) error { return f(ctx, a) }

func (plainLooker) Look(context.Context, Attempt) (Sight, error) { return seenInitial, nil }

func TestAnAttemptTellsHowFarItCame(t *testing.T) {
	var answer error
	reset := func(ctx context.Context, a Attempt) error {
		if a.Number == 2 { // nothing is sent
			return &DriverError{Verdict: Unreachable, Message: "no connection"}
		}
		if err := a.MaySend(); err != nil {
			return err
		}
		for _, checkpoint := range []string{"order 7", "order 8"} {
			if err := a.Save(ctx, checkpoint); err != nil {
				return err
			}
		}
		return answer
	}
	b := newBench(t, plainLooker(reset), func(cfg *Config) { cfg.LookPatience = 0 })
	job := b.submit(t, "phone-1")

	answer = &DriverError{Verdict: Retryable, Code: "CPS.0003"}
	_ = wantAgain(t, b.deliver(t, job))
	_ = wantAgain(t, b.deliver(t, job))
	answer = nil
	if err := b.deliver(t, job); err != nil {
		t.Fatal(err)
	}
	it := b.item(t, job)
	if len(it.History) != 2 {
		t.Fatalf("history %+v", it.History)
	}
	wantSteps(t, "refused by the upstream", it.History[0].Steps, "sc")
	wantSteps(t, "not connected", it.History[1].Steps, "")
	wantSteps(t, "succeeded", it.Last.Steps, "scl")
	for _, worker := range []string{it.History[0].Worker, it.History[1].Worker, it.Last.Worker} {
		if worker != b.id {
			t.Errorf("made by %q, want %q", worker, b.id)
		}
	}
	if it.Last.StartedAt.IsZero() {
		t.Error("when the last attempt began is not known")
	}
}
