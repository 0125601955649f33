package httpdriver

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

func TestEachRequestOfATracedAttemptIsASpan(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	defer func() { _ = provider.Shutdown(t.Context()) }()

	var told []string // traceparents
	polls := 0
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		told = append(told, r.Header.Get("Traceparent"))
		switch {
		case strings.HasSuffix(r.URL.Path, "/busy"):
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.Method == http.MethodPost:
			w.Header().Set("Location", "/jobs/1?key=hunter2")
			w.WriteHeader(http.StatusAccepted)
		default:
			if polls++; polls == 1 {
				w.WriteHeader(http.StatusAccepted)
			}
			_, _ = io.WriteString(w, over)
		}
	})
	nobody, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()

	type seen struct {
		name, path, status, failure string
		code                        codes.Code
	}
	for _, row := range []struct {
		name, url string
		want      []seen
		sent      int // requests that reach the control plane
	}{
		{"that is polled", url + "/phones/{instance_id}?key=hunter2", []seen{
			{"POST", "/phones/phone-1", "202", "", codes.Unset}, {"GET", "/jobs/1", "202", "", codes.Unset}, {"GET", "/jobs/1", "200", "", codes.Unset},
		}, 3},
		{"that fails", url + "/{instance_id}/busy", []seen{{"POST", "/phone-1/busy", "503", "503", codes.Error}}, 1},
		{"that reaches nobody", "http://" + nobody.Addr().String() + "/{instance_id}", []seen{{"POST", "/phone-1", "", "*net.OpError", codes.Error}}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			spans.Reset()
			told, polls = nil, 0
			d := newDriver(t, Config{URL: row.url, Token: "hunter2"})
			ctx, parent := provider.Tracer("test").Start(t.Context(), "attempt")
			_ = d.Reset(ctx, attempt()) // what it answers is for other tests
			got := spans.GetSpans()
			if len(got) != len(row.want) || len(told) != row.sent {
				t.Fatalf("%d spans, told %q", len(got), told)
			}
			for n, want := range row.want {
				span, attributes := got[n], map[string]string{}
				for _, a := range span.Attributes {
					attributes[string(a.Key)] = a.Value.String()
					if strings.Contains(a.Value.String(), "hunter2") {
						t.Errorf("%s has a secret: %s", a.Key, a.Value.String())
					}
				}
				_, path, _ := strings.Cut(strings.TrimPrefix(attributes["url.full"], "http://"), "/")
				if got := (seen{span.Name, "/" + path, attributes["http.response.status_code"], attributes["error.type"], span.Status.Code}); got != want {
					t.Errorf("span %d: got %+v, want %+v", n, got, want)
				}
				if span.SpanKind != trace.SpanKindClient || span.Parent.SpanID() != parent.SpanContext().SpanID() ||
					attributes["http.request.method"] != span.Name || attributes["server.address"] != "127.0.0.1" || attributes["server.port"] == "" {
					t.Errorf("span %d: %+v", n, span)
				}
				if want := "00-" + span.SpanContext.TraceID().String() + "-" + span.SpanContext.SpanID().String() + "-01"; row.sent > 0 && told[n] != want {
					t.Errorf("request %d told %q, want %q", n, told[n], want)
				}
			}
		})
	}

	spans.Reset()
	told = nil
	_ = newDriver(t, Config{URL: url + "/{instance_id}/busy"}).Reset(t.Context(), attempt())
	if len(spans.GetSpans()) != 0 || len(told) != 1 || told[0] != "" {
		t.Errorf("without a trace: spans %v, told %q", spans.GetSpans(), told)
	}
}
