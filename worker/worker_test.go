package worker

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/worker/requeue"
)

// driverFunc is a driver in one function, which is called when it may send.
type driverFunc func(ctx context.Context, a Attempt) error

func (f driverFunc) Reset(ctx context.Context, a Attempt) error {
	if a.MaySend != nil {
		if err := a.MaySend(); err != nil {
			return &DriverError{Verdict: NotSent, Message: "nothing was sent: " + err.Error()}
		}
	}
	return f(ctx, a)
}

// repeatable is a driver whose calls may be repeated.
type repeatable struct{ driverFunc }

func (repeatable) Repeatable() bool { return true }

type bench struct {
	*Worker
	db  *redisdb.DB
	rdb *redis.Client
}

// StoreOf is what a worker needs of a DB.
func StoreOf(db *redisdb.DB) Store {
	return Store{Attempts: db.Attempts, Policies: db.Policies, Quotas: db.Quotas, Notices: db.Notices, Routes: db.Sweep}
}

// SweepStoreOf is what a sweeper needs of a DB.
func SweepStoreOf(db *redisdb.DB) SweepStore {
	return SweepStore{OpenJobs: db.Sweep, Jobs: db.Jobs, Events: db.Notices, Failures: db.Failures, AllHalted: db.Policies}
}

// newBench makes a worker that is not started: the test calls process itself.
func newBench(t *testing.T, driver Driver, change ...func(*Config)) bench {
	t.Helper()
	return newBenchOn(t, redisdb.Options{URL: "redis://" + miniredis.RunT(t).Addr(), Embedded: true}, driver, change...)
}

func newBenchOn(t *testing.T, opts redisdb.Options, driver Driver, change ...func(*Config)) bench {
	t.Helper()
	db, rdb := dbtest.Open(t, opts)
	cfg := Config{
		QueuesOf: db.Queues.Of, Concurrency: 8, Lanes: 2, MaxAttempts: 3,
		AttemptTimeout: time.Minute, ShutdownTimeout: time.Minute,
	}
	for _, f := range change {
		f(&cfg)
	}
	// The log of a test that passed interests nobody.
	w, err := New(cfg, StoreOf(db), driver, db.Redis.NewServer, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return bench{w, db, rdb}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (b bench) submit(t *testing.T, instances ...string) tasks.Job {
	t.Helper()
	job, err := b.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: instances, AllowUnregistered: true})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func (b bench) item(t *testing.T, job tasks.Job) tasks.Item {
	t.Helper()
	job, err := b.db.Jobs.Job(t.Context(), job.ID)
	if err != nil {
		t.Fatal(err)
	}
	return job.Items[0]
}

var due = regexp.MustCompile(`,?"w":\d+`)

// ripen lets the time of a job's next attempts come.
func (b bench) ripen(t *testing.T, job tasks.Job) {
	t.Helper()
	record := "reset:{" + job.ID + "}"
	for n := range job.Items {
		field := strconv.Itoa(n)
		raw := b.rdb.HGet(t.Context(), record, field).Val()
		if now := strings.Replace(due.ReplaceAllString(raw, ""), "{,", "{", 1); now != raw {
			b.rdb.HSet(t.Context(), record, field, strings.TrimSuffix(now, " {}"))
		}
	}
}

// deliver hands the first item of a job to the worker, as asynq does when it is due.
func (b bench) deliver(t *testing.T, job tasks.Job) error {
	t.Helper()
	b.ripen(t, job)
	return b.process(t.Context(), asynq.NewTask(tasks.TypeReset, job.Deliveries()[0].Encode()))
}

func (b bench) locked(t *testing.T, instance string) bool {
	t.Helper()
	return b.rdb.Exists(t.Context(), "reset:lock:{"+instance+"}").Val() == 1
}

func wantAgain(t *testing.T, err error) *requeue.Later {
	t.Helper()
	a, ok := errors.AsType[*requeue.Later](err)
	if !ok {
		t.Fatalf("the task ends with %v, want it put back", err)
	}
	return a
}

func wantArchived(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, asynq.SkipRetry) {
		t.Fatalf("the task ends with %v, want it archived", err)
	}
}

