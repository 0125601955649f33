package redisdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

// Records reads jobs, each by itself: one that cannot be read says so, in the same order.
func (db *DB) Records(ctx context.Context, ids []string) []tasks.Read {
	pipe := db.rdb.Pipeline()
	answers := make([]*redis.MapStringStringCmd, len(ids))
	for i, id := range ids {
		answers[i] = pipe.HGetAll(ctx, jobKey(id))
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	found := make([]tasks.Read, len(ids))
	for i, id := range ids {
		hash, err := answers[i].Result()
		switch {
		case err != nil:
			found[i].Err = fmt.Errorf("read job record: %w", err)
		case hash["v"] == "1":
			found[i].Job, found[i].Err = db.Job(ctx, id) // which rewrites it
		default:
			found[i].Job, found[i].Err = decodeJob(id, hash)
		}
	}
	return found
}

// answered reports whether an error is Redis's answer, and not that there was none.
func answered(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// broken reports whether an error is about what is stored, and not about reading it.
func broken(err error) bool {
	_, decoding := errors.AsType[*damage](err)
	return decoding || answered(err)
}

// damage is the error of something stored that cannot be decoded.
type damage struct{ error }

func (d *damage) Unwrap() error { return d.error }

const (
	// leftOutAgain is how long a record that was left out of a list is not logged again, and
	// leftOutMost of how many records that is known.
	leftOutAgain = 10 * time.Minute
	leftOutMost  = 1000
)

// leftOut remembers what was logged, and when.
type leftOut = lru.Cache[string, time.Time]

func newLeftOut() *leftOut {
	cache, err := lru.New[string, time.Time](leftOutMost)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return cache
}

// leaveOut logs that a list is without something that cannot be read, and returns nil; or the
// error, if it is Redis that cannot be asked.
func (db *DB) leaveOut(what string, err error) error {
	if !broken(err) {
		return err
	}
	if at, logged := db.leftOut.Get(what); !logged || time.Since(at) > leftOutAgain {
		db.leftOut.Add(what, time.Now())
		db.opts.Log.Error("left out of a list: it cannot be read", "what", what, "error", err)
	}
	return nil
}
