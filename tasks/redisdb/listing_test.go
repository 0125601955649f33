package redisdb_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// list reads a list to its end, and what each page had.
func (w world) list(t *testing.T, f tasks.JobFilter) (ids []string, pages []int) {
	t.Helper()
	for {
		jobs, next, err := w.db.Jobs.Jobs(t.Context(), "acme", f)
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range jobs {
			ids = append(ids, job.ID)
		}
		pages = append(pages, len(jobs))
		if f.Cursor = next; next == "" {
			return ids, pages
		}
	}
}

func TestAListGoesByLabelsAndTimes(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		submit := func(labels map[string]string) tasks.Job {
			t.Helper()
			job, err := w.db.Records.Submit(t.Context(), tasks.Submission{
				Tenant: "acme", RequestID: "req-1", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true, Labels: labels,
			})
			if err != nil {
				t.Fatal(err)
			}
			w.after(t, job, 2) // the next one is of another moment
			return job
		}
		first := submit(map[string]string{"run": "nightly", "site": "north"})
		second := submit(map[string]string{"run": "nightly", "a=b": "c=d"})
		third := submit(nil)
		at := func(job tasks.Job) time.Time { return job.CreatedAt.Time }
		for _, row := range []struct {
			name   string
			filter tasks.JobFilter
			want   []string
		}{
			{"all", tasks.JobFilter{}, []string{third.ID, second.ID, first.ID}},
			{"a label", tasks.JobFilter{Labels: []string{"run=nightly"}}, []string{second.ID, first.ID}},
			{"two labels", tasks.JobFilter{Labels: []string{"run=nightly", "site=north"}}, []string{first.ID}},
			{"a label with equals signs", tasks.JobFilter{Labels: []string{"a=b=c=d"}}, []string{second.ID}},
			{"a label's beginning", tasks.JobFilter{Labels: []string{"run=night"}}, nil},
			{"since is meant, too", tasks.JobFilter{Since: at(second)}, []string{third.ID, second.ID}},
			{"until is not", tasks.JobFilter{Until: at(second)}, []string{first.ID}},
			{"a nanosecond after", tasks.JobFilter{Since: at(second).Add(1), Until: at(third).Add(1)}, []string{third.ID}},
			{"between", tasks.JobFilter{Since: at(first), Until: at(third), Labels: []string{"run=nightly"}}, []string{second.ID, first.ID}},
			{"an empty span", tasks.JobFilter{Since: at(second), Until: at(second)}, nil},
			{"before all", tasks.JobFilter{Until: time.Date(1, 2, 3, 0, 0, 0, 0, time.UTC)}, nil},
		} {
			for _, limit := range []int{1, 100} {
				row.filter.Limit = limit
				if got, _ := w.list(t, row.filter); !slices.Equal(got, row.want) {
					t.Errorf("%s, %d at a time: %v, want %v", row.name, limit, got, row.want)
				}
			}
		}
	})
}

func TestACursorHoldsWhileJobsArriveAndOnlyForItsFilters(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		var want []string
		for range 5 {
			want = append(want, w.submit(t, "phone-1").ID)
		}
		filter := tasks.JobFilter{InstanceID: "phone-1", Labels: nil, Since: time.Now().Add(-time.Hour), Limit: 2}
		var got []string
		for page := 0; page == 0 || filter.Cursor != ""; page++ {
			jobs, next, err := w.db.Jobs.Jobs(t.Context(), "acme", filter)
			if err != nil {
				t.Fatal(err)
			}
			for _, job := range jobs {
				got = append(got, job.ID)
			}
			if next != "" {
				w.submit(t, "phone-1")
				for _, other := range []tasks.JobFilter{
					{},
					{InstanceID: "phone-2", Since: filter.Since},
					{InstanceID: "phone-1"},
					{InstanceID: "phone-1", Since: filter.Since, State: tasks.JobPending},
					{InstanceID: "phone-1", Since: filter.Since, Until: time.Now()},
					{InstanceID: "phone-1", Since: filter.Since, Labels: []string{"a=b"}},
				} {
					other.Cursor, other.Limit = next, 2
					if _, _, err := w.db.Jobs.Jobs(t.Context(), "acme", other); tasks.CodeOf(err) != tasks.BadRequest || !strings.Contains(err.Error(), "cursor is of a list with other filters") {
						t.Errorf("cursor with %+v: %v", other, err)
					}
				}
			}
			filter.Cursor = next
			filter.Limit = 3 // may change
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("listed %v, want %v", got, want)
		}
	})
}

