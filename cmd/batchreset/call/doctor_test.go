package call

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/batchreset/terminal"
)

func TestDoctorLooksAtTLS(t *testing.T) {
	until := func(left time.Duration) *tls.ConnectionState {
		return &tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{{NotAfter: time.Now().Add(left)}}}
	}
	for _, row := range []struct {
		server        string
		state         *tls.ConnectionState
		verdict, want string
	}{
		{"https://reset.example", until(365 * 24 * time.Hour), terminal.VerdictOK, "TLS 1.3, certificate until "},
		{"https://reset.example", until(24 * time.Hour), terminal.VerdictWarn, "the server's certificate ends at "},
		{"http://reset.example", nil, terminal.VerdictWarn, "everybody on the way to reset.example can read the token"},
		{"http://192.0.2.1:8080", nil, terminal.VerdictWarn, "everybody on the way to 192.0.2.1"},
		{"http://[::1]:8080", nil, terminal.VerdictOK, "on this machine alone"},
		{"http://localhost", nil, terminal.VerdictOK, "on this machine alone"},
	} {
		var found terminal.Checkup
		lookAtTLS(&found, row.server, row.state)
		if len(found.Findings) != 1 || found.Findings[0].Verdict != row.verdict || !strings.Contains(found.Findings[0].Seen, row.want) {
			t.Errorf("%s: %+v, want %s and %q", row.server, found.Findings, row.verdict, row.want)
		}
	}
}

func TestDoctorLooksAtScopes(t *testing.T) {
	for scopes, want := range map[string]string{"read": "ok", "submit read": "ok", "submit": "warn"} {
		var found terminal.Checkup
		lookAtScopes(&found, strings.Fields(scopes))
		if found.Findings[0].Verdict != want || !strings.Contains(found.Findings[0].Seen, "; not ") {
			t.Errorf("%s: %+v", scopes, found.Findings)
		}
	}
}
