//go:build !race

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"batchreset/api/client"
	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness/faketime"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/worker"
)

// simulation is what came of a seed.
type simulation struct {
	history.Run
	steps []string
}

// simWorld is one seed: processes, their Redis, their network, the control plane, and what
// goes wrong, all in one bubble with a clock of its own. At any time one goroutine runs;
// which one follows from the seed, because all that takes time takes as long as the seed
// says, to the nanosecond.
type simWorld struct {
	t     *testing.T
	seed  uint64
	redis *miniredis.Miniredis
	rec   *history.Recorder
	queue *simQueue
	plane *simPlane
	rand  *rand.Rand // the story's
	all   sync.WaitGroup
	tick  atomic.Int64 // the longest time between two rounds of the queue
	opts  redisdb.Options
	slots int

	mu      sync.Mutex
	links   []*simLink
	over    bool
	skew    time.Duration // of Redis's clock
	most    time.Duration // that it may be
	enabled map[string]bool
	steps   []string
	taken   map[string]bool // from the tenant

	api     *simClient
	watcher *redisdb.DB
	workers []*simProcess
	jobs    []string
	keys    map[string][]string // instances by idempotency key
	asked   []tasks.RunSubmission
	runs    []string      // their IDs; guarded by mu
	halted  time.Duration // until then, with a margin
}

// simClient is the api's side of the store.
type simClient struct {
	link *simLink
	db   *redisdb.DB
}

// simProcess is a worker process, which may be started again.
type simProcess struct {
	name    string
	link    *simLink
	db      *redisdb.DB
	sweeper *worker.Sweeper
	runner  *worker.Runner
	stop    context.CancelFunc
}

// stream is a source of chance for one purpose, so that what happens elsewhere does not change it.
func (w *simWorld) stream(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return rand.New(&simSource{PCG: rand.NewPCG(w.seed, h.Sum64())})
}

// simSource is a source for many goroutines.
type simSource struct {
	mu sync.Mutex
	*rand.PCG
}

func (s *simSource) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.PCG.Uint64()
}

func (w *simWorld) now() time.Duration { return w.rec.Now() }

func (w *simWorld) goesOn() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.over
}

func (w *simWorld) on(fault string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.enabled[fault]
}

// later does something after a time.
func (w *simWorld) later(d time.Duration, do func()) {
	w.all.Go(func() {
		faketime.Pass(d)
		if w.goesOn() {
			do()
		}
	})
}

// setClock sets Redis's clock, which stands still between the commands that need it.
func (w *simWorld) setClock() {
	w.mu.Lock()
	now := time.Now().Add(w.skew)
	w.mu.Unlock()
	w.redis.SetTime(now)
}

func (w *simWorld) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, fmt.Sprintf("%9.3fs  ", w.now().Seconds())+fmt.Sprintf(format, args...))
}

func (w *simWorld) open(l *simLink) *redisdb.DB {
	opts := w.opts
	opts.URL, opts.Embedded, opts.Dial = "redis://127.0.0.1?max_retries=-1", true, l.dial
	trouble := l.trouble
	l.trouble = 0 // a process that cannot start is of no interest
	db, err := redisdb.Open(context.Background(), opts)
	if err != nil {
		w.t.Fatal(err)
	}
	l.mu.Lock()
	l.trouble = trouble
	l.mu.Unlock()
	return db
}

// The faults that a seed may have; each has some of them.
var simFaults = []string{
	"kill", "stop", "cut", "cancel", "retry", "halt", "protect", "clock", "network", "plane",
	"early", "recover", "lost", "twin", "remove", "delist", "look", "runs", "runner",
}

const (
	simTimeout     = 10 * time.Second // of an attempt
	simMaxAttempts = 3
)

var simActor = tasks.Actor{By: "simulation"}

