package views

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// Jobs reads job records, and finds them by tenant, instance and failure.
type Jobs struct {
	redis     *wire.Client
	lifetime  time.Duration
	charge    func(ctx context.Context, tenant string, requests int)
	leftOut   *codec.LeftOut
	lists     turns
	instances instanceIndex
}

// NewJobs makes Jobs. lifetime is after what time a record is gone for certain. charge counts a
// list that looks at much as so many more requests of its tenant.
func NewJobs(client *wire.Client, lifetime time.Duration, charge func(ctx context.Context, tenant string, requests int), leftOut *codec.LeftOut) *Jobs {
	return &Jobs{redis: client, lifetime: lifetime, charge: charge, leftOut: leftOut}
}

// Job returns the record of a job. Errors: tasks.JobGone.
func (v *Jobs) Job(ctx context.Context, id string) (tasks.Job, error) {
	hash, err := v.redis.HGetAll(ctx, codec.JobKey(id)).Result()
	if err != nil {
		return tasks.Job{}, fmt.Errorf("read job record: %w", err)
	}
	return codec.Job(id, hash)
}

// Records reads jobs, each by itself: one that cannot be read says so, in the same order.
func (v *Jobs) Records(ctx context.Context, ids []string) []tasks.Read {
	pipe := v.redis.Pipeline()
	answers := make([]*redis.MapStringStringCmd, len(ids))
	for i, id := range ids {
		answers[i] = pipe.HGetAll(ctx, codec.JobKey(id))
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	found := make([]tasks.Read, len(ids))
	for i, id := range ids {
		hash, err := answers[i].Result()
		switch {
		case err != nil:
			found[i].Err = fmt.Errorf("read job record: %w", err)
		default:
			found[i].Job, found[i].Err = codec.Job(id, hash)
		}
	}
	return found
}

// Outlines reads of jobs what codec.Outline does, each by itself as Records does.
func (v *Jobs) Outlines(ctx context.Context, ids []string) []tasks.Read {
	pipe := v.redis.Pipeline()
	answers := make([]*redis.StringSliceCmd, len(ids))
	for i, id := range ids {
		answers[i] = redis.NewStringSliceCmd(ctx, "hgetall", codec.JobKey(id)) // as it comes: a map costs more than all the rest
		_ = pipe.Process(ctx, answers[i])
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	found := make([]tasks.Read, len(ids))
	for i, id := range ids {
		fields, err := answers[i].Result()
		if err != nil {
			found[i].Err = fmt.Errorf("read job record: %w", err)
			continue
		}
		found[i].Job, found[i].Err = codec.Outline(id, fields)
	}
	return found
}

// OutlinesOfWaiting is Outlines for jobs of which most have not begun: of these it reads three fields. For the others it takes a
// round trip more.
func (v *Jobs) OutlinesOfWaiting(ctx context.Context, ids []string) []tasks.Read {
	pipe := v.redis.Pipeline()
	headers := make([]*redis.SliceCmd, len(ids))
	for i, id := range ids {
		headers[i] = pipe.HMGet(ctx, codec.JobKey(id), codec.UntouchedFields...)
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	found := make([]tasks.Read, len(ids))
	var begun []int
	for i, id := range ids {
		header, err := headers[i].Result()
		untouched := false
		if err == nil {
			found[i].Job, untouched = codec.Untouched(id, header)
		}
		if !untouched {
			begun = append(begun, i)
		}
	}
	whole := make([]string, len(begun))
	for n, i := range begun {
		whole[n] = ids[i]
	}
	for n, read := range v.Outlines(ctx, whole) {
		found[begun[n]] = read
	}
	return found
}
