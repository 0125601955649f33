package serve

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/worker"
)

const (
	// pingAfter is how long an HTTP/2 connection to a collector may bring nothing before it is
	// asked whether it lives, and how long it may take to answer that.
	pingAfter = 15 * time.Second
	// firstRetry and lastRetry bound the time between two tries to send the same spans, and
	// sendTimeout all of it: the defaults of OpenTelemetry.
	firstRetry, lastRetry = 5 * time.Second, 30 * time.Second
	sendTimeout           = time.Minute
	// maxAnswer is how much of a collector's answer is read, in bytes, and maxQuote how much of
	// it an error repeats.
	maxAnswer, maxQuote = 64 << 10, 200

	protobuf = "application/x-protobuf"
	// headerName has the characters that names of headers are made of.
	headerName = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
)

// traceUploader sends spans to an OpenTelemetry collector by OTLP/HTTP in protobuf; it is the
// otlptrace.Client of an otlptrace.Exporter.
//
// It stands in for OpenTelemetry's own client, the package otlptracehttp, whose settings
// import gRPC, which it never uses: 90 packages of the 510 that a first start would have to
// compile. (Its HTTP client had to be ours anyway: its own does not notice an HTTP/2
// connection that is dead.)
type traceUploader struct {
	client *http.Client
	url    string
	header http.Header
	pack   bool
}

// newTraceUploader makes the client of the collector at endpoint, or, if that is empty, of the
// one that OpenTelemetry's variables name. The other settings come from these variables in
// any case; an error names the one that is wrong.
func newTraceUploader(endpoint string) (*traceUploader, error) {
	client, err := newCollectorClient()
	if err != nil {
		return nil, err
	}
	if protocol, from := collectorVariable("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return nil, fmt.Errorf("%s must be http/protobuf, not %.80q", from, protocol)
	}
	compression, from := collectorVariable("COMPRESSION")
	if compression != "" && compression != "gzip" && compression != "none" {
		return nil, fmt.Errorf("%s must be gzip or none, not %.80q", from, compression)
	}
	text, from := collectorVariable("HEADERS")
	header, err := collectorHeader(from, text)
	if err != nil {
		return nil, err
	}
	header.Set("Content-Type", protobuf)
	if compression == "gzip" {
		header.Set("Content-Encoding", "gzip")
	}
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", terminal.UserAgent())
	}
	return &traceUploader{client: client, url: tracesURL(endpoint), header: header, pack: compression == "gzip"}, nil
}

// tracesURL is where spans are sent to. Only the variable that is for traces alone says
// the whole of it.
func tracesURL(endpoint string) string {
	if traces := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"); endpoint == "" && traces != "" {
		return traces
	}
	return strings.TrimSuffix(cmp.Or(endpoint, os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")), "/") + "/v1/traces"
}

// Start implements otlptrace.Client. A connection is made when there are spans.
func (u *traceUploader) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client. The SDK calls it when the last spans are sent or given up.
func (u *traceUploader) Stop(context.Context) error {
	u.client.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client: it sends spans, again and again if the collector
// says that it may take them later.
func (u *traceUploader) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// An ExportTraceServiceRequest is what OTLP asks for. That has the same bytes, but it is
	// generated into one package with a gRPC service.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	if u.pack {
		if body, err = packed(body); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline() // the SDK's may be earlier
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		again, after, err := u.post(ctx, body)
		wait := max(after, pause/2+rand.N(pause)) //nolint:gosec // so that not all processes come at once
		if !again || time.Until(deadline) < wait {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

func packed(body []byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(body)
	err = errors.Join(err, w.Close())
	return b.Bytes(), err // which Close has completed
}

// post sends spans once. again says that the same spans may be sent once more, though not
// before the time after.
func (u *traceUploader) post(ctx context.Context, body []byte) (again bool, after time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.url, bytes.NewReader(body))
	if err != nil {
		return false, 0, err
	}
	r.Header = u.header.Clone()
	response, err := u.client.Do(r)
	if err != nil {
		failed := (*url.Error)(nil)
		return errors.As(err, &failed) && failed.Timeout(), 0, err
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	err = errors.Join(err, response.Body.Close())
	switch response.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
		after, _ = worker.RetryAfter(response.Header, time.Now())
	}
	if response.StatusCode/100 != 2 {
		return again, after, fmt.Errorf("the collector answers %s: %s", response.Status, worker.Printable(string(answer), maxQuote))
	}
	if err == nil && response.Header.Get("Content-Type") == protobuf {
		err = refusedSpans(answer)
	}
	return false, 0, err
}

// refusedSpans is an error if a collector says in its answer that it has refused some of the
// spans, or that something else is wrong with them. The answer is an
// ExportTraceServiceResponse, which is where gRPC is, too.
func refusedSpans(answer []byte) error {
	partialSuccess, _ := protobufField(answer, 1)
	_, rejected := protobufField(partialSuccess, 1)
	message, _ := protobufField(partialSuccess, 2)
	if rejected == 0 && len(message) == 0 {
		return nil
	}
	return fmt.Errorf("the collector has refused %d spans: %s", rejected, worker.Printable(string(message), maxQuote))
}

// protobufField returns what a message has in a field: bytes, or a number. Both are zero if
// the message has no such field or is damaged.
func protobufField(message []byte, field protowire.Number) (value []byte, number uint64) {
	for len(message) > 0 {
		n, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return nil, 0
		}
		size := protowire.ConsumeFieldValue(n, kind, message[tag:])
		if size < 0 {
			return nil, 0
		}
		switch {
		case n == field && kind == protowire.BytesType:
			value, _ = protowire.ConsumeBytes(message[tag:])
		case n == field && kind == protowire.VarintType:
			number, _ = protowire.ConsumeVarint(message[tag:])
		}
		message = message[tag+size:]
	}
	return value, number
}

// newCollectorClient makes what reaches a collector, as OpenTelemetry's variables say it; an
// error names the one that is wrong.
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

// collectorHeader reads headers as the variable with that name has them: name=value, with
// commas between them and values encoded as in a URL.
func collectorHeader(from, text string) (http.Header, error) {
	header := http.Header{}
	if text == "" {
		return header, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		name, encoded, found := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(encoded)
		if err != nil || !found || name == "" || strings.Trim(name, headerName) != "" {
			return nil, fmt.Errorf("%s must have the form name=value,name=value, such as authorization=Bearer%%20TOKEN", from)
		}
		header.Set(name, strings.TrimSpace(value))
	}
	return header, nil
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