func TestASuccessfulAttempt(t *testing.T) {
	var got Attempt
	b := newBench(t, driverFunc(func(_ context.Context, a Attempt) error {
		got = a
		return nil
	}))
	job := b.submit(t, "phone-1")
	if err := b.deliver(t, job); err != nil {
		t.Fatal(err)
	}
	if got.InstanceID != "phone-1" || got.ItemID != job.Items[0].ID || got.Number != 1 ||
		got.Key == "" || got.Ambiguous || time.Until(got.Deadline) > time.Minute {
		t.Errorf("the driver was given %+v", got)
	}
	if it := b.item(t, job); it.State != tasks.ItemSucceeded || it.Attempts != 1 {
		t.Errorf("item %+v", it)
	}
	if b.locked(t, "phone-1") {
		t.Error("the instance is still locked")
	}
}

func TestATaskThatIsDeliveredTwiceResetsOnce(t *testing.T) {
	calls := 0
	b := newBench(t, driverFunc(func(context.Context, Attempt) error {
		calls++
		return nil
	}))
	job := b.submit(t, "phone-1")
	for range 2 {
		if err := b.deliver(t, job); err != nil {
			t.Fatal(err)
		}
	}
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
	if b.locked(t, "phone-1") {
		t.Error("the refused delivery left the instance locked")
	}
}

func TestFailuresAreRetriedUntilTheBudgetIsSpent(t *testing.T) {
	keys := map[string]bool{}
	b := newBench(t, driverFunc(func(_ context.Context, a Attempt) error {
		keys[a.Key] = true
		return &DriverError{Verdict: Retryable, Code: "CPS.0003", Message: "internal error"}
	}))
	job := b.submit(t, "phone-1")
	for n := 1; n <= 2; n++ {
		if a := wantAgain(t, b.deliver(t, job)); !a.Failure {
			t.Error("not counted as a failure on the dashboard")
		}
		if it := b.item(t, job); it.State != tasks.ItemRetrying || it.Attempts != n || it.Code != "CPS.0003" {
			t.Errorf("after failure %d: %+v", n, it)
		}
	}
	wantArchived(t, b.deliver(t, job))
	if it := b.item(t, job); it.State != tasks.ItemFailed || it.Attempts != 3 || it.Message != "internal error" {
		t.Errorf("item %+v", it)
	}
	if len(keys) != 3 {
		t.Errorf("%d driver keys for 3 definite failures", len(keys))
	}
}

func TestABusyInstancePutsTheTaskBackUnused(t *testing.T) {
	b := newBench(t, driverFunc(func(context.Context, Attempt) error { return nil }))
	holder := b.submit(t, "phone-1").Deliveries()[0]
	if _, err := b.db.Attempts.Begin(t.Context(), holder, "holder", "k", time.Minute); err != nil {
		t.Fatal(err)
	}
	job := b.submit(t, "phone-1")
	if a := wantAgain(t, b.deliver(t, job)); a.Failure || a.Delay < time.Second/2 || a.Delay > time.Second {
		t.Errorf("put back with %+v", a)
	}
	if it := b.item(t, job); it.State != tasks.ItemPending || it.Attempts != 0 {
		t.Errorf("item %+v", it)
	}
	if _, err := b.db.Attempts.Finish(t.Context(), holder, "holder", tasks.Outcome{Transition: tasks.Succeed}, true); err != nil {
		t.Fatal(err)
	}
	if err := b.deliver(t, job); err != nil {
		t.Fatal(err)
	}
}

