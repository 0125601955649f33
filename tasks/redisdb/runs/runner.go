package runs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// Channel is where a run is announced that has something to do. It is a hint.
const Channel = "reset:runs"

// Wake has a runner look at a run at once.
func (r *Runs) Wake(ctx context.Context, id string) error {
	if err := r.Hurry(ctx, id); err != nil {
		return err
	}
	if err := r.redis.Publish(ctx, Channel, id).Err(); err != nil {
		return fmt.Errorf("wake runner: %w", err)
	}
	return nil
}

// Hurry makes a run that has not ended due now.
func (r *Runs) Hurry(ctx context.Context, id string) error {
	now := float64(r.redis.Now().UnixMilli())
	if err := r.redis.ZAddArgs(ctx, codec.OpenRunsKey, redis.ZAddArgs{XX: true, LT: true, Members: []redis.Z{{Score: now, Member: id}}}).Err(); err != nil {
		return fmt.Errorf("hurry run: %w", err)
	}
	return nil
}

// Announced calls heard with each run that is announced, until ctx ends. Some may be missed.
func (r *Runs) Announced(ctx context.Context, heard func(run string)) error {
	return r.redis.Subscribed(ctx, Channel, heard)
}

// Due claims up to n runs that are due, for a time. Two runners at one run do no harm.
func (r *Runs) Due(ctx context.Context, n int, token string, lasts time.Duration) ([]tasks.RunClaim, error) {
	now := r.redis.Now()
	due, err := r.redis.ZRangeArgsWithScores(ctx, redis.ZRangeArgs{
		Key: codec.OpenRunsKey, Start: "-inf", Stop: strconv.FormatInt(now.UnixMilli(), 10), ByScore: true, Count: int64(n),
	}).Result()
	if err != nil {
		return nil, fmt.Errorf("list open runs: %w", err)
	}
	var claims []tasks.RunClaim
	for _, z := range due {
		id, _ := z.Member.(string)
		c := tasks.RunClaim{Run: id, Token: token, Until: now.Add(lasts).Truncate(time.Millisecond)}
		locked, err := r.redis.SetNX(ctx, lockKey(id), token, lasts).Result()
		if err != nil {
			return claims, fmt.Errorf("claim run: %w", err)
		}
		if !locked {
			continue
		}
		if moved, err := r.reschedule(ctx, id, int64(z.Score), strconv.FormatInt(c.Until.UnixMilli(), 10)); err != nil || !moved {
			r.release(ctx, c)
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
func (r *Runs) Put(ctx context.Context, c tasks.RunClaim, next time.Time) error {
	defer r.release(ctx, c)
	at := ""
	if !next.IsZero() {
		at = strconv.FormatInt(next.UnixMilli(), 10)
	}
	_, err := r.reschedule(ctx, c.Run, c.Until.UnixMilli(), at)
	return err
}

func lockKey(run string) string { return codec.RunKey(run) + ":lock" }

func (r *Runs) release(ctx context.Context, c tasks.RunClaim) {
	_ = releaseScript.Run(ctx, r.redis, []string{lockKey(c.Run)}, c.Token).Err() // else it lapses
}

func (r *Runs) reschedule(ctx context.Context, run string, read int64, next string) (bool, error) {
	done, err := rescheduleScript.Run(ctx, r.redis, []string{codec.OpenRunsKey}, run, read, next).Int()
	if err != nil {
		return false, fmt.Errorf("reschedule run: %w", err)
	}
	return done == 1, nil
}

// Start begins a run whose time has come.
func (r *Runs) Start(ctx context.Context, id string) error {
	return r.change(ctx, id, []tasks.RunState{tasks.RunWaiting}, true, "state", string(tasks.RunRunning))
}

// Hold says why a run that goes on waits, since it was said first; empty: nothing keeps it.
func (r *Runs) Hold(ctx context.Context, id, reason string) error {
	run, err := r.Stored(ctx, id)
	if err != nil || run.Held.Reason == reason {
		return err
	}
	held := ""
	if reason != "" {
		held = r.held(reason)
	}
	err = r.change(ctx, id, []tasks.RunState{tasks.RunRunning}, true, "held", held)
	if _, paused := errors.AsType[*wrongState](err); paused { // or cancelled meanwhile: then it waits for that
		return nil
	}
	return err
}

// Soak says until when a run waits after its canary.
func (r *Runs) Soak(ctx context.Context, id string, until time.Time) error {
	return r.change(ctx, id, []tasks.RunState{tasks.RunRunning}, true, "soak_until", strconv.FormatInt(until.UnixMilli(), 10))
}

// Take takes the next parts of a run, all of one wave, whose jobs are made afterwards. taken is false if the run
// is paused, cancelled, or further by now.
func (r *Runs) Take(ctx context.Context, run tasks.Run, parts []tasks.Part) (taken bool, err error) {
	args := []any{run.Next, parts[0].Wave, r.redis.Now().UnixMilli()}
	for _, p := range parts {
		args = append(args, len(p.InstanceIDs))
	}
	n, err := r.redis.Commit(ctx, takeScript, []string{codec.RunKey(run.ID)}, args...).Int()
	if err != nil {
		return false, fmt.Errorf("take parts: %w", err)
	}
	return n == 1, nil
}

// Close counts the instances of a part whose job has ended, once.
func (r *Runs) Close(ctx context.Context, run string, part int, job tasks.Job) error {
	c := job.Counts
	args := []any{part, c.Succeeded, c.Failed, c.Unknown, c.Cancelled}
	for code, n := range job.FailureCodes() {
		args = append(args, string(code), n)
	}
	if err := r.redis.Commit(ctx, closeScript, []string{codec.RunKey(run)}, args...).Err(); err != nil {
		return fmt.Errorf("close part: %w", err)
	}
	return nil
}

// Finish ends a run of which nothing is open any more, unless it is another by now. Its halt, if it has one, is
// left to who finds it final.
func (r *Runs) Finish(ctx context.Context, run tasks.Run) error {
	state := tasks.RunState(run.Counts.State())
	if err := r.redis.Commit(ctx, finishScript, []string{codec.RunKey(run.ID)},
		string(state), r.redis.Now().UnixMilli(), run.Revision).Err(); err != nil {
		return fmt.Errorf("finish run: %w", err)
	}
	return nil
}

// Retire has the records of a run that has ended expire: those of its jobs, which are kept until then, or a job
// that nobody has counted could be made again, its list, and at last its own, without which nobody would come back
// to what is left.
func (r *Runs) Retire(ctx context.Context, run tasks.Run) error {
	for from := 0; from < run.Next; from += retireAtOnce {
		pipe := r.redis.Pipeline()
		for part := from; part < min(from+retireAtOnce, run.Next); part++ {
			pipe.Expire(ctx, codec.JobKey(tasks.PartJobID(run.ID, part)), run.Retention)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("retire jobs of run: %w", err)
		}
	}
	for _, key := range []string{codec.RunListKey(run.ID), codec.RunKey(run.ID)} {
		if err := r.redis.Expire(ctx, key, run.Retention).Err(); err != nil {
			return fmt.Errorf("retire run: %w", err)
		}
	}
	return nil
}

// retireAtOnce is how many jobs are retired by one call.
const retireAtOnce = 500

// Now is the time by Redis's clock.
func (r *Runs) Now() time.Time { return r.redis.Now() }
