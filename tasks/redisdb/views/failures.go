package views

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// failuresKey is a sorted set of the kinds of failures by the time of the last one. The
// set of a kind has the IDs of the items by the time at which they ended.
const failuresKey = "reset:failures"

func kindKey(kind string) string { return failuresKey + ":{" + kind + "}" }

const (
	// failuresKept is how long a failure is listed, and failuresOfKind how many of one kind
	// are, so that an upstream that is down for a day does not fill Redis.
	failuresKept   = 31 * 24 * time.Hour
	failuresOfKind = 100_000
	// failureKinds bounds the kinds, for upstreams that make up codes.
	failureKinds = 200
)

// Failures lists the items that failed or are unknown, by kind.
type Failures struct {
	redis   *wire.Client
	jobs    *Jobs
	leftOut *codec.LeftOut
}

// NewFailures makes Failures.
func NewFailures(client *wire.Client, jobs *Jobs, leftOut *codec.LeftOut) *Failures {
	return &Failures{client, jobs, leftOut}
}

// kindName is a kind as a member of failuresKey. No driver has a space in its name.
func kindName(k tasks.FailureKind) string { return k.Driver + " " + string(k.Code) }

func parseKind(name string) tasks.FailureKind {
	driver, code, _ := strings.Cut(name, " ")
	return tasks.FailureKind{Driver: driver, Code: tasks.Code(code)}
}

// Note lists an item that ended at a time of Redis's clock. The list is for
// operators, and repeated by IndexFailures: it is not worth failing for.
func (v *Failures) Note(ctx context.Context, item, driver string, code tasks.Code, at int64) {
	pipe := v.redis.Pipeline()
	listFailure(ctx, pipe, kindName(tasks.FailureKind{Driver: driver, Code: code}), item, at)
	_, _ = pipe.Exec(ctx)
}

// listFailure lists the kind first: a set that exists is always found.
func listFailure(ctx context.Context, pipe redis.Pipeliner, kind, item string, at int64) {
	when := float64(at)
	pipe.ZAddArgs(ctx, failuresKey, redis.ZAddArgs{GT: true, Members: []redis.Z{{Score: when, Member: kind}}})
	pipe.ZRemRangeByRank(ctx, failuresKey, 0, -failureKinds-1)
	pipe.Expire(ctx, failuresKey, failuresKept)
	key := kindKey(kind)
	pipe.ZAddArgs(ctx, key, redis.ZAddArgs{GT: true, Members: []redis.Z{{Score: when, Member: item}}})
	pipe.ZRemRangeByScore(ctx, key, "-inf", strconv.FormatInt(at-failuresKept.Milliseconds(), 10))
	pipe.ZRemRangeByRank(ctx, key, 0, -failuresOfKind-1)
	pipe.Expire(ctx, key, failuresKept)
}

