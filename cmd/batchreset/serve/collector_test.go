package serve

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
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

	"batchreset/api/relaytest"
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
					time.Sleep(5 * time.Second) // the next spans
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
