// Package certs makes certificates that exist only for a test.
package certs

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
	"net/url"
	"os"
	"time"
)

// Subject is what a certificate says. Without any name it is for 127.0.0.1.
type Subject struct {
	CommonName string
	DNS        []string
	URI        []string // spiffe://…
	Email      []string
	// NotBefore and NotAfter are an hour ago and in a day, unless they are given.
	NotBefore, NotAfter time.Time
	// Usage is what it is good for: servers and clients, unless it is given.
	Usage []x509.ExtKeyUsage
}

// Pair is a certificate and its key.
type Pair struct {
	Leaf *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority. Its own certificate is good for servers and clients, too.
func NewAuthority(s Subject) (*Pair, error) { return issue(s, nil) }

// Issue makes a certificate that p vouches for.
func (p *Pair) Issue(s Subject) (*Pair, error) { return issue(s, p) }

func issue(s Subject, by *Pair) (*Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.CommonName},
		NotBefore: s.NotBefore, NotAfter: s.NotAfter, DNSNames: s.DNS, EmailAddresses: s.Email,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: s.Usage, BasicConstraintsValid: true,
	}
	if s.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if s.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if s.Usage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	for _, text := range s.URI {
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		template.URIs = append(template.URIs, u)
	}
	if len(s.DNS)+len(s.URI)+len(s.Email) == 0 {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	parent, signer := template, key
	if by == nil {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign
	} else {
		parent, signer = by.Leaf, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &Pair{leaf, key}, err
}

// TLS is the pair as crypto/tls takes it.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Leaf.Raw}, PrivateKey: p.key, Leaf: p.Leaf}
}

// Pool has the certificate as the one authority.
func (p *Pair) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Leaf)
	return pool
}

// CertPEM is the certificate as files have it.
func (p *Pair) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Leaf.Raw})
}

// KeyPEM is the key as files have it.
func (p *Pair) KeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// Write writes the two files.
func (p *Pair) Write(cert, key string) error {
	text, err := p.KeyPEM()
	if err != nil {
		return err
	}
	if err := os.WriteFile(cert, p.CertPEM(), 0o600); err != nil {
		return err
	}
	return os.WriteFile(key, text, 0o600)
}
