package redisdb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/views"
	"batchreset/tasks/redisdb/wire"
)

// Attempts are the attempts at items, and what shows that the workers live that make them.
type Attempts struct {
	redis        *wire.Client
	separateLock bool // a record and the lock of its item are not written by one script
	quotas       *registry.Quotas
	failures     *views.Failures
	metrics      *metrics
	touch        touch
	memories     memories
}

// Begin locks the instance for ttl and begins an attempt in the record, or neither,
// under a token that the caller made up. key becomes the driver key unless an earlier
// call is in doubt; neither has spaces. The lock is taken over from another attempt at
// the same item whose worker is dead. After an error that is not one of these it may have
// begun or not; under the same token it can be repeated, and must be given up with GiveUp
// otherwise. Errors: tasks.InstanceBusy, tasks.NotAllowed, a tasks.Refusal, a
// *tasks.EarlyError.
func (t *Attempts) Begin(ctx context.Context, d tasks.Delivery, token, key string, ttl time.Duration) (tasks.Begun, error) {
	a, err := t.overDead(ctx, d, func(dead string) ([]any, error) {
		if t.separateLock {
			return t.beginApart(ctx, d, token, key, ttl, dead)
		}
		return t.begin(ctx, d, token, key, ttl, dead, locked{}, codec.LockKey(d.InstanceID), codec.FleetKey(d.InstanceID))
	})
	if err != nil {
		return tasks.Begun{}, fmt.Errorf("begin: %w", err)
	}
	return begun(a)
}

// beginApart is begin in several steps, each sent after the answer to the one before.
func (t *Attempts) beginApart(ctx context.Context, d tasks.Delivery, token, key string, ttl time.Duration, dead string) ([]any, error) {
	l, err := t.lock(ctx, d, token, ttl, false)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	answer, err := t.begin(ctx, d, token, key, ttl, dead, l)
	if early, ok := errors.AsType[*tasks.EarlyError](err); ok && early.Wait == 0 {
		return nil, t.untilUnlocked(ctx, d)
	}
	if refused(err) && l.holder == "" {
		_ = t.unlock(ctx, d, token) // else it lapses
	}
	if err == nil && l.holder != "" {
		if _, err = t.lock(ctx, d, token, ttl, true); err != nil {
			return nil, fmt.Errorf("take the lock over: %w", err)
		}
	}
	if len(answer) == begunParts {
		answer[begunParts-1] = l.labels // the record does not have them
	}
	return answer, err
}

// locked is an instance that an attempt has locked, or not because another attempt at the same
// item has it, whose token is the holder; and what the fleet says of it.
type locked struct{ holder, address, labels string }

// refused reports whether an error is the record's answer, after which nothing has begun.
func refused(err error) bool {
	_, refusal := errors.AsType[tasks.Refusal](err)
	_, running := errors.AsType[*runningError](err)
	return refusal || running
}

// untilUnlocked is the error of an attempt that waits until the instance's lock lapses.
func (t *Attempts) untilUnlocked(ctx context.Context, d tasks.Delivery) error {
	left, err := t.redis.PTTL(ctx, codec.LockKey(d.InstanceID)).Result()
	if err != nil {
		return err
	}
	return &tasks.EarlyError{Wait: max(left, time.Millisecond)}
}

// begin begins the attempt, and locks the instance with the keys that are for that. dead is
// the token of a running attempt that may be replaced; l is what there is to say of the lock
// without those keys.
func (t *Attempts) begin(ctx context.Context, d tasks.Delivery, token, key string, ttl time.Duration, dead string, l locked, lock ...string) ([]any, error) {
	record, n := codec.RecordOf(d)
	args := []any{
		n, d.Number, d.InstanceID, token, key, d.ItemID, ttl.Milliseconds(), d.Tenant, codec.Flag(d.AllowUnregistered), d.Epoch, dead, l.holder, l.address, d.Driver, generation(d),
	}
	keys := append([]string{record}, lock...)
	return reasoned(t.each(ctx, beginScript, keys, args...))
}

// generation is that of the instance that the job is for, as scripts have it.
func generation(d tasks.Delivery) string {
	if d.Generation == 0 {
		return ""
	}
	return strconv.Itoa(d.Generation)
}

// begunParts are the parts of begin.lua's answer after the reason.
const begunParts = 9

