package views

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// The index of jobs by instance is made small: millions of instances have few jobs each,
// and a key of its own for each would take more than its jobs. A day has one string, to which
// each job appends its ID, the number of its instances, and four bytes of each one's hash.
// Who looks for an instance reads all of that: 4.5 MB for a million instances in jobs of
// 32. It may name jobs that have no record, and, once in billions, of other instances;
// both are seen in the records.
const (
	indexedJob  = 16 + 1 // bytes, and then
	indexedHash = 4      // for each instance
)

func instancesKey(day int64) string { return fmt.Sprintf("reset:instances:%d", day) }

func dayOf(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

func hashInstance(id string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return h.Sum32()
}

// Index lists a job that is about to be created, in the pipeline: by tenant, among all, and
// by instance. Forget must follow if that fails.
func (v *Jobs) Index(ctx context.Context, pipe redis.Pipeliner, now time.Time, tenant, job string, instances []string) {
	for _, jobs := range []string{codec.JobsKey(tenant), codec.AllJobsKey} {
		pipe.ZAdd(ctx, jobs, redis.Z{Score: float64(now.UnixMilli()), Member: job})
		pipe.ZRemRangeByScore(ctx, jobs, "-inf", score(now.Add(-v.lifetime)))
		pipe.Expire(ctx, jobs, v.lifetime)
	}
	v.instances.add(ctx, pipe, now, v.lifetime, job, instances)
}

// Forget is for an Index that may not have been written.
func (v *Jobs) Forget() { v.instances.forget() }

// IndexAt lists a job with the time at which it was created, by tenant and among all: another
// sending of its request has listed it with another time. Listings select by that; it is not
// worth an error.
func (v *Jobs) IndexAt(ctx context.Context, created int64, tenant, job string) {
	for _, jobs := range []string{codec.JobsKey(tenant), codec.AllJobsKey} {
		_ = v.redis.ZAdd(ctx, jobs, redis.Z{Score: float64(created), Member: job}).Err()
	}
}

// instanceIndex remembers the last day for which this process has seen to it that its string
// expires.
type instanceIndex struct{ day atomic.Int64 }

// add appends a job in the pipeline, to a string that lasts for as long as any record of
// that day.
func (x *instanceIndex) add(ctx context.Context, pipe redis.Pipeliner, now time.Time, lifetime time.Duration, job string, instances []string) {
	entry, err := hex.AppendDecode(make([]byte, 0, indexedJob+len(instances)*indexedHash), []byte(job))
	if err != nil || len(instances) > math.MaxUint8 {
		return // a job ID is always hex, and a job never has so many
	}
	entry = append(entry, byte(len(instances)))
	for _, instance := range instances {
		entry = binary.BigEndian.AppendUint32(entry, hashInstance(instance))
	}
	day := dayOf(now)
	pipe.Append(ctx, instancesKey(day), string(entry))
	if x.day.Swap(day) != day {
		pipe.Expire(ctx, instancesKey(day), lifetime+24*time.Hour)
	}
}

// forget makes it see to that again, after a pipeline that failed.
func (x *instanceIndex) forget() {
	x.day.Store(0)
}

// instanceJobs is how many jobs of an instance are read at the most.
const instanceJobs = 200

// InstanceJobs returns the newest jobs that have the instance, newest first, at most 200.
func (v *Jobs) InstanceJobs(ctx context.Context, instance string) ([]tasks.Job, error) {
	ids, _, err := v.indexed(ctx, map[uint32]bool{hashInstance(instance): true})
	if err != nil {
		return nil, fmt.Errorf("jobs of an instance: %w", err)
	}
	jobs, err := v.JobsByID(ctx, ids[:min(len(ids), instanceJobs)])
	if err != nil {
		return nil, fmt.Errorf("jobs of an instance: %w", err)
	}
	return slices.DeleteFunc(jobs, func(j tasks.Job) bool { return !tasks.JobFilter{InstanceID: instance}.Match(j) }), nil
}

// indexed returns the jobs that may have an instance with one of these hashes, newest first, and how many
// bytes of the index were read for that.
func (v *Jobs) indexed(ctx context.Context, hashes map[uint32]bool) (ids []string, size int, err error) {
	now, err := v.redis.Time(ctx).Result()
	if err != nil {
		return nil, 0, err
	}
	pipe := v.redis.Pipeline()
	var days []*redis.StringCmd
	for day := dayOf(now); day >= dayOf(now.Add(-v.lifetime)); day-- {
		days = append(days, pipe.Get(ctx, instancesKey(day)))
	}
	_, _ = pipe.Exec(ctx) // each day is looked at by itself: most have none
	for _, day := range days {
		entries, err := day.Bytes()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, 0, err
		}
		size += len(entries)
		found := indexedJobs(entries, hashes)
		slices.Reverse(found)
		ids = append(ids, found...)
	}
	return ids, size, nil
}

