package serve

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

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"batchreset/cmd/batchreset/terminal"
)

const (
	// flushTimeout is how long a process that stops tries to get rid of its last spans.
	flushTimeout = 3 * time.Second
	// complainEvery is how often a collector that does not answer is worth a line.
	complainEvery = 5 * time.Minute
)

// tracingWanted says whether somebody has named a collector, by the flag or by one of
// OpenTelemetry's variables, and nobody has switched traces off.
func tracingWanted(endpoint string) bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return cmp.Or(endpoint, os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")) != ""
}

// checkTracing returns an error that names the flag or the variable. OpenTelemetry would
// leave out what it cannot read, and write it to the log, whatever secret is in it: so the
// errors do not quote it either.
func checkTracing(endpoint string) error {
	if !tracingWanted(endpoint) {
		return checkCollector("--otlp-endpoint", endpoint)
	}
	problems := []error{checkCollector("--otlp-endpoint", endpoint)}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		problems = append(problems, checkCollector(name, os.Getenv(name)))
	}
	_, err := newTraceUploader(endpoint)
	return errors.Join(append(problems, err)...)
}

func checkCollector(name, endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "":
		return fmt.Errorf("%s must be a URL such as http://localhost:4318", name)
	case u.User != nil:
		return fmt.Errorf("%s must not contain a user or password, which would not be sent; use OTEL_EXPORTER_OTLP_HEADERS", name)
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
// ones. about is said of the process with each span. What else there is to set (headers,
// sampling, compression) OpenTelemetry reads from its standard variables.
func startTracing(ctx context.Context, service, endpoint string, log *slog.Logger, about ...attribute.KeyValue) (tracer trace.Tracer, stop func(), err error) {
	if !tracingWanted(endpoint) {
		return nil, func() {}, nil
	}
	uploader, err := newTraceUploader(endpoint)
	if err != nil {
		return nil, nil, err
	}
	// Before anything of it is made: by itself it writes past our log.
	otel.SetLogger(logr.FromSlogHandler(log.Handler()))
	complaint := &rarely{every: complainEvery}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		if complaint.now() {
			log.Warn("traces not sent", "error", err)
		}
	}))
	exporter, err := otlptrace.New(ctx, uploader)
	if err != nil {
		return nil, nil, err
	}
	about = append(about, semconv.ServiceName("batchreset-"+service), semconv.ServiceVersion(terminal.Version()))
	process, err := resource.New(ctx,
		resource.WithAttributes(about...),
		resource.WithHost(), resource.WithProcessPID(), resource.WithFromEnv(),
	)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err), exporter.Shutdown(ctx))
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(process))
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