// simulate runs a seed.
func simulate(t *testing.T, seed uint64) (s simulation) {
	cryptotest.SetGlobalRandom(t, seed)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // or what wakes at one time runs in any order
	synctest.Test(t, func(t *testing.T) {
		w := &simWorld{t: t, seed: seed, redis: miniredis.NewMiniRedis(), enabled: map[string]bool{}, taken: map[string]bool{}, keys: map[string][]string{}}
		w.rec = &history.Recorder{Start: time.Now()}
		w.rand = w.stream("story")
		for _, fault := range simFaults {
			w.enabled[fault] = w.rand.IntN(2) == 0
		}
		w.run()
		s = simulation{
			Run: history.Run{
				Start: w.rec.Start, MaxAttempts: simMaxAttempts, Repeatable: w.plane.idempotent,
				GiveUpAfter: w.opts.GiveUpAfter, Skew: w.most, Events: w.rec.Events(),
			},
			steps: w.steps,
		}
		if looks := w.plane.looks; looks != nil {
			s.Looks, s.LookPatience = true, looks.patience
		}
	})
	return s
}

func (w *simWorld) run() {
	w.setClock()
	w.redis.ClockTTL(true)
	trouble := 0.0
	if w.on("network") {
		trouble = 0.1 * w.rand.Float64()
	}
	if w.rand.IntN(4) == 0 { // as with a Cluster or with replicas
		w.opts.CommitReplicas = 1
	}
	if w.rand.IntN(4) == 0 {
		w.opts.GiveUpAfter = time.Duration(1+w.rand.IntN(5)) * time.Minute
	}
	if w.on("clock") {
		w.most = 10 * time.Second
	}
	w.slots = w.rand.IntN(3) // 0: as many as there are
	w.tick.Store(int64(time.Second))
	w.queue = &simQueue{w: w, rand: w.stream("queue")}
	w.plane = &simPlane{
		w: w, rand: w.stream("plane"), resets: map[string]*simReset{},
		idempotent: w.rand.IntN(2) == 0, async: w.rand.IntN(3) == 0, slow: 1, slowest: time.Second + rand1(w.rand, simTimeout*3),
		failing: w.rand.Float64() / 3,
	}
	if w.on("plane") {
		w.plane.spoil()
	}
	w.plane.looks = w.drawSights()
	w.watcher = w.open(w.newLink("watcher", 0))
	w.redis.Server().SetPreHook(w.replicas)
	w.mustDo("add endpoint", func(ctx context.Context) error {
		_, err := w.watcher.Endpoints.Add(ctx, tasks.Endpoint{ID: "e", Tenant: history.Tenant, URL: "http://127.0.0.1", Topics: []tasks.Topic{tasks.TopicJobFinished}, Secret: "s"}, simActor)
		return err
	})
	w.startAPI(trouble)
	for n := range 1 + w.rand.IntN(3) {
		w.workers = append(w.workers, &simProcess{name: fmt.Sprintf("worker-%d", n+1)})
		w.start(w.workers[n], trouble)
	}
	w.all.Go(w.queue.run)
	w.story(time.Duration(30+w.rand.IntN(120))*time.Second, trouble)
	w.heal()
	w.awaitFinal()
	w.end()
}

// replicas answers for the replicas that there are not: sometimes they are too slow.
func (w *simWorld) replicas(c *server.Peer, cmd string, _ ...string) bool {
	if cmd != "WAIT" {
		return false
	}
	n := 1
	if w.on("network") && w.queue.rand.IntN(20) == 0 {
		n = 0
	}
	c.WriteInt(n)
	return true
}

func (w *simWorld) mustDo(what string, do func(context.Context) error) {
	var err error
	for range 100 { // replicas may be slow
		if err = do(context.Background()); err == nil {
			return
		}
	}
	w.t.Fatalf("seed %d: %s: %v", w.seed, what, err)
}

func (w *simWorld) startAPI(trouble float64) {
	l := w.newLink(fmt.Sprintf("api-%d", len(w.links)), trouble)
	w.api = &simClient{link: l, db: w.open(l)}
}