func TestATaskThatComesEarlyIsPutBackUntilItsTime(t *testing.T) {
	b := newBench(t, driverFunc(func(context.Context, Attempt) error {
		t.Error("the driver was called")
		return nil
	}))
	job, err := b.db.Records.Submit(t.Context(), tasks.Submission{
		Tenant: "acme", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true, NotBefore: tasks.FromMillis(time.Now().Add(time.Hour).UnixMilli()),
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := wantAgain(t, b.deliver(t, job)); a.Failure || a.Delay > time.Hour || a.Delay < 59*time.Minute {
		t.Errorf("put back with %+v", a)
	}
	if it := b.item(t, job); it.State != tasks.ItemPending || it.Attempts != 0 {
		t.Errorf("item %+v", it)
	}
}

// newBusyBench is a bench with a job whose instance another holds. The time that Redis has is
// what the test says, counted from the beginning.
func newBusyBench(t *testing.T) (b bench, job tasks.Job, at func(time.Duration)) {
	t.Helper()
	server := miniredis.RunT(t)
	b = newBenchOn(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true},
		driverFunc(func(context.Context, Attempt) error { return nil }))
	begin := time.Now()
	at = func(passed time.Duration) { server.SetTime(begin.Add(passed)) }
	at(0)
	if _, err := b.db.Attempts.Begin(t.Context(), b.submit(t, "phone-1").Deliveries()[0], "holder", "k", time.Hour); err != nil {
		t.Fatal(err)
	}
	return b, b.submit(t, "phone-1"), at
}

func TestAnInstanceThatIsBusyTooLongFailsTheItem(t *testing.T) {
	b, job, at := newBusyBench(t)
	_ = wantAgain(t, b.deliver(t, job))
	at(20 * time.Second)
	if a := wantAgain(t, b.deliver(t, job)); a.Delay < 10*time.Second || a.Delay > 20*time.Second {
		t.Errorf("put back for %s", a.Delay)
	}
	for waited := time.Minute; waited < busyLimit; waited += time.Minute {
		at(waited)
		_ = wantAgain(t, b.deliver(t, job))
	}
	at(busyLimit)
	wantArchived(t, b.deliver(t, job))
	if it := b.item(t, job); it.State != tasks.ItemFailed || it.Code != tasks.BusyTooLong || it.Attempts != 0 {
		t.Errorf("item %+v", it)
	}
}

func TestAnInstanceThatChangedHandsIsNotReset(t *testing.T) {
	for name, entry := range map[string]tasks.Instance{
		"another tenant's": {ID: "phone-1", Tenant: "other"},
		"protected":        {ID: "phone-1", Tenant: "acme", Protected: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, driverFunc(func(context.Context, Attempt) error {
				t.Error("the driver was called")
				return nil
			}))
			job := b.submit(t, "phone-1")
			if err := b.db.Fleet.Register(t.Context(), []tasks.Instance{entry}, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
			wantArchived(t, b.deliver(t, job))
			if it := b.item(t, job); it.State != tasks.ItemFailed || it.Code != tasks.NoLongerAllowed {
				t.Errorf("item %+v", it)
			}
		})
	}
	t.Run("another user's", func(t *testing.T) {
		b := newBench(t, driverFunc(func(context.Context, Attempt) error {
			t.Error("the driver was called")
			return nil
		}))
		if err := b.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-1", Tenant: "acme"}}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		job, err := b.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, Generations: map[string]int{"phone-1": 1}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.db.Fleet.Import(t.Context(), []tasks.FleetChange{{ID: "phone-1", Reassigned: true}}, false, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		wantArchived(t, b.deliver(t, job))
		if it := b.item(t, job); it.State != tasks.ItemFailed || it.Code != tasks.NoLongerAllowed || it.Attempts != 0 || it.Message != string(tasks.Reassigned) {
			t.Errorf("item %+v", it)
		}
	})
}

func TestAForgedPayloadDoesNotReachTheDriver(t *testing.T) {
	b := newBench(t, driverFunc(func(_ context.Context, a Attempt) error {
		t.Errorf("the driver was called for %s", a.InstanceID)
		return nil
	}))
	d := b.submit(t, "phone-1").Deliveries()[0]
	d.InstanceID = "phone-2"
	if err := b.process(t.Context(), asynq.NewTask(tasks.TypeReset, d.Encode())); err != nil {
		t.Errorf("dropped with %v", err)
	}
	if b.locked(t, "phone-2") {
		t.Error("the refused delivery left the instance locked")
	}
	wantArchived(t, b.process(t.Context(), asynq.NewTask(tasks.TypeReset, []byte("{}"))))
	wantArchived(t, b.process(t.Context(), asynq.NewTask("other:type", d.Encode())))
}

