package worker

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"batchreset/tasks"
)

// inTraceOf returns ctx in the trace of a task's job, if that is traced.
func inTraceOf(ctx context.Context, traceparent string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}

// startSpan begins the span of an attempt in the trace of the request that made its job,
// and returns ctx with it, for the driver. Every attempt at an item is a child of that
// request, whichever worker makes it and however often the item was delivered. It is not
// called while nothing is traced, because its frame makes the stack of an attempt twice as
// large (row inflight of the benchmark).
func (a *attempt) startSpan(ctx context.Context) context.Context {
	ctx = inTraceOf(ctx, a.traceparent)
	job, _, _ := tasks.ParseItemID(a.d.ItemID)
	ctx, a.span = a.cfg.Tracer.Start(ctx, "reset attempt", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("batchreset.job", job), attribute.String("batchreset.item", a.d.ItemID),
		attribute.String("batchreset.instance", a.d.InstanceID), attribute.String("batchreset.tenant", a.d.Tenant),
		attribute.Int("batchreset.attempt", a.begun.Number), attribute.Int("batchreset.delivery", a.d.Number),
	))
	return ctx
}

// endSpan says what came of the attempt; state is empty if nobody could write that.
func (a *attempt) endSpan(o tasks.Outcome, state tasks.ItemState) {
	a.span.SetAttributes(attribute.String("batchreset.state", string(state)))
	if o.Transition != tasks.Succeed {
		a.span.SetAttributes(semconv.ErrorTypeKey.String(string(o.Code)))
		a.span.SetStatus(codes.Error, o.Message)
	}
	a.span.End()
}