// start starts a worker process.
func (w *simWorld) start(p *simProcess, trouble float64) {
	l := w.newLink(p.name, trouble)
	db := w.open(l)
	log := slog.New(slog.DiscardHandler)
	queues := func(context.Context) ([]string, error) { return []string{resetQueue}, nil }
	plain := &simDriver{w.plane, l}
	var driver worker.Driver = plain
	patience := time.Duration(0)
	if w.plane.looks != nil {
		driver, patience = simLooker{plain}, w.plane.looks.patience
	}
	driver = worker.NewUpstream(driver, worker.UpstreamConfig{Concurrency: w.slots}, log)
	skew := time.Duration(0)
	if w.on("recover") {
		skew = rand1(w.rand, 200*time.Second) - 100*time.Second
	}
	p.link, p.db = l, db
	sweeping := simSweepStore{db.Sweep, db.Notices, w}
	wk, err := worker.New(worker.Config{
		QueuesOf: func(ctx context.Context, _ string) ([]string, error) { return queues(ctx) }, Concurrency: 1 + w.rand.IntN(4), Lanes: 1, MaxAttempts: simMaxAttempts, AttemptTimeout: simTimeout,
		ShutdownTimeout: time.Second, LookPatience: patience,
	}, simStoreOf(db), driver, w.queue.newServer(l, skew), log)
	if err != nil {
		w.t.Fatal(err)
	}
	p.sweeper = worker.NewSweeper(worker.SweepStore{OpenJobs: sweeping, Jobs: db.Jobs, Events: sweeping, Failures: db.Failures, AllHalted: db.Policies}, queues, log)
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	w.newRunner(ctx, p)
	w.all.Go(func() {
		if err := wk.Run(ctx); err != nil && !l.isDead() {
			w.note("%s did not run: %v", p.name, err)
		}
		_ = db.Close()
	})
}

// story lets things happen for so long.
func (w *simWorld) story(length time.Duration, trouble float64) {
	instances := make([]string, 1+w.rand.IntN(3))
	for i := range instances {
		instances[i] = fmt.Sprintf("phone-%d", i)
	}
	if w.on("protect") {
		w.mustDo("register", func(ctx context.Context) error {
			var all []tasks.Instance
			for _, id := range instances {
				all = append(all, tasks.Instance{ID: id, Tenant: history.Tenant})
			}
			return w.watcher.Fleet.Register(ctx, all, simActor)
		})
	}
	w.submit(instances)
	for w.now() < length {
		faketime.Pass(rand1(w.rand, 4*time.Second))
		w.revive(trouble)
		p := w.workers[w.rand.IntN(len(w.workers))]
		for range 3 { // what is idle is of less interest
			if w.queue.atWork(p.link) {
				break
			}
			p = w.workers[w.rand.IntN(len(w.workers))]
		}
		switch w.rand.IntN(28) {
		case 0, 1:
			if len(w.keys) < 6 {
				w.submit(instances)
			}
		case 2, 3, 4, 5:
			w.sweep(p)
		case 6:
			if w.on("kill") {
				w.kill(p)
				faketime.Pass(rand1(w.rand, 20*time.Second))
				w.start(p, trouble)
			}
		case 7:
			if w.on("stop") {
				w.note("%s is stopped", p.name)
				p.stop()
				faketime.Pass(rand1(w.rand, 5*time.Second))
				w.start(p, trouble)
			}
		case 8, 9:
			if w.on("cut") {
				for _, l := range []*simLink{p.link, w.api.link} {
					d := rand1(w.rand, 90*time.Second)
					w.note("%s is cut off for %s", l.name, d)
					l.cutFor(d)
					w.rec.Add(history.Event{Kind: history.Fault, Fault: fault.WorkerSleep, Target: l.name, Begin: w.now(), End: w.now() + d})
					if w.rand.IntN(2) == 0 {
						break
					}
				}
			}
		case 10:
			if w.on("cancel") {
				w.change(history.Event{Kind: history.Cancel, Job: w.jobs[w.rand.IntN(len(w.jobs))]}, func(ctx context.Context, job string) error { return w.api.db.Records.Cancel(ctx, job, simActor) })
			}
		case 11, 12, 13:
			if w.on("retry") {
				w.retry()
			}
		case 14:
			if w.on("halt") {
				w.halt()
			}
		case 15:
			if w.on("protect") {
				w.take(instances[w.rand.IntN(len(instances))])
			}
		case 16:
			if w.on("clock") {
				step := rand1(w.rand, 20*time.Second) - 10*time.Second
				w.mu.Lock()
				w.skew = max(-w.most, min(w.skew+step, w.most))
				skew := w.skew
				w.mu.Unlock()
				w.note("Redis's clock is %s off", skew)
			}
		case 17:
			if id := w.queue.random(w.rand); w.on("remove") && id != "" {
				w.note("task %s is removed", id)
				w.queue.remove(id)
			}
		case 18:
			if w.on("delist") {
				w.note("the queue is not listed any more")
				_, _ = w.redis.SRem("asynq:queues", resetQueue)
			}
		case 20, 21:
			if w.on("runs") {
				w.submitRun()
			}
		case 22:
			if run := w.someRun(); run != "" {
				w.readRun(run)
			}
		case 23:
			w.pauseRun()
		case 24:
			if w.on("cancel") && w.rand.IntN(2) == 0 {
				w.stopRun(history.CancelRun, w.someRun())
			}
		case 25:
			kind := history.ApproveRun
			if w.rand.IntN(3) == 0 {
				kind = history.RejectRun
			}
			w.judge(kind, w.runThat(func(run tasks.Run) bool { return run.State == tasks.RunWaiting && !run.Approved() }))
		case 26, 27:
			w.retryRun()
		default:
			w.read()
		}
	}
}

