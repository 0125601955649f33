package redisdb_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

func TestOverview(t *testing.T) {
	t.Parallel()
	both(t, redisdb.Options{Queues: 12}, func(t *testing.T, w world) {
		ctx, stop := context.WithCancel(t.Context())
		written := make(chan error, 1)
		go func() { written <- w.db.Activity.WriteActivity(ctx) }()
		job := w.submit(t, "a", "b", "c", "d")
		w.fail(t, job, 0, "CPS.0005", tasks.Fail)
		w.fail(t, job, 1, "", tasks.Succeed)
		w.fail(t, job, 2, "", tasks.LoseTrack)
		if err := w.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		want := tasks.Activity{Submitted: 4, Succeeded: 1, Failed: 1, Unknown: 1, Cancelled: 1}
		var o tasks.Overview
		for sum := (tasks.Activity{}); sum != want; {
			var err error
			if o, err = w.db.Overview.Overview(t.Context()); err != nil || len(o.Minutes) != 60 {
				t.Fatal(len(o.Minutes), err)
			}
			sum = o.Minutes[58] // a minute may end meanwhile
			sum.Submitted += o.Minutes[59].Submitted
			sum.Succeeded += o.Minutes[59].Succeeded
			sum.Failed += o.Minutes[59].Failed
			sum.Unknown += o.Minutes[59].Unknown
			sum.Cancelled += o.Minutes[59].Cancelled
		}
		stop()
		if err := <-written; err != nil {
			t.Error(err)
		}
		if o.Work.OpenJobs != 0 || len(o.Queues) != 12 || o.Queues[2].Name != "reset-2" || len(o.Workers) != 0 || len(o.Redis) != 1 {
			t.Errorf("overview %+v", o)
		}
	})
}

func TestOverviewOfARedisThatMayForget(t *testing.T) {
	server := redistest.Start(t)
	w := open(t, redisdb.Options{URL: server.URL()})
	durability := func() (sentence, problem string) {
		o, err := w.db.Overview.Overview(t.Context())
		if err != nil || len(o.Redis) != 1 || o.Redis[0].Version == "" || o.Redis[0].Memory == 0 {
			t.Fatalf("%+v, %v", o.Redis, err)
		}
		return o.Redis[0].Durability, o.Redis[0].Problem
	}
	seen := map[string]bool{}
	w.rdb.ConfigSet(t.Context(), "save", "3600 1")
	for _, set := range [][2]string{{"appendonly", "no"}, {"save", ""}, {"appendonly", "yes"}, {"appendfsync", "everysec"}, {"appendfsync", "no"}} {
		if err := w.rdb.ConfigSet(t.Context(), set[0], set[1]).Err(); err != nil {
			t.Fatal(err)
		}
		sentence, problem := durability()
		if problem != "" || seen[sentence] || strings.Contains(sentence, "loses everything") != (set[0] == "save") {
			t.Errorf("%v: %q, %q", set, sentence, problem)
		}
		seen[sentence] = true
	}
	w.rdb.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru")
	if _, problem := durability(); problem == "" {
		t.Error("no problem with a Redis that evicts")
	}
}

func TestOverviewOfARedisThatCannotSave(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t, "appendonly no").URL()})
	dir, err := w.rdb.ConfigGet(t.Context(), "dir").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir["dir"], "dump.rdb", "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.rdb.BgSave(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, time.Minute, "a snapshot that could not be written", func() bool {
		o, err := w.db.Overview.Overview(t.Context())
		return err == nil && strings.Contains(o.Redis[0].Problem, "snapshot could not be written")
	})
}

// What a process did in its last seconds is not lost when it ends.
func TestActivityIsWrittenAtTheEnd(t *testing.T) {
	url := redistest.Start(t).URL()
	first, err := redisdb.Open(t.Context(), redisdb.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"a", "b"}, AllowUnregistered: true}); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	o, err := open(t, redisdb.Options{URL: url}).db.Overview.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := o.Minutes[58].Submitted + o.Minutes[59].Submitted; n != 2 {
		t.Errorf("%d submitted", n)
	}
}
