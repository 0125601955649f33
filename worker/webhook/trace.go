package webhook

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"batchreset/tasks"
)

// startSpan begins the span of a notice that is sent, beside the attempts. It is not told
// to the endpoint, which is somebody else's, nor does it have the URL, which may carry
// secrets of the receiver.
func (d *Dispatcher) startSpan(ctx context.Context, traceparent string, n tasks.Notice) (context.Context, trace.Span) {
	if d.tracer == nil || traceparent == "" {
		return ctx, trace.SpanFromContext(ctx) // which does nothing
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
	kind, id := n.About()
	return d.tracer.Start(ctx, "webhook "+string(n.Topic), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("batchreset."+kind, id), attribute.String("batchreset.tenant", n.Tenant),
		attribute.String("batchreset.endpoint", n.EndpointID), attribute.String("batchreset.event", n.EventID),
	))
}

// endSpan says what came of a notice.
func (end result) endSpan(span trace.Span, reply Reply) {
	span.SetAttributes(attribute.String("batchreset.outcome", string(end.verdict)))
	if reply.Status != 0 {
		span.SetAttributes(semconv.HTTPResponseStatusCode(reply.Status))
	}
	if end.verdict != delivered {
		span.SetStatus(codes.Error, end.reason)
	}
	span.End()
}
