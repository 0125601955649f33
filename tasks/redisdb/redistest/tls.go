package redistest

import (
	"crypto/tls"
	"path/filepath"
	"testing"

	"batchreset/cmd/harness"
	"batchreset/cmd/harness/certs"
)

// NewCerts makes a certificate that exists only for the test: authority, server and client in
// one. It is for servers with these names; without any, for those on the loopback interface.
func NewCerts(t testing.TB, names ...string) *harness.Certs {
	t.Helper()
	pair, err := certs.NewAuthority(certs.Subject{CommonName: "redistest", DNS: names})
	must(t, err)
	dir := t.TempDir()
	c := &harness.Certs{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	c.CA = c.Cert
	must(t, pair.Write(c.Cert, c.Key))
	c.Client = &tls.Config{RootCAs: pair.Pool(), MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair.TLS()}}
	if names != nil {
		c.Client.ServerName = names[0]
	}
	return c
}

// StartTLS starts a redis-server that speaks only TLS and asks for no certificate of its
// clients. ca is the file with the authority that vouches for it, as SSL_CERT_FILE takes it.
func StartTLS(t testing.TB) (s *Server, ca string) {
	t.Helper()
	certs := NewCerts(t)
	s = Setup{TLS: certs, Config: []string{"tls-auth-clients no"}}.Start(t)
	return s, certs.CA
}
