package runs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

const (
	// listedLook is how many parts of lists are looked at for one instance, listedStep how many at once.
	listedLook = 10_000
	listedStep = 500
)

// ToCome returns the runs that have not ended and have an instance in their list that is in no job of theirs yet, newest first.
// It looks at 2,000 runs and at 10,000 parts of their lists, 320,000 instances; whole says that these were all.
func (r *Runs) ToCome(ctx context.Context, instance string) (found []tasks.Run, whole bool, err error) {
	open, err := r.open(ctx, tasks.RunSearch{})
	if err != nil {
		return nil, false, err
	}
	all, err := r.redis.ZCard(ctx, codec.OpenRunsKey).Result()
	if err != nil {
		return nil, false, fmt.Errorf("list open runs: %w", err)
	}
	looked := 0
	for _, run := range open {
		if run.Cancelled {
			continue
		}
		for from := max(run.Next, run.FirstPart()); from < run.Parts; from += listedStep {
			if looked += listedStep; looked > listedLook {
				return found, false, nil
			}
			texts, err := r.redis.LRange(ctx, codec.RunListKey(run.ID), int64(from), int64(from+listedStep-1)).Result()
			if err != nil {
				return nil, false, fmt.Errorf("read list of run: %w", err)
			}
			has, err := anyHas(texts, instance)
			if err != nil {
				return nil, false, err
			}
			if has {
				if run, err = r.sum(ctx, run); err != nil {
					return nil, false, err
				}
				found = append(found, run)
				break
			}
		}
	}
	return found, all <= lookLimit, nil
}

// anyHas reports whether an instance is in one of some parts.
func anyHas(texts []string, instance string) (bool, error) {
	for _, text := range texts {
		if !strings.Contains(text, instance) {
			continue
		}
		part, err := decodePart(text)
		if err != nil {
			return false, err
		}
		if slices.Contains(part.InstanceIDs, instance) {
			return true, nil
		}
	}
	return false, nil
}
