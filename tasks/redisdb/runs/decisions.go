package runs

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// Decisions are what people decide about runs.
type Decisions struct {
	runs  *Runs
	audit Audit
	brake Brake
}

// NewDecisions makes Decisions.
func NewDecisions(runs *Runs, audit Audit, brake Brake) *Decisions {
	return &Decisions{runs, audit, brake}
}

// decide carries out what somebody decides about a run; done is the action as it is said of the run.
func (d *Decisions) decide(ctx context.Context, e tasks.AuditEntry, run tasks.Run, done string, act func(ctx context.Context) error) error {
	e.Tenant, e.Run, e.List = run.Tenant, run.ID, cmp.Or(e.List, run.ListSHA256)
	err := d.audit.Decide(ctx, e, func(ctx context.Context) error {
		err := act(ctx)
		if wrong, ok := err.(*wrongState); ok { //nolint:errorlint // change returns it as it is
			return tasks.Errorf(tasks.JobFinal, "the run cannot be %s: it is %s", done, wrong.state)
		}
		return err
	})
	if err == nil {
		_ = d.runs.wake(ctx, run.ID) // else a runner comes later
	}
	return err
}

const byHand = "paused by hand"

// Pause lets what runs end and begins nothing. Errors: tasks.RunGone; tasks.JobFinal if the run is paused,
// or has ended.
func (d *Decisions) Pause(ctx context.Context, id string, actor tasks.Actor) error {
	run, err := d.runs.Stored(ctx, id)
	if err != nil {
		return err
	}
	reason := byHand
	if actor.Reason != "" {
		reason += ": " + actor.Reason
	}
	run.State, run.Held.Reason = tasks.RunPaused, reason
	event := run.Event(tasks.TopicRunPaused, d.runs.redis.Now())
	return d.decide(ctx, actor.Entry(tasks.ActionPauseRun), run, "paused", func(ctx context.Context) error {
		// The record first: what the workers are told is made to fit it by the runner.
		if err := d.runs.change(ctx, id, in{states: []tasks.RunState{tasks.RunWaiting, tasks.RunRunning}},
			"state", string(tasks.RunPaused), "held", d.runs.held(reason), eventField, encodeEvent(event)); err != nil {
			return err
		}
		d.runs.opts.Paused(ByHand)
		return d.brake.HaltRun(ctx, id, reason)
	})
}

// Resume lets a paused run go on, with another budget if there is one, which counts from the start of the run, or of
// its last retry. A canary that failed counts as passed. Errors: tasks.RunGone; tasks.JobFinal if the run is not paused,
// would pause again at once, or waits for approval and would get another budget than the one that is to be approved.
func (d *Decisions) Resume(ctx context.Context, id string, budget *tasks.Budget, actor tasks.Actor) error {
	run, err := d.runs.Run(ctx, id)
	if err != nil {
		return err
	}
	fields := []any{"state", d.runs.onward(run), "held", ""}
	if budget != nil {
		run.MaxFailures = *budget
		fields = append(fields, "max_failures", budget.String())
	}
	if run.CanaryFailed() {
		run.CanaryPassed = true
		fields = append(fields, "canary_passed", "1")
	}
	return d.decide(ctx, actor.Entry(tasks.ActionResumeRun), run, "resumed", func(ctx context.Context) error {
		if budget != nil && !run.Approved() {
			return tasks.Errorf(tasks.JobFinal, "the run waits for approval with the options that it has: resume it without max_failures")
		}
		if why := run.TooManyFailed(); why != "" && run.State == tasks.RunPaused {
			return tasks.Errorf(tasks.JobFinal, "the run would pause again at once: %s; resume it with another max_failures", why)
		}
		if err := d.runs.change(ctx, id, in{states: []tasks.RunState{tasks.RunPaused}}, fields...); err != nil {
			return err
		}
		return d.runs.tell(ctx, d.brake, id)
	})
}

// onward is the state in which a run goes on: it may have to wait for its approval or its time yet.
func (r *Runs) onward(run tasks.Run) string {
	if !run.Approved() || !run.NotBefore.IsZero() && r.redis.Now().Before(run.NotBefore.Time) {
		return string(tasks.RunWaiting)
	}
	return string(tasks.RunRunning)
}

