package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"batchreset/tasks"
	"batchreset/worker/requeue"
)

// Config are the settings of a Worker. Every field up to Tracer must be set.
type Config struct {
	QueuesOf        QueuesOf      // asynq queues of a driver to serve, with equal weight
	Concurrency     int           // attempts side by side, over all lanes
	Lanes           int           // asynq servers that share the work
	MaxAttempts     int           // failures after which an item is given up
	AttemptTimeout  time.Duration // for one driver call, from lock to answer
	LookPatience    time.Duration // until a look must show what the upstream calls done; if the attempt ends before that, it stays in doubt
	ShutdownTimeout time.Duration // for running attempts to end by themselves
	Tracer          trace.Tracer  // makes a span of each attempt in the trace of its job; nil: none
	// Named are drivers besides the default one, by name. Each has lanes of its own, so that one
	// whose upstream is slow does not hold up the others.
	Named map[string]Named
	// Version is the program's, for people.
	Version string
	// Calls are told of the calls of a driver; nil: nobody is.
	Calls func(driver string) CallCounter
	// Hold has the servers of newServer take nothing new, or go on; nil: they cannot, and a worker that is to be quiet puts back
	// what it is given.
	Hold func(hold bool)
	// Stop ends the process as SIGTERM does; nil: nobody may order that.
	Stop func()
}

// Named is a driver with bounds of its own. What is 0 is as in Config.
type Named struct {
	Driver         Driver
	Concurrency    int
	AttemptTimeout time.Duration
}

// Queues lists queues. It is asked again and again, because new ones can turn up.
type Queues func(context.Context) ([]string, error)

// QueuesOf is Queues for those of a driver.
type QueuesOf func(ctx context.Context, driver string) ([]string, error)

// Check returns an error that names the first setting that cannot work, by its
// flag.
func (c Config) Check() error {
	switch {
	case c.Concurrency < 1:
		return fmt.Errorf("--concurrency must be at least 1, not %d", c.Concurrency)
	case c.Lanes < 1 || c.Lanes > c.Concurrency:
		return fmt.Errorf("--lanes must be from 1 to --concurrency (%d), not %d", c.Concurrency, c.Lanes)
	case c.MaxAttempts < 1:
		return fmt.Errorf("--max-attempts must be at least 1, not %d", c.MaxAttempts)
	case c.AttemptTimeout < time.Second:
		return fmt.Errorf("--attempt-timeout must be at least 1s, not %s", c.AttemptTimeout)
	case c.LookPatience < 0:
		return fmt.Errorf("--look-patience must not be negative")
	case c.ShutdownTimeout < 0:
		return fmt.Errorf("--shutdown-timeout must not be negative")
	}
	return nil
}

// Worker takes deliveries from the queues and resets their instances. As a
// prometheus.Collector it tells how busy it is and how attempts end.
type Worker struct {
	prometheus.Collector
	id        string // see newWorkerID
	cfg       Config
	store     Store
	drivers   map[string]*equipment // by name
	lookPause time.Duration
	log       *slog.Logger
	pulse     *pulse
	metrics   workerMetrics

	draining  context.Context // ends when no attempt may begin any more
	drain     context.CancelFunc
	stop      context.Context // ends when running attempts must end
	interrupt context.CancelFunc
	calls     sync.WaitGroup // of drivers, those left behind included
	// attempts are those under way, with those that asynq does not know of any more: it
	// forgets a task whose lease is over, because Redis was away for half a minute.
	attempts sync.WaitGroup
	lanes    []Server

	started   time.Time
	under     underWay
	unsure    atomic.Bool // whether Redis is what it was: see life.go
	taking    atomic.Pointer[taking]
	drainedAt atomic.Pointer[time.Time] // since when it stops
	told      atomic.Bool               // to stop
	changed   chan struct{}             // something that people wait for
	asked     chan struct{}             // whether it works: see Answer

	newServer func(asynq.Config) Server
}

// Server hands out tasks, as an [asynq.Server] does.
type Server interface {
	Start(handler asynq.Handler) error
	Shutdown() // hands out nothing new, and waits for what is under way
}

// equipment is a driver with what the worker knows of it.
type equipment struct {
	name        string
	driver      Driver
	repeatable  bool
	looker      Looker // nil: the driver cannot look
	gate        Gate   // nil: always open
	concurrency int
	timeout     time.Duration
	served      map[string]bool // queues
	durations   map[tasks.Transition]prometheus.Observer
	looksFailed prometheus.Counter
	resolved    map[string]prometheus.Counter // by how
	counter     CallCounter                   // of calls; nil: nobody counts

	lanes, slots, busy atomic.Int64
}

