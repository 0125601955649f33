package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace"

	"batchreset/tasks"
	"batchreset/worker/requeue"
)

const (
	// concurrency is how many notices a process has under way. They wait for others most
	// of the time, so there can be many.
	concurrency = 64
	// shutdownGrace is how long those under way may take to end when the process stops; the
	// rest is interrupted and sent again later.
	shutdownGrace = 5 * time.Second
	// storePatience is how long what came of the last ones may take to be written.
	storePatience = 30 * time.Second
	// storeDelay is how long a notice waits whose endpoint could not be read.
	storeDelay = 5 * time.Second
)

// endpointStore reads endpoints and keeps what came of sending to them.
type endpointStore interface {
	Endpoint(ctx context.Context, tenant, id string) (tasks.Endpoint, error)
	Report(ctx context.Context, e tasks.Endpoint, r tasks.Report) (disabled bool, err error)
}

// transport sends a notice to an endpoint, once, and returns in a bounded time.
type transport interface {
	Send(ctx context.Context, e tasks.Endpoint, eventID string, body []byte) Reply
	Close() // of idle connections
}

// Reply is what an endpoint answered.
type Reply struct {
	Status     int           // 0: there was no answer
	RetryAfter time.Duration // what the answer asks for, or 0
	Err        error         // why there was no answer
	Text       string        // the answer's beginning
	Took       time.Duration // until it was there, or until it was clear that there is none; of what a Dispatcher sends
}

// Dispatcher takes notices from their queue and sends them to the tenants' endpoints. As a
// prometheus.Collector it tells how that went.
type Dispatcher struct {
	prometheus.Collector
	queue     string
	store     endpointStore
	transport transport
	newServer func(asynq.Config) *asynq.Server
	tracer    trace.Tracer // nil: nothing is traced
	log       *slog.Logger
	gates     *gates
	sent      *prometheus.CounterVec
	disabled  prometheus.Counter

	stop      context.Context // ends when what is under way must end
	interrupt context.CancelFunc
}

// NewDispatcher makes a dispatcher of the notices in an asynq queue. newServer makes an asynq
// server on the Redis of store; tracer, unless it is nil, makes a span of each notice sent.
func NewDispatcher(queue string, store endpointStore, transport transport, newServer func(asynq.Config) *asynq.Server, tracer trace.Tracer, log *slog.Logger) *Dispatcher {
	registry := prometheus.NewRegistry()
	d := &Dispatcher{
		Collector: registry,
		queue:     queue, store: store, transport: transport, newServer: newServer, tracer: tracer, log: log, gates: newGates(),
		sent: promauto.With(registry).NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_webhook_deliveries_total",
			Help: "Webhook requests, by outcome: delivered, failed (another follows), given_up, or gone (410).",
		}, []string{"outcome"}),
		disabled: promauto.With(registry).NewCounter(prometheus.CounterOpts{
			Name: "batchreset_webhooks_disabled_total", Help: "Endpoints that this process has disabled, because they take nothing or want nothing more.",
		}),
	}
	for _, o := range []verdict{delivered, failed, givenUp, gone} {
		d.sent.WithLabelValues(string(o)) // so that it is there before it happens
	}
	d.stop, d.interrupt = context.WithCancel(context.Background())
	return d
}

// Run sends notices until ctx ends, and returns when none is under way. It may be called
// once.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer d.transport.Close()
	defer d.interrupt()
	var handlers sync.WaitGroup
	server := d.newServer(asynq.Config{
		Concurrency:              concurrency,
		Queues:                   map[string]int{d.queue: 1},
		TaskCheckInterval:        50 * time.Millisecond,
		DelayedTaskCheckInterval: time.Second,
		ShutdownTimeout:          shutdownGrace + storePatience,
		RetryDelayFunc:           requeue.Delay,
		// Only what process calls a failure uses up a step of the schedule.
		IsFailure: func(err error) bool {
			later, ok := errors.AsType[*requeue.Later](err)
			return ok && later.Failure
		},
		Logger: requeue.NewLog(d.log),
	})
	if err := server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		handlers.Add(1)
		defer handlers.Done()
		return d.process(ctx, task)
	})); err != nil {
		return fmt.Errorf("start the sending of webhooks: %w", err)
	}
	<-ctx.Done()
	deadline := time.AfterFunc(shutdownGrace, d.interrupt)
	defer deadline.Stop()
	server.Shutdown()
	handlers.Wait() // asynq does not wait for one whose task was cancelled on the dashboard
	return nil
}

