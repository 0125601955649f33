package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

func (w world) trail(t testing.TB, f tasks.AuditFilter) (found []tasks.AuditEntry) {
	t.Helper()
	if err := w.db.Audit.Trail(t.Context(), f, func(e tasks.AuditEntry) error {
		found = append(found, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestASubmitIsInTheTrail(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job, err := w.db.Records.Submit(t.Context(), tasks.Submission{
			Tenant: "acme", RequestID: "req-1", InstanceIDs: []string{"b", "a"}, AllowUnregistered: true, Reason: "recall", By: "token 1", From: "192.0.2.1",
		})
		if err != nil {
			t.Fatal(err)
		}
		got := w.trail(t, tasks.AuditFilter{})
		if len(got) != 1 || time.Since(got[0].At.Time) > time.Minute {
			t.Fatalf("trail %+v", got)
		}
		got[0].At = tasks.Time{}
		want := tasks.AuditEntry{
			Action: tasks.ActionSubmit, By: "token 1", From: "192.0.2.1", Tenant: "acme", Job: job.ID, RequestID: "req-1", Reason: "recall",
			InstanceIDs: []string{"b", "a"}, List: "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2", // printf 'a\nb\n' | sha256sum
		}
		if fmt.Sprint(got[0]) != fmt.Sprint(want) {
			t.Errorf("entry %+v, want %+v", got[0], want)
		}
	})
}

// When Redis has no room for the entry, it must not have any for the job.
func TestWhatCannotBeInTheTrailIsNotDone(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	// The stream is the one thing that cannot be written.
	if err := w.rdb.Set(t.Context(), "reset:audit", "not a stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	job, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"a"}, AllowUnregistered: true, IdempotencyKey: "k"})
	if err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("submit: %+v, %v", job, err)
	}
	if _, err := w.db.Jobs.Job(t.Context(), tasks.Submission{Tenant: "acme", IdempotencyKey: "k"}.JobID()); !errors.Is(err, tasks.JobGone) {
		t.Errorf("the job: %v", err)
	}
	if err := w.db.Audit.Decide(t.Context(), tasks.AuditEntry{Action: tasks.ActionRetry}, func(context.Context) error {
		t.Error("it is done")
		return nil
	}); err == nil {
		t.Error("an entry that cannot be written is told to be")
	}
}

func TestTheTrailIsReadByTimeAndSubject(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	const entries = 1234 // more than two pages
	pipe := w.rdb.Pipeline()
	for n := range entries {
		pipe.XAdd(t.Context(), &redis.XAddArgs{
			Stream: "reset:audit", ID: fmt.Sprintf("%d-%d", 1000+n/2, n%2),
			Values: []any{"e", fmt.Sprintf(`{"action":"submit","by":"token 1","tenant":"t%d","job_id":"j%d","run_id":"r%d","instance_ids":["i%d","x"]}`, n%2, n, n%4, n%3)},
		})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := tasks.FromMillis
	for _, row := range []struct {
		name   string
		filter tasks.AuditFilter
		want   int
		first  string
	}{
		{"everything", tasks.AuditFilter{}, entries, "j0"},
		{"from a time", tasks.AuditFilter{Since: at(1100)}, entries - 200, "j200"},
		{"until a time", tasks.AuditFilter{Until: at(1100)}, 200, "j0"},
		{"between two", tasks.AuditFilter{Since: at(1100), Until: at(1101)}, 2, "j200"},
		{"a tenant's", tasks.AuditFilter{Tenant: "t1"}, entries / 2, "j1"},
		{"a job's", tasks.AuditFilter{Job: "j777"}, 1, "j777"},
		{"a run's", tasks.AuditFilter{Run: "r3"}, entries / 4, "j3"},
		{"an instance's", tasks.AuditFilter{InstanceID: "i2"}, entries / 3, "j2"},
		{"an action's", tasks.AuditFilter{Action: tasks.ActionHalt}, 0, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := w.trail(t, row.filter)
			if len(got) != row.want || row.want > 0 && got[0].Job != row.first {
				t.Errorf("%d entries, want %d from %s", len(got), row.want, row.first)
			}
			for i, e := range got {
				if i > 0 && e.At.Before(got[i-1].At.Time) {
					t.Fatalf("entry %d is out of order", i)
				}
			}
		})
	}
}

// Redis's clock decides, not this machine's, which may be ahead.
func TestOldEntriesAreDropped(t *testing.T) {
	for _, ahead := range []time.Duration{0, 48 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			server := miniredis.RunT(t)
			now := time.Now().Add(-ahead)
			server.SetTime(now)
			w := open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true, AuditRetention: time.Hour})
			for _, age := range []time.Duration{2 * time.Hour, 61 * time.Minute, 59 * time.Minute} {
				w.rdb.XAdd(t.Context(), &redis.XAddArgs{
					Stream: "reset:audit", ID: fmt.Sprintf("%d-0", now.Add(-age).UnixMilli()), Values: []any{"e", `{"action":"halt","by":"x"}`},
				})
			}
			w.submit(t, "phone-1")
			if err := w.db.Audit.Decide(t.Context(), tasks.AuditEntry{Action: tasks.ActionResume}, func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range w.trail(t, tasks.AuditFilter{}) {
				got = append(got, string(e.Action))
			}
			if fmt.Sprint(got) != "[halt submit resume]" {
				t.Errorf("trail %v", got)
			}
		})
	}
}