// tell tells the workers what the record of a run says: whether attempts may begin.
func (r *Runs) tell(ctx context.Context, brake Brake, id string) error {
	for released := false; ; released = true {
		run, err := r.Stored(ctx, id)
		if err != nil {
			return err
		}
		jobs, err := r.OpenJobs(ctx, run)
		switch {
		case err != nil:
			return err
		case run.Braked(jobs):
			return brake.HaltRun(ctx, id, cmp.Or(run.Held.Reason, cancelled))
		case released:
			return nil
		}
		// Somebody may pause the run before this comes to pass, and think that the workers know: so
		// the record is read once more.
		if err := brake.ReleaseRun(ctx, id); err != nil {
			return err
		}
	}
}

const cancelled = "the run was cancelled"

// Cancel ends what has not begun, and lets nothing begin any more. Errors: tasks.RunGone; tasks.JobFinal if the
// run has ended. Twice is the same as once.
func (d *Decisions) Cancel(ctx context.Context, id string, actor tasks.Actor) error {
	run, err := d.runs.Stored(ctx, id)
	if err != nil {
		return err
	}
	return d.decide(ctx, actor.Entry(tasks.ActionCancelRun), run, "cancelled", func(ctx context.Context) error {
		if err := d.runs.change(ctx, id, in{states: []tasks.RunState{tasks.RunWaiting, tasks.RunRunning, tasks.RunPaused}, cancelled: true},
			"state", string(tasks.RunRunning), "cancel", "1", "held", ""); err != nil {
			return err
		}
		return d.brake.HaltRun(ctx, id, cancelled)
	})
}

// Approve lets a run begin, once so many principals have approved it as it needs; the comment is the actor's reason.
// Errors: tasks.RunGone; tasks.OwnRun for who asked for the run; tasks.JobFinal if it does not wait for approval, list is
// not the hash of its list, or the principal has decided before.
func (d *Decisions) Approve(ctx context.Context, id, list string, actor tasks.Actor) error {
	return d.judge(ctx, id, list, tasks.Approved, actor)
}

// Reject ends a run that waits for approval, for good. list may be empty. Errors: those of Approve, but that one may reject
// what one has asked for.
func (d *Decisions) Reject(ctx context.Context, id, list string, actor tasks.Actor) error {
	return d.judge(ctx, id, list, tasks.Rejected, actor)
}

func (d *Decisions) judge(ctx context.Context, id, list string, decision tasks.Decision, actor tasks.Actor) error {
	run, err := d.runs.Stored(ctx, id)
	if err != nil {
		return err
	}
	action, now := tasks.ActionApproveRun, d.runs.redis.Now()
	if decision == tasks.Rejected {
		action, run.State = tasks.ActionRejectRun, tasks.RunRejected
	}
	decided := run.Event(tasks.TopicRunDecided, now)
	decided.Principal = actor.Principal
	ended := run.Sum(nil, now).Event(tasks.TopicRunFinished, now) // if it is rejected; nothing of it has begun
	return d.decide(ctx, actor.Entry(action), run, string(decision), func(ctx context.Context) error {
		said, err := d.runs.redis.Commit(ctx, judgeScript, []string{codec.RunKey(id)},
			actor.Principal, string(decision), actor.Reason, list, encodeEvent(decided), encodeEvent(ended)).Text()
		if err != nil {
			return fmt.Errorf("decide about run: %w", err)
		}
		switch said {
		case "own":
			return tasks.Errorf(tasks.OwnRun, "%s has asked for this run: somebody else must approve it", actor.Principal)
		case "again":
			return tasks.Errorf(tasks.JobFinal, "%s has decided about this run before", actor.Principal)
		case "list":
			return tasks.Errorf(tasks.JobFinal, "list_sha256 is not the hash of this run's list, which is %s", run.ListSHA256)
		case "without":
			return tasks.Errorf(tasks.JobFinal, "the run cannot be %s: it needs no approval", decision)
		}
		return verdict(said)
	})
}

