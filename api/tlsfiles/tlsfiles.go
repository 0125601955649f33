// Package tlsfiles has certificates that are read again when their files change, so that a listener
// is not restarted for a new one. Files are read every few seconds and compared by what they say: that
// sees files that are written anew as well as symbolic links that lead elsewhere, as Kubernetes has them.
//
// What cannot be used, such as a key that is not the certificate's because only one of the files was
// written yet, changes nothing: what was read before stays, and a line in the log says why.
package tlsfiles

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// lookEvery is how often the files are read: a change holds within 10 seconds.
const lookEvery = 5 * time.Second

// Files are where the certificates of a listener are, in PEM.
type Files struct {
	// Cert has the certificate of the listener and then those between it and its authority, Key its key.
	Cert, Key string
	// ClientCA has the authorities of clients, who then need a certificate of one of them; empty: they need none.
	ClientCA string
}

// Certificates are what the files said last that could be used. They are safe for concurrent use.
type Certificates struct {
	files Files
	log   *slog.Logger
	now   func() time.Time
	used  atomic.Pointer[content]

	mu      sync.Mutex
	refused [sha256.Size]byte // what the files said that cannot be used
	said    validity          // of the certificate that is in use, in the log
}

// content is what the files say.
type content struct {
	sum     [sha256.Size]byte
	pair    tls.Certificate
	clients *x509.CertPool // nil: clients need no certificate

	mu      sync.Mutex
	trusted map[[sha256.Size]byte]time.Time // leaves of clients that clients vouches for, and until when
}

// Open reads the files. Errors name the file.
func Open(files Files, log *slog.Logger) (*Certificates, error) {
	c := &Certificates{files: files, log: log, now: time.Now}
	texts, err := c.read()
	if err != nil {
		return nil, err
	}
	read, err := c.parse(texts)
	if err != nil {
		return nil, err
	}
	c.used.Store(read)
	c.sayWhen(read)
	return c, nil
}

// Watch reads the files again and again, until ctx ends.
func (c *Certificates) Watch(ctx context.Context) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			c.look()
		}
	}
}

// look reads the files now.
func (c *Certificates) look() {
	texts, err := c.read()
	sum := sumOf(texts, err)
	if sum == c.used.Load().sum {
		c.refuse(sum, nil)
		c.sayWhen(c.used.Load())
		return
	}
	var read *content
	if err == nil {
		read, err = c.parse(texts)
	}
	if err != nil {
		c.refuse(sum, err)
		c.sayWhen(c.used.Load())
		return
	}
	c.used.Store(read)
	c.mu.Lock()
	c.said = good // nothing was said of this one
	c.mu.Unlock()
	c.log.Info("new certificates are in use", "cert", c.files.Cert, "until", read.pair.Leaf.NotAfter.UTC())
	c.sayWhen(read)
}

// refuse says once that what the files say cannot be used.
func (c *Certificates) refuse(sum [sha256.Size]byte, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if why != nil && sum != c.refused {
		c.log.Error("the new certificates cannot be used: those from before stay", "error", why, "until", c.used.Load().pair.Leaf.NotAfter.UTC())
	}
	c.refused = sum
}

// soon is how long before its end a certificate is worth a warning.
const soon = 7 * 24 * time.Hour

// validity is what clients think of a certificate, by its times.
type validity int

const (
	good validity = iota
	notYet
	endsSoon
	expired
)

func validityOf(leaf *x509.Certificate, now time.Time) validity {
	switch {
	case now.After(leaf.NotAfter):
		return expired
	case now.Before(leaf.NotBefore):
		return notYet
	case now.Add(soon).After(leaf.NotAfter):
		return endsSoon
	}
	return good
}

// sayWhen warns once of a certificate that clients refuse, and of one that they will soon.
func (c *Certificates) sayWhen(read *content) {
	leaf := read.pair.Leaf
	c.mu.Lock()
	defer c.mu.Unlock()
	now := validityOf(leaf, c.now())
	if now == c.said {
		return
	}
	switch c.said = now; now {
	case expired:
		c.log.Error("the certificate has expired: clients refuse it", "cert", c.files.Cert, "until", leaf.NotAfter.UTC())
	case notYet:
		c.log.Error("the certificate is not valid yet: clients refuse it", "cert", c.files.Cert, "from", leaf.NotBefore.UTC())
	case endsSoon:
		c.log.Warn("the certificate expires soon", "cert", c.files.Cert, "until", leaf.NotAfter.UTC())
	case good:
	}
}

// texts are what the files say, in the order of names.
type texts [3][]byte

func (f Files) names() [3]string { return [3]string{f.Cert, f.Key, f.ClientCA} }

