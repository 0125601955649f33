package load

import (
	"strconv"
	"sync/atomic"
)

// BatchSize is how many instances a batch has.
const BatchSize = 32

// Batches is how many batches n instances are, the last one filled up.
func Batches(n int) int { return (n + BatchSize - 1) / BatchSize }

// batches counts batches, so that no two in this process have an instance in common.
var batches atomic.Int64

// NextBatch returns the body of a batch, or of a run, of size instances that shares none
// with any other. IDs have the length of KooPhone's.
func NextBatch(size int) []byte {
	count := Batches(size)
	first := 10_000_000 + (int(batches.Add(int64(count)))-count)*BatchSize
	body := []byte(`{"instance_ids":[`)
	for i := range size {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `"phone-`...)
		body = strconv.AppendInt(body, int64(first+i), 10)
		body = append(body, '"')
	}
	return append(body, "]}"...)
}
