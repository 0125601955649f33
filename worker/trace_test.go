package worker

import (
	"context"
	"testing"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"batchreset/tasks"
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