// equip makes ready a driver.
func (w *Worker) equip(name string, d Named) {
	e := &equipment{
		name: name, driver: d.Driver, looker: lookerOf(d.Driver), concurrency: cmp.Or(d.Concurrency, w.cfg.Concurrency),
		timeout: cmp.Or(d.AttemptTimeout, w.cfg.AttemptTimeout), served: map[string]bool{}, durations: w.metrics.of(name),
		looksFailed: w.metrics.looksFailed.WithLabelValues(name), resolved: w.metrics.doubts(name),
	}
	if r, ok := d.Driver.(Repeater); ok {
		e.repeatable = r.Repeatable()
	}
	e.gate, _ = d.Driver.(Gate)
	if w.cfg.Calls != nil {
		e.counter = w.cfg.Calls(name)
	}
	w.drivers[name] = e
}

// New makes a worker. driver is the default one; nil: it has only those of cfg.Named. newServer makes an asynq server on the Redis of store.
func New[S Server](cfg Config, store Store, driver Driver, newServer func(asynq.Config) S, log *slog.Logger) (*Worker, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	w := &Worker{id: newWorkerID(), cfg: cfg, store: store, drivers: map[string]*equipment{}, lookPause: lookFirst, log: log, pulse: newPulse(), metrics: newWorkerMetrics(), started: time.Now(), changed: make(chan struct{}, 1), asked: make(chan struct{})}
	w.Collector = w.metrics
	if driver != nil {
		w.equip(tasks.DefaultDriver, Named{Driver: driver})
	}
	for name, d := range cfg.Named {
		w.equip(name, d)
	}
	w.draining, w.drain = context.WithCancel(context.Background())
	w.taking.Store(w.newTaking())
	w.stop, w.interrupt = context.WithCancel(context.Background())
	w.newServer = func(cfg asynq.Config) Server { return newServer(cfg) }
	return w, nil
}

const (
	// queuesEvery is how often a worker looks for queues that it does not serve.
	queuesEvery = 5 * time.Second
	// never is the interval of what only one lane does, for all of them.
	never = 24 * time.Hour
)

// startLanes starts asynq servers on queues of a driver.
func (w *Worker) startLanes(e *equipment, lanes int, queues []string) error {
	served := make(map[string]int, len(queues))
	for _, q := range queues {
		served[q] = 1
	}
	for lane := range lanes {
		cfg := asynq.Config{
			Concurrency: (e.concurrency + lane) / lanes,
			Queues:      served,
			// An idle lane looks for tasks every half to one and a half of this. It
			// looks into its own process first: see wire.Client.Listen.
			TaskCheckInterval:        10 * time.Millisecond,
			DelayedTaskCheckInterval: 500 * time.Millisecond,
			// After this time asynq puts back the tasks of attempts that still run. By
			// then all have been interrupted and have ended.
			ShutdownTimeout:  w.stopTime(),
			JanitorBatchSize: 1000,
			RetryDelayFunc:   requeue.Delay,
			IsFailure:        isFailure,
			Logger:           requeue.NewLog(w.log),
		}
		if lane > 0 {
			cfg.DelayedTaskCheckInterval, cfg.JanitorInterval = never, never
		}
		server := w.newServer(cfg)
		if err := server.Start(asynq.HandlerFunc(w.process)); err != nil {
			return fmt.Errorf("start lane: %w", err)
		}
		w.lanes = append(w.lanes, server)
		w.metrics.slots.Add(float64(cfg.Concurrency))
		e.slots.Add(int64(cfg.Concurrency))
		e.lanes.Add(1)
	}
	for _, q := range queues {
		e.served[q] = true
	}
	return nil
}

// startDriver starts the lanes of a driver: its share of all.
func (w *Worker) startDriver(ctx context.Context, e *equipment) error {
	queues, err := w.cfg.QueuesOf(ctx, e.name)
	if err != nil {
		return err
	}
	lanes := min(max(w.cfg.Lanes/len(w.drivers), 1), e.concurrency)
	if err := w.startLanes(e, lanes, queues); err != nil {
		return err
	}
	w.log.Info("worker started", "driver", e.name, "lanes", lanes, "concurrency", e.concurrency, "queues", queues)
	return nil
}

