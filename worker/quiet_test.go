package worker_test

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/worker"
)

// holding is a driver that does not answer until the test lets it, for the instances that the test names.
type holding struct {
	mu    sync.Mutex
	begun []string
	let   chan struct{}
}

func (h *holding) Reset(ctx context.Context, a worker.Attempt) error {
	if err := a.MaySend(); err != nil {
		return &worker.DriverError{Verdict: worker.NotSent, Message: err.Error()}
	}
	h.mu.Lock()
	h.begun = append(h.begun, a.InstanceID)
	h.mu.Unlock()
	select {
	case <-h.let:
		return nil
	case <-ctx.Done():
		return &worker.DriverError{Verdict: worker.Unknown, Message: "cut off"}
	}
}

func (h *holding) calls() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.begun)
}

// crew is a worker that reports, on a Redis of its own.
type crew struct {
	*scene

	*worker.Worker
	stopped atomic.Bool // by an order
	done    chan error
	end     context.CancelFunc
}

func newCrew(t *testing.T, driver worker.Driver, change ...func(*worker.Config)) *crew {
	t.Helper()
	opts := redisdb.Options{URL: redistest.Start(t).URL()}
	db, rdb := dbtest.Open(t, opts)
	return startCrew(t, &scene{db: db, rdb: rdb, inspector: db.Redis.NewInspector()}, driver, change...)
}

// startCrew runs a worker until the test ends, or somebody orders it to stop.
func startCrew(t *testing.T, s *scene, driver worker.Driver, change ...func(*worker.Config)) *crew {
	t.Helper()
	c := &crew{scene: s, done: make(chan error, 1)}
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	c.end = end
	store := worker.StoreOf(c.db)
	store.Reports = c.db.Workers
	cfg := config(time.Minute)
	cfg.Version = "v9"
	cfg.Hold = func(hold bool) { c.db.Redis.Hold(tasks.QueuePrefix, hold) }
	cfg.Stop = func() { c.stopped.Store(true); end() }
	cfg.Calls = func(driver string) worker.CallCounter { return c.db.Calls.Of(driver) }
	for _, f := range change {
		f(&cfg)
	}
	var err error
	c.Worker, err = worker.New(cfg, store, driver, c.db.Redis.NewServer, logOf(t))
	if err != nil {
		t.Fatal(err)
	}
	go func() { c.done <- c.Run(ctx) }()
	t.Cleanup(func() {
		end()
		if err := <-c.done; err != nil {
			t.Error(err)
		}
		c.done <- nil
	})
	return c
}

// view is the only worker process.
func (c *crew) view(t *testing.T) (view tasks.WorkerView) {
	t.Helper()
	harness.Eventually(t, patience, "the worker reports", func() bool {
		all, err := c.db.Workers.Workers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != 1 || !all[0].Reports {
			return false
		}
		view = all[0]
		return true
	})
	return view
}

