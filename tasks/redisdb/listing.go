package redisdb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

const (
	// scanLimit is about how many records one call of Jobs reads at the most: a filter
	// that matches little ends with a cursor instead of reading everything.
	scanLimit = 1000
	// scanStep is how many of them it reads at once.
	scanStep = 100
)

// Jobs returns the tenant's jobs that match, newest first, and the cursor of the
// rest, empty at the end. There may be fewer than the filter's limit, and even none,
// before the end. Entries whose record has expired are dropped on the way. Errors:
// tasks.BadRequest for a cursor that is not one of ours, or of other filters.
func (db *DB) Jobs(ctx context.Context, tenant string, f tasks.JobFilter) (found []tasks.Job, cursor string, err error) {
	at, err := parseCursor(f)
	if err != nil {
		return nil, "", err
	}
	var gone []any
	defer func() {
		if len(gone) > 0 {
			_ = db.rdb.ZRem(ctx, jobsKey(tenant), gone...).Err() // met again next time
		}
	}()
	bounds := boundsOf(f, at)
	for read := 0; read < scanLimit; {
		listed, err := db.rdb.ZRevRangeByScoreWithScores(ctx, jobsKey(tenant), &bounds).Result()
		if err != nil {
			return nil, "", fmt.Errorf("list jobs: %w", err)
		}
		entries := after(listed, at)
		records, err := db.records(ctx, entries)
		if err != nil {
			return nil, "", fmt.Errorf("list jobs: %w", err)
		}
		for i, entry := range entries {
			read++
			at = entry
			hash := records[i].Val()
			job, err := decodeJob(at.job, hash)
			if hash["v"] == "1" {
				job, err = db.Job(ctx, at.job)
			}
			switch {
			case errors.Is(err, tasks.JobGone):
				if time.Since(time.UnixMilli(at.created)) > listingGrace {
					gone = append(gone, at.job)
				}
			case err != nil:
				return nil, "", fmt.Errorf("list jobs: %w", err)
			case f.Match(job):
				found = append(found, job)
				if len(found) == f.Limit {
					return found, at.cursor(f), nil
				}
			}
		}
		if len(listed) < scanStep {
			return found, "", nil
		}
		bounds = below(bounds, listed)
	}
	return found, at.cursor(f), nil
}

func (db *DB) records(ctx context.Context, entries []position) ([]*redis.MapStringStringCmd, error) {
	pipe := db.rdb.Pipeline()
	records := make([]*redis.MapStringStringCmd, len(entries))
	for i, entry := range entries {
		records[i] = pipe.HGetAll(ctx, jobKey(entry.job))
	}
	_, err := pipe.Exec(ctx)
	return records, err
}

// boundsOf are the times that a filter selects, from a position on.
func boundsOf(f tasks.JobFilter, at position) redis.ZRangeBy {
	bounds := redis.ZRangeBy{Min: "-inf", Max: "+inf", Count: scanStep}
	if !f.Since.IsZero() {
		bounds.Min = upMillis(f.Since)
	}
	if !f.Until.IsZero() {
		bounds.Max = "(" + upMillis(f.Until)
	}
	if at.created != 0 {
		bounds.Max = strconv.FormatInt(at.created, 10)
	}
	return bounds
}

// upMillis rounds up: jobs have whole milliseconds, and one that was created before a
// moment is not from its millisecond on.
func upMillis(t time.Time) string {
	return strconv.FormatInt(t.Add(time.Millisecond-1).UnixMilli(), 10)
}

// below are the bounds of what follows the entries that have been listed. It goes by
// time and not by number, because jobs come and go meanwhile; what has the time of the
// last entry may be listed again.
func below(bounds redis.ZRangeBy, listed []redis.Z) redis.ZRangeBy {
	last := strconv.FormatInt(int64(listed[len(listed)-1].Score), 10)
	if last == bounds.Max { // all of them are of one moment
		bounds.Offset += int64(len(listed))
		return bounds
	}
	bounds.Max, bounds.Offset = last, 0
	return bounds
}

// position is where an entry stands in a tenant's index: by creation time, then
// by job ID, both falling. The zero position is before all of them.
type position struct {
	created int64
	job     string
}

// after returns the entries that come after a position.
func after(listed []redis.Z, at position) []position {
	var entries []position
	for _, z := range listed {
		job, _ := z.Member.(string)
		p := position{created: int64(z.Score), job: job}
		if at.created == 0 || p.created < at.created || p.created == at.created && p.job < at.job {
			entries = append(entries, p)
		}
	}
	return entries
}

// parseCursor is the inverse of cursor. A filter without one begins before all.
func parseCursor(f tasks.JobFilter) (position, error) {
	if f.Cursor == "" {
		return position{}, nil
	}
	parts := strings.Split(f.Cursor, "-")
	if len(parts) == 3 {
		ms, err := strconv.ParseInt(parts[0], 10, 64)
		switch {
		case err != nil || ms <= 0 || !tasks.ValidJobID(parts[1]):
		case parts[2] != f.Fingerprint():
			return position{}, tasks.Errorf(tasks.BadRequest,
				"cursor is of a list with other filters; state, instance_id, label, since and until must be the same for all pages")
		default:
			return position{ms, parts[1]}, nil
		}
	}
	return position{}, tasks.Errorf(tasks.BadRequest, "cursor is not one that an earlier answer gave")
}

// cursor leads to what comes after the position, with the same filter.
func (p position) cursor(f tasks.JobFilter) string {
	return strings.Join([]string{strconv.FormatInt(p.created, 10), p.job, f.Fingerprint()}, "-")
}
