package redisdb

import (
	"context"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

// searchLimit is how many failures SearchJobs goes through for an error code.
const searchLimit = 1000

// SearchJobs returns the jobs of all tenants that match, newest first, and the cursor of
// the rest as Jobs does. With an instance or an error code it looks among the instance's
// newest jobs, or the newest failures, and there is no cursor. Errors: tasks.BadRequest for
// a cursor that is not one of ours.
func (db *DB) SearchJobs(ctx context.Context, s tasks.JobSearch) (jobs []tasks.Job, cursor string, err error) {
	switch {
	case s.InstanceID != "":
		jobs, err = db.InstanceJobs(ctx, s.InstanceID)
	case s.Code != "":
		jobs, err = db.failedJobs(ctx, s.Code)
	case s.Tenant != "":
		return db.listed(ctx, jobsKey(s.Tenant), s.JobFilter)
	default:
		return db.listed(ctx, allJobsKey, s.JobFilter)
	}
	if err != nil {
		return nil, "", fmt.Errorf("search jobs: %w", err)
	}
	jobs = slices.DeleteFunc(jobs, func(j tasks.Job) bool { return !s.Match(j) })
	slices.SortFunc(jobs, func(a, b tasks.Job) int { return b.CreatedAt.Compare(a.CreatedAt.Time) })
	return jobs[:min(len(jobs), s.Limit)], "", nil
}

// failedJobs are the jobs of the newest failures with a code.
func (db *DB) failedJobs(ctx context.Context, code tasks.Code) ([]tasks.Job, error) {
	kinds, err := db.rdb.ZRange(ctx, failuresKey, 0, -1).Result()
	if err != nil {
		return nil, err
	}
	pipe := db.rdb.Pipeline()
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
	return db.JobsByID(ctx, slices.Compact(ids))
}