// becomes waits until the worker says something of itself, by its own report as it is now.
func (c *crew) becomes(t *testing.T, what string, is func(tasks.WorkerView) bool) (view tasks.WorkerView) {
	t.Helper()
	id := c.view(t).ID
	harness.Eventually(t, patience, what, func() bool {
		var found bool
		var err error
		if view, found, err = c.db.Workers.Worker(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return found && is(view)
	})
	return view
}

func (c *crew) order(t *testing.T, o tasks.WorkerOrder) {
	t.Helper()
	if err := c.db.Workers.Order(t.Context(), c.view(t).ID, o, tasks.Actor{By: "operator alice"}); err != nil {
		t.Fatal(err)
	}
}

func is(state tasks.WorkerCondition) func(tasks.WorkerView) bool {
	return func(w tasks.WorkerView) bool { return w.State == state }
}

func TestAWorkerTellsWhatItDoes(t *testing.T) {
	driver := &holding{let: make(chan struct{})}
	c := newCrew(t, worker.NewUpstream(driver, worker.UpstreamConfig{Rate: 50, Concurrency: 3}, logOf(t)))
	job := c.submit(t, "phone-1", "phone-2")
	v := c.becomes(t, "two items are under way", func(w tasks.WorkerView) bool { return w.UnderWay() == 2 })
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if v.Host != host || v.PID != os.Getpid() || v.Version != "v9" || v.State != tasks.WorkerWorks || v.Started.IsZero() || v.Whole || v.ClockOffset == nil || v.ClockWrong() || !v.Heard() {
		t.Errorf("%+v", v)
	}
	d := v.Drivers[0]
	if len(v.Drivers) != 1 || d.Name != tasks.DefaultDriver || d.Slots == 0 || d.Lanes == 0 || d.Busy != 2 || d.Rate != 50 || d.Concurrency != 3 || !d.OpenSince.IsZero() || d.AttemptTimeout() != time.Minute {
		t.Errorf("%+v", d)
	}
	for _, item := range v.Items {
		if item.Job() != job.ID || item.Tenant != "acme" || item.Driver != tasks.DefaultDriver || item.Attempt != 1 || v.Age(item) > patience || item.Since.Before(v.Started.Time) {
			t.Errorf("%+v", item)
		}
	}
	if v.Items[0].Since.After(v.Items[1].Since.Time) || v.Oldest() != v.Age(v.Items[0]) {
		t.Errorf("not the oldest first: %+v", v.Items)
	}
	close(driver.let)
	c.waitFinal(t, job.ID)
	c.becomes(t, "nothing is under way", func(w tasks.WorkerView) bool { return w.UnderWay() == 0 && w.Busy() == 0 })
	// When it ends nothing is left of it.
	c.end()
	if err := <-c.done; err != nil {
		t.Error(err)
	}
	c.done <- nil
	if keys := c.rdb.Keys(t.Context(), "reset:worker*").Val(); len(keys) > 0 {
		t.Errorf("left %v", keys)
	}
}

func TestAQuietWorkerTakesNothingUntilItIsTold(t *testing.T) {
	driver := &holding{let: make(chan struct{})}
	c := newCrew(t, worker.NewUpstream(driver, worker.UpstreamConfig{Concurrency: 2}, logOf(t)), func(cfg *worker.Config) { cfg.Concurrency = 8 })
	first := c.submit(t, "phone-1", "phone-2", "phone-3", "phone-4") // two of which wait for a turn
	harness.Eventually(t, patience, "two calls", func() bool { return driver.calls() == 2 })
	c.becomes(t, "all are taken", func(w tasks.WorkerView) bool { return w.Busy() == 4 })

	ordered := time.Now()
	c.order(t, tasks.OrderQuiet)
	v := c.becomes(t, "the worker is quiet", is(tasks.WorkerQuiet))
	if passed := time.Since(ordered); passed > 3*tasks.ReportEvery { // a busy machine
		t.Errorf("it took %s", passed)
	}
	if v.Since.IsZero() || v.Takes() || !c.Quiet() {
		t.Errorf("%+v", v)
	}
	second := c.submit(t, "phone-5", "phone-6")
	c.becomes(t, "what waited for its turn went back", func(w tasks.WorkerView) bool { return w.Busy() == 2 })
	close(driver.let) // what is under way ends
	harness.Eventually(t, patience, "what was under way ends", func() bool { return c.job(t, first.ID).Counts.Succeeded == 2 })
	sleepUntil(time.Now().Add(tasks.ReportEvery + time.Second)) // in which it takes nothing
	if n := driver.calls(); n != 2 {
		t.Errorf("%d calls", n)
	}
	got := c.job(t, first.ID)
	for _, item := range got.Items {
		if item.State == tasks.ItemPending && item.Attempts != 0 {
			t.Errorf("it used an attempt: %+v", item)
		}
	}
	if got.Counts.Pending != 2 || c.job(t, second.ID).Counts.Pending != 2 {
		t.Errorf("%+v, %+v", got.Counts, c.job(t, second.ID).Counts)
	}

	c.order(t, tasks.OrderTake)
	for _, id := range []string{first.ID, second.ID} {
		if job := c.waitFinal(t, id); job.State != tasks.JobSucceeded {
			t.Errorf("%+v", job)
		} else {
			for _, item := range job.Items {
				if item.Attempts != 1 {
					t.Errorf("%+v", item)
				}
			}
		}
	}
	c.becomes(t, "it works", is(tasks.WorkerWorks))
	if driver.calls() != 6 || c.Quiet() {
		t.Errorf("%d calls", driver.calls())
	}
}

func TestAWorkerThatIsToldToStopEndsWhatItHas(t *testing.T) {
	driver := &holding{let: make(chan struct{})}
	c := newCrew(t, driver)
	job := c.submit(t, "phone-1")
	harness.Eventually(t, patience, "a call", func() bool { return driver.calls() == 1 })
	c.order(t, tasks.OrderStop)
	v := c.becomes(t, "it drains", is(tasks.WorkerDrains))
	if v.UnderWay() != 1 || v.Takes() || !c.stopped.Load() {
		t.Errorf("%+v", v)
	}
	if err := c.db.Workers.Order(t.Context(), v.ID, tasks.OrderQuiet, tasks.Actor{}); tasks.CodeOf(err) != tasks.BadRequest {
		t.Errorf("quiet while it drains: %v", err)
	}
	close(driver.let)
	if err := <-c.done; err != nil {
		t.Error(err)
	}
	c.done <- nil
	if got := c.job(t, job.ID); got.State != tasks.JobSucceeded {
		t.Errorf("%+v", got)
	}
}

func TestTheBreakerOfAWorkerIsReported(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	c := newCrew(t, worker.NewUpstream(callFunc(func(context.Context, worker.Attempt) error {
		if away.Load() {
			return &worker.DriverError{Verdict: worker.Unreachable, Message: "no route to host"}
		}
		return nil
	}), worker.UpstreamConfig{}, logOf(t)))
	job := c.submit(t, "phone-1", "phone-2", "phone-3", "phone-4", "phone-5", "phone-6")
	v := c.becomes(t, "its breaker opens", func(w tasks.WorkerView) bool { return !w.Drivers[0].OpenSince.IsZero() })
	since := v.Drivers[0].OpenSince
	if d := v.Drivers[0]; d.LastError != "no route to host" || d.LastErrorAt.IsZero() {
		t.Errorf("%+v", d)
	}
	harness.Eventually(t, patience, "all say so", func() bool {
		unreachable, err := c.db.Workers.Unreachable(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return unreachable[tasks.DefaultDriver].Sub(since.Time).Abs() < time.Second // each report tells it by two clocks
	})
	away.Store(false)
	c.waitFinal(t, job.ID)
	c.becomes(t, "its breaker closes", func(w tasks.WorkerView) bool { return w.Drivers[0].OpenSince.IsZero() })
	c.db.Calls.Flush(t.Context())
	planes, err := c.db.Workers.ControlPlanes(t.Context())
	if err != nil || len(planes) != 1 {
		t.Fatalf("%+v, %v", planes, err)
	}
	now := planes[0].Now()
	if now.Kinds[tasks.CallDone] != 6 || now.Kinds[tasks.CallUnreachable] < 5 || len(planes[0].Failures) < 5 || planes[0].Failures[0].Message != "no route to host" || planes[0].Failures[0].Job() != job.ID {
		t.Errorf("%+v, %+v", now.Kinds, planes[0].Failures)
	}
}

type callFunc func(ctx context.Context, a worker.Attempt) error

func (f callFunc) Reset(ctx context.Context, a worker.Attempt) error {
	if err := a.MaySend(); err != nil {
		return &worker.DriverError{Verdict: worker.NotSent, Message: err.Error()}
	}
	return f(ctx, a)
}
