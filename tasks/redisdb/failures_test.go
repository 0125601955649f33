package redisdb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// fail ends the attempt at item n of the job with a code.
func (w world) fail(t testing.TB, job tasks.Job, n int, code tasks.Code, event tasks.Transition) {
	t.Helper()
	token := fmt.Sprintf("t%d", n)
	for _, d := range job.Deliveries() {
		if d.ItemID != tasks.ItemID(job.ID, n) {
			continue
		}
		if _, err := w.db.Attempts.Begin(t.Context(), d, token, "key", time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Attempts.Finish(t.Context(), d, token, tasks.Outcome{Transition: event, Code: code, Message: "no"}, true); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no delivery of item %d", n)
}

// kinds are the kinds of failures of the last hour, for people.
func (w world) kinds(t testing.TB) string {
	t.Helper()
	kinds, err := w.db.Failures.FailureKinds(t.Context(), time.Hour, 12)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, k := range kinds {
		if len(k.Over) != 12 || k.Over[11] != k.Total() || time.Since(k.Last.Time) > time.Minute {
			t.Errorf("kind %+v", k)
		}
		text += fmt.Sprintf("%s %s %d, ", k.Driver, k.Code, k.Total())
	}
	return text
}

func TestFailuresAreCountedAndListedByKind(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "a", "b", "c", "d", "e", "f", "g")
		for n, code := range []tasks.Code{"CPS.0005", "CPS.0042", "CPS.0005", "CPS.0005"} {
			w.fail(t, job, n, code, tasks.Fail)
		}
		w.fail(t, job, 4, "RESET.1001", tasks.LoseTrack)
		w.fail(t, job, 5, "", tasks.Succeed)
		if _, err := w.db.Attempts.Abandon(t.Context(), job.Deliveries()[6], tasks.BusyTooLong, "busy", 0); err != nil {
			t.Fatal(err)
		}
		if got := w.kinds(t); got[:21] != "default CPS.0005 3, d" || len(got) != len("default CPS.0005 3, default CPS.0042 1, default RESET.1001 1, default RESET.1004 1, ") {
			t.Errorf("kinds %s", got)
		}
		// Page by page, newest first, none twice, and as they are now.
		if err := w.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		var got []string
		f := tasks.FailureFilter{FailureKind: tasks.FailureKind{Driver: "default", Code: "CPS.0005"}, Limit: 2}
		for pages := 0; ; pages++ {
			page, next, err := w.db.Failures.Failures(t.Context(), f)
			if err != nil || len(page) > 2 || pages > 2 {
				t.Fatalf("page %d: %+v, %v", pages, page, err)
			}
			for _, failure := range page {
				got = append(got, failure.Item.InstanceID)
				if failure.Job.ID != job.ID || failure.Item.State != tasks.ItemPending {
					t.Errorf("failure %+v", failure)
				}
			}
			if f.Cursor = next; next == "" {
				break
			}
		}
		if len(got) != 3 || !sameMembers(got, "a", "c", "d") {
			t.Errorf("items %v", got)
		}
		for _, cursor := range []string{"x", "1", "1-x", "-1", "1--1"} {
			f.Cursor = cursor
			if _, _, err := w.db.Failures.Failures(t.Context(), f); tasks.CodeOf(err) != tasks.BadRequest {
				t.Errorf("cursor %q: %v", cursor, err)
			}
		}
	})
}

func TestFailuresOfATenantAreCounted(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "a", "b", "c", "d")
		other, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "globex", InstanceIDs: []string{"x", "y"}, AllowUnregistered: true})
		if err != nil {
			t.Fatal(err)
		}
		w.fail(t, job, 0, "CPS.0005", tasks.Fail)
		w.fail(t, job, 1, "CPS.0005", tasks.Fail)
		w.fail(t, job, 2, "CPS.0042", tasks.Fail)
		w.fail(t, other, 0, "CPS.0005", tasks.Fail)
		for tenant, want := range map[string]string{
			job.Tenant: "CPS.0005 2 false, CPS.0042 1 false, ", "globex": "CPS.0005 1 false, ", "nobody": "",
		} {
			kinds, err := w.db.Failures.FailureKindsOf(t.Context(), tenant, time.Hour, 12)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, k := range kinds {
				if len(k.Over) != 12 || k.Over[11] != k.Total() || time.Since(k.Last.Time) > time.Minute {
					t.Errorf("kind %+v", k)
				}
				got += fmt.Sprintf("%s %d %t, ", k.Code, k.Total(), k.More)
			}
			if got != want {
				t.Errorf("%s has %q, want %q", tenant, got, want)
			}
		}
	})
}

func sameMembers(got []string, want ...string) bool {
	seen := map[string]bool{}
	for _, s := range got {
		seen[s] = true
	}
	for _, s := range want {
		if !seen[s] {
			return false
		}
	}
	return len(seen) == len(want)
}

