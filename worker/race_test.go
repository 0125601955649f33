package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// recorder is a driver that takes a moment, ends as the test wants, and remembers
// every call.
type recorder struct {
	t    *testing.T
	ends func(a Attempt) error

	mu     sync.Mutex
	items  map[string]int  // calls by item
	jobs   map[string]int  // calls by job
	active map[string]bool // by instance
}

func record(t *testing.T, ends func(a Attempt) error) *recorder {
	return &recorder{t: t, ends: ends, items: map[string]int{}, jobs: map[string]int{}, active: map[string]bool{}}
}

func (r *recorder) Reset(_ context.Context, a Attempt) error {
	job, _, _ := tasks.ParseItemID(a.ItemID)
	r.mu.Lock()
	if r.active[a.InstanceID] {
		r.t.Errorf("two resets of %s at a time", a.InstanceID)
	}
	r.active[a.InstanceID] = true
	r.items[a.ItemID]++
	r.jobs[job]++
	r.mu.Unlock()
	harness.Pause(r.t.Context(), rand.N(10*time.Millisecond)) // it goes on even if the attempt is given up
	r.mu.Lock()
	r.active[a.InstanceID] = false
	r.mu.Unlock()
	return r.ends(a)
}

// calls returns how often the driver was called, by item.
func (r *recorder) calls() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.items)
}

// soon is a failure that is tried again as soon as asynq can.
func soon() *DriverError { return &DriverError{Verdict: Retryable, RetryAfter: time.Millisecond} }

// startWorkers starts n workers, each with connections of its own, on one Redis.
func startWorkers(t *testing.T, n int, driver Driver, change ...func(*Config)) bench {
	t.Helper()
	// Nobody kills this Redis, so it need not wait for the disk.
	opts := redisdb.Options{URL: redistest.Start(t, "appendfsync no").URL()}
	var b bench
	for range n {
		b = newBenchOn(t, opts, driver, change...)
		b.start(t)
	}
	return b
}

// poll calls f until it says that it is done, or fails, with a deadline.
func poll(what string, f func() (done bool, err error)) error {
	var failed error
	err := harness.Until(context.Background(), 30*time.Second, func(context.Context) error {
		done, err := f()
		if failed = err; done {
			return nil
		}
		if err != nil {
			return nil //nolint:nilerr // it ends the waiting, and is returned below
		}
		return errors.New("it took too long: " + what)
	})
	return errors.Join(failed, err)
}

// drained waits until asynq has no task left that a worker might still run: what the
// record has refused counts only if it was really delivered.
func (b bench) drained(t *testing.T) {
	t.Helper()
	inspector := b.db.Redis.NewInspector()
	if err := poll("the queue to be empty", func() (bool, error) {
		q, err := inspector.GetQueueInfo("reset-0")
		return err == nil && q.Pending+q.Active+q.Scheduled+q.Retry == 0, err
	}); err != nil {
		t.Fatal(err)
	}
}

// follower reads the record of one job over and over, and finds what may never be.
type follower struct {
	bench
	id      string
	limit   int // max_failures
	final   map[int]tasks.Item
	stopped bool // what is open is running, for the last time
}

func (f *follower) read(ctx context.Context) (tasks.Job, error) {
	job, err := f.db.Jobs.Job(ctx, f.id)
	if err != nil {
		return job, err
	}
	if c := tasks.Count(job.Items); c != job.Counts || c.Total() != job.Total {
		return job, fmt.Errorf("the record does not add up: counts %+v, items %+v", job.Counts, c)
	}
	if f.limit > 0 && job.Counts.Failed >= f.limit {
		f.stopped = true
	}
	for n, it := range job.Items {
		if was, ended := f.final[n]; ended && !reflect.DeepEqual(was, it) {
			return job, fmt.Errorf("a final item has changed from %+v to %+v", was, it)
		}
		if it.State.Final() {
			f.final[n] = it
		} else if f.stopped && it.State != tasks.ItemRunning {
			return job, fmt.Errorf("an item of a stopped job goes on: %+v", it)
		}
	}
	return job, nil
}

// end reads until the job is final.
func (f *follower) end(ctx context.Context) error {
	return poll("job "+f.id, func() (bool, error) {
		job, err := f.read(ctx)
		return job.State.Final(), err
	})
}

// tooLate reports whether err is the answer to a cancel or a retry that has nothing
// to do.
func tooLate(err error) bool { return tasks.CodeOf(err) == tasks.JobFinal }

