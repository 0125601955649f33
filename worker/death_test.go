package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/worker"
	"batchreset/worker/httpdriver"
)

// TestMain is that of both test packages of this folder. The test binary is also the
// worker process that dies or freezes in the tests of this file.
func TestMain(m *testing.M) {
	if fate := os.Getenv(fateVariable); fate != "" {
		if err := runChild(fate); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const (
	fateVariable = "BATCHRESET_TEST_FATE"
	queue        = "reset-0"
	patience     = 30 * time.Second // for something that takes less than a second
)

// phase is a point in the course of an attempt.
type phase string

const (
	beforeBegin  phase = "before the attempt has begun"
	afterBegin   phase = "after the attempt has begun, before the driver"
	inDriver     phase = "in the driver, before it connects"
	connected    phase = "in the driver, before it sends"
	received     phase = "in the driver, after the call was received"
	beforeSave   phase = "in the driver, before the checkpoint is saved"
	afterSave    phase = "in the driver, after the checkpoint was saved"
	beforeFinish phase = "after the driver, before the outcome is written"
	afterFinish  phase = "after the outcome was written, before asynq knows"
)

// fate is what a child process does, and what is done to it.
type fate struct {
	Redis, Plane string
	Idempotent   bool
	Timeout      time.Duration // of an attempt
	Phase        phase         // where it sends itself the signal
	Instance     string        // at whose attempts; empty: at any
	Signal       syscall.Signal
}

// runChild is the main function of a child process. It is a worker like any other but
// for what happens to it in one phase.
func runChild(text string) error {
	var f fate
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return err
	}
	go func() { // the parent is gone
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(2)
	}()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	db, err := redisdb.Open(ctx, redisdb.Options{URL: f.Redis})
	if err != nil {
		return err
	}
	driver, err := httpdriver.New(httpdriver.Config{URL: f.Plane, Idempotent: f.Idempotent})
	if err != nil {
		return err
	}
	v := &victim{Store: worker.StoreOf(db), Driver: driver, fate: f, thawed: make(chan os.Signal, 1)}
	signal.Notify(v.thawed, syscall.SIGCONT)
	store := v.Store
	store.Attempts = v
	w, err := worker.New(config(f.Timeout), store, v, db.Redis.NewServer, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

// config leaves no failure to an item: a lost attempt must not be one.
func config(timeout time.Duration) worker.Config {
	return worker.Config{
		QueuesOf:    func(context.Context, string) ([]string, error) { return []string{queue}, nil },
		Concurrency: 2, Lanes: 1, MaxAttempts: 1,
		AttemptTimeout: timeout, ShutdownTimeout: time.Minute,
	}
}

// victim is a store and a driver in one, in which the process is hit in one phase.
type victim struct {
	worker.Store
	*httpdriver.Driver
	fate
	thawed chan os.Signal
}

// reach does not return in the phase in which the process is hit, unless it is thawed:
// a signal to oneself may take effect a moment later.
func (v *victim) reach(p phase, instance string) {
	if p == v.Phase && (v.Instance == "" || v.Instance == instance) {
		_ = syscall.Kill(os.Getpid(), v.Signal)
		<-v.thawed
	}
}

func (v *victim) Begin(ctx context.Context, d tasks.Delivery, token, key string, lock time.Duration) (tasks.Begun, error) {
	v.reach(beforeBegin, d.InstanceID)
	begun, err := v.Store.Begin(ctx, d, token, key, lock)
	v.reach(afterBegin, d.InstanceID)
	return begun, err
}

func (v *victim) Reset(ctx context.Context, a worker.Attempt) error {
	v.reach(inDriver, a.InstanceID)
	return v.Driver.Reset(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { v.reach(connected, a.InstanceID) },
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			v.reach(received, a.InstanceID)
			return nil
		},
	}), a)
}

func (v *victim) Checkpoint(ctx context.Context, d tasks.Delivery, token, checkpoint string) error {
	v.reach(beforeSave, d.InstanceID)
	err := v.Store.Checkpoint(ctx, d, token, checkpoint)
	v.reach(afterSave, d.InstanceID)
	return err
}

func (v *victim) Finish(ctx context.Context, d tasks.Delivery, token string, o tasks.Outcome, unlock bool) (tasks.Ended, error) {
	v.reach(beforeFinish, d.InstanceID)
	ended, err := v.Store.Finish(ctx, d, token, o, unlock)
	v.reach(afterFinish, d.InstanceID)
	return ended, err
}

