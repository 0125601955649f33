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
	sub := db.rdb.Subscribe(ctx, channel)
	defer func() { _ = sub.Close() }() // nothing is lost with it
	messages := sub.Channel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-messages:
			if !ok {
				return nil
			}
			heard(m.Payload)
		}
	}
}

// Tags returns the tags of those jobs that have a record.
func (db *DB) Tags(ctx context.Context, jobs []string) (map[string]string, error) {
	pipe := db.rdb.Pipeline()
	answers := make([]*redis.SliceCmd, len(jobs))
	for i, id := range jobs {
		answers[i] = pipe.HMGet(ctx, jobKey(id), "created", "rev")
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read job versions: %w", err)
	}
	tags := make(map[string]string, len(jobs))
	for i, id := range jobs {
		v := answers[i].Val()
		f := numbers{fields: []string{text(v[0]), text(v[1])}}
		if created := f.count(0); created > 0 {
			tags[id] = tasks.Job{CreatedAt: tasks.FromMillis(created), Revision: f.count(1)}.Tag()
		}
	}
	return tags, nil
}

// JobsByID returns those of the jobs that there are, in the same order.
func (db *DB) JobsByID(ctx context.Context, ids []string) ([]tasks.Job, error) {
	pipe := db.rdb.Pipeline()
	answers := make([]*redis.MapStringStringCmd, len(ids))
	for i, id := range ids {
		answers[i] = pipe.HGetAll(ctx, jobKey(id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read job records: %w", err)
	}
	var jobs []tasks.Job
	for i, id := range ids {
		job, err := decodeJob(id, answers[i].Val())
		if answers[i].Val()["v"] == "1" {
			job, err = db.Job(ctx, id) // which rewrites it
		}
		if errors.Is(err, tasks.JobGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}