func TestRecentEntriesNewestFirst(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	for n := range 1100 { // more than two readings
		w.rdb.XAdd(t.Context(), &redis.XAddArgs{
			Stream: "reset:audit", ID: fmt.Sprintf("%d-0", 1000+n), Values: []any{"e", fmt.Sprintf(`{"action":"submit","by":"x","tenant":"t%d","job_id":"j%d"}`, n%2, n)},
		})
	}
	for _, row := range []struct {
		filter tasks.AuditFilter
		limit  int
		pages  string // how many there are, the first and the last of each page
	}{
		{tasks.AuditFilter{Tenant: "t0"}, 600, " 550 j1098 j0"},
		{tasks.AuditFilter{Tenant: "t0"}, 300, " 300 j1098 j500 250 j498 j0"},
		{tasks.AuditFilter{Job: "j7"}, 3, " 1 j7 j7"},
		{tasks.AuditFilter{Tenant: "nobody"}, 3, ""},
	} {
		pages, cursor := "", ""
		for {
			got, older, err := w.db.Audit.Recent(t.Context(), row.filter, cursor, row.limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) > 0 {
				pages += fmt.Sprintf(" %d %s %s", len(got), got[0].Job, got[len(got)-1].Job)
			}
			if cursor = older; cursor == "" {
				break
			}
		}
		if pages != row.pages {
			t.Errorf("%+v: pages%s, want%s", row.filter, pages, row.pages)
		}
	}
	// A page looks through a bounded number.
	pipe := w.rdb.Pipeline()
	for range 3000 {
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: "reset:audit", Values: []any{"e", `{"action":"submit","by":"x"}`}})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, older, err := w.db.Audit.Recent(t.Context(), tasks.AuditFilter{Tenant: "t1"}, "", 3)
	if err != nil || len(got) != 0 || older == "" {
		t.Errorf("%d entries, cursor %q, %v", len(got), older, err)
	}
	if got, _, err = w.db.Audit.Recent(t.Context(), tasks.AuditFilter{Tenant: "t1"}, older, 3); err != nil || len(got) != 3 {
		t.Errorf("%d entries, %v", len(got), err)
	}
	for _, cursor := range []string{"x", "7", "7-x", "(7-7"} {
		if _, _, err := w.db.Audit.Recent(t.Context(), tasks.AuditFilter{}, cursor, 3); tasks.CodeOf(err) != tasks.BadRequest {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
}
