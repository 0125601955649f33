package api_test

import (
	"net/http"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"batchreset/tasks"
)

func TestARequestIsASpanInTheCallersTrace(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	cfg := testConfig
	cfg.Tracer = provider.Tracer("test")
	s := newService(t, cfg)
	if _, err := s.db.Tokens.Add(t.Context(), "reader", tasks.Token{Tenant: "acme", Scopes: []tasks.Scope{tasks.ScopeRead}}, 0, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	const caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	body := func() *strings.Reader { return strings.NewReader(`{"instance_ids":["phone-1"]}`) }

	for _, row := range []struct {
		name, token string
		header      []string
		status      int
		traced      bool // the job has a trace
		inCallers   bool
	}{
		{"without a trace", "acme", nil, http.StatusOK, true, false},
		{"in the caller's", "acme", []string{"traceparent", caller}, http.StatusOK, true, true},
		{"in one that nobody keeps", "acme", []string{"traceparent", strings.TrimSuffix(caller, "1") + "0"}, http.StatusOK, false, false},
		{"in one that is none", "acme", []string{"traceparent", "x"}, http.StatusOK, true, false},
		{"that is refused", "nobody", nil, http.StatusUnauthorized, true, false},
		{"that a stranger calls their own", "nobody", []string{"traceparent", caller}, http.StatusUnauthorized, true, false},
		{"of somebody whose token may not do that", "reader", []string{"traceparent", caller}, http.StatusForbidden, true, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			spans.Reset()
			r := s.do(t, http.MethodPost, batchReset, row.token, body(), row.header...)
			if r.status != row.status {
				t.Fatalf("%d %s", r.status, r.Message)
			}
			got := spans.GetSpans()
			if !row.traced {
				if len(got) != 0 {
					t.Errorf("spans %+v", got)
				}
			} else if len(got) != 1 || got[0].Name != "POST "+batchReset {
				t.Fatalf("spans %+v", got)
			}
			if row.traced && (got[0].Parent.SpanID().String() == "00f067aa0ba902b7") != row.inCallers {
				t.Errorf("parent %s", got[0].Parent.SpanID())
			}
			if row.status != http.StatusOK {
				return
			}
			job, err := s.db.Jobs.Job(t.Context(), strings.TrimPrefix(r.header.Get("Location"), "/v1/jobs/"))
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if row.traced {
				want = "00-" + got[0].SpanContext.TraceID().String() + "-" + got[0].SpanContext.SpanID().String() + "-01"
			}
			if job.Traceparent != want {
				t.Errorf("the job has the trace context %q, want %q", job.Traceparent, want)
			}
		})
	}
	spans.Reset()
	for _, path := range []string{"/healthz", "/readyz", "/openapi.yaml"} {
		if w := s.raw(t, http.MethodGet, path, "", nil); w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if got := spans.GetSpans(); len(got) != 0 {
		t.Errorf("spans %+v", got)
	}
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if job, err := newService(t, testConfig).db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"a"}, AllowUnregistered: true}); err != nil || job.TraceID() != "" {
		t.Errorf("job %+v, %v", job, err)
	}
}

// At a sampling of 0 a stranger cannot have anything kept by saying that it is.
func TestStrangersDoNotDecideWhatIsKept(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(0))))
	defer func() { _ = provider.Shutdown(t.Context()) }()
	cfg := testConfig
	cfg.Tracer = provider.Tracer("test")
	s := newService(t, cfg)
	for token, want := range map[string]int{"": 0, "nobody": 0, "acme": 1} {
		spans.Reset()
		s.raw(t, http.MethodGet, "/v1/jobs", token, nil, "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		if got := len(spans.GetSpans()); got != want {
			t.Errorf("token %q: %d spans, want %d", token, got, want)
		}
	}
}

// What follows from a request about a job stays in the trace of the request that made it,
// and each span of the former leads to that.
func TestRequestsThatChangeAJobAreLinkedToItsTrace(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	defer func() { _ = provider.Shutdown(t.Context()) }()
	cfg := testConfig
	cfg.Tracer = provider.Tracer("test")
	s := newService(t, cfg)
	submit := func() reply {
		return s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["phone-1"]}`), "Idempotency-Key", "k")
	}
	location := submit().header.Get("Location")
	origin := spans.GetSpans()[0].SpanContext
	for _, row := range []struct {
		name string
		do   func() reply
		link bool
	}{
		{"the same submit again", submit, true},
		{"cancel", func() reply { return s.do(t, http.MethodPost, location+"/cancel", "acme", nil) }, true},
		{"retry", func() reply {
			return s.do(t, http.MethodPost, location+"/retry", "acme", strings.NewReader(`{"states":["cancelled"]}`))
		}, true},
		{"a look", func() reply { return s.do(t, http.MethodGet, location, "acme", nil) }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			spans.Reset()
			if r := row.do(); r.status != http.StatusOK {
				t.Fatalf("%d %s", r.status, r.Message)
			}
			got := spans.GetSpans()
			if len(got) != 1 || got[0].SpanContext.TraceID() == origin.TraceID() || (len(got[0].Links) == 1) != row.link {
				t.Fatalf("spans %+v", got)
			}
			if row.link && got[0].Links[0].SpanContext.SpanID() != origin.SpanID() {
				t.Errorf("links to %v, want %v", got[0].Links[0].SpanContext, origin)
			}
		})
	}
	job, err := s.db.Jobs.Job(t.Context(), strings.TrimPrefix(location, "/v1/jobs/"))
	if err != nil || job.TraceID() != origin.TraceID().String() {
		t.Errorf("after the retry the job is in the trace %s, %v", job.TraceID(), err)
	}
}
