package redisdb_test

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

func openError(t *testing.T, url string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	db, err := redisdb.Open(ctx, redisdb.Options{URL: url})
	if err == nil {
		_ = db.Close()
		t.Fatalf("%s can be opened", url)
	}
	return err
}

func TestWhatIsWorthWaitingFor(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{
		"LOADING Redis is loading the dataset in memory":                                         true,
		"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.":       true,
		"CLUSTERDOWN The cluster is down":                                                        true,
		"TRYAGAIN Multiple keys request during rehashing of slot":                                true,
		"ERR max number of clients reached":                                                      true,
		"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": true,
		"NOAUTH Authentication required.":                                                        false,
		"WRONGPASS invalid username-password pair or user is disabled.":                          false,
		"NOPERM User batchreset has no permissions to run the 'info' command":                    false,
		"ERR DB index is out of range":                                                           false,
	} {
		server := miniredis.RunT(t)
		server.SetError(answer)
		if err := openError(t, "redis://"+server.Addr()); redisdb.Passing(err) != want {
			t.Errorf("%v: worth waiting for: %t", err, !want)
		}
	}
	server := redistest.Start(t)
	if err := server.Client(t).ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]bool{
		server.URL():                            false, // it may evict jobs
		"http://x":                              false,
		"redis://127.0.0.1:1":                   true,
		"redis-sentinel://127.0.0.1:1?master=m": true,
		"redis-cluster://127.0.0.1:1":           true,
		"redis://redis.invalid":                 true, // a name that may come
	} {
		if err := openError(t, url); redisdb.Passing(err) != want {
			t.Errorf("%s: %v: worth waiting for: %t", url, err, !want)
		}
	}
	if redisdb.Passing(nil) || redisdb.Passing(context.Canceled) {
		t.Error("what is no trouble of Redis is worth waiting for")
	}
}

// INFO is answered all the time.
func TestARedisThatIsLoadingIsNotReady(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "appendonly no")
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	loaded := server.RestartLoading(t)
	if err := db.Check(t.Context()); !redisdb.Passing(err) {
		t.Errorf("while it is loading: %v", err)
	}
	loaded()
	if err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
