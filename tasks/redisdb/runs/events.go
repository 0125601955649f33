package runs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// eventField, with its number, has an event that nobody was told of yet: see lua/lib/changed.lua.
const eventField = "e:"

// events are those that nobody was told of yet, in order.
func (d *decoder) events() (untold []tasks.RunEvent) {
	for field, value := range d.hash {
		number, event := strings.CutPrefix(field, eventField)
		if !event {
			continue
		}
		var e tasks.RunEvent
		n, err := strconv.ParseInt(number, 10, 64)
		if err = errors.Join(err, json.Unmarshal([]byte(value), &e)); err != nil {
			d.fail(field, err)
		}
		e.Number = n
		untold = append(untold, e)
	}
	slices.SortFunc(untold, func(x, y tasks.RunEvent) int { return cmp.Compare(x.Number, y.Number) })
	return untold
}

// encodeEvent is what decoder.events reads.
func encodeEvent(e tasks.RunEvent) string {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // texts, numbers and times always encode
	}
	return string(b)
}

// Told takes the untold events of a run that was read out of its record. It is no change that anybody waits for, so the
// revision stays.
func (r *Runs) Told(ctx context.Context, run tasks.Run) error {
	fields := make([]string, len(run.Untold))
	for i, e := range run.Untold {
		fields[i] = eventField + strconv.FormatInt(e.Number, 10)
	}
	if err := r.redis.HDel(ctx, codec.RunKey(run.ID), fields...).Err(); err != nil {
		return fmt.Errorf("mark as told: %w", err)
	}
	return nil
}