// begun reads the answer of begin.lua.
func begun(a []any) (tasks.Begun, error) {
	if len(a) != begunParts {
		return tasks.Begun{}, fmt.Errorf("begin: the script answered %v", a)
	}
	labels, err := codec.Labels(codec.Text(a[8]))
	if err != nil {
		return tasks.Begun{}, fmt.Errorf("begin: labels of the instance: %w", err)
	}
	return tasks.Begun{
		Address:    codec.Text(a[7]),
		Labels:     labels,
		Number:     int(codec.Number(a[0])),
		Failures:   int(codec.Number(a[1])),
		Lost:       int(codec.Number(a[2])),
		Key:        codec.Text(a[3]),
		Checkpoint: codec.Text(a[4]),
		Ambiguous:  codec.Number(a[5]) == 1,
		Unanswered: int(codec.Number(a[6])),
	}, nil
}

// lock takes the instance by itself. When another attempt at the same item has it,
// nothing changes, unless it is to be taken over.
func (t *Attempts) lock(ctx context.Context, d tasks.Delivery, token string, ttl time.Duration, takeOver bool) (locked, error) {
	keys := []string{codec.LockKey(d.InstanceID), codec.FleetKey(d.InstanceID), givenUpKey(d, token)}
	// A failover that forgets the lock would let another item in.
	a, err := reasoned(t.redis.Commit(ctx, lockScript, keys,
		d.ItemID, token, ttl.Milliseconds(), d.Tenant, codec.Flag(d.AllowUnregistered), codec.Flag(takeOver), d.Driver, generation(d)).Slice())
	switch {
	case err != nil:
		return locked{}, err
	case len(a) != 3:
		return locked{}, fmt.Errorf("the script answered %v", a)
	}
	return locked{codec.Text(a[0]), codec.Text(a[1]), codec.Text(a[2])}, nil
}

// unlock releases the instance by itself, if the attempt with this token has it.
func (t *Attempts) unlock(ctx context.Context, d tasks.Delivery, token string) error {
	return t.redis.Run(ctx, unlockScript, []string{codec.LockKey(d.InstanceID)}, d.ItemID, token).Err()
}

// givenUpKey exists if the attempt was given up before it locked the instance.
func givenUpKey(d tasks.Delivery, token string) string {
	return codec.LockKey(d.InstanceID) + ":" + token
}

// Send looks for the last time before an attempt sends its reset, and marks in the record
// that it may have: an attempt that is lost without that mark has sent nothing. Errors: a
// tasks.Refusal, among them tasks.Moved if the instance has another address than the given one; after
// any error nothing may be sent.
func (t *Attempts) Send(ctx context.Context, d tasks.Delivery, token, address string) error {
	record, n := codec.RecordOf(d)
	keys := []string{record}
	if t.separateLock {
		if _, err := reasoned(t.redis.Run(ctx, lookScript, []string{codec.LockKey(d.InstanceID), codec.FleetKey(d.InstanceID)},
			d.ItemID, token, d.Tenant, codec.Flag(d.AllowUnregistered), d.Driver, address, generation(d)).Slice()); err != nil {
			return fmt.Errorf("last look: %w", err)
		}
	} else {
		keys = append(keys, codec.LockKey(d.InstanceID), codec.FleetKey(d.InstanceID))
	}
	if _, err := reasoned(t.each(ctx, sendScript, keys, n, token, d.ItemID, d.Tenant, codec.Flag(d.AllowUnregistered), d.Driver, address, generation(d))); err != nil {
		return fmt.Errorf("last look: %w", err)
	}
	return nil
}

// Checkpoint keeps what a driver needs to resume the attempt. Errors:
// tasks.WrongToken.
func (t *Attempts) Checkpoint(ctx context.Context, d tasks.Delivery, token, checkpoint string) error {
	record, n := codec.RecordOf(d)
	kept, err := checkpointScript.Run(ctx, t.redis, []string{record}, n, token, checkpoint).Int()
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if kept == 0 {
		return fmt.Errorf("checkpoint: %w", tasks.WrongToken)
	}
	return nil
}

// finishStates are the letters of the record for the events that end an attempt.
var finishStates = map[tasks.Transition]string{
	tasks.Succeed: "s", tasks.Retry: "w", tasks.Fail: "f", tasks.LoseTrack: "u",
}

// Finish ends the attempt that holds the token and, when unlock is set, releases
// the instance in the same round trip. Errors: tasks.WrongToken.
func (t *Attempts) Finish(ctx context.Context, d tasks.Delivery, token string, o tasks.Outcome, unlock bool) (tasks.Ended, error) {
	ended, _, err := t.finish(ctx, d, token, o, codec.Flag(o.InDoubt), unlock, "")
	// Also if the record knows another attempt, or none: this one is over.
	if unlock && t.separateLock && (err == nil || errors.Is(err, tasks.WrongToken)) {
		_ = t.unlock(ctx, d, token) // otherwise it lapses
	}
	return ended, err
}

