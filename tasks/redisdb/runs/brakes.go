package runs

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// change makes fields of a run others, if it is in one of the states. Errors: tasks.RunGone; a
// *wrongState.
func (r *Runs) change(ctx context.Context, id string, states []tasks.RunState, uncancelled bool, fields ...any) error {
	words := make([]string, len(states))
	for i, s := range states {
		words[i] = string(s)
	}
	allowed := " " + strings.Join(words, " ") + " "
	args := append([]any{allowed, codec.Flag(uncancelled)}, fields...)
	was, err := r.redis.Commit(ctx, changeScript, []string{codec.RunKey(id)}, args...).Text()
	switch {
	case err != nil:
		return fmt.Errorf("change run: %w", err)
	case was == "":
		return tasks.RunGone
	case !strings.Contains(allowed, " "+was+" "):
		return &wrongState{was}
	}
	return nil
}

// wrongState says that something cannot be done with a run in its state.
type wrongState struct{ state string }

func (e *wrongState) Error() string { return "the run is " + e.state }

// decide carries out what somebody decides about a run.
func (r *Runs) decide(ctx context.Context, action tasks.Action, id string, actor tasks.Actor, verb string, act func(ctx context.Context) error) error {
	run, err := r.Stored(ctx, id)
	if err != nil {
		return err
	}
	e := actor.Entry(action)
	e.Tenant, e.Run, e.List = run.Tenant, id, run.ListSHA256
	err = r.audit.Decide(ctx, e, func(ctx context.Context) error {
		err := act(ctx)
		if wrong, ok := err.(*wrongState); ok { //nolint:errorlint // change returns it as it is
			return tasks.Errorf(tasks.JobFinal, "the run cannot be %s: it is %s", verb, wrong.state)
		}
		return err
	})
	if err == nil {
		_ = r.Wake(ctx, id) // else a runner comes later
	}
	return err
}

// held is the record's field for why nothing begins.
func (r *Runs) held(reason string) string {
	return strconv.FormatInt(r.redis.Now().UnixMilli(), 10) + " " + reason
}

const byHand = "paused by hand"

// Pause lets what runs end and begins nothing. Errors: tasks.RunGone; tasks.JobFinal if the run is paused,
// or has ended.
func (r *Runs) Pause(ctx context.Context, id string, actor tasks.Actor) error {
	reason := byHand
	if actor.Reason != "" {
		reason += ": " + actor.Reason
	}
	return r.decide(ctx, tasks.ActionPauseRun, id, actor, "paused", func(ctx context.Context) error {
		return r.pause(ctx, id, reason, tasks.RunWaiting, tasks.RunRunning)
	})
}

// PauseItself pauses a run of which too many failed. Errors: those of Pause.
func (r *Runs) PauseItself(ctx context.Context, run tasks.Run, reason string) error {
	actor := tasks.Actor{By: "run " + run.ID, Reason: reason}
	return r.decide(ctx, tasks.ActionPauseRun, run.ID, actor, "paused", func(ctx context.Context) error {
		return r.pause(ctx, run.ID, reason, tasks.RunRunning)
	})
}

// pause writes the record first: what the workers are told is made to fit it by the runner.
func (r *Runs) pause(ctx context.Context, id, reason string, from ...tasks.RunState) error {
	if err := r.change(ctx, id, from, true, "state", string(tasks.RunPaused), "held", r.held(reason)); err != nil {
		return err
	}
	return r.brake.HaltRun(ctx, id, reason)
}

// Resume lets a paused run go on, with another budget if there is one, which counts from the start of the
// run. A canary that failed counts as passed. Errors: tasks.RunGone; tasks.JobFinal if the run is not paused,
// or would pause again at once.
func (r *Runs) Resume(ctx context.Context, id string, budget *tasks.Budget, actor tasks.Actor) error {
	run, err := r.Run(ctx, id)
	if err != nil {
		return err
	}
	state := tasks.RunRunning
	if !run.NotBefore.IsZero() && r.redis.Now().Before(run.NotBefore.Time) {
		state = tasks.RunWaiting
	}
	fields := []any{"state", string(state), "held", ""}
	if budget != nil {
		run.MaxFailures = *budget
		fields = append(fields, "max_failures", budget.String())
	}
	if run.CanaryFailed() {
		run.CanaryPassed = true
		fields = append(fields, "canary_passed", "1")
	}
	return r.decide(ctx, tasks.ActionResumeRun, id, actor, "resumed", func(ctx context.Context) error {
		if why := run.TooManyFailed(); why != "" && run.State == tasks.RunPaused {
			return tasks.Errorf(tasks.JobFinal, "the run would pause again at once: %s; resume it with another max_failures", why)
		}
		if err := r.change(ctx, id, []tasks.RunState{tasks.RunPaused}, true, fields...); err != nil {
			return err
		}
		return r.Brake(ctx, id)
	})
}

// Brake tells the workers what the record of a run says: whether attempts may begin.
func (r *Runs) Brake(ctx context.Context, id string) error {
	for released := false; ; released = true {
		run, err := r.Stored(ctx, id)
		switch {
		case err != nil:
			return err
		case run.Braked():
			return r.brake.HaltRun(ctx, id, cmp.Or(run.Held.Reason, cancelled))
		case released:
			return nil
		}
		// Somebody may pause the run before this comes to pass, and think that the workers know: so
		// the record is read once more.
		if err := r.brake.ReleaseRun(ctx, id); err != nil {
			return err
		}
	}
}

const cancelled = "the run was cancelled"

// Cancel ends what has not begun, and lets nothing begin any more. Errors: tasks.RunGone; tasks.JobFinal if the
// run has ended. Twice is the same as once.
func (r *Runs) Cancel(ctx context.Context, id string, actor tasks.Actor) error {
	return r.decide(ctx, tasks.ActionCancelRun, id, actor, "cancelled", func(ctx context.Context) error {
		if err := r.change(ctx, id, []tasks.RunState{tasks.RunWaiting, tasks.RunRunning, tasks.RunPaused}, false,
			"state", string(tasks.RunRunning), "cancel", "1", "held", ""); err != nil {
			return err
		}
		return r.brake.HaltRun(ctx, id, cancelled)
	})
}
