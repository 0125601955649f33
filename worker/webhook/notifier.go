package worker

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
)

const (
	// tellAtOnce is how many notices a process has under way. They wait for others most
	// of the time, so there can be many.
	tellAtOnce = 64
	// tellGrace is how long those under way may take to end when the process stops; the
	// rest is interrupted and sent again later.
	tellGrace = 5 * time.Second
)

// TellerStore is the endpoints, as a Teller needs them.
type TellerStore interface {
	Endpoint(ctx context.Context, tenant, id string) (tasks.Endpoint, error)
	Report(ctx context.Context, e tasks.Endpoint, r tasks.Report) (disabled bool, err error)
}

// Sender sends a notice to an endpoint, once, and returns in a bounded time.
type Sender interface {
	Send(ctx context.Context, e tasks.Endpoint, eventID string, body []byte) Reply
	Close() // of idle connections
}

// Reply is what a sender's endpoint answered.
type Reply struct {
	Status     int           // 0: there was no answer
	RetryAfter time.Duration // what the answer asks for, or 0
	Err        error         // why there was no answer
	Text       string        // the answer's beginning
}

// Teller takes notices from their queue and sends them to the tenants' endpoints. As a
// prometheus.Collector it tells how that went.
type Teller struct {
	prometheus.Collector
	queue     string
	store     TellerStore
	sender    Sender
	newServer func(asynq.Config) *asynq.Server
	tracer    trace.Tracer // nil: nothing is traced
	log       *slog.Logger
	gates     *gates
	sent      *prometheus.CounterVec

	stop      context.Context // ends when what is under way must end
	interrupt context.CancelFunc
}

// NewTeller makes a teller of the notices in an asynq queue; newServer makes an asynq
// server on the Redis of store, and tracer, unless it is nil, a span of each notice sent.
func NewTeller(queue string, store TellerStore, sender Sender, newServer func(asynq.Config) *asynq.Server, tracer trace.Tracer, log *slog.Logger) *Teller {
	registry := prometheus.NewRegistry()
	t := &Teller{
		Collector: registry,
		queue:     queue, store: store, sender: sender, newServer: newServer, tracer: tracer, log: log, gates: newGates(),
		sent: promauto.With(registry).NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_webhook_deliveries_total",
			Help: "Webhook requests, by outcome: delivered, failed (another follows), given_up, or gone (410).",
		}, []string{"outcome"}),
	}
	for _, o := range []verdict{delivered, failed, givenUp, gone} {
		t.sent.WithLabelValues(string(o)) // so that it is there before it happens
	}
	t.stop, t.interrupt = context.WithCancel(context.Background())
	return t
}

// Run sends notices until ctx ends, and returns when none is under way. It may be called
// once.
func (t *Teller) Run(ctx context.Context) error {
	defer t.sender.Close()
	defer t.interrupt()
	var handlers sync.WaitGroup
	server := t.newServer(asynq.Config{
		Concurrency:              tellAtOnce,
		Queues:                   map[string]int{t.queue: 1},
		TaskCheckInterval:        50 * time.Millisecond,
		DelayedTaskCheckInterval: time.Second,
		ShutdownTimeout:          tellGrace + storePatience,
		RetryDelayFunc:           retryDelay,
		// Only what process calls a failure uses up a step of the schedule.
		IsFailure: func(err error) bool {
			a, ok := errors.AsType[*again](err)
			return ok && a.failure
		},
		Logger: asynqLog{t.log},
	})
	if err := server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		handlers.Add(1)
		defer handlers.Done()
		return t.process(ctx, task)
	})); err != nil {
		return fmt.Errorf("start the sending of webhooks: %w", err)
	}
	<-ctx.Done()
	deadline := time.AfterFunc(tellGrace, t.interrupt)
	defer deadline.Stop()
	server.Shutdown()
	handlers.Wait() // asynq does not wait for one whose task was cancelled on the dashboard
	return nil
}

