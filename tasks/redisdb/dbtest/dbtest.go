// Package dbtest opens a DB for a test. It is no part of redistest, which tests inside redisdb use.
package dbtest

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks/redisdb"
)

// Open opens a DB, and a client that looks at the same Redis past it. Both are closed with the test.
func Open(t testing.TB, opts redisdb.Options) (*redisdb.DB, *redis.Client) {
	t.Helper()
	db, err := redisdb.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := redis.ParseURL(opts.URL)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(parsed)
	t.Cleanup(func() { _ = errors.Join(db.Close(), rdb.Close()) })
	return db, rdb
}