// plane is a control plane that remembers what it was asked, which outlives the process
// that asked. Before it answers a call it says that it has got it.
type plane struct {
	*httptest.Server
	accepts bool // it answers 202 and is to be polled

	mu    sync.Mutex
	calls []call // those that reset
}

type call struct {
	Instance string
	Attempt  int
	Key      string
}

func newPlane(t *testing.T, accepts bool) *plane {
	t.Helper()
	p := &plane{accepts: accepts}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{instance}", func(w http.ResponseWriter, r *http.Request) {
		c := call{Instance: r.PathValue("instance"), Key: r.Header.Get("Idempotency-Key")}
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			t.Error(err)
		}
		p.mu.Lock()
		p.calls = append(p.calls, c)
		p.mu.Unlock()
		w.WriteHeader(http.StatusEarlyHints)
		if p.accepts {
			w.Header().Set("Location", "/done")
			w.WriteHeader(http.StatusAccepted)
		}
	})
	mux.HandleFunc("GET /done", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"done"}`) })
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *plane) callsOf(instance string) []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.calls), func(c call) bool { return c.Instance != instance })
}

// scene is one database of a Redis server with a control plane: what a child process and
// the healthy worker after it have in common.
type scene struct {
	*plane
	db        *redisdb.DB
	rdb       *redis.Client
	inspector *asynq.Inspector
	sweeper   *worker.Sweeper
	child     fate // what all children have in common

	begun beginnings // of the healthy worker
}

func newScene(t *testing.T, p *plane, idempotent bool, opts redisdb.Options) *scene {
	t.Helper()
	db, rdb := dbtest.Open(t, opts)
	sweeper := worker.NewSweeper(worker.SweepStoreOf(db), db.Queues.Queues, logOf(t))
	sweeper.SuspectFor(0)
	return &scene{
		plane: p, db: db, rdb: rdb, inspector: db.Redis.NewInspector(), sweeper: sweeper,
		child: fate{Redis: opts.URL, Plane: p.URL + "/{instance_id}", Idempotent: idempotent, Timeout: time.Minute},
	}
}

// logOf shows a log with a test that fails.
func logOf(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// sleepUntil waits for the clock and for nobody: only what comes later than this is tested.
func sleepUntil(at time.Time) { time.Sleep(time.Until(at)) }

func (s *scene) submit(t *testing.T, instances ...string) tasks.Job {
	t.Helper()
	job, err := s.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: instances, AllowUnregistered: true})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func (s *scene) job(t *testing.T, id string) tasks.Job {
	t.Helper()
	job, err := s.db.Jobs.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func (s *scene) waitFinal(t *testing.T, id string) (job tasks.Job) {
	t.Helper()
	harness.Eventually(t, patience, "the job ends", func() bool {
		job = s.job(t, id)
		return job.State.Final()
	})
	return job
}

// record is the whole of a job in Redis.
func (s *scene) record(t *testing.T, id string) map[string]string {
	t.Helper()
	fields, err := s.rdb.HGetAll(t.Context(), "reset:{"+id+"}").Result()
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

func (s *scene) locked(t *testing.T, instance string) bool {
	t.Helper()
	return s.rdb.Exists(t.Context(), "reset:lock:{"+instance+"}").Val() == 1
}

// takeOver does what the sweeper does when the leases of all active tasks have run out,
// as long ago as given, and no server or worker has shown any sign of life for as long as it
// takes.
func (s *scene) takeOver(t *testing.T, ago time.Duration) {
	t.Helper()
	const leases = "asynq:{" + queue + "}:lease"
	active, err := s.rdb.ZRange(t.Context(), leases, 0, -1).Result()
	if err != nil || len(active) == 0 {
		t.Fatalf("active tasks: %v, %v", active, err)
	}
	for _, id := range active {
		s.rdb.ZAddXX(t.Context(), leases, redis.Z{Score: float64(time.Now().Add(-ago).Unix()), Member: id})
	}
	for _, signs := range []string{"asynq:servers:*", "asynq:workers:*", "reset:worker:*"} {
		for _, key := range s.rdb.Keys(t.Context(), signs).Val() {
			s.rdb.Del(t.Context(), key)
		}
	}
	if err := s.sweeper.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// startHealthy runs a worker in this process until the test ends.
func (s *scene) startHealthy(t *testing.T) {
	t.Helper()
	driver, err := httpdriver.New(httpdriver.Config{URL: s.child.Plane, Idempotent: s.child.Idempotent})
	if err != nil {
		t.Fatal(err)
	}
	store := worker.StoreOf(s.db)
	s.begun.Attempts = store.Attempts
	store.Attempts = &s.begun
	w, err := worker.New(config(time.Minute), store, driver, s.db.Redis.NewServer, logOf(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		driver.Close()
	})
}

// beginnings is a store that notes what the record knew when an attempt began.
type beginnings struct {
	worker.Attempts
	mu  sync.Mutex
	all []tasks.Begun
}

func (b *beginnings) Begin(ctx context.Context, d tasks.Delivery, token, key string, lock time.Duration) (tasks.Begun, error) {
	begun, err := b.Attempts.Begin(ctx, d, token, key, lock)
	if err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.all = append(b.all, begun)
	}
	return begun, err
}

// check wants one attempt, or none, after so many that were lost and none that failed.
func (b *beginnings) check(t *testing.T, want, lost int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.all) != want {
		t.Errorf("the healthy worker began %d attempts, want %d", len(b.all), want)
	}
	for _, begun := range b.all {
		if begun.Failures != 0 || begun.Unanswered != 0 || begun.Lost != lost {
			t.Errorf("the crash counts as a failure: %+v", begun)
		}
	}
}

// child is a worker process.
type child struct {
	cmd   *exec.Cmd
	log   bytes.Buffer // not to be read before it has ended
	ended chan struct{}
}

func (s *scene) startChild(t *testing.T, sig syscall.Signal, at phase, instance string) *child {
	t.Helper()
	f := s.child
	f.Signal, f.Phase, f.Instance = sig, at, instance
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.CommandContext(t.Context(), binary), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), fateVariable+"="+string(text))
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	// Should this process be killed, the child reads the end of its input. If it is
	// frozen, the kernel hangs up on it, because it is in a group of its own.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		_ = c.cmd.Wait() // its state says more
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.ended
		if t.Failed() {
			t.Logf("the child's log:\n%s", &c.log)
		}
	})
	return c
}

// wait returns how the child has ended.
func (c *child) wait(t *testing.T) syscall.WaitStatus {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		t.Fatal("waited in vain: the child ends")
	}
	return c.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func (c *child) waitKilled(t *testing.T) {
	t.Helper()
	if status := c.wait(t); status.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %s", c.cmd.ProcessState)
	}
}

func (c *child) waitFrozen(t *testing.T) {
	t.Helper()
	harness.Eventually(t, patience, "the child freezes", func() bool {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(c.cmd.Process.Pid, &status, syscall.WNOHANG|syscall.WUNTRACED, nil)
		if err != nil || pid != 0 && !status.Stopped() {
			t.Fatalf("the child ended instead, %v", err)
		}
		return pid != 0
	})
}

// thaw lets the child go on, and end when it has nothing more to do.
func (c *child) thaw(t *testing.T) {
	t.Helper()
	for _, sig := range []os.Signal{syscall.SIGCONT, syscall.SIGTERM} {
		if err := c.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if status := c.wait(t); !status.Exited() || status.ExitStatus() != 0 {
		t.Fatalf("the child ended with %s", c.cmd.ProcessState)
	}
}

// checkCalls compares the calls for an item with its attempts.
func (s *scene) checkCalls(t *testing.T, it tasks.Item, want int) {
	t.Helper()
	calls := s.callsOf(it.InstanceID)
	if len(calls) != want || len(calls) > it.Attempts {
		t.Errorf("calls %+v for %d attempts, want %d", calls, it.Attempts, want)
	}
	for n, c := range calls {
		if c.Key != calls[0].Key || n > 0 && c.Attempt <= calls[n-1].Attempt {
			t.Errorf("calls %+v: want one key, and one call an attempt", calls)
		}
	}
}

// checkLost wants the first attempts of an item in its history, as lost.
func checkLost(t *testing.T, it tasks.Item, want int) {
	t.Helper()
	lost := 0
	for n, past := range it.History {
		if past.Outcome == "lost" && past.Number == n+1 && !past.FinishedAt.IsZero() {
			lost++
		}
	}
	if lost != want {
		t.Errorf("history %+v, want %d lost attempts", it.History, want)
	}
}

func TestAWorkerKilledInEachPhase(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "databases 32")
	database := 0
	for _, tt := range []struct {
		phase phase
		lost  int // attempts
		// The calls in the end, and whether the outcome is known: with a driver
		// that may repeat a call it always is.
		repeating, once int
		unknown         bool
	}{
		{phase: beforeBegin, repeating: 1, once: 1},
		{phase: afterBegin, lost: 1, repeating: 1, once: 1},
		{phase: inDriver, lost: 1, repeating: 1, once: 1},
		{phase: connected, lost: 1, repeating: 1, once: 1},
		{phase: received, lost: 1, repeating: 2, once: 1, unknown: true},
		{phase: beforeSave, lost: 1, repeating: 2, once: 1, unknown: true},
		{phase: afterSave, lost: 1, repeating: 1, once: 1},
		{phase: beforeFinish, lost: 1, repeating: 2, once: 1, unknown: true},
		{phase: afterFinish, repeating: 1, once: 1},
	} {
		for _, idempotent := range []bool{true, false} {
			database++
			url := fmt.Sprintf("%s/%d", server.URL(), database)
			name, calls, want := string(tt.phase)+"; may repeat", tt.repeating, tasks.ItemSucceeded
			if !idempotent {
				name, calls = string(tt.phase)+"; may not repeat", tt.once
				if tt.unknown {
					want = tasks.ItemUnknown
				}
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := newPlane(t, tt.phase == beforeSave || tt.phase == afterSave)
				s := newScene(t, p, idempotent, redisdb.Options{URL: url})
				job := s.submit(t, "phone-1")
				first := job.Deliveries()[0].TaskID()
				s.startChild(t, syscall.SIGKILL, tt.phase, "").waitKilled(t)
				s.takeOver(t, time.Minute)
				s.startHealthy(t)

				it := s.waitFinal(t, job.ID).Items[0]
				if it.State != want || it.Attempts != tt.lost+1 {
					t.Errorf("item %+v, want it %s after %d attempts", it, want, tt.lost+1)
				}
				if want == tasks.ItemUnknown && (it.Code != tasks.WorkerLost || !strings.Contains(it.Message, "a worker was lost")) {
					t.Errorf("the caller is told %s: %s", it.Code, it.Message)
				}
				checkLost(t, it, tt.lost)
				if tt.phase == afterFinish {
					s.begun.check(t, 0, 0)
				} else {
					s.begun.check(t, 1, tt.lost)
				}

				// asynq gives the dead worker's task to someone, much later.
				record := s.record(t, job.ID)
				harness.Eventually(t, patience, "the late task is dropped", func() bool {
					_, err := s.inspector.RunAllRetryTasks(queue)
					_, gone := s.inspector.GetTaskInfo(queue, first)
					return err == nil && errors.Is(gone, asynq.ErrTaskNotFound)
				})
				if after := s.record(t, job.ID); !maps.Equal(record, after) {
					t.Errorf("the late task turned %v into %v", record, after)
				}
				s.checkCalls(t, it, calls)
				if s.locked(t, "phone-1") != (want == tasks.ItemUnknown) {
					t.Error("the instance is to stay locked if and only if its reset may be going on")
				}
			})
		}
	}
}

func TestAFrozenWorkerThatThaws(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for n, tt := range []struct {
		phase  phase
		calls  int    // of both workers
		says   string // the child, when it has thawed
		inTime bool   // it thaws before its attempt's time is over
	}{
		{phase: afterBegin, calls: 1, says: "nothing was sent"},
		{phase: inDriver, calls: 1, says: "nothing was sent"},
		{phase: connected, calls: 1, says: "the attempt's time was over before the request was sent"},
		{phase: connected, calls: 1, says: "the process stood still for so long", inTime: true},
		{phase: beforeSave, calls: 2},
		{phase: beforeFinish, calls: 2, says: "event=succeed"},
	} {
		name := string(tt.phase)
		if tt.inTime {
			name += ", in time"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, tt.phase == beforeSave)
			s := newScene(t, p, true, redisdb.Options{URL: fmt.Sprintf("%s/%d", server.URL(), n)})
			s.child.Timeout = time.Second
			frozen := s.child.Timeout
			if tt.inTime {
				s.child.Timeout, frozen = time.Minute, 16*time.Second // others may have it after 25 s
			}
			job := s.submit(t, "phone-1")
			c := s.startChild(t, syscall.SIGSTOP, tt.phase, "")
			c.waitFrozen(t)
			deadline := time.Now().Add(frozen)
			s.takeOver(t, time.Second)
			s.startHealthy(t)
			it := s.waitFinal(t, job.ID).Items[0]
			if it.State != tasks.ItemSucceeded || it.Attempts != 2 {
				t.Errorf("item %+v", it)
			}
			checkLost(t, it, 1)
			s.checkCalls(t, it, tt.calls)
			record := s.record(t, job.ID)

			sleepUntil(deadline)
			c.thaw(t)
			if after := s.record(t, job.ID); !maps.Equal(record, after) {
				t.Errorf("the thawed attempt turned %v into %v", record, after)
			}
			s.checkCalls(t, it, tt.calls)
			if s.locked(t, "phone-1") {
				t.Error("the thawed attempt left the instance locked")
			}
			for _, want := range []string{tt.says, tasks.WrongToken.Error()} {
				if !strings.Contains(c.log.String(), want) {
					t.Errorf("the child does not say %q", want)
				}
			}
		})
	}
}

func TestAnItemThatKillsItsWorkerEveryTime(t *testing.T) {
	t.Parallel()
	s := newScene(t, newPlane(t, false), true, redisdb.Options{URL: redistest.Start(t).URL(), GiveUpAfter: 8 * time.Second})
	job := s.submit(t, "phone-1", "deadly", "phone-2", "phone-3")
	const deadly = 1
	run := func(id string) {
		t.Helper()
		for n := range job.Items { // its time has come
			record, field := "reset:{"+job.ID+"}", strconv.Itoa(n)
			raw := s.rdb.HGet(t.Context(), record, field).Val()
			s.rdb.HSet(t.Context(), record, field, regexp.MustCompile(`,"w":\d+|"w":\d+,`).ReplaceAllString(raw, ""))
		}
		if err := s.inspector.RunTask(queue, id); err != nil {
			t.Fatal(err)
		}
	}
	task := job.Deliveries()[deadly].TaskID()
	// The delays after each death. While the item waits, others have the worker.
	for n, delay := range []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second} {
		c := s.startChild(t, syscall.SIGKILL, received, "deadly")
		if n >= 2 {
			other := s.waitFinal(t, s.submit(t, "phone-4", "phone-5").ID)
			if other.State != tasks.JobSucceeded || other.Items[0].Attempts != 1 || other.Items[1].Attempts != 1 {
				t.Errorf("the other job %+v", other)
			}
			run(task)
		}
		c.waitKilled(t)

		before := time.Now().Truncate(time.Second)
		s.takeOver(t, time.Second)
		it := s.job(t, job.ID).Items[deadly]
		task = tasks.Delivery{ItemID: it.ID, Number: it.Delivery, Epoch: job.Epoch}.TaskID()
		info, err := s.inspector.GetTaskInfo(queue, task)
		if err != nil {
			t.Fatal(err)
		}
		if it.Attempts != n+1 || it.State != tasks.ItemRetrying {
			t.Fatalf("item %+v", it)
		}
		if delay == 0 {
			if info.State != asynq.TaskStatePending {
				t.Errorf("the first death delays the item: %+v", info)
			}
		} else if at := info.NextProcessAt; at.Before(before.Add(delay)) || at.After(time.Now().Add(delay)) {
			t.Errorf("delayed until %s by death %d at %s, want %s", at, n+1, before, delay)
		}
		// Those that died with it.
		scheduled, err := s.inspector.ListScheduledTasks(queue)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range scheduled {
			if info.ID != task {
				run(info.ID)
			}
		}
	}

	sleepUntil(job.EndBefore.Add(time.Millisecond))
	s.startHealthy(t)
	run(task)
	job = s.waitFinal(t, job.ID)
	if job.State != tasks.JobPartial || job.Counts.Succeeded != 3 {
		t.Errorf("job %+v", job)
	}
	it := job.Items[deadly]
	if it.State != tasks.ItemUnknown || it.Code != tasks.NotInTime || it.Attempts != 4 || it.Message == "" {
		t.Errorf("item %+v", it)
	}
	checkLost(t, it, 4)
	s.checkCalls(t, it, 4)
}
