package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
)

const (
	// flushTimeout is how long a process that stops tries to get rid of its last spans.
	flushTimeout = 3 * time.Second
	// complainEvery is how often a collector that does not answer is worth a line.
	complainEvery = 5 * time.Minute
)

// checkEndpoint returns an error that names the flag.
func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
		return fmt.Errorf("--otlp-endpoint must be a URL such as http://localhost:4318, not %.80q", endpoint)
	}
	return nil
}

// checkTraceURL returns an error that names the flag.
func checkTraceURL(template string) error {
	if template == "" {
		return nil
	}
	u, err := url.Parse(template)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || !strings.Contains(template, "{trace_id}") {
		return fmt.Errorf("--trace-url must be a URL with {trace_id} in it, such as https://jaeger.example/trace/{trace_id}, not %.80q", template)
	}
	return nil
}

// startTracing returns what makes spans, nil if nobody wants them, and what sends the last
// ones. What else there is to set (headers, sampling, timeouts) OpenTelemetry reads from
// its standard variables.
func startTracing(ctx context.Context, service, endpoint string, log *slog.Logger) (tracer trace.Tracer, stop func(), err error) {
	var options []otlptracehttp.Option
	switch {
	case endpoint != "":
		options = append(options, otlptracehttp.WithEndpointURL(strings.TrimSuffix(endpoint, "/")+"/v1/traces"))
	case cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")) == "":
		return nil, func() {}, nil
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("--otlp-endpoint: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName("batchreset-"+service), semconv.ServiceVersion(versionText())),
		resource.WithHost(), resource.WithProcessPID(), resource.WithFromEnv(),
	)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err), exporter.Shutdown(ctx))
	}
	complaint := &rarely{every: complainEvery}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		if complaint.now() {
			log.Warn("traces not sent", "error", err)
		}
	}))
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	stop = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			log.Warn("last traces not sent", "error", err)
		}
	}
	return provider.Tracer("batchreset"), stop, nil
}

// rarely says yes once in a while.
type rarely struct {
	every time.Duration

	mu   sync.Mutex
	last time.Time
}

func (r *rarely) now() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.last.IsZero() && time.Since(r.last) < r.every {
		return false
	}
	r.last = time.Now()
	return true
}