// Run takes and processes tasks until ctx ends, then stops: no new tasks, time
// for running attempts to end, the rest interrupted and handed back. It returns
// when nothing of it is left, and an error only if it could not start.
func (w *Worker) Run(ctx context.Context) error {
	defer w.interrupt()
	defer w.drain()
	defer w.leave(context.WithoutCancel(ctx)) // after the last sign of life
	var beating sync.WaitGroup
	defer beating.Wait()
	beats, still := context.WithCancel(context.WithoutCancel(ctx))
	defer still()
	beating.Go(func() { w.pulse.run(beats) })
	if err := w.showLife(ctx); err != nil {
		return nil // ctx has ended before anything began
	}
	beating.Go(func() { w.live(beats) })
	if w.store.Reports != nil {
		w.reportOnce(ctx) // before asynq shows this process
		beating.Go(func() { w.report(beats) })
	}
	defer w.hold(false) // whoever runs another worker here
	defer w.shutdown()

	for _, name := range slices.Sorted(maps.Keys(w.drivers)) {
		if err := w.startDriver(ctx, w.drivers[name]); err != nil {
			return err
		}
	}
	w.tellNow()
	w.serveQueues(ctx)
	return nil
}

// serveQueues looks for new queues, and answers those who ask whether this worker works, until ctx ends.
func (w *Worker) serveQueues(ctx context.Context) {
	ticker := time.NewTicker(queuesEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.asked:
		case <-ticker.C:
			w.lookForQueues(ctx)
			select { // who has asked meanwhile comes first: the next look may be due, and take as long
			case <-w.asked:
			default:
			}
		}
	}
}

// Answer returns nil once this worker has begun to take work and its loop goes on, or once it is going to stop, which
// takes the time that it takes. Otherwise it returns the error of ctx when that ends. Redis need not be there.
func (w *Worker) Answer(ctx context.Context) error {
	select {
	case w.asked <- struct{}{}:
		return nil
	case <-w.draining.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lookForQueues serves what has turned up, for each driver. Whoever asks whether the worker works waits for that.
func (w *Worker) lookForQueues(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, queuesEvery)
	defer cancel()
	for _, e := range w.drivers {
		w.serveNewQueues(ctx, e)
	}
}

// serveNewQueues starts a lane for queues that have turned up since. A server's queues
// cannot be changed, so its attempts come on top of --concurrency until the next start.
func (w *Worker) serveNewQueues(ctx context.Context, e *equipment) {
	queues, err := w.cfg.QueuesOf(ctx, e.name)
	if err != nil {
		w.log.Warn("queues not listed", "error", err)
		return
	}
	queues = slices.DeleteFunc(queues, func(q string) bool { return e.served[q] })
	if len(queues) == 0 {
		return
	}
	if err := w.startLanes(e, 1, queues); err != nil {
		w.log.Error("new queues not served", "queues", queues, "error", err)
		return
	}
	w.log.Info("new queues are served", "queues", queues)
}

// stopTime is within what time from the beginning of a shutdown every attempt has ended.
func (w *Worker) stopTime() time.Duration { return w.cfg.ShutdownTimeout + driverGrace + storePatience }

func (w *Worker) shutdown() {
	w.log.Info("worker stopping", "under_way", w.under.count(), "shutdown_timeout", w.cfg.ShutdownTimeout.String())
	start := time.Now()
	w.drainedAt.Store(&start)
	w.drain()
	w.tellNow()
	deadline := time.AfterFunc(w.cfg.ShutdownTimeout, func() {
		w.log.Warn("attempts are still running, interrupting them", "after", w.cfg.ShutdownTimeout.String())
		w.interrupt()
	})
	defer deadline.Stop()
	var all sync.WaitGroup
	for _, lane := range w.lanes {
		all.Go(lane.Shutdown) // takes nothing new, waits for what runs
	}
	all.Wait()
	if !waitFor(&w.attempts, w.stopTime()-time.Since(start)) {
		w.log.Error("an attempt does not end, the worker stops without it")
	}
	if !waitFor(&w.calls, driverGrace) {
		w.log.Error("a driver does not return, the worker stops without it")
	}
	w.log.Info("worker stopped")
}

// waitFor waits for wg, at most for d, and reports whether it was enough.
func waitFor(wg *sync.WaitGroup, d time.Duration) bool {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

func isFailure(err error) bool {
	later, ok := errors.AsType[*requeue.Later](err)
	return !ok || later.Failure
}
