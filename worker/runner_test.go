package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/tasks/redisdb/runs"
)

// course is a run that a test takes step by step.
type course struct {
	*testing.T
	db     *redisdb.DB
	runner *Runner
	id     string
	began  []string // instances, in order
}

func storeOfRunner(db *redisdb.DB) RunnerStore {
	return RunnerStore{Runs: db.Runs, RunProgress: db.RunProgress, RunNotices: db.Notices, RunHalts: db.Policies, RunJobs: db.Records, RunFleet: db.Fleet}
}

func newRunnerOf(t *testing.T, store RunnerStore) *Runner {
	return NewRunner(store, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
}

// newCourse makes a run of phones from 0 to n-1.
func newCourse(t *testing.T, opts redisdb.Options, n int, o tasks.RunOptions) *course {
	t.Helper()
	db, _ := dbtest.Open(t, opts)
	c := &course{T: t, db: db, runner: newRunnerOf(t, storeOfRunner(db))}
	s := tasks.RunSubmission{Tenant: "acme", AllowUnregistered: true, Options: o, By: "token 7"}
	for i := range n {
		s.InstanceIDs = append(s.InstanceIDs, fmt.Sprintf("phone-%d", i))
	}
	if s.Options.MaxParallel == 0 {
		s.Options.MaxParallel = tasks.DefaultMaxParallel
	}
	if s.Options.Canary > 0 && s.Options.Growth == 0 {
		s.Options.Growth = tasks.DefaultGrowth
	}
	if err := s.Options.Check(n); err != nil {
		t.Fatal(err)
	}
	run, err := db.Runs.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	c.id = run.ID
	return c
}

func embedded(t *testing.T) redisdb.Options {
	return redisdb.Options{URL: "redis://" + miniredis.RunT(t).Addr(), Embedded: true}
}

// run is the run now. Its counts must be those of its total.
func (c *course) run() tasks.Run {
	c.Helper()
	run, err := c.db.Runs.Run(c.Context(), c.id)
	if err != nil {
		c.Fatal(err)
	}
	if run.Counts.Total() != run.Total {
		c.Fatalf("the counts %+v are not of %d", run.Counts, run.Total)
	}
	return run
}

// rounds has the runner go on until nothing changes.
func (c *course) rounds() tasks.Run {
	c.Helper()
	for range 20 {
		before := c.run().Revision
		if err := c.db.RunProgress.Hurry(c.Context(), c.id); err != nil {
			c.Fatal(err)
		}
		if err := c.runner.Round(c.Context()); err != nil {
			c.Fatal(err)
		}
		if run := c.run(); run.Revision == before && (run.State.Final() || len(run.Open) > 0 || run.State != tasks.RunRunning) {
			return run
		}
	}
	return c.run()
}

// open are the instances of the run's open jobs that have not ended, in order.
func (c *course) open() (open []tasks.Delivery) {
	c.Helper()
	var ids []string
	for part := range c.run().Open {
		ids = append(ids, tasks.PartJobID(c.id, part))
	}
	for _, read := range c.db.Jobs.Records(c.Context(), ids) {
		if read.Err != nil && !errors.Is(read.Err, tasks.JobGone) {
			c.Fatal(read.Err)
		}
		open = append(open, read.Job.Deliveries()...)
	}
	slices.SortFunc(open, func(a, b tasks.Delivery) int {
		return strings.Compare(fmt.Sprintf("%09s", a.InstanceID), fmt.Sprintf("%09s", b.InstanceID))
	})
	return open
}

// end ends attempts at all that is open, with a failure for those that fail.
func (c *course) end(fails func(instance string) bool) {
	c.Helper()
	for _, d := range c.open() {
		token := "token-" + d.ItemID
		if _, err := c.db.Attempts.Begin(c.Context(), d, token, "key", time.Minute); err != nil {
			c.Fatalf("%s: %v", d.InstanceID, err)
		}
		c.began = append(c.began, d.InstanceID)
		o := tasks.Outcome{Transition: tasks.Succeed}
		if fails != nil && fails(d.InstanceID) {
			o = tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005", Failure: true}
		}
		if _, err := c.db.Attempts.Finish(c.Context(), d, token, o, true); err != nil {
			c.Fatal(err)
		}
	}
}

func (c *course) wantOpen(stage string, n int) {
	c.Helper()
	if run := c.run(); run.Stage != stage || len(c.open()) != n {
		c.Errorf("stage %q with %d open (%+v, held %q), want %q with %d", run.Stage, len(c.open()), run.Counts, run.Held.Reason, stage, n)
	}
}

func TestARunGoesInWaves(t *testing.T) {
	c := newCourse(t, redisdb.Options{URL: redistest.Start(t).URL()}, 100, tasks.RunOptions{Canary: 3, Growth: 3, MaxParallel: 40})
	c.rounds()
	c.wantOpen("canary", 3)
	c.end(nil)
	c.rounds()
	c.wantOpen("wave 1", 9)
	c.end(nil)
	c.rounds()
	c.wantOpen("wave 2", 27)
	c.end(nil)
	c.rounds()
	c.wantOpen("wave 3", 32) // of 61, and no more at a time than 40
	c.end(nil)
	run := c.rounds()
	c.wantOpen("draining", 29)
	if run.Counts.Succeeded != 71 {
		t.Errorf("counts %+v", run.Counts)
	}
	c.end(nil)
	if run := c.rounds(); run.State != tasks.RunSucceeded || run.Counts.Succeeded != 100 || run.FinishedAt.IsZero() || run.Stage != "" {
		t.Errorf("run %+v", run)
	}
	if slices.Sort(c.began); len(c.began) != 100 || len(slices.Compact(c.began)) != 100 {
		t.Errorf("began %d", len(c.began))
	}
	if due, err := c.db.RunProgress.Due(t.Context(), 10, "x", time.Second); err != nil || due != nil {
		t.Errorf("still due: %v, %v", due, err)
	}
}

func TestACanaryThatFailsPausesTheRun(t *testing.T) {
	c := newCourse(t, embedded(t), 100, tasks.RunOptions{Canary: 2})
	c.rounds()
	c.end(func(instance string) bool { return instance == "phone-1" })
	run := c.rounds()
	if run.State != tasks.RunPaused || len(c.began) != 2 || !strings.Contains(run.Held.Reason, "the canary failed: of its 2 instances 1 failed") || run.Failures[0] != (tasks.RunFailure{Code: "CPS.0005", Count: 1}) {
		t.Fatalf("run %+v", run)
	}
	if err := c.db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{By: "token 7"}); err != nil {
		t.Fatal(err)
	}
	c.rounds()
	c.wantOpen("wave 1", 4)
	c.end(nil)
	if run := c.rounds(); run.State != tasks.RunRunning {
		t.Errorf("run %+v", run)
	}
}