func TestAPanicIsAFailedAttempt(t *testing.T) {
	panics := driverFunc(func(context.Context, Attempt) error { panic("out of cheese") })
	t.Run("is retried where a repeat is harmless", func(t *testing.T) {
		b := newBench(t, repeatable{panics})
		job := b.submit(t, "phone-1")
		_ = wantAgain(t, b.deliver(t, job))
		if it := b.item(t, job); it.State != tasks.ItemRetrying || it.Code != tasks.ResetFailed || !strings.Contains(it.Message, "out of cheese") {
			t.Errorf("item %+v", it)
		}
	})
	t.Run("is unknown where it is not, because something may have been sent", func(t *testing.T) {
		b := newBench(t, panics)
		job := b.submit(t, "phone-1")
		wantArchived(t, b.deliver(t, job))
		if it := b.item(t, job); it.State != tasks.ItemUnknown || it.Code != tasks.ResetFailed {
			t.Errorf("item %+v", it)
		}
	})
}

func TestADriverThatIgnoresItsContextDoesNotHoldASlot(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	b := newBench(t, driverFunc(func(context.Context, Attempt) error {
		<-release
		return nil
	}), func(c *Config) { c.AttemptTimeout = time.Second })
	job := b.submit(t, "phone-1")
	wantArchived(t, b.deliver(t, job))
	close(release)
	b.calls.Wait()
	if it := b.item(t, job); it.State != tasks.ItemUnknown || it.Code != tasks.TimedOut {
		t.Errorf("item %+v", it)
	}
	if !b.locked(t, "phone-1") {
		t.Error("the instance was released while its reset may be going on")
	}
}

func TestATimeoutIsRepeatedUnderTheSameKeyWhereThatIsHarmless(t *testing.T) {
	t.Parallel()
	var attempts []Attempt
	b := newBench(t, repeatable{func(ctx context.Context, a Attempt) error {
		attempts = append(attempts, a)
		if len(attempts) == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}, func(c *Config) { c.AttemptTimeout = time.Second })
	job := b.submit(t, "phone-1")
	_ = wantAgain(t, b.deliver(t, job))
	if err := b.deliver(t, job); err != nil {
		t.Fatal(err)
	}
	if a := attempts[1]; a.Key != attempts[0].Key || !a.Ambiguous || a.Number != 2 {
		t.Errorf("first %+v, then %+v", attempts[0], a)
	}
	if b.locked(t, "phone-1") {
		t.Error("the instance is still locked")
	}
}

func TestACheckpointIsHandedToTheNextAttempt(t *testing.T) {
	var resumed string
	b := newBench(t, repeatable{func(ctx context.Context, a Attempt) error {
		if a.Number == 1 {
			if err := a.Save(ctx, strings.Repeat("x", MaxCheckpoint+1)); err == nil {
				t.Error("a checkpoint over the limit was kept")
			}
			if err := a.Save(ctx, "upstream job 7"); err != nil {
				t.Error(err)
			}
			return &DriverError{Verdict: Unknown}
		}
		resumed = a.Checkpoint
		return nil
	}})
	job := b.submit(t, "phone-1")
	_ = wantAgain(t, b.deliver(t, job))
	if err := b.deliver(t, job); err != nil || resumed != "upstream job 7" {
		t.Errorf("resumed from %q, %v", resumed, err)
	}
}

func TestLongMessagesAreCutOnACharacter(t *testing.T) {
	b := newBench(t, driverFunc(func(context.Context, Attempt) error {
		return &DriverError{Verdict: Permanent, Message: strings.Repeat("x", tasks.MaxMessage-1) + "é"}
	}))
	job := b.submit(t, "phone-1")
	wantArchived(t, b.deliver(t, job))
	if got, want := b.item(t, job).Message, strings.Repeat("x", tasks.MaxMessage-1); got != want {
		t.Errorf("%d bytes kept, ending in %q", len(got), got[len(got)-3:])
	}
}

func TestWorkIsPutBackWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	entered, goOn := make(chan struct{}), make(chan struct{})
	b := newBenchOn(t, redisdb.Options{URL: server.URL()}, driverFunc(func(context.Context, Attempt) error {
		close(entered)
		<-goOn
		return nil
	}))
	job := b.submit(t, "phone-1")
	other := b.submit(t, "phone-2")
	done, put := make(chan error, 1), make(chan error, 1)
	go func() { done <- b.deliver(t, job) }()
	<-entered
	server.Kill()
	go func() {
		put <- b.process(context.WithoutCancel(t.Context()), asynq.NewTask(tasks.TypeReset, other.Deliveries()[0].Encode()))
	}()
	var ended error
	select { // what could not begin is given up only with Redis
	case ended = <-put:
	case <-time.After(storePatience + 5*time.Second):
		ended = errors.New("it waits for Redis")
	}
	close(goOn)
	server.Restart(t)
	if _, waits := errors.AsType[*requeue.Later](ended); !waits {
		ended = <-put
	}
	if a := wantAgain(t, ended); a.Failure {
		t.Error("counted as a failure of the item")
	}
	if it := b.item(t, other); it.State.Final() || b.locked(t, "phone-2") {
		t.Errorf("item %+v", it)
	}
	if err := <-done; err != nil {
		t.Fatalf("the outcome of a finished reset was not written: %v", err)
	}
	if it := b.item(t, job); it.State != tasks.ItemSucceeded {
		t.Errorf("item %+v", it)
	}
}

