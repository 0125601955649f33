package views

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// FinishedChannel is where a job that ends is announced by its ID. It is a hint.
const FinishedChannel = "reset:finished"

// Finished calls heard with each job that ends, until ctx ends. Some may be missed, when
// the connection to Redis breaks for example.
func (v *Jobs) Finished(ctx context.Context, heard func(job string)) error {
	return v.redis.Subscribed(ctx, FinishedChannel, heard)
}

// Tags returns the tags of those jobs that have a record.
func (v *Jobs) Tags(ctx context.Context, jobs []string) (map[string]string, error) {
	pipe := v.redis.Pipeline()
	answers := make([]*redis.SliceCmd, len(jobs))
	for i, id := range jobs {
		answers[i] = pipe.HMGet(ctx, codec.JobKey(id), "created", "rev")
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	tags := make(map[string]string, len(jobs))
	for i, id := range jobs {
		header, err := answers[i].Result()
		if wire.Answered(err) {
			continue // it is no record
		}
		if err != nil {
			return nil, fmt.Errorf("read job versions: %w", err)
		}
		if created, revision, _ := codec.Revision(header[0], header[1]); !created.IsZero() {
			tags[id] = tasks.Job{CreatedAt: created, Revision: revision}.Tag()
		}
	}
	return tags, nil
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