// A worker may die between the end of an item and its entry; and what ends with its job
// has no worker.
func TestFailuresAreListedAgainWhereAnEntryIsMissing(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "a", "b")
		w.fail(t, job, 0, "CPS.0005", tasks.Fail)
		w.fail(t, job, 1, "CPS.0005", tasks.Fail)
		want := w.kinds(t)
		for _, lost := range []func(){
			func() { w.rdb.ZRem(t.Context(), "reset:failures:{default CPS.0005}", job.ID+"-0") },
			func() { w.rdb.Del(t.Context(), "reset:failures", "reset:failures:{default CPS.0005}") },
			func() {},
		} {
			lost()
			if err := w.db.Failures.IndexFailures(t.Context(), w.read(t, job.ID)); err != nil {
				t.Fatal(err)
			}
			if got := w.kinds(t); got != want {
				t.Errorf("kinds %s, want %s", got, want)
			}
		}

		doubt := w.submit(t, "c")
		d, _ := w.begin(t, doubt, 0, "t")
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t", tasks.Outcome{Transition: tasks.Retry, Code: tasks.TimedOut, InDoubt: true}, true); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Records.Cancel(t.Context(), doubt.ID, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if got := w.kinds(t); got != want+"default RESET.1001 1, " {
			t.Errorf("kinds %s", got)
		}
	})
}

// The worker that ended an item dies before it has listed it; a sweeper of another driver does it.
func TestAFailureIsListedUnderTheDriverOfItsItem(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		if err := w.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "b", Tenant: "acme", Driver: "lab"}, {ID: "c", Tenant: "acme", Driver: "lab"}}, importer); err != nil {
			t.Fatal(err)
		}
		lab := map[string]string{"b": "lab", "c": "lab"}
		failed, abandoned, doubt := w.submit(t, "a"), w.submitTo(t, lab, "b"), w.submitTo(t, lab, "c")
		w.fail(t, failed, 0, "CPS.0005", tasks.Fail)
		if _, err := w.db.Attempts.Abandon(t.Context(), abandoned.Deliveries()[0], tasks.NotInTime, "no", 0); err != nil {
			t.Fatal(err)
		}
		d, _ := w.begin(t, doubt, 0, "t")
		if _, err := w.db.Attempts.Finish(t.Context(), d, "t", tasks.Outcome{Transition: tasks.Retry, Code: tasks.TimedOut, InDoubt: true}, true); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Records.Cancel(t.Context(), doubt.ID, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		want := []string{"default CPS.0005 1", "lab RESET.1001 1", "lab RESET.1008 1"}
		listed := func() []string {
			return slices.Sorted(slices.Values(strings.Split(strings.TrimSuffix(w.kinds(t), ", "), ", ")))
		}
		if got := listed(); !slices.Equal(got, want) {
			t.Fatalf("the workers list %q, want %q", got, want)
		}
		for _, key := range w.rdb.Keys(t.Context(), "reset:failures*").Val() {
			w.rdb.Del(t.Context(), key)
		}
		other, err := redisdb.Open(t.Context(), redisdb.Options{URL: "redis://" + w.rdb.Options().Addr, Embedded: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Close() }()
		for _, job := range []tasks.Job{failed, abandoned, doubt} {
			if err := other.Failures.IndexFailures(t.Context(), w.read(t, job.ID)); err != nil {
				t.Fatal(err)
			}
		}
		if got := listed(); !slices.Equal(got, want) {
			t.Errorf("the sweeper lists %q, want %q", got, want)
		}
	})
}

func TestTheListOfFailuresIsBounded(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	ctx, key := t.Context(), "reset:failures:{default CPS.0005}"
	now := float64(time.Now().UnixMilli())
	for from := range 100 {
		members := make([]redis.Z, 1000)
		for n := range members {
			members[n] = redis.Z{Score: now - 5000, Member: tasks.ItemID(fmt.Sprintf("%032x", from), n)}
		}
		if err := w.rdb.ZAdd(ctx, key, members...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	month := float64((31*24*time.Hour + time.Minute).Milliseconds())
	w.rdb.ZAdd(ctx, key, redis.Z{Score: now - month, Member: "old"})
	for n := range 300 {
		w.rdb.ZAdd(ctx, "reset:failures", redis.Z{Score: now - 1000, Member: fmt.Sprintf("default made-up-%d", n)})
	}
	job := w.submit(t, "a")
	w.fail(t, job, 0, "CPS.0005", tasks.Fail)
	if n := w.rdb.ZCard(ctx, key).Val(); n != 100_000 {
		t.Errorf("%d failures are listed", n)
	}
	if n := w.rdb.ZCard(ctx, "reset:failures").Val(); n != 200 {
		t.Errorf("%d kinds are listed", n)
	}
	// Those whose record is gone are dropped, in a bounded number of steps.
	f := tasks.FailureFilter{FailureKind: tasks.FailureKind{Driver: "default", Code: "CPS.0005"}, Limit: 50}
	for want := 1; want >= 0; want-- {
		page, next, err := w.db.Failures.Failures(ctx, f)
		if err != nil || len(page) != want || next == "" {
			t.Fatalf("%d failures, next %q, %v; want %d", len(page), next, err, want)
		}
		f.Cursor = next
	}
	if n := w.rdb.ZCard(ctx, key).Val(); n > 100_000-10*50 || n < 100_000-15*50 {
		t.Errorf("%d failures are left", n)
	}
}
