package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"batchreset/tasks"
)

// encodedSize is how many records are kept ready, at about 5 kB each.
const encodedSize = 1024

// encodedRecords keeps the last answers to polls. Most polls of a pipeline find a job unchanged,
// and most of a poll's cost is reading and encoding the items. Redis is asked each time whether
// the answer is still true, and whose job it is.
type encodedRecords struct {
	cache *lru.Cache[string, *encodedRecord]
}

type encodedRecord struct {
	tag   string
	final bool
	pace  pace
	body  []byte
	size  int // of the record in the body
}

func newEncodedRecords() encodedRecords {
	cache, err := lru.New[string, *encodedRecord](encodedSize)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return encodedRecords{cache}
}

// get returns the answer for a job, if it is of this version.
func (e encodedRecords) get(version tasks.Job) (*encodedRecord, bool) {
	r, ok := e.cache.Get(version.ID)
	return r, ok && r.tag == version.Tag()
}

// put encodes a record and keeps the answer.
func (e encodedRecords) put(job tasks.Job) (*encodedRecord, error) {
	r, err := encode(job, encodedRecord{tag: job.Tag(), final: job.State.Final(), pace: paceOf(job)})
	if err == nil {
		e.cache.Add(job.ID, r)
	}
	return r, err
}

// encode completes r with the record.
func encode(record any, r encodedRecord) (*encodedRecord, error) {
	data, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(envelope{Code: tasks.OK, Message: "ok", Data: json.RawMessage(data)})
	if err != nil {
		return nil, err
	}
	r.body, r.size = append(body, '\n'), len(data)
	return &r, nil
}

const (
	// runRest is how long a run is left alone after a look at it: to read one with 100 open jobs takes
	// some milliseconds, and it changes all the time.
	runRest = time.Second
	// runsRead is of how many runs the last read is kept.
	runsRead = 1024
)

// runReads reads runs for all who wait for them: one reads, and the others have what it has read.
type runReads struct {
	store RunStore
	clock Clock
	turn  atomic.Int64 // counts who asks, and who reads
	reads *lru.Cache[string, *runRead]
}

// runRead is the last read of a run.
type runRead struct {
	reader chan struct{} // has something while somebody reads
	began  int64         // in this turn; 0: there was none
	record *encodedRecord
	err    error
}

func newRunReads(store RunStore, clock Clock) *runReads {
	reads, err := lru.New[string, *runRead](runsRead)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &runReads{store: store, clock: clock, reads: reads}
}

// read returns a run as it is now: the read begins after the call. Of all who come while somebody reads,
// one reads for all.
func (r *runReads) read(ctx context.Context, id string) (*encodedRecord, error) {
	return r.since(ctx, id, r.turn.Add(1))
}

// reread returns what was read last: nobody is told of a change that was not read.
func (r *runReads) reread(id string, _ int64) (*encodedRecord, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	return r.since(ctx, id, 0)
}

// since returns what was read since a turn.
func (r *runReads) since(ctx context.Context, id string, turn int64) (*encodedRecord, error) {
	last := &runRead{reader: make(chan struct{}, 1)}
	if kept, found, _ := r.reads.PeekOrAdd(id, last); found {
		last = kept
	}
	select {
	case last.reader <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a read of the run: %w", ctx.Err())
	}
	defer func() { <-last.reader }()
	if last.began <= turn {
		last.began = r.turn.Add(1)
		last.record, last.err = r.fetch(ctx, id)
	}
	return last.record, last.err
}

// fetch has a time of its own, even if the caller hangs up: others wait for the answer, too.
func (r *runReads) fetch(ctx context.Context, id string) (*encodedRecord, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	run, err := r.store.Run(ctx, id)
	if errors.Is(err, tasks.RunGone) {
		return nil, noRun(id)
	}
	if err != nil {
		return nil, err
	}
	return encodeRun(run, r.clock.Now())
}

// tags reads runs, and returns the tags of those that there are.
func (r *runReads) tags(ctx context.Context, ids []string) (map[string]string, error) {
	tags := make(map[string]string, len(ids))
	for _, id := range ids {
		record, err := r.read(ctx, id)
		switch {
		case err == nil:
			tags[id] = record.tag
		case tasks.CodeOf(err) != tasks.NoJob:
			return nil, err
		}
	}
	return tags, nil
}

// data is the record without its envelope, which it ends.
func (r *encodedRecord) data() []byte {
	const end = len("}\n")
	return r.body[len(r.body)-end-r.size : len(r.body)-end]
}
