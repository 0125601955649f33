package worker

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestAttemptsAreSpansOfTheRequest(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	calls := 0
	b := newBench(t, driverFunc(func(ctx context.Context, _ Attempt) error {
		if !trace.SpanFromContext(ctx).IsRecording() {
			t.Error("the driver is given no span")
		}
		if calls++; calls == 1 {
			return &DriverError{Verdict: Retryable, Code: "CPS.0003", Message: "system busy"}
		}
		return nil
	}), func(c *Config) { c.Tracer = provider.Tracer("test") })
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	job := b.submit(t, "phone-1")
	task := asynq.NewTaskWithHeaders(tasks.TypeReset, job.Deliveries()[0].Encode(), map[string]string{"traceparent": traceparent})
	_ = wantAgain(t, b.process(t.Context(), task))
	b.ripen(t, job)
	if err := b.process(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	// What the record refuses is no attempt.
	if err := b.process(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	got := spans.GetSpans()
	if len(got) != 2 {
		t.Fatalf("spans %+v", got)
	}
	for n, want := range []codes.Code{codes.Error, codes.Unset} {
		span := got[n]
		if span.Name != "reset attempt" || span.Parent.SpanID().String() != "00f067aa0ba902b7" || span.Status.Code != want {
			t.Errorf("span %+v", span)
		}
		attributes := map[string]string{}
		for _, a := range span.Attributes {
			attributes[string(a.Key)] = a.Value.String()
		}
		if attributes["batchreset.job"] != job.ID || attributes["batchreset.instance"] != "phone-1" || attributes["batchreset.attempt"] != []string{"1", "2"}[n] ||
			attributes["batchreset.state"] != []string{"retrying", "succeeded"}[n] || attributes["error.type"] != []string{"CPS.0003", ""}[n] {
			t.Errorf("attributes %v", attributes)
		}
	}
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A delivery by the sweeper, after a retry, is in the same trace.
func TestDeliveriesOfTheSweeperStayInTheTrace(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	defer func() { _ = provider.Shutdown(t.Context()) }()
	calls := 0
	server := miniredis.RunT(t)
	b := newBenchOn(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true}, driverFunc(func(context.Context, Attempt) error {
		if calls++; calls == 1 {
			return &DriverError{Verdict: Retryable, Code: "CPS.0003", Message: "system busy"}
		}
		return nil
	}), func(c *Config) { c.Tracer = provider.Tracer("test") })
	var log bytes.Buffer
	sweep := NewSweeper(SweepStoreOf(b.db), b.db.Queues.Queues, slog.New(slog.NewJSONHandler(&log, nil)))
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	job, err := b.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true, Traceparent: traceparent})
	if err != nil {
		t.Fatal(err)
	}

	// run takes the task of the item's current delivery as asynq would hand it over.
	run := func() error {
		b.ripen(t, job)
		d := b.item(t, job)
		task, err := b.db.Redis.NewInspector().GetTaskInfo(job.Queue, tasks.Delivery{ItemID: d.ID, Number: d.Delivery, Epoch: job.Epoch}.TaskID())
		if err != nil {
			t.Fatal(err)
		}
		return b.process(t.Context(), asynq.NewTaskWithHeaders(task.Type, task.Payload, task.Headers))
	}
	_ = wantAgain(t, run())
	if err := b.db.Redis.NewInspector().DeleteTask(job.Queue, job.Deliveries()[0].TaskID()); err != nil {
		t.Fatal(err)
	}
	server.SetTime(time.Now().Add(2 * time.Minute))
	if err := sweep.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := run(); err != nil {
		t.Fatal(err)
	}

	got := spans.GetSpans()
	if len(got) != 2 {
		t.Fatalf("spans %+v", got)
	}
	for n, delivery := range []int64{1, 2} {
		span := got[n]
		if span.SpanContext.TraceID().String() != job.TraceID() || span.Parent.SpanID().String() != "00f067aa0ba902b7" ||
			!slices.Contains(span.Attributes, attribute.Int64("batchreset.delivery", delivery)) {
			t.Errorf("attempt %d: %+v", n+1, span)
		}
	}
	for _, want := range []string{`"msg":"item delivered again"`, `"job":"` + job.ID, `"instance":"phone-1"`, `"tenant":"acme"`, `"trace_id":"` + job.TraceID()} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s: %s", want, &log)
		}
	}
}
