package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"batchreset/tasks"
)

// startSpan begins the span of a request of the API, in the caller's trace if it has one.
// It is nil for what is not traced: health checks, the contract. It and its counterpart are
// not called while nothing is traced, because their frames make a waiter's stack twice
// as large.
func (s *server) startSpan(c echo.Context) trace.Span {
	route := c.Path()
	if !strings.HasPrefix(route, "/v1/") {
		return nil
	}
	r := c.Request()
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := s.cfg.Tracer.Start(ctx, r.Method+" "+route, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		semconv.HTTPRequestMethodKey.String(r.Method), semconv.HTTPRoute(route), semconv.URLPath(r.URL.Path),
		semconv.ClientAddress(c.RealIP()), attribute.String("batchreset.request_id", requestID(c)),
	))
	c.SetRequest(r.WithContext(ctx))
	return span
}

// endSpan says what came of the request.
func endSpan(c echo.Context, span trace.Span) {
	status := c.Response().Status
	span.SetAttributes(semconv.HTTPResponseStatusCode(status), attribute.String("batchreset.tenant", tenant(c)))
	if job, _ := c.Get(jobKey).(string); job != "" {
		span.SetAttributes(attribute.String("batchreset.job", job))
	}
	if code, _ := c.Get(codeKey).(tasks.Code); code != "" && code != tasks.OK {
		span.SetAttributes(semconv.ErrorTypeKey.String(string(code)))
	}
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, http.StatusText(status))
	}
	span.End()
}

// linkTo links the span of a request to the trace of a job that another request has made.
// The attempts that follow from it stay in that trace, with those before.
func linkTo(ctx context.Context, job tasks.Job) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() && job.Traceparent != "" {
		origin := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": job.Traceparent})
		span.AddLink(trace.LinkFromContext(origin))
	}
}

// traceparent is the W3C trace context of a request whose trace is kept, or empty.
func traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier.Get("traceparent")
}