func (c *Certificates) read() (t texts, err error) {
	for i, name := range c.files.names() {
		if name == "" {
			continue
		}
		if t[i], err = os.ReadFile(name); err != nil {
			return t, err
		}
	}
	return t, nil
}

// sumOf tells what was read from what was read before.
func sumOf(t texts, err error) [sha256.Size]byte {
	if err != nil {
		return sha256.Sum256([]byte(err.Error()))
	}
	return sha256.Sum256(bytes.Join(t[:], []byte{0}))
}

func (c *Certificates) parse(t texts) (*content, error) {
	between, err := certificatesOf(t[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.files.Cert, err)
	}
	pair, err := tls.X509KeyPair(t[0], t[1])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", c.files.Cert, c.files.Key, why(err, between, t[1]))
	}
	read := &content{sum: sumOf(t, nil), pair: pair, trusted: map[[sha256.Size]byte]time.Time{}}
	if c.files.ClientCA == "" {
		return read, nil
	}
	authorities, err := certificatesOf(t[2])
	if err == nil && len(authorities) == 0 {
		err = errors.New("there is no certificate in it")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.files.ClientCA, err)
	}
	read.clients = x509.NewCertPool()
	for _, authority := range authorities {
		read.clients.AddCert(authority)
	}
	return read, nil
}

// certificatesOf are those of a file, all of them: one that is damaged, or not yet written to its end, is an error. To leave it out
// would refuse its clients, or send half of a chain.
func certificatesOf(text []byte) (found []*x509.Certificate, err error) {
	begun, blocks := bytes.Count(text, []byte("-----BEGIN ")), 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		blocks++
		if block.Type != "CERTIFICATE" {
			continue // such as the key
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in it cannot be read: %w", len(found)+1, err)
		}
		found = append(found, cert)
	}
	if blocks < begun {
		return nil, fmt.Errorf("only %d of the %d parts that begin in it are whole", blocks, begun)
	}
	return found, nil
}

// why is an error of a pair in the words of what people do wrong.
func why(err error, certificates []*x509.Certificate, key []byte) error {
	if block, _ := pem.Decode(key); block != nil && (block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")) {
		return fmt.Errorf("the key is encrypted, and nobody is here to give its password: write it without one ('openssl pkey'): %w", err)
	}
	for i, certificate := range certificates {
		one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
		if _, other := tls.X509KeyPair(one, key); other == nil && i > 0 {
			return fmt.Errorf("the key is that of certificate %d, which must be the first: %w", i+1, err)
		}
	}
	return err
}

// Config is how a listener speaks TLS: 1.2 or newer, HTTP/2 and HTTP/1.1. With clients its clients need a
// certificate, if there is Files.ClientCA.
func (c *Certificates) Config(clients bool) *tls.Config {
	config := func() *tls.Config {
		used := c.used.Load()
		config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{used.pair}}
		if clients && used.clients != nil {
			config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, used.clients
			config.SessionTicketsDisabled = true // or who was let in once would not be asked again
		}
		return config
	}
	first := config()
	first.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return config(), nil }
	return first
}

// ErrUntrusted says that nobody vouches for a certificate any more: the authorities were changed, or it has expired.
var ErrUntrusted = errors.New("the certificate of the client is not accepted any more")

// trustedKept is how many certificates of clients are remembered.
const trustedKept = 4096

// Check looks once more at the certificate that a client has shown when the connection began, which may be long ago.
// Errors: ErrUntrusted.
func (c *Certificates) Check(shown []*x509.Certificate) error {
	used, now := c.used.Load(), c.now()
	if len(shown) == 0 || used.clients == nil || now.After(shown[0].NotAfter) {
		return ErrUntrusted
	}
	sum := sha256.Sum256(shown[0].Raw)
	used.mu.Lock()
	defer used.mu.Unlock()
	if until, found := used.trusted[sum]; found && !now.After(until) {
		return nil
	}
	between := x509.NewCertPool()
	for _, cert := range shown[1:] {
		between.AddCert(cert)
	}
	chains, err := shown[0].Verify(x509.VerifyOptions{
		Roots: used.clients, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if len(used.trusted) >= trustedKept {
		clear(used.trusted)
	}
	used.trusted[sum] = endOf(chains)
	return nil
}

// endOf is when the last of the chains ends, each of which does with the first of its certificates.
func endOf(chains [][]*x509.Certificate) (end time.Time) {
	for _, chain := range chains {
		until := chain[0].NotAfter
		for _, certificate := range chain {
			if certificate.NotAfter.Before(until) {
				until = certificate.NotAfter
			}
		}
		if until.After(end) {
			end = until
		}
	}
	return end
}

// Expires is when the certificate does.
func (c *Certificates) Expires() time.Time { return c.used.Load().pair.Leaf.NotAfter }
