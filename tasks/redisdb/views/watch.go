package views

import (
	"context"
	"errors"

	"batchreset/tasks"
)

// FinishedChannel is where a job that ends is announced by its ID. It is a hint.
const FinishedChannel = "reset:finished"

// Finished calls heard with each job that ends, until ctx ends. Some may be missed, when
// the connection to Redis breaks for example.
func (v *Jobs) Finished(ctx context.Context, heard func(job string)) error {
	return v.redis.Subscribed(ctx, FinishedChannel, heard)
}

// JobsByID returns those of the jobs that there are, in the same order. Those that cannot be
// read are left out, and logged.
func (v *Jobs) JobsByID(ctx context.Context, ids []string) ([]tasks.Job, error) {
	var jobs []tasks.Job
	for i, read := range v.Records(ctx, ids) {
		switch {
		case read.Err == nil:
			jobs = append(jobs, read.Job)
		case errors.Is(read.Err, tasks.JobGone):
		default:
			if err := v.leftOut.Note(ids[i], read.Err); err != nil {
				return nil, err
			}
		}
	}
	return jobs, nil
}
