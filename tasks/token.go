package tasks

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// Scope is what a token allows.
type Scope string

// The scopes.
const (
	ScopeSubmit Scope = "submit" // submit batches
	ScopeRead   Scope = "read"   // read job records
	ScopeCancel Scope = "cancel" // cancel jobs
	// ScopeOperate allows to halt the tenant's resets and to let them go on. A token has
	// it only if it is asked for.
	ScopeOperate Scope = "operate"
	// ScopeApprove allows to approve and to reject runs that others have asked for. A token has it only if it is
	// asked for, and only with an owner.
	ScopeApprove Scope = "approve"
)

// Scopes lists every scope.
var Scopes = []Scope{ScopeSubmit, ScopeRead, ScopeCancel, ScopeOperate, ScopeApprove}

// DefaultScopes are the scopes of a token that is made without naming any.
var DefaultScopes = []Scope{ScopeSubmit, ScopeRead, ScopeCancel}

// CredentialKind is how a caller is known.
type CredentialKind string

// The kinds of credentials.
const (
	KindToken CredentialKind = "token"      // X-Auth-Token, ours
	KindKey   CredentialKind = "access-key" // a request signed with an access key, ours
	KindIAM   CredentialKind = "iam"        // X-Auth-Token of a token service (Keystone)
	KindJWT   CredentialKind = "jwt"        // a bearer token of an OpenID Connect issuer

	KindCertificate CredentialKind = "certificate" // that of the caller's TLS connection
)

// Token is what the service knows about a caller's credential, of whatever kind. The secret itself is
// not here.
type Token struct {
	ID     string         `json:"token_id"` // of an access key: the access key
	Kind   CredentialKind `json:"kind"`
	Hash   string         `json:"-"` // by which the store finds it
	Tenant string         `json:"tenant"`
	// Name says what it is for; empty: nobody has said.
	Name string `json:"name,omitempty"`
	// Owner is the person or program that has it; empty: nobody has said.
	Owner  string  `json:"owner,omitempty"`
	Scopes []Scope `json:"scopes"`
	// Addresses are the networks that it may be used from; none: from anywhere.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// InstanceLabels are labels that an instance must have in the fleet to be reset with it; none: it is
	// good for every instance of the tenant.
	InstanceLabels map[string]string `json:"instance_labels,omitempty"`
	CreatedAt      Time              `json:"created_at,omitzero"`
	ExpiresAt      Time              `json:"expires_at,omitzero"` // zero: never
	RevokedAt      Time              `json:"revoked_at,omitzero"` // zero: not revoked
	// Life is how long it was to live from its creation on, whatever has shortened that since; 0: for ever.
	Life       time.Duration `json:"-"`
	LastUsedAt Time          `json:"last_used_at,omitzero"` // zero: never, or not known; about a minute old
}

// By is the token in the audit trail, such as "token 3fa1c09b7e55d210".
func (t Token) By() string { return string(cmp.Or(t.Kind, KindToken)) + " " + t.ID }

// Principal is who acts with the token: its owner, however many tokens they have. One without an owner is a
// principal of its own.
func (t Token) Principal() string { return cmp.Or(t.Owner, t.By()) }

// TicketLife is how long a ticket may be used.
const TicketLife = time.Minute

// Ticket lets a browser open the stream of a job's events, because a browser cannot send a token
// with that request.
type Ticket struct {
	Ticket    string `json:"ticket"`
	ExpiresAt Time   `json:"expires_at"`
}

// ErrNoToken says that there is no token or access key with such an ID.
var ErrNoToken = errors.New("there is no such token")

// DefaultTokenLife is how long a token or access key lives for which nobody has said anything else.
const DefaultTokenLife = 90 * 24 * time.Hour

// Check returns a TokenExpired error if the token has expired or was revoked at a time.
func (t Token) Check(now time.Time) error {
	switch {
	case !t.RevokedAt.IsZero():
		return Errorf(TokenExpired, "The token must be updated: it was revoked, get a new one")
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt.Time):
		return Errorf(TokenExpired, "The token must be updated: it has expired, get a new one")
	}
	return nil
}

// Allow returns a Forbidden error if the token does not have a scope.
func (t Token) Allow(scope Scope) error {
	if !slices.Contains(t.Scopes, scope) {
		return Errorf(Forbidden, "the token does not have the scope %q", scope)
	}
	return nil
}

// AllowFrom returns a Forbidden error if the token may not be used from an address.
func (t Token) AllowFrom(address netip.Addr) error {
	address = address.Unmap()
	if len(t.Addresses) > 0 && !slices.ContainsFunc(t.Addresses, func(p netip.Prefix) bool { return p.Contains(address) }) {
		return Errorf(Forbidden, "the token may not be used from the address %s", address)
	}
	return nil
}

// Reaches reports whether an instance has the labels that the token is for.
func (t Token) Reaches(in Instance) bool {
	for name, value := range t.InstanceLabels {
		if have, labelled := in.Labels[name]; !labelled || have != value {
			return false
		}
	}
	return true
}

// NotAuthenticated is a BadToken error with the text of IAM's gateways, which callers' programs may know,
// and why: "x-auth-token not found", "verify aksk signature fail" and the like.
func NotAuthenticated(why string) *Error {
	return Errorf(BadToken, "Incorrect IAM authentication information: %s", why)
}

// CheckTokenName returns a sentence that says what is wrong with a token's name, or nil.
func CheckTokenName(name string) error {
	if !tokenName.MatchString(name) {
		return fmt.Errorf("%.80q is not a name: 1 to 64 characters of A-Z a-z 0-9 . _ @ / : + -", name)
	}
	return nil
}

var tokenName = regexp.MustCompile(`^[A-Za-z0-9._@/:+-]{1,64}$`)

// AccessKey is a credential that signs requests. The secret is known to the caller and to this service.
type AccessKey struct {
	Token
	Secret string `json:"-"`
	// Wrong is how many wrong signatures have come from the asker's network of late.
	Wrong int `json:"-"`
}

const (
	// MaxWrongSignatures is after how many wrong signatures an access key is locked for those who come
	// from the same network.
	MaxWrongSignatures = 5
	// WrongSignaturesLock is for how long, counted from the last one.
	WrongSignaturesLock = 5 * time.Minute
)

// NewAccessKey makes an access key and its secret, in the form that Huawei's have: 20 and 40 characters.
func NewAccessKey() (access, secret string) {
	return rand.Text()[:20], (rand.Text() + rand.Text())[:40]
}
