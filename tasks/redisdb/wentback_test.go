package redisdb_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/redistest"
)

// TestALockOfWhichTheRecordKnowsNothing: the record has gone back to a moment before the attempt, whose worker lives.
func TestALockOfWhichTheRecordKnowsNothing(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) { meetALock(t, w, w.rdb) })
	t.Run("Cluster", func(t *testing.T) {
		t.Parallel()
		w, rdb := openCluster(t)
		meetALock(t, w, rdb)
	})
}

func openCluster(t *testing.T) (w world, rdb redis.UniversalClient) {
	t.Helper()
	cluster := redistest.StartCluster(t)
	rdb = cluster.Client()
	t.Cleanup(func() { _ = rdb.Close() })
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: cluster.URL()})
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return world{db: db}, rdb
}

func meetALock(t *testing.T, w world, rdb redis.UniversalClient) {
	t.Helper()
	ctx := t.Context()
	token, other := workerOne+"12345678", workerTwo+"12345678"
	rdb.Set(ctx, "reset:worker:{"+workerOne+"}", "", time.Minute)
	job := w.submit(t, "phone-1")
	before, err := rdb.HGetAll(ctx, codec.JobKey(job.ID)).Result()
	must(t, err)
	d, begun := w.begin(t, job, 0, token)
	must(t, w.db.Attempts.Send(ctx, d, token, ""))
	goBack := func() {
		rdb.Del(ctx, codec.JobKey(job.ID))
		rdb.HSet(ctx, codec.JobKey(job.ID), before)
	}
	goBack()

	if _, err := w.db.Attempts.Begin(ctx, d, other, "another key", time.Minute); !errors.Is(err, tasks.AttemptAlive) {
		t.Errorf("while it goes on: %v", err)
	}
	if it := w.read(t, job.ID).Items[0]; it.Attempts != 0 || it.State != tasks.ItemPending {
		t.Errorf("the item is %+v", it)
	}
	// Redis forgets the lock, too, and its worker locks it again; not twice.
	rdb.Del(ctx, codec.LockKey("phone-1"))
	must(t, w.db.Attempts.Relock(ctx, d, token, time.Minute))
	must(t, w.db.Attempts.Relock(ctx, d, other, time.Minute))
	if _, err := w.db.Attempts.Begin(ctx, d, other, "another key", time.Minute); !errors.Is(err, tasks.AttemptAlive) {
		t.Errorf("while it goes on: %v", err)
	}
	// Its outcome is not taken, but it is over.
	if _, err := w.db.Attempts.Finish(ctx, d, token, tasks.Outcome{Transition: tasks.Succeed}, true); !errors.Is(err, tasks.WrongToken) {
		t.Errorf("its end: %v", err)
	}
	again, err := w.db.Attempts.Begin(ctx, d, other, "another key", time.Minute)
	if err != nil || again.Key == begun.Key || again.Ambiguous {
		t.Errorf("after its end: %+v, %v", again, err)
	}

	// One whose worker is dead keeps nobody out.
	goBack()
	rdb.Del(ctx, "reset:worker:{"+workerTwo+"}")
	if _, err := w.db.Attempts.Begin(ctx, d, token, "a third key", time.Minute); err != nil {
		t.Errorf("after the death of its worker: %v", err)
	}
}

// TestOnePrimaryGoesBackAlone: wherever the signs of life of a worker are.
func TestOnePrimaryGoesBackAlone(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: cluster.URL()})
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	beat := func() error { return db.Attempts.Beat(t.Context(), workerOne) }
	for range 3 {
		must(t, beat())
	}
	for n, server := range cluster.Servers[:3] {
		rdb := server.Client()
		t.Cleanup(func() { _ = rdb.Close() })
		keys := rdb.Keys(t.Context(), "reset:worker:*:beats").Val()
		if len(keys) != 1 {
			t.Fatalf("primary %d has %q", n, keys)
		}
		if ttl := rdb.PTTL(t.Context(), keys[0]).Val(); ttl <= 0 {
			t.Errorf("%s is kept for %s", keys[0], ttl)
		}
		must(t, rdb.Set(t.Context(), keys[0], 1, time.Minute).Err())
		if _, back := errors.AsType[*tasks.WentBackError](beat()); !back {
			t.Errorf("primary %d has gone back, and nobody has noticed", n)
		}
		if err := beat(); err != nil {
			t.Errorf("it is said again: %v", err)
		}
	}
	must(t, db.Attempts.Leave(t.Context(), workerOne))
	for n, server := range cluster.Servers[:3] {
		rdb := server.Client()
		if keys := rdb.Keys(t.Context(), "reset:worker:*").Val(); len(keys) > 0 {
			t.Errorf("primary %d is left with %q", n, keys)
		}
		_ = rdb.Close()
	}
}

// TestWhatIsOpenIsListed: the list of a Cluster has gone back to an earlier moment than records.
func TestWhatIsOpenIsListed(t *testing.T) {
	t.Parallel()
	w, rdb := openCluster(t)
	ctx, db := t.Context(), w.db
	open, listed, ended := w.submit(t, "phone-1"), w.submit(t, "phone-2"), w.submit(t, "phone-3")
	must(t, db.Records.Cancel(ctx, ended.ID, tasks.Actor{}))
	run, err := db.Runs.Create(ctx, tasks.RunSubmission{
		Tenant: "acme", IdempotencyKey: "run", AllowUnregistered: true, InstanceIDs: []string{"phone-4"},
		Options: tasks.RunOptions{MaxParallel: 1, Growth: 1},
	})
	must(t, err)
	relisted := func(want int) {
		t.Helper()
		if n, err := db.Sweep.Relist(ctx); n != want || err != nil {
			t.Errorf("%d listed, %v; want %d", n, err, want)
		}
	}
	relisted(0)
	for _, index := range []string{"reset:jobs", "reset:jobs:{acme}", "reset:open"} {
		rdb.ZRem(ctx, index, open.ID, ended.ID)
	}
	rdb.ZRem(ctx, "reset:runs", run.ID)
	relisted(2)
	for index, members := range map[string]string{
		"reset:open": open.ID + " " + listed.ID, "reset:jobs": open.ID + " " + listed.ID, "reset:jobs:{acme}": open.ID + " " + listed.ID, "reset:runs": run.ID,
	} {
		for _, member := range []string{open.ID, listed.ID, ended.ID, run.ID} {
			if in := rdb.ZScore(ctx, index, member).Err() == nil; in != strings.Contains(members, member) {
				t.Errorf("%s is in %s: %t", member, index, in)
			}
		}
	}
	if score := rdb.ZScore(ctx, "reset:jobs", open.ID).Val(); int64(score) != open.CreatedAt.UnixMilli() {
		t.Errorf("it is listed as of %.0f, it was created at %d", score, open.CreatedAt.UnixMilli())
	}
	relisted(0)
	if due, _, err := db.Sweep.Claim(context.WithoutCancel(ctx), 10, time.Minute); err != nil || len(due) != 1 || due[0].ID != open.ID {
		t.Errorf("due are %+v, %v", due, err)
	}
}
