package serve

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"
)

// pingAfter is how long an HTTP/2 connection to a collector may bring nothing before it is
// asked whether it lives, and how long it may take to answer that.
const pingAfter = 15 * time.Second

// newCollectorClient makes what brings traces to a collector. OpenTelemetry's own client
// would not notice an HTTP/2 connection that is dead. In place of that it is ours to read
// the variables that say how to reach a collector; an error names one of them.
func newCollectorClient() (*http.Client, error) {
	timeout, from := collectorVariable("TIMEOUT")
	ms, err := strconv.Atoi(cmp.Or(timeout, "10000")) // OpenTelemetry's default
	if err != nil || ms < 1 {
		return nil, fmt.Errorf("%s must be a number of milliseconds, such as 10000, not %.80q", from, timeout)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter}
	if transport.TLSClientConfig, err = collectorTLS(); err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport, Timeout: time.Duration(ms) * time.Millisecond}, nil
}

// collectorVariable returns one of OpenTelemetry's variables, that for traces first, and its
// name.
func collectorVariable(name string) (value, from string) {
	traces, all := "OTEL_EXPORTER_OTLP_TRACES_"+name, "OTEL_EXPORTER_OTLP_"+name
	if value := os.Getenv(traces); value != "" {
		return value, traces
	}
	return os.Getenv(all), all
}

// collectorTLS is what the variables say about certificates.
func collectorTLS() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if file, from := collectorVariable("CERTIFICATE"); file != "" {
		text, err := os.ReadFile(file) //nolint:gosec // who starts the process names it
		if err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: %s has no certificate in PEM", from, file)
		}
	}
	cert, from := collectorVariable("CLIENT_CERTIFICATE")
	key, _ := collectorVariable("CLIENT_KEY")
	switch {
	case cert == "" && key == "":
		return cfg, nil
	case cert == "" || key == "":
		return nil, errors.New("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY must be given together")
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}
