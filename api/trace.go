package api

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"batchreset/tasks"
)

// startSpan begins the span of a request of the API, as a part of what parent has. It and its
// counterpart are not called while a request waits, because their frames make a waiter's
// stack twice as large (row waiters of the benchmark).
func (s *server) startSpan(parent context.Context, c echo.Context) trace.Span {
	start, _ := c.Get(startKey).(time.Time)
	r, route := c.Request(), c.Path()
	ctx, span := s.cfg.Tracer.Start(parent, r.Method+" "+route, trace.WithTimestamp(start), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		semconv.HTTPRequestMethodKey.String(r.Method), semconv.HTTPRoute(route), semconv.URLPath(cut(r.URL.EscapedPath())),
		semconv.ClientAddress(c.RealIP()), attribute.String("batchreset.request_id", requestID(c)),
	))
	c.SetRequest(r.WithContext(ctx))
	return span
}

// callersTrace is the context of a request with the trace that its caller sent. Only callers with a
// valid token may ask for sampling, because it costs space at the collector.
func callersTrace(c echo.Context) context.Context {
	return propagation.TraceContext{}.Extract(c.Request().Context(), propagation.HeaderCarrier(c.Request().Header))
}

// endSpan ends the span with the result of the request. A request that was refused before its
// token was checked has a trace of its own; a request for anything but the API has none.
func (s *server) endSpan(c echo.Context) {
	span := trace.SpanFromContext(c.Request().Context())
	if !span.SpanContext().IsValid() {
		if c.Get(turnedKey) != nil || !guarded(c) || !s.routes[[2]string{c.Request().Method, c.Path()}] {
			return
		}
		span = s.startSpan(c.Request().Context(), c)
	}
	status := c.Response().Status
	span.SetAttributes(semconv.HTTPResponseStatusCode(status), attribute.String("batchreset.tenant", tenant(c)))
	if job, _ := c.Get(jobKey).(string); job != "" {
		span.SetAttributes(attribute.String("batchreset.job", job))
	}
	if run, _ := c.Get(runKey).(string); run != "" {
		span.SetAttributes(attribute.String("batchreset.run", run))
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