// start runs the worker until the test ends or stop is called.
func (b bench) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (b bench) waitFinal(t *testing.T, job tasks.Job) tasks.Job {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		got, err := b.db.Jobs.Job(t.Context(), job.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.State.Final() {
			return got
		}
		select {
		case <-deadline:
			t.Fatalf("not final in time: %+v", got)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestJobsRunToTheirEndAndNeverTwoOnOneInstance(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	active, calls := map[string]bool{}, 0
	b := newBenchOn(t, redisdb.Options{URL: redistest.Start(t).URL(), TaskRetention: time.Minute}, driverFunc(func(_ context.Context, a Attempt) error {
		mu.Lock()
		if active[a.InstanceID] {
			t.Errorf("two resets of %s at a time", a.InstanceID)
		}
		active[a.InstanceID] = true
		calls++
		fail := a.InstanceID == "phone-2" && a.Number == 1
		mu.Unlock()
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			active[a.InstanceID] = false
		}()
		switch {
		case fail:
			return &DriverError{Verdict: Retryable, Code: "CPS.0003"}
		case a.InstanceID == "phone-3":
			return &DriverError{Verdict: Permanent, Code: "CPS.0005"}
		}
		return nil
	}))
	b.start(t)
	var jobs []tasks.Job
	for range 4 {
		jobs = append(jobs, b.submit(t, "phone-1", "phone-2", "phone-3"))
	}
	attempts := 0
	for _, job := range jobs {
		got := b.waitFinal(t, job)
		if got.State != tasks.JobPartial || got.Counts.Succeeded != 2 || got.Counts.Failed != 1 {
			t.Errorf("job %+v", got)
		}
		for _, it := range got.Items {
			attempts += it.Attempts
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if attempts != calls {
		t.Errorf("%d attempts recorded, %d calls made", attempts, calls)
	}
	archived, err := asynq.NewInspectorFromRedisClient(b.rdb).ListArchivedTasks("reset-0")
	if err != nil || len(archived) != 4 {
		t.Errorf("%d archived tasks, %v; want one for each failed item", len(archived), err)
	}
}

func TestShutdownHandsBackWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	b := newBench(t, repeatable{func(ctx context.Context, a Attempt) error {
		if a.Number > 1 {
			return nil
		}
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}}, func(c *Config) { c.ShutdownTimeout = time.Millisecond; c.MaxAttempts = 1 })
	stop := b.start(t)
	job := b.submit(t, "phone-1")
	<-entered
	stop()
	it := b.item(t, job)
	if it.State != tasks.ItemRetrying || it.Attempts != 1 {
		t.Fatalf("item %+v", it)
	}
	// Another worker goes on; the only retry has not been used.
	second := bench{db: b.db, rdb: b.rdb}
	var err error
	if second.Worker, err = New(b.cfg, StoreOf(b.db), b.drivers[tasks.DefaultDriver].driver, b.db.Redis.NewServer, b.log); err != nil {
		t.Fatal(err)
	}
	second.start(t)
	if got := second.waitFinal(t, job); got.State != tasks.JobSucceeded || got.Items[0].Attempts != 2 {
		t.Errorf("job %+v", got)
	}
}

func TestShutdownLetsRunningAttemptsEnd(t *testing.T) {
	entered, goOn := make(chan struct{}), make(chan struct{})
	b := newBench(t, driverFunc(func(ctx context.Context, _ Attempt) error {
		close(entered)
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}))
	job := b.submit(t, "phone-1")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	<-entered
	context.AfterFunc(ctx, func() { close(goOn) }) // the reset ends only after the stop has begun
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if it := b.item(t, job); it.State != tasks.ItemSucceeded {
		t.Errorf("item %+v", it)
	}
}

func TestATaskThatIsCancelledOnTheDashboardUsesNoRetry(t *testing.T) {
	entered := make(chan struct{})
	b := newBenchOn(t, redisdb.Options{URL: redistest.Start(t).URL()}, repeatable{func(ctx context.Context, _ Attempt) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}}, func(c *Config) { c.MaxAttempts = 1 })
	b.start(t)
	job := b.submit(t, "phone-1")
	<-entered
	inspector := b.db.Redis.NewInspector()
	if err := inspector.CancelProcessing(job.Deliveries()[0].TaskID()); err != nil {
		t.Fatal(err)
	}
	for b.item(t, job).State == tasks.ItemRunning {
		if t.Context().Err() != nil {
			t.Fatal("the attempt goes on")
		}
	}
	if it := b.item(t, job); it.State != tasks.ItemRetrying || it.Attempts != 1 {
		t.Errorf("item %+v", it)
	}
}

func TestNothingBeginsWhileTheUpstreamCannotBeReached(t *testing.T) {
	calls := 0
	upstream := NewUpstream(driverFunc(func(context.Context, Attempt) error {
		calls++
		return &DriverError{Verdict: Unreachable, Message: "connection refused"}
	}), UpstreamConfig{}, slog.New(slog.DiscardHandler))
	b := newBench(t, upstream, func(c *Config) { c.MaxAttempts = 1 })
	job := b.submit(t, "phone-1")
	for range breakerFailures {
		if a := wantAgain(t, b.deliver(t, job)); a.Failure {
			t.Error("counted as a failure of the item")
		}
	}
	b.drain() // so that the next one is not held for seconds
	_ = wantAgain(t, b.deliver(t, job))
	if it := b.item(t, job); it.State != tasks.ItemRetrying || it.Attempts != breakerFailures || calls != breakerFailures {
		t.Errorf("%d calls, item %+v", calls, it)
	}
	if b.locked(t, "phone-1") {
		t.Error("the instance is locked")
	}
}

func TestConfigIsRefusedByFlag(t *testing.T) {
	good := Config{Concurrency: 1, Lanes: 1, MaxAttempts: 1, AttemptTimeout: time.Second}
	for want, change := range map[string]func(*Config){
		"--concurrency":      func(c *Config) { c.Concurrency = 0 },
		"--lanes":            func(c *Config) { c.Lanes = 2 },
		"--max-attempts":     func(c *Config) { c.MaxAttempts = 0 },
		"--attempt-timeout":  func(c *Config) { c.AttemptTimeout = time.Millisecond },
		"--shutdown-timeout": func(c *Config) { c.ShutdownTimeout = -1 },
	} {
		t.Run(want, func(t *testing.T) {
			bad := good
			change(&bad)
			if err := bad.Check(); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}

// TestAQueueThatTurnsUpIsServed: an api process may be given more queues than a worker
// knew when it started.
func TestAQueueThatTurnsUpIsServed(t *testing.T) {
	t.Parallel()
	url := redistest.Start(t).URL()
	b := newBenchOn(t, redisdb.Options{URL: url}, driverFunc(func(context.Context, Attempt) error { return nil }))
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	more, err := redisdb.Open(t.Context(), redisdb.Options{URL: url, Queues: 64})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = more.Close() })
	job, err := more.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true})
	if err != nil {
		t.Fatal(err)
	}
	if job.Queue == "reset-0" {
		t.Fatal("the tenant's queues are not what this test needs")
	}
	harness.Eventually(t, 20*time.Second, "the item succeeds", func() bool { return b.item(t, job).State == tasks.ItemSucceeded })
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
