package views

import (
	"context"
	"encoding/json"
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

const (
	// scanLimit is about how many records one call of Jobs reads at the most, and lookLimit
	// how many entries it looks at: a filter that matches little ends with a cursor
	// instead of reading everything.
	scanLimit = 500
	lookLimit = 20 * scanLimit
	// scanStep and lookStep are how many of them it asks for at once.
	scanStep = 100
	lookStep = 500
)

// Jobs returns the tenant's jobs that match, newest first, and the cursor of the
// rest, empty at the end. There may be fewer than the filter's limit, and even none,
// before the end. Entries whose record has expired are dropped on the way. What it looks at
// counts against the tenant's limit of requests, and a list of more than one look waits for
// the tenant's other ones in this process. Errors: tasks.BadRequest for a cursor that is not
// one of ours, or of other filters; tasks.TooManyRequests.
func (v *Jobs) Jobs(ctx context.Context, tenant string, f tasks.JobFilter) (found []tasks.Job, cursor string, err error) {
	at, err := parseCursor(f)
	if err != nil {
		return nil, "", err
	}
	l := listing{jobs: v, filter: f, at: at, tenant: tenant}
	defer func() {
		l.endTurn()
		if more := l.looked/looksPerRequest + l.read/readsPerRequest; more > 0 {
			v.charge(ctx, tenant, more)
		}
	}()
	return l.list(ctx, codec.JobsKey(tenant))
}

// listed is Jobs with a key of an index, for operators.
func (v *Jobs) listed(ctx context.Context, key string, f tasks.JobFilter) ([]tasks.Job, string, error) {
	at, err := parseCursor(f)
	if err != nil {
		return nil, "", err
	}
	l := listing{jobs: v, filter: f, at: at}
	return l.list(ctx, key)
}

const (
	// A list is worth a request more for each so many entries that it looks at, and for each
	// so many records that it reads.
	looksPerRequest = 1000
	readsPerRequest = 100
	// turnPatience is how long a list waits for another one of its tenant.
	turnPatience = 500 * time.Millisecond
)

// takeTurn waits until no other list of the tenant goes through the index.
func (l *listing) takeTurn(ctx context.Context) error {
	if l.tenant == "" || l.endsTurn != nil {
		return nil
	}
	ended, err := l.jobs.lists.take(ctx, l.tenant, turnPatience)
	l.endsTurn = ended
	return err
}

func (l *listing) endTurn() {
	if l.endsTurn != nil {
		l.endsTurn()
	}
}

// list lists what the index with a key has.
func (l *listing) list(ctx context.Context, key string) ([]tasks.Job, string, error) {
	v, f := l.jobs, l.filter
	defer func() {
		if len(l.gone) > 0 {
			_ = v.redis.ZRem(ctx, key, l.gone...).Err() // met again next time
		}
	}()
	bounds := boundsOf(f, l.at)
	for l.looked < lookLimit && l.read < scanLimit {
		listed, err := v.redis.ZRevRangeByScoreWithScores(ctx, key, &bounds).Result()
		if err != nil {
			return nil, "", fmt.Errorf("list jobs: %w", err)
		}
		l.looked += len(listed)
		entries := after(listed, l.at)
		full, err := l.take(ctx, entries)
		if err != nil {
			return nil, "", fmt.Errorf("list jobs: %w", err)
		}
		switch {
		case full:
			return l.found, l.at.cursor(f), nil
		case int64(len(listed)) < bounds.Count:
			return l.found, "", nil
		}
		bounds = below(bounds, listed)
		if err := l.takeTurn(ctx); err != nil {
			return nil, "", err
		}
	}
	return l.found, l.at.cursor(f), nil
}

// listing is a list of jobs in the making.
type listing struct {
	jobs     *Jobs
	tenant   string // whose turn and limit it takes; empty: an operator's, who has none
	filter   tasks.JobFilter
	at       position // the last entry that was judged
	looked   int      // entries
	read     int      // records
	found    []tasks.Job
	gone     []any  // entries without a record
	endsTurn func() // nil: there is none
}

// take adds what matches of the entries, and reports whether the list is full.
func (l *listing) take(ctx context.Context, entries []position) (full bool, err error) {
	possible, err := l.jobs.possible(ctx, l.filter, entries)
	if err != nil {
		return false, err
	}
	for part := range slices.Chunk(possible, scanStep) {
		ids := make([]string, len(part))
		for i, entry := range part {
			ids[i] = entry.job
		}
		for i, read := range l.jobs.Records(ctx, ids) {
			if err := l.judge(part[i], read); err != nil {
				return false, err
			}
			if len(l.found) == l.filter.Limit {
				return true, nil
			}
		}
	}
	if len(entries) > 0 {
		l.at = entries[len(entries)-1]
	}
	return false, nil
}

// judge looks at the record of an entry.
func (l *listing) judge(entry position, read tasks.Read) error {
	l.read++
	l.at = entry
	switch {
	case errors.Is(read.Err, tasks.JobGone):
		if l.jobs.redis.Now().Sub(time.UnixMilli(entry.created)) > codec.ListingGrace {
			l.gone = append(l.gone, entry.job)
		}
	case read.Err != nil:
		return l.jobs.leftOut.Note(entry.job, read.Err)
	case l.filter.Match(read.Job):
		l.found = append(l.found, read.Job)
	}
	return nil
}

// possible leaves out entries that cannot match, by a look at the headers of their
// records. Without a filter that headers tell something of it leaves all.
func (v *Jobs) possible(ctx context.Context, f tasks.JobFilter, entries []position) ([]position, error) {
	if !byHeader(f) {
		return entries, nil
	}
	fields := headerFields(f)
	pipe := v.redis.Pipeline()
	headers := make([]*redis.SliceCmd, len(entries))
	for i, entry := range entries {
		headers[i] = pipe.HMGet(ctx, codec.JobKey(entry.job), fields...)
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	var left []position
	for i, entry := range entries {
		h, err := headers[i].Result()
		if err != nil && !wire.Answered(err) {
			return nil, err
		}
		header := func(name string) string {
			at := slices.Index(fields, name)
			if at < 0 {
				return ""
			}
			return codec.Text(h[at])
		}
		if err != nil || header("v") != codec.Version || f.Possible(header("left") == "0", header("stop") != "") &&
			fits(f, header("labels")) && f.Request.Match(header("request_id"), header("trace")) {
			left = append(left, entry)
		}
	}
	return left, nil
}

// headerFields are what the header of a record says about a filter: a record is searched from its beginning for each of them.
func headerFields(f tasks.JobFilter) []string {
	fields := []string{"v"}
	if f.State != "" {
		fields = append(fields, "left", "stop")
	}
	if len(f.Labels) > 0 {
		fields = append(fields, "labels")
	}
	if f.Request != (tasks.RequestFilter{}) {
		fields = append(fields, "request_id", "trace")
	}
	return fields
}

// byHeader reports whether the header of a record says something about the filter.
func byHeader(f tasks.JobFilter) bool {
	return f.State != "" || len(f.Labels) > 0 || f.Request != (tasks.RequestFilter{})
}

// fits reports whether a job with the labels, in JSON, has those of the filter.
func fits(f tasks.JobFilter, labels string) bool {
	if len(f.Labels) == 0 {
		return true
	}
	var job tasks.Job
	return json.Unmarshal([]byte(labels), &job.Labels) == nil && tasks.JobFilter{Labels: f.Labels}.Match(job)
}

// boundsOf are the times that a filter selects, from a position on.
func boundsOf(f tasks.JobFilter, at position) redis.ZRangeBy {
	bounds := redis.ZRangeBy{Min: "-inf", Max: "+inf", Count: scanStep}
	if byHeader(f) {
		bounds.Count = lookStep
	}
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