func (w *simWorld) kill(p *simProcess) {
	w.note("%s is killed", p.name)
	w.rec.Add(history.Event{Kind: history.Fault, Fault: fault.WorkerKill, Target: p.name, Begin: w.now(), End: w.now()})
	p.link.kill()
	p.stop() // what is left of it here gets nothing done
}

// simStore is the store of a worker. Those who have waited for the same answer go on one
// after the other, in the order in which they asked, or a seed would not be a history.
type simStore struct {
	worker.Attempts
	worker.Policies
	asked atomic.Int64
}

func simStoreOf(db *redisdb.DB) worker.Store {
	s := &simStore{Attempts: db.Attempts, Policies: db.Policies}
	return worker.Store{Attempts: s, Policies: s, Quotas: db.Quotas, Notices: db.Notices, Routes: db.Sweep}
}

func (s *simStore) inTurn() func() {
	turn := time.Duration(s.asked.Add(1) % 10_000 * 97)
	return func() { faketime.Pass(turn) }
}

func (s *simStore) PolicyOf(ctx context.Context, tenant, run string) (tasks.Policy, error) {
	defer s.inTurn()()
	return s.Policies.PolicyOf(ctx, tenant, run)
}

func (s *simStore) Begin(ctx context.Context, d tasks.Delivery, token, key string, lock time.Duration) (tasks.Begun, error) {
	defer s.inTurn()()
	return s.Attempts.Begin(ctx, d, token, key, lock)
}

func (s *simStore) Send(ctx context.Context, d tasks.Delivery, token, address string) error {
	defer s.inTurn()()
	return s.Attempts.Send(ctx, d, token, address)
}

func (s *simStore) Finish(ctx context.Context, d tasks.Delivery, token string, o tasks.Outcome, unlock bool) (tasks.Ended, error) {
	defer s.inTurn()()
	return s.Attempts.Finish(ctx, d, token, o, unlock)
}

func (s *simStore) Wait(ctx context.Context, d tasks.Delivery) (time.Duration, error) {
	defer s.inTurn()()
	return s.Attempts.Wait(ctx, d)
}

// simSweepStore is the store of a sweeper, which works on many jobs side by side. In the
// simulation they come one after the other, or a seed would not be a history.
type simSweepStore struct {
	worker.OpenJobs
	worker.Events
	w *simWorld
}

func (s simSweepStore) inTurn(job string, n int) {
	faketime.Pass(rand1(s.w.stream(fmt.Sprint("turn ", job, n, s.w.now())), time.Millisecond))
}

func (s simSweepStore) EnqueueNotices(ctx context.Context, job tasks.Job) error {
	s.inTurn(job.ID, 0)
	return s.Events.EnqueueNotices(ctx, job)
}

func (s simSweepStore) Redeliver(ctx context.Context, job tasks.Job, d tasks.Delivery, delay func(int) time.Duration) error {
	s.inTurn(d.ItemID, d.Number)
	return s.OpenJobs.Redeliver(ctx, job, d, delay)
}

