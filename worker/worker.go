package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"batchreset/worker/requeue"
)

// Config are the settings of a Worker. Every field but Tracer must be set.
type Config struct {
	Queues          Queues        // asynq queues to serve, with equal weight
	Concurrency     int           // attempts side by side, over all lanes
	Lanes           int           // asynq servers that share the work
	MaxAttempts     int           // failures after which an item is given up
	AttemptTimeout  time.Duration // for one driver call, from lock to answer
	LookPatience    time.Duration // until a look must show what the upstream calls done
	ShutdownTimeout time.Duration // for running attempts to end by themselves
	Tracer          trace.Tracer  // makes a span of each attempt in the trace of its job; nil: none
}

// Queues lists the queues to serve. It is asked again and again, because new ones can
// turn up.
type Queues func(context.Context) ([]string, error)

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
	id         string // see newWorkerID
	cfg        Config
	store      Store
	driver     Driver
	repeatable bool
	looker     Looker // nil: the driver cannot look
	lookPause  time.Duration
	gate       Gate // nil: always open
	log        *slog.Logger
	pulse      *pulse
	metrics    workerMetrics

	draining  context.Context // ends when no attempt may begin any more
	drain     context.CancelFunc
	stop      context.Context // ends when running attempts must end
	interrupt context.CancelFunc
	drivers   sync.WaitGroup // driver calls, those left behind included
	// attempts are those under way, with those that asynq does not know of any more: it
	// forgets a task whose lease is over, because Redis was away for half a minute.
	attempts sync.WaitGroup
	lanes    []Server
	served   map[string]bool // queues

	newServer func(asynq.Config) Server
}

// Server hands out tasks, as an [asynq.Server] does.
type Server interface {
	Start(handler asynq.Handler) error
	Shutdown() // hands out nothing new, and waits for what is under way
}

// New makes a worker; newServer makes an asynq server on the Redis of store.
func New[S Server](cfg Config, store Store, driver Driver, newServer func(asynq.Config) S, log *slog.Logger) (*Worker, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	w := &Worker{id: newWorkerID(), cfg: cfg, store: store, driver: driver, log: log, pulse: newPulse(), metrics: newWorkerMetrics(), served: map[string]bool{}}
	w.Collector = w.metrics
	if r, ok := driver.(Repeater); ok {
		w.repeatable = r.Repeatable()
	}
	w.gate, _ = driver.(Gate)
	w.looker, w.lookPause = lookerOf(driver), lookFirst
	w.draining, w.drain = context.WithCancel(context.Background())
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

// startLanes starts asynq servers on the given queues.
func (w *Worker) startLanes(lanes int, queues []string) error {
	served := make(map[string]int, len(queues))
	for _, q := range queues {
		served[q] = 1
	}
	for lane := range lanes {
		cfg := asynq.Config{
			Concurrency: (w.cfg.Concurrency + lane) / lanes,
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
	}
	for _, q := range queues {
		w.served[q] = true
	}
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
	defer w.shutdown()

	queues, err := w.cfg.Queues(ctx)
	if err != nil {
		return err
	}
	if err := w.startLanes(w.cfg.Lanes, queues); err != nil {
		return err
	}
	w.log.Info("worker started", "lanes", len(w.lanes), "concurrency", w.cfg.Concurrency, "queues", queues)
	ticker := time.NewTicker(queuesEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			w.serveNewQueues(ctx)
		}
	}
}

// serveNewQueues starts a lane for queues that have turned up since. A server's queues
// cannot be changed, so its attempts come on top of --concurrency until the next start.
func (w *Worker) serveNewQueues(ctx context.Context) {
	queues, err := w.cfg.Queues(ctx)
	if err != nil {
		w.log.Warn("queues not listed", "error", err)
		return
	}
	queues = slices.DeleteFunc(queues, func(q string) bool { return w.served[q] })
	if len(queues) == 0 {
		return
	}
	if err := w.startLanes(1, queues); err != nil {
		w.log.Error("new queues not served", "queues", queues, "error", err)
		return
	}
	w.log.Info("new queues are served", "queues", queues)
}

// stopTime is within what time from the beginning of a shutdown every attempt has ended.
func (w *Worker) stopTime() time.Duration { return w.cfg.ShutdownTimeout + driverGrace + storePatience }

func (w *Worker) shutdown() {
	w.log.Info("worker stopping", "shutdown_timeout", w.cfg.ShutdownTimeout)
	w.drain()
	start := time.Now()
	deadline := time.AfterFunc(w.cfg.ShutdownTimeout, func() {
		w.log.Warn("attempts are still running, interrupting them", "after", w.cfg.ShutdownTimeout)
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
	if !waitFor(&w.drivers, driverGrace) {
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
