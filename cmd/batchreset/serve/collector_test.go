package serve

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"batchreset/api/relaytest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/harness/faketime"
)

func TestADeadConnectionToTheCollectorIsReplaced(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				relay := relaytest.Start(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				c, err := newCollectorClient()
				if err != nil {
					t.Fatal(err)
				}
				relay.Carry(c.Transport.(*http.Transport), http2)
				send := func() error {
					response, err := c.Post("http://collector.example/v1/traces", "", nil) //nolint:noctx // it has a timeout
					if err == nil {
						err = response.Body.Close()
					}
					return err
				}
				if err := send(); err != nil {
					t.Fatal(err)
				}
				relay.Swallow()
				began := time.Now()
				for send() != nil {
					faketime.Pass(5 * time.Second) // the next spans
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %s", took)
				}
				c.CloseIdleConnections()
			})
		})
	}
}

func TestACollectorWithCertificates(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	dir := t.TempDir()
	file := func(name string, block *pem.Block) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := file("cert.pem", &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	private := file("key.pem", &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, row := range []struct {
		name        string
		environment map[string]string
		refused     string // by newCollectorClient
		status      int    // 0: no answer
	}{
		{name: "that nobody vouches for"},
		{name: "that is vouched for", environment: map[string]string{"CERTIFICATE": cert}, status: http.StatusForbidden},
		{
			name: "that wants one of us", status: http.StatusOK,
			environment: map[string]string{"TRACES_CERTIFICATE": cert, "CERTIFICATE": "/nowhere", "CLIENT_CERTIFICATE": cert, "CLIENT_KEY": private},
		},
		{name: "in a file that is missing", environment: map[string]string{"CERTIFICATE": "/nowhere"}, refused: "OTEL_EXPORTER_OTLP_CERTIFICATE: open /nowhere"},
		{name: "in a file without one", environment: map[string]string{"TRACES_CERTIFICATE": private}, refused: "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE: " + private + " has no certificate"},
		{name: "of ours without its key", environment: map[string]string{"CLIENT_CERTIFICATE": cert}, refused: "must be given together"},
		{name: "of ours with another key", environment: map[string]string{"CLIENT_CERTIFICATE": cert, "CLIENT_KEY": cert}, refused: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: "},
		{name: "and another protocol", environment: map[string]string{"TRACES_PROTOCOL": "grpc"}, refused: `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL must be http/protobuf, not "grpc"`},
		{name: "and a compression that is none of ours", environment: map[string]string{"COMPRESSION": "zstd"}, refused: `OTEL_EXPORTER_OTLP_COMPRESSION must be gzip or none, not "zstd"`},
		{name: "and a timeout that is none", environment: map[string]string{"TIMEOUT": "10s"}, refused: "OTEL_EXPORTER_OTLP_TIMEOUT must be a number of milliseconds"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for name, value := range row.environment {
				t.Setenv("OTEL_EXPORTER_OTLP_"+name, value)
			}
			if row.refused != "" {
				if err := checkTracing(s.URL); err == nil || !strings.Contains(err.Error(), row.refused) {
					t.Errorf("got %v, want %q", err, row.refused)
				}
				return
			}
			c, err := newCollectorClient()
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseIdleConnections()
			response, err := c.Get(s.URL) //nolint:noctx // it has a timeout
			if err != nil {
				if row.status != 0 {
					t.Error(err)
				}
				return
			}
			if response.StatusCode != row.status || response.ProtoMajor != 2 || response.Body.Close() != nil {
				t.Errorf("%s answers %s", response.Proto, response.Status)
			}
		})
	}
}

func TestTheTimeoutOfTheCollector(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 10 * time.Second, "2500": 2500 * time.Millisecond} {
		t.Setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", value)
		if c, err := newCollectorClient(); err != nil || c.Timeout != want {
			t.Errorf("%q: %v, %v", value, c, err)
		}
	}
}

// fakeCollector answers as it is told to, and keeps what it was asked.
type fakeCollector struct {
	answers  []collectorAnswer // the last one for good
	requests []*http.Request
	at       []time.Time
}

func (f *fakeCollector) RoundTrip(r *http.Request) (*http.Response, error) {
	f.requests, f.at = append(f.requests, r), append(f.at, time.Now())
	answer := f.answers[0]
	if len(f.answers) > 1 {
		f.answers = f.answers[1:]
	}
	return &http.Response{
		StatusCode: answer.status, Status: http.StatusText(answer.status), Header: answer.header, Body: io.NopCloser(bytes.NewReader(answer.body)),
	}, nil
}

type collectorAnswer struct {
	status int
	header http.Header
	body   []byte
}

func answer(status int, header ...string) collectorAnswer {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return collectorAnswer{status: status, header: h}
}

var someSpans = []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: "reset attempt"}}}}}}

