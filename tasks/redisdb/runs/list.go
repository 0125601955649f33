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
		for _, z := range entries {
			looked++
			by.Offset++
			id, _ := z.Member.(string)
			at = place{int64(z.Score), id}
			if s.Cursor != "" && !at.after(last) {
				continue
			}
			run, err := r.Stored(ctx, id)
			switch {
			case errors.Is(err, tasks.RunGone): // it has expired, or is about to be made
				continue
			case err != nil: // the others are listed all the same
				if err := r.opts.LeftOut.Note("run "+id, err); err != nil {
					return nil, "", err
				}
				continue
			case !s.Match(run):
				continue
			}
			if run, err = r.sum(ctx, run); err != nil {
				return nil, "", err
			}
			if found = append(found, run); len(found) == s.Limit {
				return found, at.String(), nil
			}
		}
		if len(entries) < listStep {
			return found, "", nil
		}
	}
	return found, at.String(), nil
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
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(sumsAtOnce)
	for i, run := range found {
		g.Go(func() (err error) {
			found[i], err = r.sum(ctx, run)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, 0, err
	}
	return found, more, nil
}

// sumsAtOnce is of how many runs the jobs are read side by side.
const sumsAtOnce = 4

// open returns the runs that match and have not ended, newest first, with the counts of when they were written last.
func (r *Runs) open(ctx context.Context, s tasks.RunSearch) (found []tasks.Run, err error) {
	ids, err := r.redis.ZRange(ctx, codec.OpenRunsKey, 0, lookLimit-1).Result()
	if err != nil {
		return nil, fmt.Errorf("list open runs: %w", err)
	}
	pipe := r.redis.Pipeline()
	answers := make([]*redis.MapStringStringCmd, len(ids))
	for i, id := range ids {
		answers[i] = pipe.HGetAll(ctx, codec.RunKey(id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read open runs: %w", err)
	}
	for i, id := range ids {
		run, err := decode(id, answers[i].Val())
		switch {
		case errors.Is(err, tasks.RunGone): // it is about to be made
			continue
		case err != nil: // the others are listed all the same
			if err := r.opts.LeftOut.Note("run "+id, err); err != nil {
				return nil, err
			}
			continue
		}
		late := !s.Since.IsZero() && run.CreatedAt.Before(s.Since) || !s.Until.IsZero() && !run.CreatedAt.Before(s.Until)
		if s.Match(run) && !run.State.Final() && !late {
			found = append(found, run)
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
