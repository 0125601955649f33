package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"batchreset/cmd/harness"
)

// NewCerts makes a certificate that exists only for the test: authority, server and client in
// one. It is for servers with these names; without any, for those on the loopback interface.
func NewCerts(t testing.TB, names ...string) *harness.Certs {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "redistest"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		DNSNames:     names,
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:         true, BasicConstraintsValid: true,
	}
	if names == nil {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	c := &harness.Certs{
		Cert: writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", der),
		Key:  writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", secret),
	}
	c.CA = c.Cert
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	c.Client = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
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

func writePEM(t testing.TB, file, kind string, der []byte) string {
	t.Helper()
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return file
}