// startFake returns a collector's client whose calls fake answers.
func startFake(t *testing.T, endpoint string, fake *fakeCollector) *traceUploader {
	t.Helper()
	c, err := newTraceUploader(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	c.client.Transport = fake
	return c
}

func TestWhatACollectorIsSent(t *testing.T) {
	for _, row := range []struct {
		name, flag  string
		environment map[string]string
		url         string
		header      map[string]string
	}{
		{
			name: "to the flag's", flag: "http://c:4318/", environment: map[string]string{"ENDPOINT": "http://other", "TRACES_ENDPOINT": "http://other/x"},
			url: "http://c:4318/v1/traces", header: map[string]string{"Content-Type": "application/x-protobuf", "User-Agent": "batchreset/" + terminal.Version()},
		},
		{name: "to that of all signals", environment: map[string]string{"ENDPOINT": "https://c/otlp"}, url: "https://c/otlp/v1/traces"},
		{name: "to that of traces, as it is", environment: map[string]string{"ENDPOINT": "http://other", "TRACES_ENDPOINT": "http://c/ingest"}, url: "http://c/ingest"},
		{
			name: "with headers", flag: "http://c", environment: map[string]string{"HEADERS": "authorization=Bearer%20one, X-Scope = a=b", "PROTOCOL": "http/protobuf"},
			url: "http://c/v1/traces", header: map[string]string{"Authorization": "Bearer one", "X-Scope": "a=b"},
		},
		{
			name: "with those of traces alone", flag: "http://c", environment: map[string]string{"HEADERS": "x=1", "TRACES_HEADERS": "y=2,user-agent=me"},
			url: "http://c/v1/traces", header: map[string]string{"X": "", "Y": "2", "User-Agent": "me"},
		},
		{
			name: "packed", flag: "http://c", environment: map[string]string{"COMPRESSION": "none", "TRACES_COMPRESSION": "gzip"},
			url: "http://c/v1/traces", header: map[string]string{"Content-Encoding": "gzip"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			for name, value := range row.environment {
				t.Setenv("OTEL_EXPORTER_OTLP_"+name, value)
			}
			fake := &fakeCollector{answers: []collectorAnswer{answer(http.StatusOK)}}
			if err := startFake(t, row.flag, fake).UploadTraces(t.Context(), someSpans); err != nil {
				t.Fatal(err)
			}
			r := fake.requests[0]
			if r.Method != http.MethodPost || r.URL.String() != row.url {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			for name, want := range row.header {
				if got := r.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			body, err := io.ReadAll(r.Body)
			if err == nil && r.Header.Get("Content-Encoding") == "gzip" {
				body, err = unpacked(body)
			}
			var request collectorpb.ExportTraceServiceRequest
			if err = errors.Join(err, proto.Unmarshal(body, &request)); err != nil || !proto.Equal(&request, &collectorpb.ExportTraceServiceRequest{ResourceSpans: someSpans}) {
				t.Errorf("it is sent %v: %v", &request, err)
			}
		})
	}
}

func unpacked(body []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestACollectorThatIsBusyIsAskedAgain(t *testing.T) {
	for _, row := range []struct {
		name    string
		answers []collectorAnswer
		pauses  [][2]time.Duration // each at least, at most
		err     string
	}{
		{
			name: "later each time", answers: []collectorAnswer{answer(http.StatusServiceUnavailable), answer(http.StatusBadGateway), answer(http.StatusOK)},
			pauses: [][2]time.Duration{{2500 * time.Millisecond, 7500 * time.Millisecond}, {5 * time.Second, 15 * time.Second}},
		},
		{
			name: "when it wants", answers: []collectorAnswer{answer(http.StatusTooManyRequests, "Retry-After", "20"), answer(http.StatusOK)},
			pauses: [][2]time.Duration{{20 * time.Second, 20 * time.Second}},
		},
		{name: "not if that is too late", answers: []collectorAnswer{answer(http.StatusGatewayTimeout, "Retry-After", "61")}, err: "the collector answers Gateway Timeout"},
		{name: "not if it refuses", answers: []collectorAnswer{answer(http.StatusBadRequest, "Retry-After", "1")}, err: "the collector answers Bad Request"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := &fakeCollector{answers: row.answers}
				err := startFake(t, "http://c", fake).UploadTraces(t.Context(), someSpans)
				if row.err == "" && err != nil || row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) {
					t.Errorf("got %v, want %q", err, row.err)
				}
				if len(fake.at) != len(row.pauses)+1 {
					t.Fatalf("it was asked at %v", fake.at)
				}
				for i, bounds := range row.pauses {
					if pause := fake.at[i+1].Sub(fake.at[i]); pause < bounds[0] || pause > bounds[1] {
						t.Errorf("pause %d is %s, want %s to %s", i, pause, bounds[0], bounds[1])
					}
				}
			})
		})
	}
	t.Run("not for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fake := &fakeCollector{answers: []collectorAnswer{answer(http.StatusServiceUnavailable)}}
			began := time.Now()
			err := startFake(t, "http://c", fake).UploadTraces(t.Context(), someSpans)
			if took := time.Since(began); err == nil || took > time.Minute || len(fake.at) < 2 {
				t.Errorf("%d requests in %s: %v", len(fake.at), took, err)
			}
		})
	})
}

func TestSpansThatACollectorRefusesAreTold(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer *collectorpb.ExportTraceServiceResponse
		want   string
	}{
		{name: "none", answer: &collectorpb.ExportTraceServiceResponse{}},
		{name: "none, said in so many words", answer: &collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{}}},
		{
			name: "some", want: "the collector has refused 3 spans: too many",
			answer: &collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: 3, ErrorMessage: "too many"}},
		},
		{
			name: "a warning", want: "the collector has refused 0 spans: soon not",
			answer: &collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{ErrorMessage: "soon not"}},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			body, err := proto.Marshal(row.answer)
			if err != nil {
				t.Fatal(err)
			}
			ok := answer(http.StatusOK, "Content-Type", "application/x-protobuf")
			ok.body = body
			err = startFake(t, "http://c", &fakeCollector{answers: []collectorAnswer{ok}}).UploadTraces(t.Context(), someSpans)
			if got := fmt.Sprint(err); got != cmp.Or(row.want, "<nil>") {
				t.Errorf("got %s, want %q", got, row.want)
			}
		})
	}
	t.Run("a damaged answer is no reason to fail", func(t *testing.T) {
		for _, body := range []string{"\x0a", "\x0a\x7f", "\xff\xff", "\x0a\x02\x08\xff"} {
			if err := refusedSpans([]byte(body)); err != nil {
				t.Errorf("%q: %v", body, err)
			}
		}
	})
}
