package views

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// searchLimit is how many failures SearchJobs goes through for an error code.
const searchLimit = 1000

// SearchJobs returns the jobs of all tenants that match, newest first, and the cursor of
// the rest as Jobs does. With an instance or an error code it looks among the instance's
// newest jobs, or the newest failures, and there is no cursor. Errors: tasks.BadRequest for
// a cursor that is not one of ours.
func (v *Jobs) SearchJobs(ctx context.Context, s tasks.JobSearch) (jobs []tasks.Job, cursor string, err error) {
	switch {
	case s.InstanceID != "":
		jobs, err = v.InstanceJobs(ctx, s.InstanceID)
	case s.Code != "":
		jobs, err = v.failedJobs(ctx, s.Code)
	case s.Tenant != "":
		return v.listed(ctx, codec.JobsKey(s.Tenant), s.JobFilter)
	default:
		return v.listed(ctx, codec.AllJobsKey, s.JobFilter)
	}
	if err != nil {
		return nil, "", fmt.Errorf("search jobs: %w", err)
	}
	jobs = slices.DeleteFunc(jobs, func(j tasks.Job) bool { return !s.Match(j) })
	slices.SortFunc(jobs, func(a, b tasks.Job) int { return b.CreatedAt.Compare(a.CreatedAt.Time) })
	return jobs[:min(len(jobs), s.Limit)], "", nil
}

// failedJobs are the jobs of the newest failures with a code.
func (v *Jobs) failedJobs(ctx context.Context, code tasks.Code) ([]tasks.Job, error) {
	kinds, err := v.redis.ZRange(ctx, failuresKey, 0, -1).Result()
	if err != nil {
		return nil, err
	}
	pipe := v.redis.Pipeline()
	var listed []*redis.StringSliceCmd
	for _, kind := range kinds {
		if parseKind(kind).Code == code {
			listed = append(listed, pipe.ZRevRange(ctx, kindKey(kind), 0, searchLimit-1))
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	var ids []string
	for _, items := range listed {
		for _, item := range items.Val() {
			id, _, _ := tasks.ParseItemID(item)
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return v.JobsByID(ctx, slices.Compact(ids))
}

// SearchOpen returns the jobs of no run that match and have not ended, newest first, up to the filter's limit, and how many
// more there are. It looks at the open jobs alone, however many have ended; at up to 200,000 of them.
func (v *Jobs) SearchOpen(ctx context.Context, s tasks.JobSearch) (found []tasks.Job, more int, err error) {
	ids, err := v.redis.ZRange(ctx, codec.OpenKey, 0, censusMost-1).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("list open jobs: %w", err)
	}
	var loose []position
	for part := range slices.Chunk(ids, lookStep) {
		some, err := v.loose(ctx, s, part)
		if err != nil {
			return nil, 0, fmt.Errorf("list open jobs: %w", err)
		}
		loose = append(loose, some...)
	}
	slices.SortFunc(loose, func(a, b position) int { return cmp.Or(cmp.Compare(b.created, a.created), cmp.Compare(b.job, a.job)) })
	for len(loose) > 0 && len(found) < s.Limit {
		ids := make([]string, min(len(loose), scanStep, s.Limit-len(found)))
		for i := range ids {
			ids[i] = loose[i].job
		}
		loose = loose[len(ids):]
		jobs, err := v.JobsByID(ctx, ids)
		if err != nil {
			return nil, 0, fmt.Errorf("read open jobs: %w", err)
		}
		found = append(found, slices.DeleteFunc(jobs, func(j tasks.Job) bool { return !s.Match(j) || j.State.Final() })...)
	}
	return found, len(loose), nil
}

// loose are those of some jobs that are in no run and may match, judged by the headers of their records. Jobs that have
// ended are listed as open until they are swept.
func (v *Jobs) loose(ctx context.Context, s tasks.JobSearch, ids []string) (loose []position, err error) {
	pipe := v.redis.Pipeline()
	headers := make([]*redis.SliceCmd, len(ids))
	for i, id := range ids {
		headers[i] = pipe.HMGet(ctx, codec.JobKey(id), "run", "tenant", "labels", "created", "left")
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	for i, id := range ids {
		h, err := headers[i].Result()
		if err != nil && !wire.Answered(err) {
			return nil, err
		}
		if err != nil || codec.Text(h[0]) != "" || codec.Text(h[4]) == "0" || s.Tenant != "" && codec.Text(h[1]) != s.Tenant || !fits(s.JobFilter, codec.Text(h[2])) {
			continue
		}
		created, err := strconv.ParseInt(codec.Text(h[3]), 10, 64)
		if at := time.UnixMilli(created); err != nil || !s.Since.IsZero() && at.Before(s.Since) || !s.Until.IsZero() && !at.Before(s.Until) {
			continue // it is gone, or of another time
		}
		loose = append(loose, position{created, id})
	}
	return loose, nil
}
