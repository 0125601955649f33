package views

import (
	"context"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
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
