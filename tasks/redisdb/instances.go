package redisdb

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

// The index of jobs by instance is made small: millions of instances have few jobs each,
// and a key of its own for each would take more than its jobs. A day has 16 strings, each
// for the instances whose hash ends alike, of entries of 20 bytes: the ID of a job, and
// the hash of an instance in it. It may name jobs that have no record, and, once in
// billions, of other instances; both are seen in the records.
const (
	instanceParts = 16
	instanceEntry = 16 + 4
)

func instancesKey(day, part int64) string {
	return fmt.Sprintf("reset:instances:%d:%x", day, part)
}

func dayOf(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

func hashInstance(id string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return h.Sum32()
}

// instanceIndex remembers for which strings of a day this process has seen to it that
// they expire.
type instanceIndex struct {
	mu      sync.Mutex
	day     int64
	expires [instanceParts]bool
}

// add appends a job's instances in the pipeline, which lasts for as long as any record
// of that day.
func (x *instanceIndex) add(ctx context.Context, pipe redis.Pipeliner, now time.Time, lifetime time.Duration, job string, instances []string) {
	id, err := hex.DecodeString(job)
	if err != nil {
		return // a job ID is always hex
	}
	var parts [instanceParts][]byte
	for _, instance := range instances {
		h := hashInstance(instance)
		part := &parts[h%instanceParts]
		*part = binary.BigEndian.AppendUint32(append(*part, id...), h)
	}
	day := dayOf(now)
	for n, entries := range parts {
		if entries != nil {
			key := instancesKey(day, int64(n))
			pipe.Append(ctx, key, string(entries))
			if x.first(day, n) {
				pipe.Expire(ctx, key, lifetime+24*time.Hour)
			}
		}
	}
}

// first reports whether this is the first time that it is asked about a string.
func (x *instanceIndex) first(day int64, part int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if day != x.day {
		x.day, x.expires = day, [instanceParts]bool{}
	}
	first := !x.expires[part]
	x.expires[part] = true
	return first
}

// forget makes it see to that again, after a pipeline that failed.
func (x *instanceIndex) forget() {
	x.mu.Lock()
	x.day = 0
	x.mu.Unlock()
}

// instanceJobs is how many jobs of an instance are read at the most.
const instanceJobs = 200

// InstanceJobs returns the newest jobs that have the instance, newest first, at most 200.
func (db *DB) InstanceJobs(ctx context.Context, instance string) ([]tasks.Job, error) {
	now, err := db.rdb.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("jobs of an instance: %w", err)
	}
	h := hashInstance(instance)
	pipe := db.rdb.Pipeline()
	var days []*redis.StringCmd
	for day := dayOf(now); day >= dayOf(now.Add(-db.lifetime())); day-- {
		days = append(days, pipe.Get(ctx, instancesKey(day, int64(h%instanceParts))))
	}
	_, _ = pipe.Exec(ctx) // each day is looked at by itself: most have none
	var ids []string
	for _, day := range days {
		entries, err := day.Bytes()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("jobs of an instance: %w", err)
		}
		for end := len(entries) - len(entries)%instanceEntry; end > 0 && len(ids) < instanceJobs; end -= instanceEntry {
			entry := entries[end-instanceEntry : end]
			id := hex.EncodeToString(entry[:16])
			if binary.BigEndian.Uint32(entry[16:]) == h && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	jobs, err := db.JobsByID(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("jobs of an instance: %w", err)
	}
	return slices.DeleteFunc(jobs, func(j tasks.Job) bool { return !tasks.JobFilter{InstanceID: instance}.Match(j) }), nil
}

// Lock returns the item that is resetting the instance, or "".
func (db *DB) Lock(ctx context.Context, instance string) (item string, err error) {
	value, err := db.rdb.Get(ctx, lockKey(instance)).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read lock: %w", err)
	}
	item, _, _ = strings.Cut(value, " ")
	return item, nil
}
