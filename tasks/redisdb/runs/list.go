package runs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

const (
	// listStep is how many entries of the index a list looks at at once, lookLimit how many in all.
	listStep  = 100
	lookLimit = 2000
)

// List returns the tenant's runs that match, newest first, and the cursor of the rest, empty at the end.
// There may be fewer than the filter's limit before the end. Errors: tasks.BadRequest for a cursor
// that is not one of ours.
func (r *Runs) List(ctx context.Context, tenant string, f tasks.RunFilter) (found []tasks.Run, cursor string, err error) {
	return r.listed(ctx, codec.RunsKey(tenant), tasks.RunSearch{RunFilter: f})
}

// Search is List over the runs of all tenants, or of one.
func (r *Runs) Search(ctx context.Context, s tasks.RunSearch) (found []tasks.Run, cursor string, err error) {
	if s.Tenant != "" {
		return r.listed(ctx, codec.RunsKey(s.Tenant), s)
	}
	return r.listed(ctx, codec.AllRunsKey, s)
}

func (r *Runs) listed(ctx context.Context, index string, s tasks.RunSearch) (found []tasks.Run, cursor string, err error) {
	by := redis.ZRangeArgs{Key: index, Start: "+inf", Stop: "-inf", ByScore: true, Rev: true, Count: listStep}
	if !s.Since.IsZero() {
		by.Stop = strconv.FormatInt(s.Since.UnixMilli(), 10)
	}
	if !s.Until.IsZero() {
		by.Start = "(" + strconv.FormatInt(s.Until.UnixMilli(), 10)
	}
	last, err := parsePlace(s.Cursor)
	if err != nil {
		return nil, "", err
	}
	if s.Cursor != "" && (s.Until.IsZero() || last.created < s.Until.UnixMilli()) {
		by.Start = strconv.FormatInt(last.created, 10)
	}
	at := last
	for looked := 0; looked < lookLimit; {
		entries, err := r.redis.ZRangeArgsWithScores(ctx, by).Result()
		if err != nil {
			return nil, "", fmt.Errorf("list runs: %w", err)
		}
		stored, err := r.stored(ctx, entries)
		if err != nil {
			return nil, "", err
		}
		for i, z := range entries {
			looked++
			by.Offset++
			id, _ := z.Member.(string)
			at = place{int64(z.Score), id}
			if s.Cursor != "" && !at.after(last) || stored[i] == nil || !s.Match(*stored[i]) {
				continue
			}
			if found = append(found, *stored[i]); len(found) == s.Limit {
				return found, at.String(), r.sums(ctx, found)
			}
		}
		if len(entries) < listStep {
			return found, "", r.sums(ctx, found)
		}
	}
	return found, at.String(), r.sums(ctx, found)
}