// Served says that there is always a worker: asynq's lists of servers are not simulated.
func (simSweepStore) Served(context.Context) (map[string]bool, error) {
	return map[string]bool{tasks.DefaultDriver: true}, nil
}

func (s simSweepStore) Reschedule(ctx context.Context, j tasks.OpenJob, next time.Time) error {
	s.inTurn(j.ID, 1)
	return s.OpenJobs.Reschedule(ctx, j, next)
}

func (s simSweepStore) Unlist(ctx context.Context, j tasks.OpenJob) error {
	s.inTurn(j.ID, 2)
	return s.OpenJobs.Unlist(ctx, j)
}

func (w *simWorld) sweep(p *simProcess) {
	w.all.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.sweeper.Sweep(ctx); err != nil {
			w.note("%s could not sweep: %v", p.name, err)
		}
	})
}

func (w *simWorld) submit(instances []string) {
	e := history.Event{Kind: history.Submit, Begin: w.now(), Key: fmt.Sprintf("key-%d", len(w.keys))}
	if len(w.keys) > 0 && w.rand.IntN(6) == 0 { // the same again
		e.Key = fmt.Sprintf("key-%d", w.rand.IntN(len(w.keys)))
		e.Instances = w.keys[e.Key]
	} else {
		e.Instances = slices.Clone(instances)
		w.rand.Shuffle(len(instances), func(i, j int) { e.Instances[i], e.Instances[j] = e.Instances[j], e.Instances[i] })
		e.Instances = e.Instances[:1+w.rand.IntN(len(instances))]
	}
	if w.keys[e.Key] == nil {
		w.keys[e.Key] = e.Instances
		w.plane.use(e.Instances)
		w.jobs = append(w.jobs, e.Tried())
	}
	db := w.api.db
	w.all.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		job, err := db.Records.Submit(ctx, tasks.Submission{
			Tenant: history.Tenant, IdempotencyKey: e.Key, InstanceIDs: e.Instances, AllowUnregistered: true,
		})
		e.End = w.now()
		if _, undelivered := errors.AsType[*tasks.UndeliveredError](err); err == nil || undelivered {
			e.Job = job.ID
		} else {
			e.Error = err.Error()
			w.note("not submitted: %v", err)
		}
		w.rec.Add(e)
	})
}

// retry asks for what can be had: a job that has ended without success.
func (w *simWorld) retry() {
	for _, i := range w.rand.Perm(len(w.jobs)) {
		job, err := w.watcher.Jobs.Job(context.Background(), w.jobs[i])
		if err != nil || !job.State.Final() || job.State == tasks.JobSucceeded {
			continue
		}
		states := []tasks.ItemState{tasks.ItemUnknown}
		if job.Counts.Unknown == 0 || w.rand.IntN(4) == 0 {
			states = []tasks.ItemState{tasks.ItemFailed, tasks.ItemUnknown, tasks.ItemCancelled}
		}
		e := history.Event{Kind: history.Retry, Job: w.jobs[i]}
		for _, state := range states {
			e.States = append(e.States, string(state))
		}
		w.change(e, func(ctx context.Context, job string) error { return w.api.db.Records.Retry(ctx, job, states, simActor) })
		return
	}
}

func (w *simWorld) change(e history.Event, ask func(context.Context, string) error) {
	w.ask(e, func(ctx context.Context, e *history.Event) error { return ask(ctx, e.Job) })
}

func (w *simWorld) halt() {
	if w.now() < w.halted { // one at a time, because lifting it would lift both
		return
	}
	length := 2*time.Second + rand1(w.rand, 30*time.Second)
	w.mustDo("halt", func(ctx context.Context) error {
		return w.watcher.Policies.Halt(ctx, "", tasks.HaltedByOperator, simActor)
	})
	e := history.Event{Kind: history.Fault, Fault: fault.HaltAll, Begin: w.now()}
	w.halted = e.Begin + length + time.Second
	w.later(length, func() {
		e.End = w.now()
		w.rec.Add(e)
		w.mustDo("resume", func(ctx context.Context) error {
			return w.watcher.Policies.Resume(ctx, "", tasks.HaltedByOperator, simActor)
		})
	})
}

