package api

import (
	"encoding/json"

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
	record, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(envelope{Code: tasks.OK, Message: "ok", Data: json.RawMessage(record)})
	if err != nil {
		return nil, err
	}
	r := &encodedRecord{tag: job.Tag(), final: job.State.Final(), pace: paceOf(job), body: append(body, '\n'), size: len(record)}
	e.cache.Add(job.ID, r)
	return r, nil
}

// data is the record without its envelope, which it ends.
func (r *encodedRecord) data() []byte {
	const end = len("}\n")
	return r.body[len(r.body)-end-r.size : len(r.body)-end]
}