// IndexFailures lists the job's items that failed or are unknown, unless they are listed: a
// process may die between the end of an item and its entry. Each is listed under the driver that
// its record names.
func (v *Failures) IndexFailures(ctx context.Context, job tasks.Job) error {
	if job.Counts.Failed+job.Counts.Unknown == 0 {
		return nil
	}
	kinds, err := v.redis.ZRange(ctx, failuresKey, 0, -1).Result()
	if err != nil {
		return fmt.Errorf("index failures: %w", err)
	}
	pipe := v.redis.Pipeline()
	listed := make([][]*redis.FloatCmd, len(job.Items))
	for i, it := range job.Items {
		for _, kind := range kinds {
			if hasFailed(it) && parseKind(kind).Code == it.Code {
				listed[i] = append(listed[i], pipe.ZScore(ctx, kindKey(kind), it.ID))
			}
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("index failures: %w", err)
	}
	pipe = v.redis.Pipeline()
	for i, it := range job.Items {
		if hasFailed(it) && !slices.ContainsFunc(listed[i], func(c *redis.FloatCmd) bool { return c.Err() == nil }) {
			listFailure(ctx, pipe, kindName(tasks.FailureKind{Driver: it.DriverName(), Code: it.Code}), it.ID, it.FinishedAt.UnixMilli())
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("index failures: %w", err)
	}
	return nil
}

func hasFailed(it tasks.Item) bool {
	return it.State == tasks.ItemFailed || it.State == tasks.ItemUnknown
}

// FailureKinds counts the failures of the time before now, in equal parts of it, the kind
// with the most first.
func (v *Failures) FailureKinds(ctx context.Context, before time.Duration, parts int) ([]tasks.FailureCount, error) {
	now, err := v.redis.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("count failures: %w", err)
	}
	start := now.Add(-before)
	listed, err := v.redis.ZRevRangeByScoreWithScores(ctx, failuresKey, &redis.ZRangeBy{Min: score(start), Max: "+inf"}).Result()
	if err != nil {
		return nil, fmt.Errorf("count failures: %w", err)
	}
	pipe := v.redis.Pipeline()
	counts := make([]*redis.IntCmd, 0, len(listed)*parts)
	for _, z := range listed {
		key := kindKey(z.Member.(string))
		for n := range parts {
			from, to := start.Add(before/time.Duration(parts)*time.Duration(n)), start.Add(before/time.Duration(parts)*time.Duration(n+1))
			upTo := "(" + score(to)
			if n == parts-1 {
				upTo = "+inf" // an item may end while we look
			}
			counts = append(counts, pipe.ZCount(ctx, key, score(from), upTo))
		}
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	var kinds []tasks.FailureCount
	for i, z := range listed {
		kind := tasks.FailureCount{FailureKind: parseKind(z.Member.(string)), Last: tasks.FromMillis(int64(z.Score))}
		var troubles error
		for _, c := range counts[i*parts : (i+1)*parts] {
			kind.Over = append(kind.Over, c.Val())
			troubles = cmp.Or(troubles, c.Err())
		}
		if troubles == nil {
			kinds = append(kinds, kind)
		} else if err := v.leftOut.Note(kindKey(z.Member.(string)), troubles); err != nil {
			return nil, fmt.Errorf("count failures: %w", err)
		}
	}
	slices.SortStableFunc(kinds, func(a, b tasks.FailureCount) int { return int(b.Total() - a.Total()) })
	return kinds, nil
}

const (
	// failuresLooked is how many entries are looked at for the failures of one tenant, looksOfKind how many of a kind
	// at least, and failuresAtOnce how many at a time.
	failuresLooked = 20_000
	looksOfKind    = 500
	failuresAtOnce = 500
)

// FailureKindsOf is FailureKinds for one tenant: of the entries whose record is still kept, among the newest ones of each
// kind. Entries do not say whose they are.
func (v *Failures) FailureKindsOf(ctx context.Context, tenant string, before time.Duration, parts int) ([]tasks.FailureCount, error) {
	now, err := v.redis.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("count failures: %w", err)
	}
	start := now.Add(-before)
	listed, err := v.redis.ZRevRangeByScore(ctx, failuresKey, &redis.ZRangeBy{Min: score(start), Max: "+inf"}).Result()
	if err != nil {
		return nil, fmt.Errorf("count failures: %w", err)
	}
	var kinds []tasks.FailureCount
	owners := map[string]string{} // of jobs
	for _, name := range listed {
		kind := tasks.FailureCount{FailureKind: parseKind(name), Over: make([]int64, parts)}
		bound := max(looksOfKind, failuresLooked/len(listed))
		entries, err := v.redis.ZRevRangeByScoreWithScores(ctx, kindKey(name), &redis.ZRangeBy{Min: score(start), Max: "+inf", Count: int64(bound) + 1}).Result()
		if err != nil {
			if err := v.leftOut.Note(kindKey(name), err); err != nil {
				return nil, fmt.Errorf("count failures: %w", err)
			}
			continue
		}
		kind.More = len(entries) > bound
		entries = entries[:min(len(entries), bound)]
		if err := v.owners(ctx, entries, owners); err != nil {
			return nil, fmt.Errorf("count failures: %w", err)
		}
		for _, z := range entries {
			if job, _, _ := tasks.ParseItemID(z.Member.(string)); owners[job] != tenant {
				continue
			}
			at := tasks.FromMillis(int64(z.Score))
			if kind.Last.IsZero() {
				kind.Last = at
			}
			part := int(at.Sub(start) * time.Duration(parts) / before)
			kind.Over[max(0, min(part, parts-1))]++ // an item may end while we look
		}
		if kind.Total() > 0 || kind.More {
			kinds = append(kinds, kind)
		}
	}
	slices.SortStableFunc(kinds, func(a, b tasks.FailureCount) int { return int(b.Total() - a.Total()) })
	return kinds, nil
}

// owners adds the tenants of the jobs of entries; a record that is gone has none.
func (v *Failures) owners(ctx context.Context, entries []redis.Z, owners map[string]string) error {
	for some := range slices.Chunk(entries, failuresAtOnce) {
		asked := map[string]*redis.StringCmd{}
		pipe := v.redis.Pipeline()
		for _, z := range some {
			job, _, _ := tasks.ParseItemID(z.Member.(string))
			if _, known := owners[job]; !known && asked[job] == nil {
				asked[job] = pipe.HGet(ctx, codec.JobKey(job), "tenant")
			}
		}
		_, _ = pipe.Exec(ctx) // each carries its own error
		for job, answer := range asked {
			err := answer.Err()
			if err != nil && !errors.Is(err, redis.Nil) {
				if err := v.leftOut.Note(job, err); err != nil {
					return err
				}
			}
			owners[job] = answer.Val()
		}
	}
	return nil
}

func score(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// Failures returns items of a kind, the one that ended last first, and the cursor of the
// rest, empty at the end. Items whose record is gone are dropped on the way. Errors:
// tasks.BadRequest for a cursor that is not one of ours.
func (v *Failures) Failures(ctx context.Context, f tasks.FailureFilter) (found []tasks.Failure, cursor string, err error) {
	key := kindKey(kindName(f.FailureKind))
	bounds := redis.ZRangeBy{Min: "-inf", Max: "+inf", Count: int64(f.Limit)}
	if !f.Since.IsZero() {
		bounds.Min = score(f.Since)
	}
	if f.Cursor != "" {
		at, skip, ok := strings.Cut(f.Cursor, "-")
		_, err1 := strconv.ParseInt(at, 10, 64)
		bounds.Max = at
		if bounds.Offset, err = strconv.ParseInt(skip, 10, 64); !ok || err1 != nil || err != nil || bounds.Offset < 0 {
			return nil, "", tasks.Errorf(tasks.BadRequest, "cursor is not one that an earlier answer gave")
		}
	}
	for range 10 {
		listed, err := v.redis.ZRevRangeByScoreWithScores(ctx, key, &bounds).Result()
		if err != nil {
			return nil, "", fmt.Errorf("list failures: %w", err)
		}
		failures, gone, err := v.failures(ctx, listed)
		if err != nil {
			return nil, "", fmt.Errorf("list failures: %w", err)
		}
		if len(gone) > 0 {
			_ = v.redis.ZRem(ctx, key, gone...).Err() // met again next time
		}
		for _, failure := range failures {
			if f.Match(failure.Job) {
				found = append(found, failure)
			}
		}
		if len(listed) < f.Limit {
			return found, "", nil
		}
		bounds = beyond(bounds, listed, gone)
		if len(found) > 0 {
			break
		}
	}
	return found, fmt.Sprintf("%s-%d", bounds.Max, bounds.Offset), nil
}

// beyond are the bounds of what follows the entries that have been listed, of which some
// are gone now. The offset is among those of one moment.
func beyond(bounds redis.ZRangeBy, listed []redis.Z, gone []any) redis.ZRangeBy {
	last := listed[len(listed)-1].Score
	if upTo := strconv.FormatInt(int64(last), 10); upTo != bounds.Max {
		bounds.Max, bounds.Offset = upTo, 0
	}
	for _, z := range listed {
		if z.Score == last && !slices.Contains(gone, z.Member) {
			bounds.Offset++
		}
	}
	return bounds
}

// failures reads the items of entries, and says which entries have no record.
func (v *Failures) failures(ctx context.Context, listed []redis.Z) (found []tasks.Failure, gone []any, err error) {
	ids := make([]string, len(listed))
	for i, z := range listed {
		ids[i], _, _ = tasks.ParseItemID(z.Member.(string))
	}
	once := slices.Compact(slices.Sorted(slices.Values(ids)))
	jobs := make(map[string]tasks.Read, len(once))
	for i, read := range v.jobs.Records(ctx, once) {
		jobs[once[i]] = read
	}
	for i, z := range listed {
		_, n, _ := tasks.ParseItemID(z.Member.(string))
		switch read := jobs[ids[i]]; {
		case read.Err == nil && n < len(read.Job.Items):
			found = append(found, tasks.Failure{At: tasks.FromMillis(int64(z.Score)), Job: read.Job, Item: read.Job.Items[n]})
		case read.Err == nil, errors.Is(read.Err, tasks.JobGone):
			gone = append(gone, z.Member)
		default:
			if err := v.leftOut.Note(ids[i], read.Err); err != nil {
				return nil, nil, err
			}
		}
	}
	return found, gone, nil
}