// take takes an instance away from the tenant for a while: it is protected, or given to
// somebody else.
func (w *simWorld) take(instance string) {
	w.mu.Lock()
	taken := w.taken[instance]
	w.taken[instance] = true
	w.mu.Unlock()
	if taken {
		return
	}
	kind, change := history.Protect, tasks.Instance{ID: instance, Tenant: history.Tenant, Protected: true}
	if w.rand.IntN(2) == 0 {
		kind, change = history.Move, tasks.Instance{ID: instance, Tenant: "another"}
	}
	e := history.Event{Kind: kind, Begin: w.now(), Instance: instance}
	register := func(in tasks.Instance) {
		w.mustDo("register", func(ctx context.Context) error { return w.watcher.Fleet.Register(ctx, []tasks.Instance{in}, simActor) })
	}
	register(change)
	e.End = w.now()
	w.rec.Add(e)
	length := rand1(w.rand, 40*time.Second)
	w.later(length, func() {
		e := history.Event{Kind: history.Free, Begin: w.now(), Instance: instance}
		register(tasks.Instance{ID: instance, Tenant: history.Tenant})
		e.End = w.now()
		w.rec.Add(e)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.taken[instance] = false
	})
}

// readJob looks at a job and says whether there is nothing to wait for.
func (w *simWorld) readJob(id string) (final bool) {
	e := history.Event{Kind: history.Read, Begin: w.now(), Job: id}
	job, err := w.watcher.Jobs.Job(context.Background(), id)
	e.End = w.now()
	if errors.Is(err, tasks.JobGone) {
		w.rec.Add(e)
		return true
	}
	if err != nil {
		w.t.Fatalf("seed %d: read: %v", w.seed, err)
	}
	e.Record = recordOf(job)
	w.rec.Add(e)
	return job.State.Final()
}

func (w *simWorld) read() { w.readJob(w.jobs[w.rand.IntN(len(w.jobs))]) }

// recordOf is a record as callers see it.
func recordOf(job any) *client.Job {
	text, err := json.Marshal(job)
	if err != nil {
		panic(err)
	}
	var record client.Job
	if err := json.Unmarshal(text, &record); err != nil {
		panic(err)
	}
	record.Record = nil
	return &record
}

// toldBy is the event of a notice.
func toldBy(n tasks.Notice, at time.Duration) history.Event {
	var body struct{ Data client.Job }
	if err := json.Unmarshal(n.Body, &body); err != nil {
		panic(err)
	}
	body.Data.Record = nil
	return history.Event{Kind: history.Told, Begin: at, End: at, Key: n.EventID, Job: body.Data.ID, Record: &body.Data}
}

// heal repairs everything, and nothing breaks any more.
func (w *simWorld) heal() {
	w.mu.Lock()
	clear(w.enabled)
	links := slices.Clone(w.links)
	w.mu.Unlock()
	for _, l := range links {
		l.repair()
	}
	w.plane.repair()
	w.revive(0)
	faketime.Pass(time.Minute) // halts and protections end, what was late has come
	w.note("everything is repaired")
}

// awaitFinal waits until every run and job is final and told, or far too long.
func (w *simWorld) awaitFinal() {
	w.tick.Store(int64(5 * time.Second))
	for deadline := w.now() + 6*time.Hour; w.now() < deadline; {
		for _, p := range w.workers {
			w.sweep(p)
			faketime.Pass(rand1(w.rand, 10*time.Second))
		}
		open := !w.runsEnd()
		for _, job := range w.jobs {
			open = !w.readJob(job) || open
		}
		if open {
			faketime.Pass(20 * time.Second)
			continue
		}
		if len(history.Untold(w.rec.Events())) == 0 {
			w.readResults()
			return
		}
		faketime.Pass(time.Minute)
	}
}

// end stops everything that still goes on in the bubble.
func (w *simWorld) end() {
	for _, p := range w.workers {
		p.stop()
	}
	faketime.Pass(2 * time.Minute)
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	faketime.Pass(2 * time.Minute)
	_ = w.api.db.Close()
	_ = w.watcher.Close()
	w.redis.Close()
	w.all.Wait()
}
