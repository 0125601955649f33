package redisdb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// relistPage is how many keys are looked at at once.
const relistPage = 1000

// Relist lists the open jobs and runs of a Cluster that are not listed as open, and says how many. A record is listed before it
// is made; but the list is on another primary, which may have gone back to an earlier moment than the record's. On one server,
// record and list are of the same moment, and nothing is looked at.
func (s *Sweep) Relist(ctx context.Context) (int, error) {
	if !s.redis.Clustered() {
		return 0, nil
	}
	var listed atomic.Int64
	err := s.redis.ForEachPrimary(ctx, func(ctx context.Context, server redis.Cmdable, _ string) error {
		for cursor := uint64(0); ; {
			keys, next, err := server.ScanType(ctx, cursor, "reset:*{*}", relistPage, "hash").Result()
			if err != nil {
				return err
			}
			n, err := s.relist(ctx, server, keys)
			listed.Add(int64(n))
			if err != nil {
				return err
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	})
	if err != nil {
		return int(listed.Load()), fmt.Errorf("list open records anew: %w", err)
	}
	return int(listed.Load()), nil
}

// relist is Relist for some keys of a server.
func (s *Sweep) relist(ctx context.Context, server redis.Cmdable, keys []string) (listed int, err error) {
	pipe := server.Pipeline()
	jobs, runs := map[string]*redis.SliceCmd{}, map[string]*redis.SliceCmd{}
	for _, key := range keys {
		if run, ok := within(key, codec.RunKey); ok {
			runs[run] = pipe.HMGet(ctx, key, "state")
		} else if job, ok := within(key, codec.JobKey); ok {
			jobs[job] = pipe.HMGet(ctx, key, "left", "created", "tenant")
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, err
	}
	var openJobs, openRuns []string
	for id, job := range jobs {
		if left := codec.Text(job.Val()[0]); left != "" && left != "0" {
			openJobs = append(openJobs, id)
		}
	}
	for id, run := range runs {
		if state := codec.Text(run.Val()[0]); state != "" && !tasks.RunState(state).Final() {
			openRuns = append(openRuns, id)
		}
	}
	added, err := s.listMissing(ctx, codec.OpenKey, openJobs)
	for _, id := range added {
		if created, err := strconv.ParseInt(codec.Text(jobs[id].Val()[1]), 10, 64); err == nil { // else nobody can read the record
			s.jobs.IndexAt(ctx, created, codec.Text(jobs[id].Val()[2]), id)
		}
	}
	if err != nil {
		return len(added), err
	}
	addedRuns, err := s.listMissing(ctx, codec.OpenRunsKey, openRuns)
	return len(added) + len(addedRuns), err
}

// within is the ID in the name of a key.
func within(key string, name func(id string) string) (id string, ok bool) {
	before, after, _ := strings.Cut(name("\n"), "\n")
	id, ok = strings.CutPrefix(key, before)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, after)
	return id, ok && !strings.ContainsAny(id, "{}")
}

// listMissing makes those members of an index that are not in it due now, and returns them.
func (s *Sweep) listMissing(ctx context.Context, index string, members []string) (added []string, err error) {
	if len(members) == 0 {
		return nil, nil
	}
	pipe := s.redis.Pipeline()
	scores := make([]*redis.FloatCmd, len(members))
	for i, member := range members {
		scores[i] = pipe.ZScore(ctx, index, member)
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	due := float64(s.redis.Now().UnixMilli())
	for i, member := range members {
		switch err := scores[i].Err(); {
		case errors.Is(err, redis.Nil):
		case err != nil:
			return added, err
		default:
			continue
		}
		n, err := s.redis.ZAddNX(ctx, index, redis.Z{Score: due, Member: member}).Result()
		if err != nil {
			return added, err
		}
		if n > 0 {
			added = append(added, member)
		}
	}
	return added, nil
}