// What matches little is looked for in many requests, each with a bound, and jobs of one
// moment are told apart however many they are.
func TestAListReadsABoundedNumberOfRecords(t *testing.T) {
	t.Parallel()
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		record, err := w.rdb.HGetAll(t.Context(), "reset:{"+job.ID+"}").Result()
		if err != nil {
			t.Fatal(err)
		}
		// 2,350 newer ones without the label and of another instance: 350 of one moment, the rest of one each.
		pipe := w.rdb.Pipeline()
		now := job.CreatedAt.UnixMilli() + 1
		for n := range 2350 {
			id := fmt.Sprintf("%032x", n+1)
			record["created"] = strconv.FormatInt(now+int64(max(0, n-350)), 10)
			pipe.HSet(t.Context(), "reset:{"+id+"}", record)
			pipe.ZAdd(t.Context(), "reset:jobs:{acme}", redis.Z{Score: float64(now + int64(max(0, n-350))), Member: id})
		}
		pipe.HSet(t.Context(), "reset:{"+job.ID+"}", "labels", `{"run":"nightly"}`, "0", "p    phone-7")
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		found, pages := w.list(t, tasks.JobFilter{InstanceID: "phone-7", Limit: 10})
		if !slices.Equal(found, []string{job.ID}) || !slices.Equal(pages, []int{0, 0, 0, 0, 1}) {
			t.Errorf("found %v in pages of %v", found, pages)
		}
		// What the headers of records tell is looked for in many more of them.
		found, pages = w.list(t, tasks.JobFilter{Labels: []string{"run=nightly"}, State: tasks.JobPending, Limit: 10})
		if !slices.Equal(found, []string{job.ID}) || !slices.Equal(pages, []int{1}) {
			t.Errorf("found %v in pages of %v", found, pages)
		}
		for _, state := range []tasks.JobState{tasks.JobSucceeded, tasks.JobCancelled} {
			if found, _ := w.list(t, tasks.JobFilter{State: state, Limit: 10}); len(found) != 0 {
				t.Errorf("%s: %v", state, found)
			}
		}
		all, _ := w.list(t, tasks.JobFilter{Limit: 97})
		slices.Sort(all)
		if n := len(slices.Compact(all)); n != 2351 || len(all) != n {
			t.Errorf("%d jobs are listed, %d of them once, want 2351", len(all), n)
		}
		// What is out of range costs nothing.
		_, pages = w.list(t, tasks.JobFilter{Until: time.UnixMilli(now), Limit: 10})
		if !slices.Equal(pages, []int{1}) {
			t.Errorf("pages of %v", pages)
		}
	})
}

func TestARequestThatWasSentTwiceIsListedAtTheTimeOfItsRecord(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		s := tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true, IdempotencyKey: "k"}
		first, err := w.db.Records.Submit(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		w.after(t, first, 3)
		if _, err := w.db.Records.Submit(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		found, _ := w.list(t, tasks.JobFilter{Since: first.CreatedAt.Time, Until: first.CreatedAt.Add(time.Millisecond), Limit: 10})
		if !slices.Equal(found, []string{first.ID}) {
			t.Errorf("found %v, want %s", found, first.ID)
		}
	})
}

func TestJobsAreListedNewestFirstInPages(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		want := map[string]bool{}
		for n := range 25 {
			want[w.submit(t, fmt.Sprintf("phone-%d", n%5)).ID] = true
		}
		seen := map[string]bool{}
		var last tasks.Job
		cursor := ""
		for page := 0; page == 0 || cursor != ""; page++ {
			jobs, next, err := w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 10, Cursor: cursor})
			if err != nil {
				t.Fatal(err)
			}
			for _, job := range jobs {
				if last.ID != "" && job.CreatedAt.After(last.CreatedAt.Time) {
					t.Errorf("%s is newer than the one before it", job.ID)
				}
				if seen[job.ID] || !want[job.ID] {
					t.Errorf("job %s is listed twice or is not ours", job.ID)
				}
				seen[job.ID], last = true, job
			}
			cursor = next
		}
		if len(seen) != 25 {
			t.Errorf("%d jobs listed, want 25", len(seen))
		}

		jobs, _, err := w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 100, InstanceID: "phone-3"})
		if err != nil || len(jobs) != 5 {
			t.Errorf("%d jobs for phone-3, want 5; %v", len(jobs), err)
		}
		jobs, _, err = w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 100, State: tasks.JobFailed})
		if err != nil || len(jobs) != 0 {
			t.Errorf("%d failed jobs, want none; %v", len(jobs), err)
		}
		jobs, _, err = w.db.Jobs.Jobs(t.Context(), "other", tasks.JobFilter{Limit: 100})
		if err != nil || len(jobs) != 0 {
			t.Errorf("another tenant sees %d jobs; %v", len(jobs), err)
		}
		for _, bad := range []string{"x", "1-x", "-", "1-" + strings.Repeat("g", 32)} {
			if _, _, err := w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 1, Cursor: bad}); tasks.CodeOf(err) != tasks.BadRequest {
				t.Errorf("cursor %q: %v", bad, err)
			}
		}
	})
}

func TestListingDropsJobsWhoseRecordIsGone(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		old := float64(time.Now().Add(-time.Hour).UnixMilli())
		fresh := float64(time.Now().UnixMilli())
		gone, justListed := tasks.NewJobID(), tasks.NewJobID()
		key := "reset:jobs:{acme}"
		if err := w.rdb.ZAdd(t.Context(), key, redis.Z{Score: old, Member: gone}, redis.Z{Score: fresh, Member: justListed}).Err(); err != nil {
			t.Fatal(err)
		}
		if jobs, _, err := w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 10}); err != nil || len(jobs) != 0 {
			t.Fatalf("%d jobs, %v", len(jobs), err)
		}
		left := w.rdb.ZRange(t.Context(), key, 0, -1).Val()
		if len(left) != 1 || left[0] != justListed {
			t.Errorf("left in the index: %v, want the one whose record may still come", left)
		}
	})
}