// GiveUp ends an attempt whose Begin had no answer and that has sent nothing: it ends like
// one that came to nothing if it has begun, and will not begin if it has not. What was in
// doubt before stays so. lock is the time to live that Begin had. Errors: tasks.WrongToken if
// it had not begun.
func (t *Attempts) GiveUp(ctx context.Context, d tasks.Delivery, token string, lock time.Duration) (tasks.Ended, error) {
	o := tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed, Message: "nothing was sent: Redis did not answer in time"}
	ended, inDoubt, err := t.finish(ctx, d, token, o, "x", true, strconv.Itoa(d.Number))
	if _, refused := errors.AsType[tasks.Refusal](err); err != nil && !refused || inDoubt || !t.separateLock {
		return ended, err
	}
	keys := []string{codec.LockKey(d.InstanceID), givenUpKey(d, token)}
	if dropped := t.redis.Commit(ctx, dropScript, keys, d.ItemID, token, lock.Milliseconds()).Err(); dropped != nil {
		return ended, fmt.Errorf("give up: %w", dropped)
	}
	return ended, err
}

// finish runs finish.lua, whose comment explains doubt and delivery.
func (t *Attempts) finish(ctx context.Context, d tasks.Delivery, token string, o tasks.Outcome, doubt string, unlock bool, delivery string) (ended tasks.Ended, inDoubt bool, err error) {
	record, n := codec.RecordOf(d)
	keys, released := []string{record}, ""
	if !t.separateLock {
		keys = append(keys, codec.LockKey(d.InstanceID))
		if unlock {
			released = codec.LockValue(d, token)
		}
	}
	a, err := t.each(ctx, finishScript, keys,
		n, token, finishStates[o.Transition], string(o.Code), o.Message,
		codec.Flag(o.Failure), doubt, codec.Flag(o.Busy), codec.Flag(o.Unanswered), released, o.MaxFailures, o.Delay.Milliseconds(), delivery, o.Evidence, string(o.Steps))
	switch {
	case err != nil:
		return ended, false, fmt.Errorf("finish: %w", err)
	case len(a) == 1:
		return ended, false, fmt.Errorf("finish: %w", tasks.WrongToken)
	case len(a) < 5:
		return ended, false, fmt.Errorf("finish: the script answered %v", a)
	}
	const inDoubtStill = 2
	ended = t.ended(ctx, d, a[2:], o.Code)
	ended.BusyFor = time.Duration(codec.Number(a[1])) * time.Millisecond
	return ended, codec.Number(a[0]) == inDoubtStill, nil
}

// ended reads the end of finish.lua's and abandon.lua's answers, counts it, and lists a
// failure.
func (t *Attempts) ended(ctx context.Context, d tasks.Delivery, a []any, code tasks.Code) tasks.Ended {
	ended := tasks.Ended{State: codec.StateOf(codec.Text(a[0])), JobFinal: codec.Number(a[2]) == 1}
	if ended.State.Final() {
		t.metrics.end(d, ended.State, code)
	}
	if ended.JobFinal {
		job, _, _ := tasks.ParseItemID(d.ItemID)
		t.quotas.JobEnded(ctx, d.Tenant, job, codec.Number(a[1]))
	}
	if ended.State == tasks.ItemFailed || ended.State == tasks.ItemUnknown {
		t.failures.Note(ctx, d.ItemID, d.DriverName(), code, codec.Number(a[1]))
	}
	if len(a) == 5 {
		t.metrics.stop(a[3:])
	}
	return ended
}

// Wait notes that the item waits for an instance that another item holds, and
// says for how long it has been waiting. Errors: a tasks.Refusal.
func (t *Attempts) Wait(ctx context.Context, d tasks.Delivery) (time.Duration, error) {
	record, n := codec.RecordOf(d)
	a, err := t.answered(ctx, waitScript, record, n, d.Number, d.InstanceID)
	if err != nil {
		return 0, fmt.Errorf("wait: %w", err)
	}
	return time.Duration(codec.Number(a[0])) * time.Millisecond, nil
}

// Abandon ends an item without an attempt: as failed, or as unknown when an
// earlier call is in doubt, with Outcome's MaxFailures. Errors: a tasks.Refusal.
func (t *Attempts) Abandon(ctx context.Context, d tasks.Delivery, code tasks.Code, message string, maxFailures int) (tasks.Ended, error) {
	record, n := codec.RecordOf(d)
	a, err := t.overDead(ctx, d, func(dead string) ([]any, error) {
		return t.answered(ctx, abandonScript, record, n, d.Number, d.InstanceID, string(code), message, maxFailures, dead)
	})
	if err != nil {
		return tasks.Ended{}, fmt.Errorf("abandon: %w", err)
	}
	if len(a) < 3 {
		return tasks.Ended{}, fmt.Errorf("abandon: the script answered %v", a)
	}
	return t.ended(ctx, d, a, code), nil
}
