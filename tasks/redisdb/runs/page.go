package runs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

const (
	// pageParts is how many parts a page of instances looks at at once, pageLook how many in all.
	pageParts = 8
	pageLook  = 256
)

// InstancesPage returns instances of a run that the filter selects, in the order of Instances, and the cursor of the rest,
// empty at the end. A page ends with a part: it can have some more than the filter's limit, and before the end
// fewer. Errors: tasks.BadRequest for a cursor that is not one of ours.
func (r *Runs) InstancesPage(ctx context.Context, run tasks.Run, f tasks.RunInstanceFilter) (found []tasks.RunInstance, cursor string, err error) {
	next, err := parseOffset(f.Cursor)
	if err != nil {
		return nil, "", err
	}
	for looked := 0; looked < pageLook && len(found) < f.Limit; looked += pageParts {
		numbers, err := r.partsWith(ctx, run, f, int(next))
		if err != nil {
			return nil, "", err
		}
		if len(numbers) == 0 {
			return found, "", nil
		}
		parts, err := r.someParts(ctx, run.ID, numbers)
		if err != nil {
			return nil, "", err
		}
		rows, err := r.rows(ctx, run, numbers, parts)
		if err != nil {
			return nil, "", err
		}
		for _, row := range rows {
			if f.Match(row.Item) {
				found = append(found, row)
			}
		}
		next = int64(numbers[len(numbers)-1]) + 1
	}
	if int(next) >= run.Parts {
		return found, "", nil
	}
	return found, formatOffset(next), nil
}

// partsWith are the next parts, from one on, that may have instances which the filter selects. Those with failures are
// known, but for the jobs that have not ended.
func (r *Runs) partsWith(ctx context.Context, run tasks.Run, f tasks.RunInstanceFilter, from int) ([]int, error) {
	if !f.Failures() {
		return upTo(from, min(from+pageParts, run.Parts)), nil
	}
	failed, err := r.redis.ZRangeArgs(ctx, redis.ZRangeArgs{
		Key: codec.RunFailedKey(run.ID), Start: strconv.Itoa(from), Stop: "+inf", ByScore: true, Count: pageParts,
	}).Result()
	if err != nil {
		return nil, fmt.Errorf("list failed parts of run: %w", err)
	}
	var numbers []int
	for _, member := range failed {
		n, err := strconv.Atoi(member)
		if err != nil {
			return nil, &codec.Damage{Err: fmt.Errorf("run %s: a failed part: %w", run.ID, err)}
		}
		numbers = append(numbers, n)
	}
	for part := range run.Open {
		if part >= from {
			numbers = append(numbers, part)
		}
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	return numbers[:min(len(numbers), pageParts)], nil
}

// someParts reads parts by their numbers.
func (r *Runs) someParts(ctx context.Context, run string, numbers []int) ([]tasks.Part, error) {
	pipe := r.redis.Pipeline()
	answers := make([]*redis.StringCmd, len(numbers))
	for i, n := range numbers {
		answers[i] = pipe.LIndex(ctx, codec.RunListKey(run), int64(n))
	}
	switch _, err := pipe.Exec(ctx); {
	case errors.Is(err, redis.Nil): // the list has expired since
		return nil, tasks.RunGone
	case err != nil:
		return nil, fmt.Errorf("read list of run: %w", err)
	}
	parts := make([]tasks.Part, len(numbers))
	for i, answer := range answers {
		var err error
		if parts[i], err = decodePart(answer.Val()); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// upTo are the numbers from one to before another.
func upTo(from, end int) (numbers []int) {
	for n := from; n < end; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}
