package runs

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// Channel is where a run is announced of which something has changed: a runner may have something to do,
// and those who watch it something to see. It is a hint.
const Channel = "reset:runs"

// wake has a runner look at a run at once.
func (r *Runs) wake(ctx context.Context, id string) error {
	if err := r.hurry(ctx, id); err != nil {
		return err
	}
	return r.announce(ctx, id)
}

func (r *Runs) announce(ctx context.Context, id string) error {
	if err := r.redis.Publish(ctx, Channel, id).Err(); err != nil {
		return fmt.Errorf("announce run: %w", err)
	}
	return nil
}

// Announced calls heard with each run that is announced, until ctx ends. Some may be missed.
func (r *Runs) Announced(ctx context.Context, heard func(run string)) error {
	return r.redis.Subscribed(ctx, Channel, heard)
}

// hurry makes a run that has not ended due now.
func (r *Runs) hurry(ctx context.Context, id string) error {
	now := float64(r.redis.Now().UnixMilli())
	if err := r.redis.ZAddArgs(ctx, codec.OpenRunsKey, redis.ZAddArgs{XX: true, LT: true, Members: []redis.Z{{Score: now, Member: id}}}).Err(); err != nil {
		return fmt.Errorf("hurry run: %w", err)
	}
	return nil
}

// in is in which record a change may be made.
type in struct {
	states    []tasks.RunState
	cancelled bool  // one that is being cancelled, too
	revision  int64 // this one alone; 0 = any
}

// errMoved says that a record is another one than that which was read.
const errMoved tasks.Refusal = "the run has changed meanwhile"

// wrongState says that something cannot be done with a run in its state.
type wrongState struct{ state string }

func (e *wrongState) Error() string { return "the run is " + e.state }

// change makes fields of a run others; an empty value takes a field out. Errors: tasks.RunGone; errMoved; a
// *wrongState.
func (r *Runs) change(ctx context.Context, id string, where in, fields ...any) error {
	var allowed strings.Builder
	allowed.WriteByte(' ')
	for _, s := range where.states {
		allowed.WriteString(string(s) + " ")
	}
	args := append([]any{allowed.String(), codec.Flag(where.cancelled), where.revision}, fields...)
	said, err := r.redis.Commit(ctx, changeScript, []string{codec.RunKey(id)}, args...).Text()
	if err != nil {
		return fmt.Errorf("change run: %w", err)
	}
	return verdict(said)
}

// What the scripts that change a record say, besides the state in which it cannot be changed.
const (
	saysDone  = "done"
	saysGone  = "gone"
	saysMoved = "moved"
)

func verdict(said string) error {
	switch said {
	case saysDone:
		return nil
	case saysGone:
		return tasks.RunGone
	case saysMoved:
		return errMoved
	}
	return &wrongState{said}
}

// held is the record's field for why nothing begins.
func (r *Runs) held(reason string) string {
	return strconv.FormatInt(r.redis.Now().UnixMilli(), 10) + " " + reason
}