// What was cancelled shows nothing: the waves after such a canary would be the first ones to be tried.
func TestACanaryThatWasCancelledPausesTheRun(t *testing.T) {
	c := newCourse(t, embedded(t), 100, tasks.RunOptions{Canary: 2})
	c.rounds()
	if err := c.db.Records.Cancel(t.Context(), tasks.PartJobID(c.id, 0), tasks.Actor{By: "token 7"}); err != nil {
		t.Fatal(err)
	}
	if run := c.rounds(); run.State != tasks.RunPaused || !strings.Contains(run.Held.Reason, "2 were cancelled") || len(c.open()) > 0 {
		t.Fatalf("run %+v", run)
	}
	if err := c.db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{By: "token 7"}); err != nil {
		t.Fatal(err)
	}
	c.rounds()
	c.wantOpen("wave 1", 4)
}

func TestABudgetPausesTheRun(t *testing.T) {
	for name, row := range map[string]struct {
		budget string
		fail   int
		paused bool
	}{
		"as many as allowed":  {"3", 3, false},
		"one more":            {"3", 4, true},
		"none allowed":        {"0", 1, true},
		"no budget":           {"", 32, false},
		"2 of 32 at 10%":      {"10%", 3, false},
		"4 of 32 at 10%":      {"10%", 4, true},
		"a percentage of 100": {"100%", 32, false},
	} {
		t.Run(name, func(t *testing.T) {
			budget, err := tasks.ParseBudget(row.budget)
			if err != nil {
				t.Fatal(err)
			}
			c := newCourse(t, embedded(t), 100, tasks.RunOptions{MaxParallel: 32, MaxFailures: budget})
			c.rounds()
			n := 0
			c.end(func(string) bool { n++; return n <= row.fail })
			run := c.rounds()
			if paused := run.State == tasks.RunPaused; paused != row.paused {
				t.Fatalf("run %+v", run)
			}
			if !row.paused {
				return
			}
			if again := c.db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{}); tasks.CodeOf(again) != tasks.JobFinal || !strings.Contains(again.Error(), "would pause again at once") {
				t.Errorf("resumed with the same budget: %v", again)
			}
			more, _ := tasks.ParseBudget("50")
			if err := c.db.RunDecisions.Resume(t.Context(), c.id, &more, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
			if run := c.rounds(); run.State != tasks.RunRunning || len(c.open()) != 32 || run.MaxFailures.String() != "50" {
				t.Errorf("resumed it is %+v", run)
			}
		})
	}
}

func TestAPausedRunBeginsNothing(t *testing.T) {
	c := newCourse(t, embedded(t), 100, tasks.RunOptions{MaxParallel: 40})
	c.rounds()
	waiting := c.open()
	pause := func() error {
		return c.db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{By: "token 7", Reason: "a smell of smoke"})
	}
	if err := pause(); err != nil {
		t.Fatal(err)
	}
	if err := pause(); tasks.CodeOf(err) != tasks.JobFinal || !strings.Contains(err.Error(), "the run cannot be paused: it is paused") {
		t.Errorf("paused twice: %v", err)
	}
	if policy, err := c.db.Policies.PolicyOf(t.Context(), "acme", c.id); err != nil || policy.Halt() == nil {
		t.Errorf("policy %+v, %v", policy, err)
	}
	if policy, err := c.db.Policies.PolicyOf(t.Context(), "acme", ""); err != nil || policy.Halt() != nil {
		t.Errorf("other jobs: %+v, %v", policy, err)
	}
	if all, err := c.db.Policies.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("the halt of a run is in the list of tenants: %+v, %v", all, err)
	}
	if run := c.rounds(); run.Held.Reason != "paused by hand: a smell of smoke" || len(c.open()) != len(waiting) {
		t.Errorf("run %+v", run)
	}
	c.end(nil) // what was running ends
	if run := c.rounds(); run.State != tasks.RunPaused || run.Counts.Succeeded != len(waiting) || run.Counts.Pending != 100-len(waiting) {
		t.Errorf("run %+v", run)
	}
	if err := c.db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if policy, err := c.db.Policies.PolicyOf(t.Context(), "acme", c.id); err != nil || policy.Halt() != nil {
		t.Errorf("policy %+v, %v", policy, err)
	}
	if c.rounds(); len(c.open()) == 0 {
		t.Error("it does not go on")
	}
	if err := c.db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{}); tasks.CodeOf(err) != tasks.JobFinal {
		t.Errorf("resumed twice: %v", err)
	}
}

func TestACancelledRun(t *testing.T) {
	c := newCourse(t, embedded(t), 100, tasks.RunOptions{MaxParallel: 32})
	c.rounds()
	d := c.open()[0]
	if _, err := c.db.Attempts.Begin(t.Context(), d, "token", "key", time.Minute); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.db.RunDecisions.Cancel(t.Context(), c.id, tasks.Actor{By: "token 7"}); err != nil {
			t.Fatal(err)
		}
	}
	run := c.rounds()
	if run.Counts.Running != 1 || run.Counts.Cancelled != 99 || run.State.Final() || run.Stage != "draining" {
		t.Errorf("run %+v", run)
	}
	if err := c.db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{}); tasks.CodeOf(err) != tasks.JobFinal {
		t.Errorf("paused: %v", err)
	}
	// Its jobs know that they are cancelled. A halt besides would keep what a dead worker has begun from its end.
	if halt, err := c.db.Policies.RunHalt(t.Context(), c.id); err != nil || halt != nil {
		t.Errorf("halt %+v, %v", halt, err)
	}
	if _, err := c.db.Attempts.Finish(t.Context(), d, "token", tasks.Outcome{Transition: tasks.Succeed}, true); err != nil {
		t.Fatal(err)
	}
	run = c.rounds()
	if run.State != tasks.RunPartial || run.Counts.Succeeded != 1 || run.Counts.Cancelled != 99 {
		t.Errorf("run %+v", run)
	}
	if halt, err := c.db.Policies.RunHalt(t.Context(), c.id); err != nil || halt != nil {
		t.Errorf("its halt is left: %+v, %v", halt, err)
	}
	states := map[tasks.ItemState]int{}
	if err := c.db.Runs.Instances(t.Context(), run, func(in tasks.RunInstance) error {
		states[in.Item.State]++
		return nil
	}); err != nil || states[tasks.ItemSucceeded] != 1 || states[tasks.ItemCancelled] != 99 {
		t.Errorf("instances %v, %v", states, err)
	}
	if err := c.db.RunDecisions.Cancel(t.Context(), c.id, tasks.Actor{}); tasks.CodeOf(err) != tasks.JobFinal {
		t.Errorf("cancelled after its end: %v", err)
	}
}