const (
	// openAtOnce is how many jobs are looked up in the index of open ones at a time.
	openAtOnce = 500
	// indexPerRequest is how much of the index of instances may be read for one request.
	indexPerRequest = 1 << 20
)

// OpenInstances returns those of the instances that are being reset, or of which an open item of the
// tenant says that they will be.
func (v *Jobs) OpenInstances(ctx context.Context, tenant string, instances []string) (map[string]bool, error) {
	open, err := v.Locked(ctx, instances)
	if err != nil {
		return nil, err
	}
	hashes := make(map[uint32]bool, len(instances))
	for _, id := range instances {
		hashes[hashInstance(id)] = true
	}
	ids, size, err := v.indexed(ctx, hashes)
	if err != nil {
		return nil, fmt.Errorf("jobs of instances: %w", err)
	}
	if more := size / indexPerRequest; more > 0 {
		v.charge(ctx, tenant, more)
	}
	for some := range slices.Chunk(ids, openAtOnce) {
		scores, err := v.redis.ZMScore(ctx, codec.OpenKey, some...).Result()
		if err != nil {
			return nil, fmt.Errorf("open jobs of instances: %w", err)
		}
		var listed []string
		for i, score := range scores {
			if score != 0 { // its next look, or 0 for a job that is not in the index
				listed = append(listed, some[i])
			}
		}
		jobs, err := v.JobsByID(ctx, listed)
		if err != nil {
			return nil, fmt.Errorf("open jobs of instances: %w", err)
		}
		for _, job := range jobs {
			for _, it := range job.Items {
				if job.Tenant == tenant && !it.State.Final() {
					open[it.InstanceID] = true
				}
			}
		}
	}
	return open, nil
}

// indexedJobs are the jobs of a day that have an instance with one of these hashes, oldest first.
func indexedJobs(entries []byte, wanted map[uint32]bool) (ids []string) {
	for len(entries) >= indexedJob {
		job, hashes := entries[:indexedJob-1], entries[indexedJob:]
		end := min(int(entries[indexedJob-1])*indexedHash, len(hashes))
		for n := 0; n+indexedHash <= end; n += indexedHash {
			if wanted[binary.BigEndian.Uint32(hashes[n:])] {
				ids = append(ids, hex.EncodeToString(job))
				break
			}
		}
		entries = hashes[end:]
	}
	return ids
}

// Locked returns those instances that an item has just now.
func (v *Jobs) Locked(ctx context.Context, instances []string) (map[string]bool, error) {
	pipe := v.redis.Pipeline()
	answers := make([]*redis.IntCmd, len(instances))
	for i, id := range instances {
		answers[i] = pipe.Exists(ctx, codec.LockKey(id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read locks: %w", err)
	}
	locked := map[string]bool{}
	for i, id := range instances {
		if answers[i].Val() == 1 {
			locked[id] = true
		}
	}
	return locked, nil
}

// Lock returns the item that is resetting the instance, or "".
func (v *Jobs) Lock(ctx context.Context, instance string) (item string, err error) {
	value, err := v.redis.Get(ctx, codec.LockKey(instance)).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read lock: %w", err)
	}
	item, _, _ = strings.Cut(value, " ")
	return item, nil
}
