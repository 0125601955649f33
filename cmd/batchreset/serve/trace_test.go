package serve

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestBadSettingsOfTracesAreRefusedByNameAlone(t *testing.T) {
	const secret, collector = "hunter2", "http://127.0.0.1:1"
	for _, row := range []struct {
		name, flag, variable, value string
		want                        string
	}{
		{"a flag with a password", "http://u:" + secret + "@host", "", "", "--otlp-endpoint must not contain a user or password"},
		{"a flag with a query", "http://host?key=" + secret, "", "", "--otlp-endpoint must be a URL"},
		{"a flag that is no URL", "http://u:" + secret + "@ho st", "", "", "--otlp-endpoint must be a URL"},
		{"a flag that is none while traces are off", secret, "OTEL_SDK_DISABLED", "true", "--otlp-endpoint must be a URL"},
		{"an endpoint without a scheme", "", "OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL"},
		{
			"an endpoint with a password", "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://u:" + secret + "@host",
			"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must not contain a user or password",
		},
		{
			"an endpoint beside the flag's", collector, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:" + secret + "@ho st",
			"OTEL_EXPORTER_OTLP_ENDPOINT must be a URL",
		},
		{
			"headers as curl takes them", collector, "OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer " + secret,
			"OTEL_EXPORTER_OTLP_HEADERS must have the form name=value",
		},
		{
			"such headers that end in =", collector, "OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Basic " + secret + "==",
			"OTEL_EXPORTER_OTLP_HEADERS must have the form name=value",
		},
		{
			"headers that are not encoded", collector, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b,authorization=%zz" + secret,
			"OTEL_EXPORTER_OTLP_TRACES_HEADERS must have the form name=value",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.variable != "" {
				t.Setenv(row.variable, row.value)
			}
			r := command(t, map[string]string{"BATCHRESET_OTLP_ENDPOINT": row.flag}, "worker", "--driver", "simulator", "--redis", "redis://127.0.0.1:1")
			r.WantError(t, row.want)
			if r.Err != nil && strings.Contains(r.Err.Error()+r.Out+r.Errs, secret) {
				t.Errorf("the secret is repeated: %v", r.Err)
			}
		})
	}
}

func TestTracesAreOffUnlessSomebodyWantsThem(t *testing.T) {
	const collector = "http://127.0.0.1:1"
	for _, row := range []struct {
		name, flag  string
		environment map[string]string
		want        bool
	}{
		{name: "nobody"},
		{name: "the flag", flag: collector, want: true},
		{name: "a variable", environment: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector}, want: true},
		{name: "the variable of traces", environment: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector}, want: true},
		{name: "switched off", flag: collector, environment: map[string]string{"OTEL_SDK_DISABLED": "true"}},
		{name: "sent nowhere", environment: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_TRACES_EXPORTER": "none"}},
		// What is off is not looked at.
		{name: "switched off, and wrong", environment: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_SDK_DISABLED": "TRUE"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			for name, value := range row.environment {
				t.Setenv(name, value)
			}
			if err := checkTracing(row.flag); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			tracer, stop, err := startTracing(t.Context(), "test", row.flag, slog.New(slog.NewJSONHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			stop()
			if (tracer != nil) != row.want || log.Len() != 0 {
				t.Errorf("a tracer: %t, the log: %s", tracer != nil, &log)
			}
		})
	}
}