// diesAt is a store whose runner dies at a call, before or after it is carried out.
type diesAt struct {
	RunJobs

	before bool
	calls  atomic.Int64 // that it lives for
}

var errDied = errors.New("the runner died")

func (d *diesAt) Submit(ctx context.Context, s tasks.Submission) (tasks.Job, error) {
	if d.calls.Add(-1) >= 0 {
		return d.RunJobs.Submit(ctx, s)
	}
	if !d.before {
		_, _ = d.RunJobs.Submit(ctx, s)
	}
	return tasks.Job{}, errDied
}

// Whenever a runner dies, the next one makes each job once.
func TestARunnerThatDies(t *testing.T) {
	for _, before := range []bool{true, false} {
		for calls := range 4 {
			t.Run(fmt.Sprintf("at job %d, before it was made %t", calls, before), func(t *testing.T) {
				c := newCourse(t, embedded(t), 100, tasks.RunOptions{MaxParallel: 100})
				store := storeOfRunner(c.db)
				dying := &diesAt{RunJobs: c.db.Records, before: before}
				dying.calls.Store(int64(calls))
				store.RunJobs = dying
				if err := newRunnerOf(t, store).Round(t.Context()); err != nil {
					t.Fatal(err)
				}
				c.rounds()
				c.end(nil)
				if run := c.rounds(); run.State != tasks.RunSucceeded || run.Counts.Succeeded != 100 {
					t.Errorf("run %+v", run)
				}
				if slices.Sort(c.began); len(slices.Compact(c.began)) != 100 {
					t.Errorf("%d began", len(c.began))
				}
			})
		}
	}
}

// frozen is a store whose runner stops before it makes a job, until others have gone on.
type frozen struct {
	RunJobs

	meanwhile func()
}

func (f *frozen) Submit(ctx context.Context, s tasks.Submission) (tasks.Job, error) {
	if meanwhile := f.meanwhile; meanwhile != nil {
		f.meanwhile = nil
		meanwhile()
	}
	return f.RunJobs.Submit(ctx, s)
}

// A runner that thaws when its run was cancelled, or paused, lets nothing begin.
func TestARunnerThatThaws(t *testing.T) {
	t.Run("after a cancel", func(t *testing.T) {
		c := newCourse(t, embedded(t), 20, tasks.RunOptions{})
		store := storeOfRunner(c.db)
		store.RunJobs = &frozen{c.db.Records, func() {
			if err := c.db.RunDecisions.Cancel(t.Context(), c.id, tasks.Actor{}); err != nil {
				t.Error(err)
			}
			// Another runner, which need not wait for the claim to lapse.
			for range 3 {
				if _, err := c.runner.step(t.Context(), c.id); err != nil {
					t.Error(err)
				}
			}
			if run := c.run(); run.State != tasks.RunCancelled {
				t.Errorf("run %+v", run)
			}
		}}
		_ = newRunnerOf(t, store).Round(t.Context())
		run := c.run()
		if run.State != tasks.RunCancelled || run.Counts.Cancelled != 20 {
			t.Errorf("run %+v", run)
		}
		job, err := c.db.Jobs.Job(t.Context(), tasks.PartJobID(c.id, 0))
		if err != nil || job.State != tasks.JobCancelled {
			t.Errorf("job %+v, %v", job, err)
		}
	})
	t.Run("after a pause", func(t *testing.T) {
		c := newCourse(t, embedded(t), 20, tasks.RunOptions{})
		store := storeOfRunner(c.db)
		store.RunJobs = &frozen{c.db.Records, func() {
			if err := c.db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{}); err != nil {
				t.Error(err)
			}
		}}
		if err := newRunnerOf(t, store).Round(t.Context()); err != nil {
			t.Error(err)
		}
		if policy, err := c.db.Policies.PolicyOf(t.Context(), "acme", c.open()[0].Run); err != nil || policy.Halt() == nil {
			t.Errorf("the job that it made may begin: %v", err)
		}
	})
}

// halting is somebody who pauses the run once the runner has seen its record, and what the workers know of it.
type halting struct {
	RunHalts
	pause func()
}

func (h halting) RunHalt(ctx context.Context, run string) (*tasks.Halt, error) {
	halt, err := h.RunHalts.RunHalt(ctx, run)
	h.pause()
	return halt, err
}

// decides is an audit trail that lets others decide first.
type decides struct {
	runs.Audit
	meanwhile func()
}

func (d *decides) Decide(ctx context.Context, e tasks.AuditEntry, act func(context.Context) error) error {
	d.meanwhile()
	return d.Audit.Decide(ctx, e, act)
}

// A retry that comes too late, because somebody else has retried the run, does not end the pause that has come since.
func TestAPauseAfterARetryWhileAnotherRetries(t *testing.T) {
	c := newCourse(t, embedded(t), 20, tasks.RunOptions{})
	c.rounds()
	c.end(func(string) bool { return true })
	c.rounds()
	failed := []tasks.ItemState{tasks.ItemFailed}
	late := runs.NewDecisions(c.db.Runs, &decides{c.db.Audit, func() {
		if err := c.db.RunDecisions.Retry(t.Context(), c.id, failed, tasks.Actor{}); err != nil {
			t.Error(err)
		}
		if err := c.db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{}); err != nil {
			t.Error(err)
		}
	}}, c.db.Policies)
	if err := late.Retry(t.Context(), c.id, failed, tasks.Actor{}); tasks.CodeOf(err) != tasks.JobFinal {
		t.Errorf("retried twice: %v", err)
	}
	if halt, err := c.db.Policies.RunHalt(t.Context(), c.id); err != nil || halt == nil {
		t.Errorf("the run is %s, and its jobs may begin: %v", c.run().State, err)
	}
}

