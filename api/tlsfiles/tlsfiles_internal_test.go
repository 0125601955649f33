package tlsfiles

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/harness/certs"
)

// listener serves with certificates of files that a test writes.
type listener struct {
	*Certificates
	dir       string
	authority *certs.Pair
	log       *bytes.Buffer
}

func (l *listener) path(name string) string { return filepath.Join(l.dir, name) }

func (l *listener) issue(t *testing.T, by *certs.Pair, s certs.Subject) *certs.Pair {
	t.Helper()
	pair, err := by.Issue(s)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func (l *listener) write(t *testing.T, pair *certs.Pair) {
	t.Helper()
	if err := pair.Write(l.path("cert"), l.path("key")); err != nil {
		t.Fatal(err)
	}
}

func newAuthority(t *testing.T) *certs.Pair {
	t.Helper()
	authority, err := certs.NewAuthority(certs.Subject{CommonName: "authority"})
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func newListener(t *testing.T, clients bool) *listener {
	t.Helper()
	l := &listener{dir: t.TempDir(), authority: newAuthority(t), log: &bytes.Buffer{}}
	l.write(t, l.issue(t, l.authority, certs.Subject{CommonName: "first"}))
	files := Files{Cert: l.path("cert"), Key: l.path("key")}
	if clients {
		files.ClientCA = l.path("ca")
		if err := os.WriteFile(files.ClientCA, l.authority.CertPEM(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if l.Certificates, err = Open(files, slog.New(slog.NewTextHandler(l.log, nil))); err != nil {
		t.Fatal(err)
	}
	return l
}

// dial does a handshake and returns what each side has seen of the other.
func (l *listener) dial(t *testing.T, client *tls.Config) (seen tls.ConnectionState, server tls.ConnectionState, err error) {
	t.Helper()
	client.RootCAs, client.ServerName = l.authority.Pool(), "127.0.0.1"
	listening, err := tls.Listen("tcp", "127.0.0.1:0", l.Config(true))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listening.Close() }()
	accepted := make(chan error, 1)
	go func() {
		there, err := listening.Accept()
		if err == nil {
			_ = there.SetDeadline(time.Now().Add(10 * time.Second))
			s := there.(*tls.Conn)
			err, server = s.HandshakeContext(t.Context()), s.ConnectionState()
			_ = there.Close()
		}
		accepted <- err
	}()
	here, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: client}).DialContext(t.Context(), "tcp", listening.Addr().String())
	if err == nil {
		seen = here.(*tls.Conn).ConnectionState()
		_ = here.Close()
	}
	return seen, server, errors.Join(err, <-accepted)
}

func (l *listener) served(t *testing.T) string {
	t.Helper()
	seen, _, err := l.dial(t, &tls.Config{MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	return seen.PeerCertificates[0].Subject.CommonName
}

// What is written anew is served; what cannot be used is not, and is said once.
func TestCertificatesAreReadAgain(t *testing.T) {
	l := newListener(t, false)
	if got := l.served(t); got != "first" {
		t.Fatalf("serves %s", got)
	}
	second, third := l.issue(t, l.authority, certs.Subject{CommonName: "second"}), l.issue(t, l.authority, certs.Subject{CommonName: "third"})
	l.write(t, second)
	l.look()
	if got := l.served(t); got != "second" {
		t.Errorf("serves %s after the files were written anew", got)
	}
	if err := os.WriteFile(l.path("cert"), third.CertPEM(), 0o600); err != nil { // and not yet the key
		t.Fatal(err)
	}
	for range 3 {
		l.look()
	}
	if got := l.served(t); got != "second" {
		t.Errorf("serves %s with half of the files", got)
	}
	if said := strings.Count(l.log.String(), "cannot be used"); said != 1 {
		t.Errorf("said %d times: %s", said, l.log)
	}
	l.write(t, third)
	l.look()
	if got := l.served(t); got != "third" {
		t.Errorf("serves %s once both are there", got)
	}
	if err := os.Remove(l.path("key")); err != nil {
		t.Fatal(err)
	}
	l.look()
	if got := l.served(t); got != "third" {
		t.Errorf("serves %s without a key", got)
	}
}

// Kubernetes has files behind symbolic links to a folder, and changes one link for all of them.
func TestALinkThatLeadsElsewhereIsNoticed(t *testing.T) {
	l := newListener(t, false)
	for _, name := range []string{"one", "two"} {
		if err := os.Mkdir(l.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := l.issue(t, l.authority, certs.Subject{CommonName: name}).Write(l.path(name+"/tls.crt"), l.path(name+"/tls.key")); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to string) {
		if err := errors.Join(os.Symlink(to, l.path("new")), os.Rename(l.path("new"), l.path("..data"))); err != nil {
			t.Fatal(err)
		}
	}
	link("one")
	var err error
	if l.Certificates, err = Open(Files{Cert: l.path("..data/tls.crt"), Key: l.path("..data/tls.key")}, l.Certificates.log); err != nil {
		t.Fatal(err)
	}
	if got := l.served(t); got != "one" {
		t.Fatalf("serves %s", got)
	}
	link("two")
	l.look()
	if got := l.served(t); got != "two" {
		t.Errorf("serves %s after the link was changed", got)
	}
}

func TestWhatCannotBeOpenedNamesTheFile(t *testing.T) {
	l := newListener(t, true)
	other := l.issue(t, l.authority, certs.Subject{})
	if err := other.Write(l.path("other"), l.path("other-key")); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name  string
		files Files
		want  string
	}{
		{"no certificate", Files{Cert: l.path("none"), Key: l.path("key")}, l.path("none")},
		{"no key", Files{Cert: l.path("cert"), Key: l.path("none")}, l.path("none")},
		{"another's key", Files{Cert: l.path("cert"), Key: l.path("other-key")}, l.path("other-key")},
		{"a key in place of a certificate", Files{Cert: l.path("key"), Key: l.path("key")}, l.path("key")},
		{"no authorities", Files{Cert: l.path("cert"), Key: l.path("key"), ClientCA: l.path("key")}, l.path("key") + ": there is no certificate"},
	} {
		if _, err := Open(row.files, l.Certificates.log); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func TestClientsNeedACertificateOfTheAuthority(t *testing.T) {
	l := newListener(t, true)
	stranger := newAuthority(t)
	for _, row := range []struct {
		name string
		show *certs.Pair
		want bool
	}{
		{"none", nil, false},
		{"one of the authority", l.issue(t, l.authority, certs.Subject{DNS: []string{"ci.example"}}), true},
		{"one of somebody else", l.issue(t, stranger, certs.Subject{DNS: []string{"ci.example"}}), false},
		{"one that has expired", l.issue(t, l.authority, certs.Subject{NotAfter: time.Now().Add(-time.Minute)}), false},
		{"one that is not valid yet", l.issue(t, l.authority, certs.Subject{NotBefore: time.Now().Add(time.Hour)}), false},
		{"one for servers", l.issue(t, l.authority, certs.Subject{Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), false},
	} {
		client := &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12} // whose handshake ends once the server has judged
		if row.show != nil {
			client.Certificates = []tls.Certificate{row.show.TLS()}
		}
		_, server, err := l.dial(t, client)
		if (err == nil) != row.want {
			t.Errorf("%s: %v", row.name, err)
		}
		if row.want {
			if err := l.Check(server.PeerCertificates); err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
		}
	}
	if _, _, err := l.dial(t, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil { //nolint:gosec // that is what is refused
		t.Error("TLS 1.1 is spoken")
	}
}

// A connection may outlive the authority that has vouched for it, and the certificate.
func TestAnAuthorityThatIsTakenAwayVouchesForNobody(t *testing.T) {
	l := newListener(t, true)
	shown := []*x509.Certificate{l.issue(t, l.authority, certs.Subject{NotAfter: time.Now().Add(time.Hour)}).Leaf}
	if err := l.Check(shown); err != nil {
		t.Fatal(err)
	}
	l.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if err := l.Check(shown); !errors.Is(err, ErrUntrusted) {
		t.Errorf("expired: %v", err)
	}
	l.now = time.Now
	if err := os.WriteFile(l.path("ca"), newAuthority(t).CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	l.look()
	if err := l.Check(shown); !errors.Is(err, ErrUntrusted) {
		t.Errorf("of another authority: %v", err)
	}
	if err := l.Check(nil); !errors.Is(err, ErrUntrusted) {
		t.Errorf("none: %v", err)
	}
}

func TestACertificateThatEndsIsTold(t *testing.T) {
	for _, row := range []struct {
		name    string
		subject certs.Subject
		want    string
	}{
		{"expired", certs.Subject{NotAfter: time.Now().Add(-time.Minute)}, "has expired"},
		{"soon", certs.Subject{NotAfter: time.Now().Add(time.Hour)}, "expires soon"},
		{"not yet", certs.Subject{NotBefore: time.Now().Add(time.Hour)}, "not valid yet"},
		{"good", certs.Subject{NotAfter: time.Now().Add(90 * 24 * time.Hour)}, ""},
	} {
		l := newListener(t, false)
		l.log.Reset()
		l.write(t, l.issue(t, l.authority, row.subject))
		l.look()
		text := strings.Join(strings.Split(l.log.String(), "\n")[1:], "\n")
		if row.want == "" && text != "" || !strings.Contains(text, row.want) {
			t.Errorf("%s: %s", row.name, l.log)
		}
	}
}

// A process runs for months, and its files stay what they are.
func TestACertificateThatEndsWhileItIsInUseIsToldOnce(t *testing.T) {
	l := newListener(t, false) // it is good for a day
	l.log.Reset()
	l.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	for range 3 {
		l.look()
	}
	if said := strings.Count(l.log.String(), "has expired"); said != 1 {
		t.Errorf("said %d times: %s", said, l.log)
	}
}

// What is written when the files are read is not taken for all of it.
func TestPartsOfAFileAreNotUsed(t *testing.T) {
	l := newListener(t, true)
	second := newAuthority(t)
	both := bytes.Join([][]byte{l.authority.CertPEM(), second.CertPEM()}, []byte("# the second\r\n"))
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(l.path(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		l.look()
	}
	write("ca", both)
	shown := []*x509.Certificate{l.issue(t, second, certs.Subject{}).Leaf}
	if err := l.Check(shown); err != nil {
		t.Fatal(err)
	}
	write("ca", both[:len(both)-200])
	if err := l.Check(shown); err != nil {
		t.Errorf("with a part of the authorities: %v", err)
	}
	write("ca", append(l.authority.CertPEM(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...))
	if err := l.Check(shown); err != nil || !strings.Contains(l.log.String(), "certificate 2 in it cannot be read") {
		t.Errorf("with an authority that is damaged: %v, %s", err, l.log)
	}
	write("ca", both)
	chain := l.issue(t, l.authority, certs.Subject{CommonName: "chain"})
	if err := chain.Write(l.path("cert"), l.path("key")); err != nil {
		t.Fatal(err)
	}
	write("cert", append(chain.CertPEM(), l.authority.CertPEM()[:300]...))
	if got := len(l.used.Load().pair.Certificate); got != 1 || l.used.Load().pair.Leaf.Subject.CommonName != "first" {
		t.Errorf("half of a chain is used: %s", l.log)
	}
}

func TestWhatPeopleDoWrongIsNamed(t *testing.T) {
	l := newListener(t, false)
	leaf := l.issue(t, l.authority, certs.Subject{})
	l.write(t, leaf)
	for _, row := range []struct {
		name, file, text, want string
	}{
		{"the authority first", "cert", string(l.authority.CertPEM()) + string(leaf.CertPEM()), "the key is that of certificate 2, which must be the first"},
		{"an encrypted key", "key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "the key is encrypted"},
		{"an old form of it", "key", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", "the key is encrypted"},
	} {
		l.write(t, leaf)
		if err := os.WriteFile(l.path(row.file), []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(l.files, l.Certificates.log); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
