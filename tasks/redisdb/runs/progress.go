package runs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// Progress is what a runner does with runs.
type Progress struct {
	runs  *Runs
	audit Audit
	brake Brake
}

// NewProgress makes Progress.
func NewProgress(runs *Runs, audit Audit, brake Brake) *Progress {
	return &Progress{runs, audit, brake}
}

// Hurry makes a run that has not ended due now.
func (p *Progress) Hurry(ctx context.Context, id string) error { return p.runs.hurry(ctx, id) }

// Due claims up to n runs that are due, for a time. Two runners at one run do no harm.
func (p *Progress) Due(ctx context.Context, n int, token string, lasts time.Duration) ([]tasks.RunClaim, error) {
	now := p.runs.redis.Now()
	due, err := p.runs.redis.ZRangeArgsWithScores(ctx, redis.ZRangeArgs{
		Key: codec.OpenRunsKey, Start: "-inf", Stop: strconv.FormatInt(now.UnixMilli(), 10), ByScore: true, Count: int64(n),
	}).Result()
	if err != nil {
		return nil, fmt.Errorf("list open runs: %w", err)
	}
	var claims []tasks.RunClaim
	for _, z := range due {
		id, _ := z.Member.(string)
		c := tasks.RunClaim{Run: id, Token: token, Until: now.Add(lasts).Truncate(time.Millisecond)}
		locked, err := p.runs.redis.SetNX(ctx, lockKey(id), token, lasts).Result()
		if err != nil {
			return claims, fmt.Errorf("claim run: %w", err)
		}
		if !locked {
			continue
		}
		if moved, err := p.reschedule(ctx, id, int64(z.Score), strconv.FormatInt(c.Until.UnixMilli(), 10)); err != nil || !moved {
			p.release(ctx, c)
			if err != nil {
				return claims, err
			}
			continue
		}
		claims = append(claims, c)
	}
	return claims, nil
}

// Put gives a claim back, and says when the run is looked at next, unless somebody said so meanwhile;
// the zero time means that it has ended.
func (p *Progress) Put(ctx context.Context, c tasks.RunClaim, next time.Time) error {
	defer p.release(ctx, c)
	at := ""
	if !next.IsZero() {
		at = strconv.FormatInt(next.UnixMilli(), 10)
	}
	_, err := p.reschedule(ctx, c.Run, c.Until.UnixMilli(), at)
	return err
}

func lockKey(run string) string { return codec.RunKey(run) + ":lock" }

func (p *Progress) release(ctx context.Context, c tasks.RunClaim) {
	_ = releaseScript.Run(ctx, p.runs.redis, []string{lockKey(c.Run)}, c.Token).Err() // else it lapses
}

func (p *Progress) reschedule(ctx context.Context, run string, read int64, next string) (bool, error) {
	done, err := rescheduleScript.Run(ctx, p.runs.redis, []string{codec.OpenRunsKey}, run, read, next).Int()
	if err != nil {
		return false, fmt.Errorf("reschedule run: %w", err)
	}
	return done == 1, nil
}

// change is Runs.change of the record that the runner has read, and reports whether it was made. It is not if the
// record is another by now: the runner looks again.
func (p *Progress) change(ctx context.Context, run tasks.Run, state tasks.RunState, fields ...any) (changed bool, err error) {
	err = p.runs.change(ctx, run.ID, in{states: []tasks.RunState{state}, revision: run.Revision}, fields...)
	if _, wrong := errors.AsType[*wrongState](err); wrong || errors.Is(err, errMoved) {
		return false, nil
	}
	return err == nil, err
}

// Start begins a run whose time has come, unless its record is another by now.
func (p *Progress) Start(ctx context.Context, run tasks.Run) error {
	_, err := p.change(ctx, run, tasks.RunWaiting, "state", string(tasks.RunRunning))
	return err
}

// Expire ends a run that nobody has approved in time, unless its record is another by now.
func (p *Progress) Expire(ctx context.Context, run tasks.Run) error {
	before, now := run.State, p.runs.redis.Now()
	run.State = tasks.RunExpired
	event := run.Sum(nil, now).Event(tasks.TopicRunFinished, now) // nothing of it has begun
	if _, err := p.decide(ctx, run, tasks.ActionExpireRun, "nobody approved it in time", before,
		"state", string(tasks.RunExpired), "held", "", "finished", now.UnixMilli(), eventField, encodeEvent(event)); err != nil {
		return err
	}
	_ = p.runs.announce(ctx, run.ID) // for those who wait for the end
	return nil
}

// PauseItself pauses a run of which too many failed, unless its record is another by now.
func (p *Progress) PauseItself(ctx context.Context, run tasks.Run, reason string) error {
	by := ByFailures
	if run.CanaryFailed() && !run.CanaryPassed {
		by = ByCanary
	}
	run.State, run.Held.Reason = tasks.RunPaused, reason
	event := run.Event(tasks.TopicRunPaused, p.runs.redis.Now())
	paused, err := p.decide(ctx, run, tasks.ActionPauseRun, reason, tasks.RunRunning,
		"state", string(tasks.RunPaused), "held", p.runs.held(reason), eventField, encodeEvent(event))
	if err != nil {
		return err
	}
	if paused {
		p.runs.opts.Paused(by)
	}
	return p.Brake(ctx, run.ID)
}