// stored reads runs, without what the jobs of their open parts say. nil: it has expired, is about to be made, or cannot be read;
// the others are listed all the same.
func (r *Runs) stored(ctx context.Context, entries []redis.Z) ([]*tasks.Run, error) {
	pipe := r.redis.Pipeline()
	answers := make([]*redis.MapStringStringCmd, len(entries))
	for i, z := range entries {
		id, _ := z.Member.(string)
		answers[i] = pipe.HGetAll(ctx, codec.RunKey(id))
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	runs := make([]*tasks.Run, len(entries))
	for i, z := range entries {
		id, _ := z.Member.(string)
		hash, err := answers[i].Result()
		var run tasks.Run
		if err == nil {
			run, err = decode(id, hash)
		}
		switch {
		case err == nil:
			runs[i] = &run
		case !errors.Is(err, tasks.RunGone):
			if err := r.opts.LeftOut.Note("run "+id, err); err != nil {
				return nil, fmt.Errorf("read runs: %w", err)
			}
		}
	}
	return runs, nil
}

// place is where a list of runs stopped. It is no number of runs from the newest one: that would say another
// place after each run that is made, or is forgotten, between two pages.
type place struct {
	created int64
	run     string
}

// after reports whether a place comes later in a list, in which the newest runs come first.
func (p place) after(other place) bool {
	return p.created < other.created || p.created == other.created && p.run < other.run
}

func (p place) String() string { return strconv.FormatInt(p.created, 36) + "." + p.run }

// parsePlace reads what place.String writes; "" is the beginning.
func parsePlace(cursor string) (place, error) {
	if cursor == "" {
		return place{}, nil
	}
	created, run, _ := strings.Cut(cursor, ".")
	ms, err := strconv.ParseInt(created, 36, 64)
	if err != nil || ms < 0 || !tasks.ValidJobID(run) {
		return place{}, errCursor
	}
	return place{ms, run}, nil
}

var errCursor = tasks.Errorf(tasks.BadRequest, "cursor is not one that an earlier answer gave")

// SearchOpen returns the runs that match and have not ended, newest first, up to the filter's limit, and how many more there
// are among the 2,000 that it looks at.
func (r *Runs) SearchOpen(ctx context.Context, s tasks.RunSearch) (found []tasks.Run, more int, err error) {
	if found, err = r.open(ctx, s); err != nil {
		return nil, 0, err
	}
	more = max(0, len(found)-s.Limit)
	found = found[:len(found)-more]
	return found, more, r.sums(ctx, found)
}

// ForPeople returns the runs that go on only once somebody decides, newest first: those that wait for an approval, and those
// that are paused. It names up to limit of each, with the counts of when they were written last, and looks at 2,000 open runs.
func (r *Runs) ForPeople(ctx context.Context, limit int) (waiting, paused tasks.SomeRuns, err error) {
	open, err := r.open(ctx, tasks.RunSearch{})
	if err != nil {
		return waiting, paused, err
	}
	for _, run := range open {
		some := &paused
		switch {
		case run.Cancelled:
			continue
		case run.State == tasks.RunWaiting && !run.Approved():
			some = &waiting
		case run.State != tasks.RunPaused:
			continue
		}
		if len(some.Runs) < limit {
			some.Runs = append(some.Runs, run)
		} else {
			some.More++
		}
	}
	return waiting, paused, nil
}

// sums adds to runs what the jobs of their open parts say. Most jobs of many long runs have not begun.
func (r *Runs) sums(ctx context.Context, found []tasks.Run) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(sumsAtOnce)
	for i, run := range found {
		g.Go(func() (err error) {
			found[i], err = r.sumBy(ctx, run, r.jobs.OutlinesOfWaiting)
			return err
		})
	}
	return g.Wait()
}

// sumsAtOnce is of how many runs the jobs are read side by side.
const sumsAtOnce = 4

// open returns the runs that match and have not ended, newest first, with the counts of when they were written last.
func (r *Runs) open(ctx context.Context, s tasks.RunSearch) (found []tasks.Run, err error) {
	entries, err := r.redis.ZRangeWithScores(ctx, codec.OpenRunsKey, 0, lookLimit-1).Result()
	if err != nil {
		return nil, fmt.Errorf("list open runs: %w", err)
	}
	stored, err := r.stored(ctx, entries)
	if err != nil {
		return nil, err
	}
	for _, run := range stored {
		if run == nil || run.State.Final() {
			continue
		}
		late := !s.Since.IsZero() && run.CreatedAt.Before(s.Since) || !s.Until.IsZero() && !run.CreatedAt.Before(s.Until)
		if s.Match(*run) && !late {
			found = append(found, *run)
		}
	}
	slices.SortFunc(found, func(a, b tasks.Run) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt.Time), cmp.Compare(b.ID, a.ID))
	})
	return found, nil
}

// parseOffset reads a cursor; "" is the beginning.
func parseOffset(cursor string) (int64, error) {
	if cursor == "" {
		return 0, nil
	}
	offset, err := strconv.ParseInt(cursor, 36, 32)
	if err != nil || offset < 0 {
		return 0, errCursor
	}
	return offset, nil
}

func formatOffset(offset int64) string { return strconv.FormatInt(offset, 36) }