// process sends the notice of a task once. What it returns says what becomes of the task.
func (t *Teller) process(ctx context.Context, task *asynq.Task) error {
	n, err := tasks.DecodeNotice(task.Payload())
	if task.Type() != tasks.TypeNotice || err != nil {
		t.log.Error("task dropped", "type", task.Type(), "error", err)
		return archived("the task is not a webhook notice")
	}
	if wait, ok := t.gates.enter(n.EndpointID, time.Now()); !ok {
		return &again{delay: wait, reason: "the endpoint has other notices to take first"}
	}
	var end telling
	defer func() { t.gates.leave(n.EndpointID, end.verdict, end.pause, time.Now()) }()
	e, err := t.store.Endpoint(ctx, n.Tenant, n.EndpointID)
	switch {
	case errors.Is(err, tasks.ErrNoEndpoint):
		end.verdict = gone
		return nil
	case err != nil:
		t.say(ctx, slog.LevelWarn, "webhook put back", n, slog.Any("error", err))
		return &again{delay: redisDelay, reason: err.Error()}
	case !e.DisabledAt.IsZero():
		end.verdict = gone
		return archived("the endpoint is disabled: " + e.DisabledReason)
	}
	ctx, span := t.startSpan(ctx, task.Headers()["traceparent"], n)
	defer span.End() // if endSpan does not
	reply, interrupted := t.send(ctx, e, n)
	if interrupted {
		return &again{reason: "interrupted, because the worker stops"}
	}
	failures, _ := asynq.GetRetryCount(ctx)
	end = judgeReply(reply, failures)
	end.endSpan(span, reply)
	t.report(context.WithoutCancel(ctx), e, n, reply, end)
	switch end.verdict {
	case delivered:
		return nil
	case failed:
		return &again{delay: end.delay, failure: true, reason: end.reason}
	default:
		return archived(end.reason)
	}
}

// send sends a notice, unless the process stops meanwhile.
func (t *Teller) send(ctx context.Context, e tasks.Endpoint, n tasks.Notice) (reply Reply, interrupted bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.stop, cancel)()
	reply = t.sender.Send(ctx, e, n.EventID, n.Body)
	return reply, reply.Err != nil && ctx.Err() != nil
}

// report tells everybody what came of a notice. A report that is lost is no harm: the
// next one is made soon.
func (t *Teller) report(ctx context.Context, e tasks.Endpoint, n tasks.Notice, reply Reply, end telling) {
	t.sent.WithLabelValues(string(end.verdict)).Inc()
	level := slog.LevelInfo
	if end.verdict != delivered {
		level = slog.LevelWarn
	}
	t.say(ctx, level, "webhook sent", n, slog.String("outcome", string(end.verdict)), slog.Int("status", reply.Status), slog.String("reason", end.reason))
	disabled, err := t.store.Report(ctx, e, tasks.Report{
		EventID: n.EventID, Topic: n.Topic, Status: reply.Status, Error: end.reason, Gone: end.verdict == gone,
	})
	switch {
	case err != nil:
		t.say(ctx, slog.LevelWarn, "webhook not reported", n, slog.Any("error", err))
	case disabled:
		t.say(ctx, slog.LevelError, "webhook endpoint disabled", n, slog.String("reason", end.reason))
	}
}

// say logs a line that names the notice. The URL may carry secrets of the receiver.
func (t *Teller) say(ctx context.Context, level slog.Level, text string, n tasks.Notice, attrs ...slog.Attr) {
	all := append([]slog.Attr{
		slog.String("job", n.JobID()), slog.String("event", n.EventID), slog.String("endpoint", n.EndpointID), slog.String("tenant", n.Tenant),
	}, attrs...)
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		all = append(all, slog.String("trace_id", span.TraceID().String()))
	}
	t.log.LogAttrs(ctx, level, text, all...) //nolint:sloglint // the callers' texts are constant
}