// decide carries out what a run itself decides, if its record is in a state and no other one by now, and has it in the
// trail.
func (p *Progress) decide(ctx context.Context, run tasks.Run, action tasks.Action, reason string, state tasks.RunState, fields ...any) (decided bool, err error) {
	e := tasks.Actor{By: "run " + run.ID, Reason: reason}.Entry(action)
	e.Tenant, e.Run, e.List = run.Tenant, run.ID, run.ListSHA256
	err = p.audit.Decide(ctx, e, func(ctx context.Context) error {
		changed, err := p.change(ctx, run, state, fields...)
		if err == nil && !changed {
			return errMoved // which leaves no entry
		}
		return err
	})
	if errors.Is(err, errMoved) {
		return false, nil
	}
	return err == nil, err
}

// Hold says why a run that goes on waits, since it was said first; empty: nothing keeps it.
func (p *Progress) Hold(ctx context.Context, id, reason string) error {
	run, err := p.runs.Stored(ctx, id)
	if err != nil || run.Held.Reason == reason {
		return err
	}
	held := ""
	if reason != "" {
		held = p.runs.held(reason)
	}
	_, err = p.change(ctx, run, tasks.RunRunning, "held", held)
	return err
}

// Soak says until when a run waits after its canary, unless its record is another by now.
func (p *Progress) Soak(ctx context.Context, run tasks.Run, until time.Time) error {
	_, err := p.change(ctx, run, tasks.RunRunning, "soak_until", until.UnixMilli())
	return err
}

// Take takes the next parts of a run, all of one wave, whose jobs are made afterwards. taken is false if the run
// is paused, cancelled, or further by now.
func (p *Progress) Take(ctx context.Context, run tasks.Run, parts []tasks.Part) (taken bool, err error) {
	args := []any{run.Next, parts[0].Wave, p.runs.redis.Now().UnixMilli()}
	for _, p := range parts {
		args = append(args, len(p.InstanceIDs))
	}
	n, err := p.runs.redis.Commit(ctx, takeScript, []string{codec.RunKey(run.ID)}, args...).Int()
	if err != nil {
		return false, fmt.Errorf("take parts: %w", err)
	}
	return n == 1, nil
}

// codesApart is how many error codes of a run are counted. An upstream may put a number of the request into each of them,
// and the whole record is read at every look at the run: those that are met later count as failures only.
const codesApart = 1000

// Close counts the instances of a part whose job has ended, once.
func (p *Progress) Close(ctx context.Context, run string, part int, job tasks.Job) error {
	c := job.Counts
	args := []any{part, c.Succeeded, c.Failed, c.Unknown, c.Cancelled, codesApart}
	codes := job.FailureCodes()
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		args = append(args, string(code), codes[code])
	}
	if err := p.runs.redis.Commit(ctx, closeScript, []string{codec.RunKey(run), codec.RunFailedKey(run)}, args...).Err(); err != nil {
		return fmt.Errorf("close part: %w", err)
	}
	return nil
}

// Finish ends a run of which nothing is open any more. ended is false if its record is another by now. Its halt, if it
// has one, and its end are left to who finds it final: to be lifted, and to be told.
func (p *Progress) Finish(ctx context.Context, run tasks.Run) (ended bool, err error) {
	now := p.runs.redis.Now()
	run.State = tasks.RunState(run.Counts.State())
	n, err := p.runs.redis.Commit(ctx, finishScript, []string{codec.RunKey(run.ID)},
		string(run.State), now.UnixMilli(), run.Revision, encodeEvent(run.Event(tasks.TopicRunFinished, now))).Int()
	if err != nil {
		return false, fmt.Errorf("finish run: %w", err)
	}
	_ = p.runs.announce(ctx, run.ID) // for those who wait for the end
	return n == 1, nil
}

// Retire has the records of a run that has ended expire: those of its jobs, which are kept until then, or a job
// that nobody has counted could be made again, its list and what failed, and at last its own, without which nobody would come back
// to what is left.
func (p *Progress) Retire(ctx context.Context, run tasks.Run) error {
	if err := p.runs.keepJobs(ctx, run, run.Retention); err != nil {
		return err
	}
	if err := p.runs.redis.Run(ctx, retireScript, []string{codec.RunKey(run.ID), codec.RunListKey(run.ID), codec.RunFailedKey(run.ID)},
		run.Revision, int(run.Retention.Seconds())).Err(); err != nil {
		return fmt.Errorf("retire run: %w", err)
	}
	return nil
}

// Now is the time by Redis's clock.
func (p *Progress) Now() time.Time { return p.runs.redis.Now() }

// Brake tells the workers what the record of a run says: whether attempts may begin.
func (p *Progress) Brake(ctx context.Context, id string) error { return p.runs.tell(ctx, p.brake, id) }