// process sends the notice of a task once. What it returns says what becomes of the task.
func (d *Dispatcher) process(ctx context.Context, task *asynq.Task) error {
	n, err := tasks.DecodeNotice(task.Payload())
	if task.Type() != tasks.TypeNotice || err != nil {
		d.log.Error("task dropped", "type", task.Type(), "error", err)
		return requeue.Archived("the task is not a webhook notice")
	}
	if wait, ok := d.gates.enter(n.EndpointID, time.Now()); !ok {
		return &requeue.Later{Delay: wait, Reason: "the endpoint has other notices to take first"}
	}
	var end result
	defer func() { d.gates.leave(n.EndpointID, end.verdict, end.pause, time.Now()) }()
	e, err := d.store.Endpoint(ctx, n.Tenant, n.EndpointID)
	switch {
	case errors.Is(err, tasks.ErrNoEndpoint):
		end.verdict = gone
		return nil
	case err != nil:
		d.say(ctx, slog.LevelWarn, "webhook put back", n, slog.Any("error", err))
		return &requeue.Later{Delay: storeDelay, Reason: err.Error()}
	case !e.DisabledAt.IsZero():
		end.verdict = gone
		return requeue.Archived("the endpoint is disabled: " + e.DisabledReason)
	}
	ctx, span := d.startSpan(ctx, task.Headers()["traceparent"], n)
	defer span.End() // if endSpan does not
	reply, interrupted := d.send(ctx, e, n)
	if interrupted {
		return &requeue.Later{Reason: "interrupted, because the worker stops"}
	}
	failures, _ := asynq.GetRetryCount(ctx)
	end = judge(reply, failures)
	end.endSpan(span, reply)
	d.report(context.WithoutCancel(ctx), e, n, reply, end)
	switch end.verdict {
	case delivered:
		return nil
	case failed:
		return &requeue.Later{Delay: end.delay, Failure: true, Reason: end.reason}
	default:
		return requeue.Archived(end.reason)
	}
}

// send sends a notice, unless the process stops meanwhile.
func (d *Dispatcher) send(ctx context.Context, e tasks.Endpoint, n tasks.Notice) (reply Reply, interrupted bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.stop, cancel)()
	began := time.Now()
	reply = d.transport.Send(ctx, e, n.EventID, n.Body)
	reply.Took = time.Since(began)
	return reply, reply.Err != nil && ctx.Err() != nil
}

// report tells everybody what came of a notice. A report that is lost is no harm: the
// next one is made soon.
func (d *Dispatcher) report(ctx context.Context, e tasks.Endpoint, n tasks.Notice, reply Reply, end result) {
	d.sent.WithLabelValues(string(end.verdict)).Inc()
	level := slog.LevelInfo
	if end.verdict != delivered {
		level = slog.LevelWarn
	}
	d.say(ctx, level, "webhook sent", n, slog.String("outcome", string(end.verdict)), slog.Int("status", reply.Status), slog.String("reason", end.reason))
	disabled, err := d.store.Report(ctx, e, tasks.Report{
		EventID: n.EventID, Topic: n.Topic, Status: reply.Status, Error: end.reason, Gone: end.verdict == gone, TookMillis: reply.Took.Milliseconds(),
	})
	switch {
	case err != nil:
		d.say(ctx, slog.LevelWarn, "webhook not reported", n, slog.Any("error", err))
	case disabled:
		d.disabled.Inc()
		d.say(ctx, slog.LevelError, "webhook endpoint disabled", n, slog.String("reason", end.reason))
	}
}

// say logs a line that names the notice. The URL may carry secrets of the receiver.
func (d *Dispatcher) say(ctx context.Context, level slog.Level, text string, n tasks.Notice, attrs ...slog.Attr) {
	kind, id := n.About()
	all := append([]slog.Attr{
		slog.String(kind, id), slog.String("event", n.EventID), slog.String("endpoint", n.EndpointID), slog.String("tenant", n.Tenant),
	}, attrs...)
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		all = append(all, slog.String("trace_id", span.TraceID().String()))
	}
	d.log.LogAttrs(ctx, level, text, all...) //nolint:sloglint // the callers' texts are constant
}