// The api says after what time an item never starts, the worker makes the job.
func TestARunIsGivenUpWhenItsAPISays(t *testing.T) {
	server := miniredis.RunT(t)
	api, _ := dbtest.Open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true, GiveUpAfter: time.Minute})
	run, err := api.Runs.Create(t.Context(), tasks.RunSubmission{
		Tenant: "acme", InstanceIDs: []string{"a"}, AllowUnregistered: true, Options: tasks.RunOptions{MaxParallel: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	db, _ := dbtest.Open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true})
	c := &course{T: t, id: run.ID, db: db, runner: newRunnerOf(t, storeOfRunner(db))}
	c.rounds()
	job, err := db.Jobs.Job(t.Context(), tasks.PartJobID(run.ID, 0))
	if err != nil || job.EndBefore.Sub(job.CreatedAt.Time) != time.Minute {
		t.Errorf("%v, created %v, never starts after %v", err, job.CreatedAt, job.EndBefore)
	}
}

// A runner that makes good what a resume has not done ends no halt of a pause that has come since.
func TestAPauseWhileARunnerReleases(t *testing.T) {
	c := newCourse(t, embedded(t), 20, tasks.RunOptions{})
	c.rounds()
	if err := c.db.Policies.HaltRun(t.Context(), c.id, "of a pause that was resumed"); err != nil {
		t.Fatal(err)
	}
	store := storeOfRunner(c.db)
	store.RunHalts = halting{c.db.Policies, func() {
		if err := c.db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{}); err != nil {
			t.Error(err)
		}
	}}
	if _, err := newRunnerOf(t, store).step(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	if halt, err := c.db.Policies.RunHalt(t.Context(), c.id); err != nil || halt == nil {
		t.Errorf("the run is %s, and its jobs may begin: %v", c.run().State, err)
	}
}