func TestCancelRacesRunningWorkers(t *testing.T) {
	t.Parallel()
	driver := record(t, func(Attempt) error {
		switch rand.N(10) {
		case 0, 1:
			return soon()
		case 2:
			return &DriverError{Verdict: Permanent}
		}
		return nil
	})
	b := startWorkers(t, 2, driver)

	const jobs, items = 60, 8
	type cancelled struct {
		follower
		late  bool           // the job had ended
		job   tasks.Job      // as read after the answer
		calls map[string]int // as counted after that
	}
	all := make([]cancelled, jobs)
	var g errgroup.Group
	for n := range all {
		var instances []string
		for i := range items { // most instances are in two jobs
			instances = append(instances, fmt.Sprintf("phone-%d", (n*items+i)%250))
		}
		c := &all[n]
		c.follower = follower{bench: b, id: b.submit(t, instances...).ID, final: map[int]tasks.Item{}}
		g.Go(func() error {
			// The moment: when so many calls were made for the job.
			if err := poll("calls", func() (bool, error) {
				driver.mu.Lock()
				defer driver.mu.Unlock()
				return driver.jobs[c.id] >= n%(items+1), nil
			}); err != nil {
				return err
			}
			harness.Pause(t.Context(), rand.N(20*time.Millisecond)) // any moment will do
			err := c.db.Records.Cancel(t.Context(), c.id, tasks.Actor{})
			if c.late = tooLate(err); err != nil && !c.late {
				return err
			}
			c.stopped = true
			if c.job, err = c.read(t.Context()); err != nil {
				return err
			}
			c.calls = driver.calls()
			return c.end(t.Context())
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	b.drained(t)

	calls := driver.calls()
	late, untouched, between := 0, 0, 0
	for n := range all {
		c := &all[n]
		job, err := c.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c.late {
			late++
			if !c.job.State.Final() || job.Counts.Cancelled > 0 {
				t.Errorf("a cancel found %s final: %+v", job.ID, c.job)
			}
		}
		for n, it := range job.Items {
			then := c.job.Items[n] // when the cancel was answered
			if it.Attempts != then.Attempts {
				t.Errorf("item %s began after the cancel: then %+v, now %+v", it.ID, then, it)
			}
			if calls[it.ID] > it.Attempts {
				t.Errorf("item %s has %d attempts, the driver saw %d calls", it.ID, it.Attempts, calls[it.ID])
			}
			if it.State != tasks.ItemCancelled {
				continue
			}
			if calls[it.ID] > c.calls[it.ID] || it.Code != tasks.Cancelled {
				t.Errorf("item %s was called after it was cancelled, or is not cancelled by us: %+v", it.ID, it)
			}
			if it.Attempts == 0 {
				untouched++
			} else {
				between++
			}
		}
		if err := b.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); !tooLate(err) {
			t.Errorf("cancel of a final job: %v", err)
		}
	}
	t.Logf("%d items cancelled before their first attempt, %d between two, %d of %d cancels too late", untouched, between, late, jobs)
	if untouched == 0 || late == jobs {
		t.Error("there was no race to see")
	}
}

func TestRetryRacesRunningWorkers(t *testing.T) {
	t.Parallel()
	// Item n of a job fails n%3 times for good: each job needs two retries.
	fails := func(id string) int { _, n, _ := tasks.ParseItemID(id); return n % 3 }
	driver := record(t, func(a Attempt) error {
		if a.Number <= fails(a.ItemID) {
			return &DriverError{Verdict: Permanent, Code: "CPS.0005"}
		}
		return nil
	})
	b := startWorkers(t, 2, driver)
	const jobs, items = 20, 6
	ids := make([]string, jobs)
	for n := range ids {
		var instances []string
		for i := range items { // each instance is in four jobs
			instances = append(instances, fmt.Sprintf("phone-%d", (n*items+i)%30))
		}
		ids[n] = b.submit(t, instances...).ID
	}

	var mu sync.Mutex
	retries := map[string]int{}
	var g errgroup.Group
	for range 2 {
		g.Go(func() error {
			return poll("every job to succeed", func() (bool, error) {
				left := jobs
				for _, id := range ids {
					err := b.db.Records.Retry(t.Context(), id, tasks.RetryStates, tasks.Actor{})
					if err != nil && !tooLate(err) {
						return false, err
					}
					mu.Lock()
					if err == nil {
						retries[id]++
					}
					mu.Unlock()
					job, err := b.db.Jobs.Job(t.Context(), id)
					if err != nil {
						return false, err
					}
					if c := tasks.Count(job.Items); c != job.Counts || c.Total() != items {
						return false, fmt.Errorf("the record does not add up: counts %+v, items %+v", job.Counts, c)
					}
					if job.State == tasks.JobSucceeded {
						left--
					}
				}
				return left == 0, nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	b.drained(t)

	calls := driver.calls()
	for _, id := range ids {
		job, err := b.db.Jobs.Job(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if job.State != tasks.JobSucceeded || retries[id] != 2 {
			t.Errorf("job %s is %s after %d retries", id, job.State, retries[id])
		}
		for _, it := range job.Items {
			if it.Attempts != fails(it.ID)+1 || len(it.History) != fails(it.ID) || calls[it.ID] != it.Attempts || it.Delivery != it.Attempts {
				t.Errorf("%d calls, item %+v", calls[it.ID], it)
			}
			for n, past := range it.History {
				if past.Number != n+1 || past.Outcome != "failed" || past.Code != "CPS.0005" || past.FinishedAt.IsZero() {
					t.Errorf("item %s remembers %+v", it.ID, past)
				}
			}
		}
		if err := b.db.Records.Retry(t.Context(), id, tasks.RetryStates, tasks.Actor{}); !tooLate(err) {
			t.Errorf("retry with nothing to retry: %v", err)
		}
	}
}

func TestMaxFailuresRacesRunningWorkers(t *testing.T) {
	t.Parallel()
	driver := record(t, func(Attempt) error {
		switch rand.N(20) {
		case 0, 1, 2, 3:
			return soon()
		case 4:
			return &DriverError{Verdict: Unknown, RetryAfter: time.Millisecond}
		case 5, 6, 7:
			return nil
		}
		return &DriverError{Verdict: Permanent}
	})
	const jobs, items, workers, each = 30, 16, 3, 2
	b := startWorkers(t, workers, repeatable{driver.Reset}, func(c *Config) {
		c.Concurrency, c.Lanes, c.MaxAttempts = each, 1, 10
	})
	all := make([]follower, jobs)
	var g errgroup.Group
	for n := range all {
		s := tasks.Submission{Tenant: "acme", AllowUnregistered: true, MaxFailures: 1 + n%3}
		for i := range items {
			s.InstanceIDs = append(s.InstanceIDs, fmt.Sprintf("phone-%d-%d", n, i))
		}
		job, err := b.db.Records.Submit(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		all[n] = follower{bench: b, id: job.ID, limit: s.MaxFailures, final: map[int]tasks.Item{}}
		g.Go(func() error { return all[n].end(t.Context()) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	b.drained(t)

	calls := driver.calls()
	untouched, between, over := 0, 0, 0
	for n := range all {
		limit := all[n].limit
		job, err := all[n].read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var failures []time.Time
		for _, it := range job.Items {
			if it.State == tasks.ItemFailed {
				failures = append(failures, it.FinishedAt.Time)
			}
		}
		slices.SortFunc(failures, time.Time.Compare)
		if len(failures) < limit {
			if job.Counts.Cancelled > 0 {
				t.Errorf("job %s was stopped after %d failures, %d are allowed", job.ID, len(failures), limit)
			}
			continue
		}
		// The failure that reached the limit stopped the job, in the same script.
		stop := failures[limit-1]
		if over += len(failures) - limit; len(failures) > limit-1+workers*each {
			t.Errorf("job %s: %d items failed, %d were allowed and %d could be running", job.ID, len(failures), limit, workers*each)
		}
		for _, it := range job.Items {
			if it.StartedAt.After(stop) || slices.ContainsFunc(it.History, func(p tasks.PastAttempt) bool { return p.StartedAt.After(stop) }) {
				t.Errorf("job %s was stopped at %s, then began %+v", job.ID, stop, it)
			}
			if calls[it.ID] > it.Attempts {
				t.Errorf("item %s has %d attempts, the driver saw %d calls", it.ID, it.Attempts, calls[it.ID])
			}
			inDoubt := len(it.History) > 0 && it.History[len(it.History)-1].Code != tasks.ResetFailed
			if it.State != tasks.ItemSucceeded && inDoubt != (it.State == tasks.ItemUnknown) {
				t.Errorf("an earlier call is in doubt: %t, item %+v", inDoubt, it)
			}
			if it.State == tasks.ItemCancelled {
				// One that was running when the job was stopped sent nothing any more.
				unsent := len(it.History) > 0 && it.History[len(it.History)-1].Outcome == string(tasks.ItemCancelled)
				if it.Code != tasks.Stopped || !unsent && !it.FinishedAt.Equal(stop) || unsent && it.FinishedAt.Before(stop) {
					t.Errorf("job %s was stopped at %s, item %+v", job.ID, stop, it)
				}
				if it.Attempts == 0 {
					untouched++
				} else {
					between++
				}
			}
		}
	}
	t.Logf("%d items stopped before their first attempt, %d between two; %d failures were running at the stop", untouched, between, over)
	if untouched == 0 || over == 0 {
		t.Error("there was no race to see")
	}
}
