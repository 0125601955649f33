package webhook

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestNoticesAreSpansBesideTheAttempts(t *testing.T) {
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, row := range []struct {
		name, traceparent, outcome string
		reply                      Reply
		code                       codes.Code
	}{
		{"taken", traceparent, "delivered", Reply{Status: 200}, codes.Unset},
		{"refused", traceparent, "failed", Reply{Status: 500}, codes.Error},
		{"of a job that is not traced", "", "", Reply{Status: 200}, codes.Unset},
	} {
		t.Run(row.name, func(t *testing.T) {
			spans := tracetest.NewInMemoryExporter()
			provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
			defer func() { _ = provider.Shutdown(t.Context()) }()
			b := newBench(t, transportFunc(func(context.Context, tasks.Endpoint, string, []byte) Reply { return row.reply }))
			var log bytes.Buffer
			b.tracer, b.log = provider.Tracer("test"), slog.New(slog.NewJSONHandler(&log, nil))
			// A job that ends at once, and the task that is made of that.
			job, err := b.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true, Traceparent: row.traceparent})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
			notices, err := b.db.Redis.NewInspector().ListPendingTasks(redisdb.WebhookQueue)
			if err != nil || len(notices) != 1 {
				t.Fatalf("notices %v, %v", notices, err)
			}
			_ = b.process(t.Context(), asynq.NewTaskWithHeaders(notices[0].Type, notices[0].Payload, notices[0].Headers))

			got := spans.GetSpans()
			traced := row.traceparent != ""
			if strings.Contains(log.String(), "trace_id") != traced || !strings.Contains(log.String(), `"job":"`+job.ID+`"`) {
				t.Errorf("log %s", &log)
			}
			if !traced {
				if len(got) != 0 {
					t.Errorf("spans %+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Name != "webhook job.finished" || got[0].Parent.SpanID().String() != "00f067aa0ba902b7" || got[0].Status.Code != row.code ||
				!slices.Contains(got[0].Attributes, attribute.String("batchreset.outcome", row.outcome)) ||
				!slices.Contains(got[0].Attributes, attribute.Int("http.response.status_code", row.reply.Status)) {
				t.Errorf("spans %+v", got)
			}
		})
	}
}
