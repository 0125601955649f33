package runs

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

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
	by := redis.ZRangeArgs{Key: codec.RunsKey(tenant), Start: "+inf", Stop: "-inf", ByScore: true, Rev: true, Count: listStep}
	if !f.Since.IsZero() {
		by.Stop = strconv.FormatInt(f.Since.UnixMilli(), 10)
	}
	if !f.Until.IsZero() {
		by.Start = "(" + strconv.FormatInt(f.Until.UnixMilli(), 10)
	}
	if f.Cursor != "" {
		if by.Offset, err = strconv.ParseInt(f.Cursor, 36, 64); err != nil || by.Offset < 0 {
			return nil, "", tasks.Errorf(tasks.BadRequest, "cursor is not one that an earlier answer gave")
		}
	}
	for looked := 0; looked < lookLimit; {
		ids, err := r.redis.ZRangeArgs(ctx, by).Result()
		if err != nil {
			return nil, "", fmt.Errorf("list runs: %w", err)
		}
		for _, id := range ids {
			looked++
			by.Offset++
			run, err := r.Stored(ctx, id)
			switch {
			case errors.Is(err, tasks.RunGone): // it has expired, or is about to be made
				continue
			case err != nil:
				return nil, "", err
			case !f.Match(run):
				continue
			}
			if run, err = r.sum(ctx, run); err != nil {
				return nil, "", err
			}
			if found = append(found, run); len(found) == f.Limit {
				return found, strconv.FormatInt(by.Offset, 36), nil
			}
		}
		if len(ids) < listStep {
			return found, "", nil
		}
	}
	return found, strconv.FormatInt(by.Offset, 36), nil
}
