package redisdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

// finishedChannel is where a job that ends is announced by its ID. It is a hint.
const finishedChannel = "reset:finished"

// Finished calls heard with each job that ends, until ctx ends. Some may be missed, when
// the connection to Redis breaks for example.
func (db *DB) Finished(ctx context.Context, heard func(job string)) error {
	return db.subscribe(ctx, finishedChannel, heard)
}

// subscribe calls heard with what comes over a channel, until ctx ends.
func (db *DB) subscribe(ctx context.Context, channel string, heard func(string)) error {
	defer db.shared.listen(channel, heard)()
	<-ctx.Done()
	return nil
}

// Tags returns the tags of those jobs that have a record.
func (db *DB) Tags(ctx context.Context, jobs []string) (map[string]string, error) {
	pipe := db.rdb.Pipeline()
	answers := make([]*redis.SliceCmd, len(jobs))
	for i, id := range jobs {
		answers[i] = pipe.HMGet(ctx, jobKey(id), "created", "rev")
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	tags := make(map[string]string, len(jobs))
	for i, id := range jobs {
		v, err := answers[i].Result()
		if answered(err) {
			continue // it is no record
		}
		if err != nil {
			return nil, fmt.Errorf("read job versions: %w", err)
		}
		f := numbers{fields: []string{text(v[0]), text(v[1])}}
		if created := f.count(0); created > 0 {
			tags[id] = tasks.Job{CreatedAt: tasks.FromMillis(created), Revision: f.count(1)}.Tag()
		}
	}
	return tags, nil
}

// JobsByID returns those of the jobs that there are, in the same order. Those that cannot be
// read are left out, and logged.
func (db *DB) JobsByID(ctx context.Context, ids []string) ([]tasks.Job, error) {
	var jobs []tasks.Job
	for i, read := range db.Records(ctx, ids) {
		switch {
		case read.Err == nil:
			jobs = append(jobs, read.Job)
		case errors.Is(read.Err, tasks.JobGone):
		default:
			if err := db.leaveOut(ids[i], read.Err); err != nil {
				return nil, err
			}
		}
	}
	return jobs, nil
}
