package views

import (
	"context"
	"fmt"
	"strings"

	"batchreset/tasks/redisdb/codec"
)

const (
	// beginningLook is among how many of the newest jobs, and of the newest runs, one is looked for whose ID begins in some
	// way; beginningStep is how many are read at once.
	beginningLook = 100_000
	beginningStep = 5_000
)

// Beginning returns the IDs of jobs and of runs that begin with a text, newest first, up to limit of each, among the newest
// 100,000.
func (v *Jobs) Beginning(ctx context.Context, text string, limit int) (jobs, runs []string, err error) {
	for key, found := range map[string]*[]string{codec.AllJobsKey: &jobs, codec.AllRunsKey: &runs} {
		for from := int64(0); from < beginningLook && len(*found) < limit; from += beginningStep {
			ids, err := v.redis.ZRevRange(ctx, key, from, from+beginningStep-1).Result()
			if err != nil {
				return nil, nil, fmt.Errorf("find IDs by their beginning: %w", err)
			}
			for _, id := range ids {
				if strings.HasPrefix(id, text) && len(*found) < limit {
					*found = append(*found, id)
				}
			}
			if len(ids) < beginningStep {
				break
			}
		}
	}
	return jobs, runs, nil
}