// Retry begins another round of a run that has ended, with its instances in the given states, and with one of the codes if there are any: under the options that
// it has, with its canary, and an approval that was given. What the rounds before say of the others stays. Errors:
// tasks.RunGone; tasks.JobFinal if the run has not ended, has never been approved, or has no such instance;
// tasks.StorageFull.
func (d *Decisions) Retry(ctx context.Context, id string, states []tasks.ItemState, actor tasks.Actor, codes ...tasks.Code) error {
	if err := d.runs.opts.Refuse(ctx); err != nil {
		return err
	}
	run, err := d.runs.Run(ctx, id)
	switch {
	case err != nil:
		return err
	case !run.State.Final():
		return tasks.Errorf(tasks.JobFinal, "the run cannot be retried: it is %s", run.State)
	case !run.Approved():
		return tasks.Errorf(tasks.JobFinal, "the run cannot be retried: it was never approved")
	}
	what := tasks.Again{States: states, Codes: codes}
	round, err := d.runs.nextRound(ctx, run, what)
	switch {
	case err != nil:
		return err
	case len(round.again) == 0:
		return tasks.Errorf(tasks.JobFinal, "the run has no instance to retry: none is %s", what.InWords())
	}
	if err := d.runs.keepJobs(ctx, run, retriedLife); err != nil {
		return err
	}
	written, parts, err := d.runs.writeList(ctx, id, run.RunOptions.Parts(round.again, round.generations))
	if err != nil {
		return err
	}
	now, err := d.runs.redis.Time(ctx).Result()
	if err != nil {
		return fmt.Errorf("retry run: %w", err)
	}
	// Listed before it goes on, so that no crash can hide it.
	if err := d.runs.list(ctx, run.Tenant, id, run.CreatedAt.Time, now); err != nil {
		return err
	}
	e := actor.Entry(tasks.ActionRetryRun)
	e.List, e.Detail = tasks.ListHash(round.again), fmt.Sprintf("%d instances: %s", len(round.again), what.InWords())
	return d.decide(ctx, e, run, "retried", func(ctx context.Context) error {
		if err := d.runs.retry(ctx, run, round, now, written, parts); err != nil {
			return err
		}
		return d.runs.tell(ctx, d.brake, id) // a cancel may have left a halt
	})
}

// retriedLife is how long the jobs of earlier rounds are kept while a retried run goes on.
const retriedLife = 366 * 24 * time.Hour

// round is what a retry makes of a run.
type round struct {
	retries     []tasks.RunRetry
	again       []string           // instances
	generations map[string]int     // of some of them
	kept        tasks.Counts       // of the others
	codes       map[tasks.Code]int // of those of them that failed
}

// nextRound looks which instances of a run that has ended a retry takes.
func (r *Runs) nextRound(ctx context.Context, run tasks.Run, what tasks.Again) (round, error) {
	next := round{
		retries: append(slices.Clone(run.Retries), tasks.RunRetry{First: run.Parts, Skipped: run.Parts - run.Next, Again: what}),
		codes:   map[tasks.Code]int{}, generations: map[string]int{},
	}
	err := r.Instances(ctx, run, func(in tasks.RunInstance) error {
		switch state := in.Item.State; {
		case !state.Final():
			return fmt.Errorf("instance %s of run %s, which has ended, is %s", in.Item.InstanceID, run.ID, state)
		case what.Takes(in.Item):
			next.again = append(next.again, in.Item.InstanceID)
			if in.Generation != 0 {
				next.generations[in.Item.InstanceID] = in.Generation
			}
		default:
			*next.kept.Of(state)++
			if state == tasks.ItemFailed || state == tasks.ItemUnknown {
				next.codes[in.Item.Code]++
			}
		}
		return nil
	})
	return next, err
}

func (r *Runs) retry(ctx context.Context, run tasks.Run, next round, listed time.Time, written string, parts int) error {
	args := []any{
		run.Revision, run.Parts, parts, listed.UnixMilli(), (codec.ListingGrace / 2).Milliseconds(),
		"state", r.onward(run), "retries", tasks.FormatRunRetries(next.retries),
	}
	for _, c := range []struct {
		name string
		n    int
	}{
		{"succeeded", next.kept.Succeeded}, {"failed", next.kept.Failed}, {"unknown", next.kept.Unknown}, {"cancelled", next.kept.Cancelled},
	} {
		args = append(args, c.name, c.n, "before_"+c.name, c.n)
	}
	codes := slices.Sorted(maps.Keys(next.codes))
	codes = codes[:min(len(codes), codesApart)]
	for _, code := range codes {
		args = append(args, "c:"+string(code), next.codes[code])
	}
	args = append(args, "codes", len(codes))
	ctx, cancel := wire.Outlive(ctx)
	defer cancel()
	said, err := r.redis.Commit(ctx, retryScript, []string{codec.RunKey(run.ID), codec.RunListKey(run.ID), written, codec.RunFailedKey(run.ID)}, args...).Text()
	switch {
	case err != nil:
		return fmt.Errorf("retry run: %w", err)
	case said == "late":
		return fmt.Errorf("retry run: Redis took too long")
	case said == saysMoved:
		return tasks.Errorf(tasks.JobFinal, "the run cannot be retried: somebody has just done so")
	}
	return verdict(said)
}