// The records of a run's jobs are needed until it has ended: one that nobody has counted yet would be made again,
// and what has become of instances would be forgotten.
func TestJobsAreKeptAsLongAsTheirRun(t *testing.T) {
	const week = 7 * 24 * time.Hour
	server := miniredis.RunT(t)
	db, rdb := dbtest.Open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true})
	c := &course{T: t, db: db, runner: newRunnerOf(t, storeOfRunner(db))}
	run, err := db.Runs.Create(t.Context(), tasks.RunSubmission{
		Tenant: "acme", InstanceIDs: []string{"a", "b", "c"}, AllowUnregistered: true, Options: tasks.RunOptions{MaxParallel: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.id = run.ID
	c.rounds()
	c.end(nil) // and then there is no worker for a while
	server.FastForward(week + time.Minute)
	if run = c.rounds(); run.Counts.Succeeded != 2 || len(c.open()) != 1 {
		t.Fatalf("run %+v", run)
	}
	if err := db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	server.FastForward(week + time.Minute)
	var states []tasks.ItemState
	if err := db.Runs.Instances(t.Context(), c.run(), func(in tasks.RunInstance) error {
		states = append(states, in.Item.State)
		return nil
	}); err != nil || !slices.Equal(states, []tasks.ItemState{tasks.ItemSucceeded, tasks.ItemSucceeded, tasks.ItemPending}) {
		t.Errorf("states %v, %v", states, err)
	}
	if err := db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	c.end(nil)
	if run = c.rounds(); run.State != tasks.RunSucceeded || len(c.began) != 3 {
		t.Fatalf("run %+v, attempts at %v", run, c.began)
	}
	for _, key := range []string{
		"reset:run:{" + c.id + "}", "reset:run:{" + c.id + "}:list", "reset:{" + tasks.PartJobID(c.id, 0) + "}", "reset:{" + tasks.PartJobID(c.id, 1) + "}",
	} {
		if ttl := rdb.TTL(t.Context(), key).Val(); ttl != week {
			t.Errorf("%s is kept for %s", key, ttl)
		}
	}
}

// A limit of the tenant keeps a run waiting. Its record says so, until it goes on.
func TestARunWaitsForALimit(t *testing.T) {
	c := newCourse(t, embedded(t), 100, tasks.RunOptions{MaxParallel: 32})
	limit := func(n int) {
		t.Helper()
		if err := c.db.Policies.SetLimits(t.Context(), "acme", tasks.Limits{OpenInstances: &n}, false, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	limit(5)
	run := c.rounds()
	if !strings.Contains(run.Held.Reason, "the quota of 5 open instances is used up") || run.Held.Since.IsZero() || run.Counts.Pending != 100 {
		t.Errorf("run %+v", run)
	}
	since := run.Held.Since
	if run = c.rounds(); run.Held.Since != since {
		t.Errorf("it waits since %v, and since %v", since, run.Held.Since)
	}
	limit(0)
	if run = c.rounds(); run.Held.Reason != "" || len(c.open()) != 32 {
		t.Errorf("run %+v", run)
	}
}

// What the record says and the workers were not told is made good.
func TestABrakeThatWasNotToldToTheWorkers(t *testing.T) {
	c := newCourse(t, embedded(t), 20, tasks.RunOptions{})
	c.rounds()
	if err := c.db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if err := c.db.Policies.ReleaseRun(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	c.rounds()
	if halt, err := c.db.Policies.RunHalt(t.Context(), c.id); err != nil || halt == nil {
		t.Errorf("no halt: %v", err)
	}
	if err := c.db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if err := c.db.Policies.HaltRun(t.Context(), c.id, "x"); err != nil {
		t.Fatal(err)
	}
	c.rounds()
	if halt, err := c.db.Policies.RunHalt(t.Context(), c.id); err != nil || halt != nil {
		t.Errorf("halt %+v, %v", halt, err)
	}
}

// A run that is cancelled and retried before its time waits for it all the same.
func TestARetriedRunWaitsForItsTime(t *testing.T) {
	db, _ := dbtest.Open(t, embedded(t))
	c := &course{T: t, db: db, runner: newRunnerOf(t, storeOfRunner(db))}
	run, err := db.Runs.Create(t.Context(), tasks.RunSubmission{
		Tenant: "acme", InstanceIDs: []string{"a", "b"}, AllowUnregistered: true, NotBefore: tasks.Time{Time: time.Now().Add(time.Hour).Truncate(time.Millisecond)},
		Options: tasks.RunOptions{MaxParallel: 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.id = run.ID
	if err := db.RunDecisions.Cancel(t.Context(), c.id, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if run = c.rounds(); run.State != tasks.RunCancelled {
		t.Fatalf("run %+v", run)
	}
	if err := db.RunDecisions.Retry(t.Context(), c.id, []tasks.ItemState{tasks.ItemCancelled}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if run = c.rounds(); run.State != tasks.RunWaiting || run.Counts.Pending != 2 || len(c.open()) > 0 {
		t.Errorf("run %+v", run)
	}
}

func TestARunWaitsForItsTimeAndSoaks(t *testing.T) {
	db, rdb := dbtest.Open(t, embedded(t))
	c := &course{T: t, db: db, runner: newRunnerOf(t, storeOfRunner(db))}
	run, err := db.Runs.Create(t.Context(), tasks.RunSubmission{
		Tenant: "acme", InstanceIDs: []string{"a", "b", "c"}, AllowUnregistered: true, NotBefore: tasks.Time{Time: time.Now().Add(time.Hour).Truncate(time.Millisecond)},
		Options: tasks.RunOptions{MaxParallel: 10, Canary: 1, Growth: 1, Soak: tasks.Duration(time.Hour)},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.id = run.ID
	c.rounds()
	c.wantOpen("scheduled", 0)
	key := "reset:run:{" + c.id + "}"
	rdb.HSet(t.Context(), key, "not_before", time.Now().Add(-time.Second).UnixMilli())
	c.rounds()
	c.wantOpen("canary", 1)
	c.end(nil)
	c.rounds()
	c.wantOpen("soak", 0)
	rdb.HSet(t.Context(), key, "soak_until", time.Now().Add(-time.Second).UnixMilli())
	c.rounds()
	c.wantOpen("wave 1", 1)
	c.end(nil)
	c.rounds()
	c.wantOpen("draining", 1)
	c.end(nil)
	if run := c.rounds(); run.State != tasks.RunSucceeded {
		t.Errorf("run %+v", run)
	}
}

// A run has counted the instances of its jobs: none of them opens again by itself, whoever asks.
func TestAJobOfARunIsNotRetriedByItself(t *testing.T) {
	c := newCourse(t, embedded(t), 20, tasks.RunOptions{})
	c.rounds()
	c.end(func(string) bool { return true })
	c.rounds()
	err := c.db.Records.Retry(t.Context(), tasks.PartJobID(c.id, 0), []tasks.ItemState{tasks.ItemFailed}, tasks.Actor{By: "operator alice"})
	if tasks.CodeOf(err) != tasks.JobFinal || len(c.open()) > 0 {
		t.Errorf("%v, %d open", err, len(c.open()))
	}
}

// Whoever looks for the instances that failed reads only the jobs that have some, after a retry, too.
func TestTheInstancesOfARunByPage(t *testing.T) {
	for name, opts := range map[string]redisdb.Options{"embedded": embedded(t), "redis": {URL: redistest.Start(t).URL()}} {
		t.Run(name, func(t *testing.T) {
			c := newCourse(t, opts, 600, tasks.RunOptions{MaxParallel: 320})
			page := func(f tasks.RunInstanceFilter) (ids []string, pages int) {
				t.Helper()
				for pages = 1; ; pages++ {
					found, cursor, err := c.db.Runs.InstancesPage(t.Context(), c.run(), f)
					if err != nil {
						t.Fatal(err)
					}
					for _, in := range found {
						ids = append(ids, in.Item.InstanceID)
					}
					if f.Cursor = cursor; cursor == "" {
						return ids, pages
					}
				}
			}
			failed := tasks.RunInstanceFilter{States: []tasks.ItemState{tasks.ItemFailed, tasks.ItemUnknown}, Limit: 2}
			if ids, pages := page(failed); len(ids) > 0 || pages != 1 {
				t.Errorf("at first %v, %d pages", ids, pages)
			}
			ids, pages := page(tasks.RunInstanceFilter{Limit: 50})
			if len(ids) != 600 || len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 600 || pages < 3 {
				t.Errorf("%d instances on %d pages", len(ids), pages)
			}
			c.rounds()
			fails := func(id string) bool { return id == "phone-3" || id == "phone-300" || id == "phone-599" }
			// Those whose jobs have not ended are there, too.
			d := c.open()[2]
			token := "token-" + d.ItemID
			if _, err := c.db.Attempts.Begin(t.Context(), d, token, "key", time.Minute); err != nil {
				t.Fatal(err)
			}
			if _, err := c.db.Attempts.Finish(t.Context(), d, token, tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0001", Failure: true}, true); err != nil {
				t.Fatal(err)
			}
			if ids, _ := page(failed); !slices.Equal(ids, []string{d.InstanceID}) {
				t.Errorf("of a job that is open: %v, want %s", ids, d.InstanceID)
			}
			for range 3 {
				c.end(fails)
				c.rounds()
			}
			if run := c.run(); run.State != tasks.RunPartial {
				t.Fatalf("run %s", run.State)
			}
			all, _ := page(failed)
			if len(all) != 4 {
				t.Errorf("failed: %v", all)
			}
			if ids, _ := page(tasks.RunInstanceFilter{States: failed.States, Code: "CPS.0001", Limit: 50}); !slices.Equal(ids, []string{d.InstanceID}) {
				t.Errorf("with a code: %v", ids)
			}
			if ids, pages := page(tasks.RunInstanceFilter{States: []tasks.ItemState{tasks.ItemSucceeded}, Limit: 600}); len(ids) != 596 || pages != 1 {
				t.Errorf("%d succeeded, on %d pages", len(ids), pages)
			}
			if err := c.db.RunDecisions.Retry(t.Context(), c.id, []tasks.ItemState{tasks.ItemFailed}, by("alice")); err != nil {
				t.Fatal(err)
			}
			c.rounds()
			if ids, _ := page(failed); len(ids) > 0 {
				t.Errorf("while they are retried: %v", ids)
			}
			c.end(func(id string) bool { return id == "phone-300" })
			c.rounds()
			if ids, _ := page(failed); !slices.Equal(ids, []string{"phone-300"}) {
				t.Errorf("after the retry: %v", ids)
			}
			if ids, _ := page(tasks.RunInstanceFilter{Limit: 50}); len(ids) != 600 {
				t.Errorf("%d instances after the retry", len(ids))
			}
			for _, cursor := range []string{"?", "-1", "zzzzzzzzzz"} {
				if _, _, err := c.db.Runs.InstancesPage(t.Context(), c.run(), tasks.RunInstanceFilter{Limit: 1, Cursor: cursor}); tasks.CodeOf(err) != tasks.BadRequest {
					t.Errorf("cursor %s: %v", cursor, err)
				}
			}
		})
	}
}

// judged makes a run of n phones that alice has asked for, and that others must approve.
func judged(t *testing.T, opts redisdb.Options, n, approvers int, expiry time.Duration) *course {
	t.Helper()
	db, _ := dbtest.Open(t, opts)
	c := &course{T: t, db: db, runner: newRunnerOf(t, storeOfRunner(db))}
	s := tasks.RunSubmission{
		Tenant: "acme", AllowUnregistered: true, Options: tasks.RunOptions{MaxParallel: 64}, Principal: "alice", By: "token 7",
		Approval: tasks.ApprovalRule{Approvers: approvers, Expiry: expiry},
	}
	for i := range n {
		s.InstanceIDs = append(s.InstanceIDs, fmt.Sprintf("phone-%d", i))
	}
	run, err := db.Runs.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	c.id = run.ID
	return c
}

func by(principal string) tasks.Actor {
	return tasks.Actor{By: "token of " + principal, Principal: principal, Reason: "looked at it"}
}

func (c *course) approve(principal string) error {
	return c.db.RunDecisions.Approve(c.Context(), c.id, c.run().ListSHA256, by(principal))
}

func (c *course) wantRefused(err error, code tasks.Code, says string) {
	c.Helper()
	if tasks.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), says) {
		c.Errorf("error %v, want %s with %q", err, code, says)
	}
}

func TestARunBeginsWhenSoManyOthersHaveApproved(t *testing.T) {
	for name, opts := range map[string]redisdb.Options{"embedded": embedded(t), "redis": {URL: redistest.Start(t).URL()}} {
		t.Run(name, func(t *testing.T) {
			c := judged(t, opts, 10, 2, time.Hour)
			if run := c.rounds(); run.State != tasks.RunWaiting || run.Stage != "approval" || len(c.open()) > 0 {
				t.Fatalf("run %s in stage %q with %d open", run.State, run.Stage, len(c.open()))
			}
			c.wantRefused(c.approve("alice"), tasks.OwnRun, "alice has asked for this run")
			other := c.db.RunDecisions.Approve(t.Context(), c.id, tasks.ListHash([]string{"phone-0"}), by("bob"))
			c.wantRefused(other, tasks.JobFinal, "list_sha256 is not the hash")
			if err := c.approve("bob"); err != nil {
				t.Fatal(err)
			}
			c.wantRefused(c.approve("bob"), tasks.JobFinal, "bob has decided")
			c.wantRefused(c.db.RunDecisions.Reject(t.Context(), c.id, "", by("bob")), tasks.JobFinal, "bob has decided")
			if run := c.rounds(); run.State != tasks.RunWaiting || len(run.Approval.Decisions) != 1 {
				t.Fatalf("after one approval: %s, %+v", run.State, run.Approval)
			}
			c.wantRefused(c.db.RunDecisions.Retry(t.Context(), c.id, []tasks.ItemState{tasks.ItemCancelled}, by("alice")), tasks.JobFinal, "is waiting")
			if err := c.approve("carol"); err != nil {
				t.Fatal(err)
			}
			c.wantRefused(c.approve("dave"), tasks.JobFinal, "it is approved")
			if run := c.rounds(); run.State != tasks.RunRunning || len(c.open()) != 10 {
				t.Fatalf("after two: %s with %d open", run.State, len(c.open()))
			}
			c.wantRefused(c.approve("erin"), tasks.JobFinal, "it is running")
			c.end(nil)
			run := c.rounds()
			if run.State != tasks.RunSucceeded {
				t.Errorf("run %s", run.State)
			}
			for i, want := range []string{"bob", "carol"} {
				if d := run.Approval.Decisions[i]; d.Principal != want || d.Decision != tasks.Approved || d.Comment != "looked at it" || d.At.IsZero() {
					t.Errorf("decision %+v", d)
				}
			}
			entries, _, err := c.db.Audit.Recent(t.Context(), tasks.AuditFilter{Action: tasks.ActionApproveRun}, "", 10)
			if err != nil || len(entries) != 2 || entries[0].List != run.ListSHA256 || entries[0].Principal == "" {
				t.Errorf("in the trail: %+v, %v", entries, err)
			}
		})
	}
}

func TestARunThatIsRejected(t *testing.T) {
	c := judged(t, embedded(t), 10, 2, time.Hour)
	if err := c.approve("bob"); err != nil {
		t.Fatal(err)
	}
	if err := c.db.RunDecisions.Reject(t.Context(), c.id, "", by("carol")); err != nil {
		t.Fatal(err)
	}
	c.wantRefused(c.approve("dave"), tasks.JobFinal, "it is rejected")
	run := c.rounds()
	if run.State != tasks.RunRejected || run.Counts.Cancelled != 10 || run.Stage != "" || run.FinishedAt.IsZero() {
		t.Errorf("run %+v", run)
	}
	c.wantRefused(c.db.RunDecisions.Retry(t.Context(), c.id, []tasks.ItemState{tasks.ItemCancelled}, by("alice")), tasks.JobFinal, "never approved")
	c.wantRefused(c.db.RunDecisions.Cancel(t.Context(), c.id, by("alice")), tasks.JobFinal, "it is rejected")
	rows := 0
	err := c.db.Runs.Instances(t.Context(), run, func(in tasks.RunInstance) error {
		if rows++; in.Item.State != tasks.ItemCancelled || in.Item.Message != "the run was rejected" {
			t.Errorf("row %+v", in)
		}
		return nil
	})
	if err != nil || rows != 10 {
		t.Errorf("%d rows, %v", rows, err)
	}
	if left := c.db.Redis.ZCard(t.Context(), "reset:runs").Val(); left != 0 {
		t.Errorf("%d runs are still looked at", left)
	}
}

func TestARunThatNobodyApprovesInTime(t *testing.T) {
	c := judged(t, embedded(t), 10, 1, time.Nanosecond)
	if err := c.approve("bob"); tasks.CodeOf(err) != tasks.JobFinal {
		t.Errorf("approved too late: %v", err)
	}
	if run := c.rounds(); run.State != tasks.RunExpired || run.Counts.Cancelled != 10 {
		t.Errorf("run %s, %+v", run.State, run.Counts)
	}
	entries, _, err := c.db.Audit.Recent(t.Context(), tasks.AuditFilter{Action: tasks.ActionExpireRun}, "", 10)
	if err != nil || len(entries) != 1 {
		t.Errorf("in the trail: %+v, %v", entries, err)
	}
}

// Whatever is done to a run that waits for approval, it does not begin without one.
func TestNoWayAroundApproval(t *testing.T) {
	c := judged(t, embedded(t), 10, 1, time.Hour)
	unapproved := c.run()
	budget, err := tasks.ParseBudget("50%")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.db.RunDecisions.Pause(t.Context(), c.id, by("alice")); err != nil {
		t.Fatal(err)
	}
	c.wantRefused(c.approve("bob"), tasks.JobFinal, "it is paused")
	c.wantRefused(c.db.RunDecisions.Resume(t.Context(), c.id, &budget, by("alice")), tasks.JobFinal, "waits for approval with the options that it has")
	if err := c.db.RunDecisions.Resume(t.Context(), c.id, nil, by("alice")); err != nil {
		t.Fatal(err)
	}
	if run := c.rounds(); run.State != tasks.RunWaiting || run.Stage != "approval" || len(c.open()) > 0 {
		t.Fatalf("resumed: %s, stage %q", run.State, run.Stage)
	}
	// A runner that was frozen when it was about to start another one, as it thought.
	if err := c.db.RunProgress.Start(t.Context(), unapproved); err != nil {
		t.Fatal(err)
	}
	if run := c.rounds(); run.State != tasks.RunWaiting {
		t.Fatalf("started by a runner that was frozen: %s", run.State)
	}
	if err := c.db.RunDecisions.Cancel(t.Context(), c.id, by("alice")); err != nil {
		t.Fatal(err)
	}
	c.wantRefused(c.approve("bob"), tasks.JobFinal, "cannot be approved")
	if run := c.rounds(); run.State != tasks.RunCancelled || run.Counts.Cancelled != 10 {
		t.Fatalf("cancelled: %s, %+v", run.State, run.Counts)
	}
	c.wantRefused(c.db.RunDecisions.Retry(t.Context(), c.id, []tasks.ItemState{tasks.ItemCancelled}, by("alice")), tasks.JobFinal, "never approved")
}

// What the list says of generations reaches the jobs, in each round.
func TestTheGenerationsOfARunReachItsJobs(t *testing.T) {
	db, _ := dbtest.Open(t, embedded(t))
	c := &course{T: t, db: db, runner: newRunnerOf(t, storeOfRunner(db))}
	s := tasks.RunSubmission{
		Tenant: "acme", AllowUnregistered: true, Options: tasks.RunOptions{MaxParallel: 64},
		InstanceIDs: []string{"phone-0", "phone-1"}, Generations: map[string]int{"phone-1": 3},
	}
	other := s
	other.Generations = map[string]int{"phone-1": 4}
	if s.Fingerprint() == other.Fingerprint() {
		t.Error("another generation is the same request")
	}
	run, err := db.Runs.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	c.id = run.ID
	for range 2 {
		c.rounds()
		open := c.open()
		if len(open) != 2 || open[0].Generation != 0 || open[1].Generation != 3 {
			t.Fatalf("deliveries %+v", open)
		}
		if err := db.RunDecisions.Cancel(t.Context(), c.id, by("alice")); err != nil {
			t.Fatal(err)
		}
		c.rounds() // has its job cancelled
		if run := c.rounds(); run.State != tasks.RunCancelled {
			t.Fatalf("run %s", run.State)
		}
		if err := db.RunDecisions.Retry(t.Context(), c.id, retryOf(tasks.ItemCancelled), by("alice")); err != nil {
			t.Fatal(err)
		}
	}
}

func retryOf(states ...tasks.ItemState) []tasks.ItemState { return states }

func TestARetryIsAnotherRound(t *testing.T) {
	for name, opts := range map[string]redisdb.Options{"embedded": embedded(t), "redis": {URL: redistest.Start(t).URL()}} {
		t.Run(name, func(t *testing.T) {
			c := newCourse(t, opts, 100, tasks.RunOptions{MaxParallel: 64, Canary: 2})
			odd := func(instance string) bool { return strings.HasSuffix(instance, "7") } // ten of them
			for range 8 {
				c.rounds()
				c.end(odd)
			}
			first := c.rounds()
			if first.State != tasks.RunPartial || first.Counts.Failed != 10 || first.Round != 1 {
				t.Fatalf("run %s, %+v", first.State, first.Counts)
			}
			c.wantRefused(c.db.RunDecisions.Retry(t.Context(), c.id, retryOf(tasks.ItemUnknown), by("alice")), tasks.JobFinal, "none is unknown")
			if err := c.db.RunDecisions.Retry(t.Context(), c.id, retryOf(tasks.ItemFailed), by("alice")); err != nil {
				t.Fatal(err)
			}
			c.wantRefused(c.db.RunDecisions.Retry(t.Context(), c.id, retryOf(tasks.ItemFailed), by("alice")), tasks.JobFinal, "it is running")
			run := c.run()
			if want := (tasks.Counts{Succeeded: 90, Pending: 10}); run.Counts != want || run.Round != 2 || !run.FinishedAt.IsZero() || len(run.Failures) != 0 {
				t.Errorf("at the start: %+v, %+v", run.Counts, run)
			}
			for _, key := range []string{"reset:run:{" + c.id + "}", "reset:run:{" + c.id + "}:list"} {
				if ttl := c.db.Redis.TTL(t.Context(), key).Val(); ttl >= 0 {
					t.Errorf("%s expires in %s", key, ttl)
				}
			}
			c.rounds()
			c.wantOpen("canary", 2)
			// A runner that was frozen at the end of the first round does no harm.
			ended, err := c.db.RunProgress.Finish(t.Context(), first)
			if err := errors.Join(err, c.db.RunProgress.Retire(t.Context(), first),
				c.db.RunProgress.PauseItself(t.Context(), first, "an old reason")); err != nil || ended {
				t.Errorf("ended %t, %v", ended, err)
			}
			if taken, err := c.db.RunProgress.Take(t.Context(), first, []tasks.Part{{InstanceIDs: []string{"phone-1"}}}); err != nil || taken {
				t.Errorf("taken %v, %v", taken, err)
			}
			c.wantOpen("canary", 2)
			c.end(nil)
			c.rounds()
			c.wantOpen("wave 1", 4)
			c.end(func(instance string) bool { return instance == "phone-37" })
			c.rounds()
			c.end(nil)
			run = c.rounds()
			if want := (tasks.Counts{Succeeded: 99, Failed: 1}); run.State != tasks.RunPartial || run.Counts != want {
				t.Fatalf("at the end: %s, %+v", run.State, run.Counts)
			}
			// Once more, and the last one succeeds.
			if err := c.db.RunDecisions.Retry(t.Context(), c.id, retryOf(tasks.ItemFailed, tasks.ItemUnknown), by("alice")); err != nil {
				t.Fatal(err)
			}
			c.rounds()
			c.end(nil)
			run = c.rounds()
			if run.State != tasks.RunSucceeded || run.Round != 3 || run.Counts.Succeeded != 100 {
				t.Fatalf("in the end: %s, round %d, %+v", run.State, run.Round, run.Counts)
			}
			rows := map[string]int{}
			if err := c.db.Runs.Instances(t.Context(), run, func(in tasks.RunInstance) error {
				if rows[in.Item.InstanceID]++; in.Item.State != tasks.ItemSucceeded || in.JobID == "" {
					t.Errorf("row %+v", in)
				}
				return nil
			}); err != nil || len(rows) != 100 {
				t.Errorf("%d instances, %v", len(rows), err)
			}
			for instance, n := range rows {
				if n != 1 {
					t.Errorf("%s has %d rows", instance, n)
				}
			}
			if len(c.began) != 100+10+1 {
				t.Errorf("%d attempts", len(c.began))
			}
		})
	}
}

// What was cancelled before it was in a job is retried as well, and what a retry leaves out stays as it is.
func TestARetryOfWhatNeverBegan(t *testing.T) {
	c := newCourse(t, embedded(t), 100, tasks.RunOptions{MaxParallel: 32})
	c.rounds()
	c.end(func(instance string) bool { return instance == "phone-3" })
	if err := c.db.RunDecisions.Cancel(t.Context(), c.id, by("alice")); err != nil {
		t.Fatal(err)
	}
	run := c.rounds()
	if want := (tasks.Counts{Succeeded: 31, Failed: 1, Cancelled: 68}); run.Counts != want {
		t.Fatalf("cancelled: %+v", run.Counts)
	}
	if err := c.db.RunDecisions.Retry(t.Context(), c.id, retryOf(tasks.ItemCancelled), by("alice")); err != nil {
		t.Fatal(err)
	}
	if halt, err := c.db.Policies.RunHalt(t.Context(), c.id); err != nil || halt != nil {
		t.Errorf("halt %+v, %v", halt, err)
	}
	for range 3 {
		c.rounds()
		c.end(nil)
	}
	run = c.rounds()
	if want := (tasks.Counts{Succeeded: 99, Failed: 1}); run.State != tasks.RunPartial || run.Counts != want || len(run.Failures) != 1 {
		t.Errorf("%s, %+v, %+v", run.State, run.Counts, run.Failures)
	}
	states := map[tasks.ItemState]int{}
	if err := c.db.Runs.Instances(t.Context(), run, func(in tasks.RunInstance) error { states[in.Item.State]++; return nil }); err != nil ||
		states[tasks.ItemSucceeded] != 99 || states[tasks.ItemFailed] != 1 {
		t.Errorf("rows %v, %v", states, err)
	}
	// A budget is one for each round: the failure of the first does not count in the second.
	if err := c.db.RunDecisions.Retry(t.Context(), c.id, retryOf(tasks.ItemFailed), by("alice")); err != nil {
		t.Fatal(err)
	}
	c.rounds()
	c.end(nil)
	if run = c.rounds(); run.State != tasks.RunSucceeded {
		t.Errorf("run %s", run.State)
	}
}

// However many runs are due, none waits until the next round.
func TestMoreRunsAreDueThanAreTakenAtOnce(t *testing.T) {
	c := newCourse(t, embedded(t), 1, tasks.RunOptions{})
	for i := range 2*runsAtOnce + 1 {
		if _, err := c.db.Runs.Create(t.Context(), tasks.RunSubmission{
			Tenant: "acme", InstanceIDs: []string{fmt.Sprintf("other-%d", i)}, AllowUnregistered: true, Options: tasks.RunOptions{MaxParallel: 1},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.runner.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, _, err := c.db.Runs.List(t.Context(), "acme", tasks.RunFilter{Limit: 100})
	if err != nil || len(all) != 2*runsAtOnce+2 {
		t.Fatalf("%d runs, %v", len(all), err)
	}
	for _, run := range all {
		if len(run.Open) != 1 {
			t.Errorf("nothing of run %s has begun", run.ID)
		}
	}
}

// failing is a store where an instance fails as soon as its job is made.
type failing struct {
	RunJobs

	course *course
}

func (f *failing) Submit(ctx context.Context, s tasks.Submission) (tasks.Job, error) {
	job, err := f.RunJobs.Submit(ctx, s)
	if err == nil {
		f.course.fail(job.Deliveries()[0])
	}
	return job, err
}

// fail has an attempt fail for good.
func (c *course) fail(d tasks.Delivery) {
	c.Helper()
	token := "token-" + d.ItemID
	if _, err := c.db.Attempts.Begin(c.Context(), d, token, "key", time.Minute); err != nil {
		c.Error(err)
	}
	if _, err := c.db.Attempts.Finish(c.Context(), d, token, tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005", Failure: true}, true); err != nil {
		c.Error(err)
	}
}

// A runner that has much room makes a few jobs at a time, and looks in between.
func TestARunThatFailsWhileItsJobsAreMade(t *testing.T) {
	none, _ := tasks.ParseBudget("0")
	c := newCourse(t, embedded(t), 3*takeAtOnce*tasks.DefaultMaxInstances, tasks.RunOptions{MaxFailures: none})
	store := storeOfRunner(c.db)
	store.RunJobs = &failing{c.db.Records, c}
	if err := newRunnerOf(t, store).Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if run := c.run(); run.State != tasks.RunPaused || run.Next != takeAtOnce {
		t.Errorf("the run is %s after %d parts", run.State, run.Next)
	}
}

// A runner hears of a failure while the job goes on, which may last.
func TestARunPausesBeforeTheJobEnds(t *testing.T) {
	none, _ := tasks.ParseBudget("0")
	c := newCourse(t, redisdb.Options{URL: redistest.Start(t).URL()}, 20, tasks.RunOptions{MaxFailures: none})
	c.rounds()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.runner.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	harness.Eventually(t, runRecheck/2, "the runner to listen", func() bool {
		return c.db.Redis.PubSubNumSub(t.Context(), runs.Channel).Val()[runs.Channel] == 1
	})
	c.fail(c.open()[0])
	harness.Eventually(t, runRecheck/2, "the run to pause", func() bool { return c.run().State == tasks.RunPaused })
}
