package auth

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net/url"
	"slices"

	lru "github.com/hashicorp/golang-lru/v2"

	"batchreset/tasks"
)

const (
	certificateHandle = "certificate:"
	// certificatesRemembered is how many certificates are remembered for those who wait with them.
	certificatesRemembered = 8192
)

// CertificateRule says what a client with some certificate may do. It has one of URI, DNS, Email and CommonName.
type CertificateRule struct {
	// URI, DNS and Email are names that the certificate must have among its alternative ones, CommonName is that of its
	// subject. They are compared as a whole.
	URI        string        `yaml:"uri"`
	DNS        string        `yaml:"dns"`
	Email      string        `yaml:"email"`
	CommonName string        `yaml:"common_name"`
	Tenant     string        `yaml:"tenant"`
	Scopes     []tasks.Scope `yaml:"scopes"`
	// Owner is who acts; empty: the name.
	Owner string `yaml:"owner"`
}

// Names are those that the rule has, of which there must be one.
func (r CertificateRule) Names() (names []string) {
	for _, name := range []string{r.URI, r.DNS, r.Email, r.CommonName} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// SameNames reports whether another rule is for the same name.
func (r CertificateRule) SameNames(other CertificateRule) bool {
	return r.URI == other.URI && r.DNS == other.DNS && r.Email == other.Email && r.CommonName == other.CommonName
}

// fits reports whether a certificate has the name of the rule.
func (r CertificateRule) fits(leaf *x509.Certificate) bool {
	switch {
	case r.URI != "":
		return slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool { return u.String() == r.URI })
	case r.DNS != "":
		return slices.Contains(leaf.DNSNames, r.DNS)
	case r.Email != "":
		return slices.Contains(leaf.EmailAddresses, r.Email)
	}
	return r.CommonName != "" && leaf.Subject.CommonName == r.CommonName
}

// Trust says whether somebody still vouches for the certificate that a client showed when its connection began.
type Trust interface {
	Check(shown []*x509.Certificate) error
}

// Certificates knows callers by the certificates that their connections began with.
type Certificates struct {
	rules []CertificateRule
	trust Trust
	seen  *lru.Cache[string, shownCertificate]
}

type shownCertificate struct {
	token tasks.Token
	chain []*x509.Certificate
}

// NewCertificates makes Certificates. Without rules a client needs another credential besides.
func NewCertificates(rules []CertificateRule, trust Trust) *Certificates {
	seen, err := lru.New[string, shownCertificate](certificatesRemembered)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &Certificates{rules, trust, seen}
}

// check fails with tasks.BadToken if nobody vouches any more for the certificate that a connection began with.
func (c *Certificates) check(state *tls.ConnectionState) error {
	if state == nil {
		return tasks.NotAuthenticated("a certificate is needed")
	}
	if err := c.trust.Check(state.PeerCertificates); err != nil {
		return tasks.NotAuthenticated(err.Error())
	}
	return nil
}

// token says who has the certificate, by the first rule whose name it has. Errors: tasks.Forbidden.
func (c *Certificates) token(state *tls.ConnectionState) (tasks.Token, error) {
	leaf := state.PeerCertificates[0]
	n := slices.IndexFunc(c.rules, func(r CertificateRule) bool { return r.fits(leaf) })
	if n < 0 {
		return tasks.Token{}, tasks.Errorf(tasks.Forbidden, "no rule is for the names of the certificate")
	}
	rule := c.rules[n]
	sum := sha256.Sum256(leaf.Raw)
	hash := hex.EncodeToString(sum[:])
	token := tasks.Token{
		ID: hash[:16], Kind: tasks.KindCertificate, Hash: certificateHandle + hash, Tenant: rule.Tenant, Scopes: rule.Scopes, Owner: rule.Owner,
		CreatedAt: tasks.FromMillis(leaf.NotBefore.UnixMilli()), ExpiresAt: tasks.FromMillis(leaf.NotAfter.UnixMilli()),
	}
	if token.Owner == "" {
		token.Owner = rule.Names()[0]
	}
	c.seen.Add(token.Hash, shownCertificate{token, state.PeerCertificates})
	return token, nil
}

// again returns the token of a certificate that was seen before and still is accepted.
func (c *Certificates) again(handle string) (tasks.Token, bool) {
	shown, found := c.seen.Get(handle)
	return shown.token, found && c.trust.Check(shown.chain) == nil
}

// fingerprint is the certificate that a request's connection began with, in a form that can be remembered, or "".
func fingerprint(state *tls.ConnectionState) string {
	if state == nil || len(state.PeerCertificates) == 0 {
		return ""
	}
	sum := sha256.Sum256(state.PeerCertificates[0].Raw)
	return certificateHandle + hex.EncodeToString(sum[:])
}
