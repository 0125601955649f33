package tasks

import (
	"cmp"
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

// Token is what the service stores about a caller's token. The token itself is not stored.
type Token struct {
	ID     string `json:"token_id"`
	Hash   string `json:"-"` // by which the store finds it
	Tenant string `json:"tenant"`
	// Owner is the person or program that has it; empty: nobody has said.
	Owner     string  `json:"owner,omitempty"`
	Scopes    []Scope `json:"scopes"`
	CreatedAt Time    `json:"created_at,omitzero"`
	ExpiresAt Time    `json:"expires_at,omitzero"` // zero: never
	RevokedAt Time    `json:"revoked_at,omitzero"` // zero: not revoked
}

// Principal is who acts with the token: its owner, however many tokens they have. One without an owner is a
// principal of its own.
func (t Token) Principal() string { return cmp.Or(t.Owner, "token "+t.ID) }

// TicketLife is how long a ticket may be used.
const TicketLife = time.Minute

// Ticket lets a browser open the stream of a job's events, because a browser cannot send a token
// with that request.
type Ticket struct {
	Ticket    string `json:"ticket"`
	ExpiresAt Time   `json:"expires_at"`
}

// Check returns a TokenExpired error if the token has expired or was revoked at a time.
func (t Token) Check(now time.Time) error {
	switch {
	case !t.RevokedAt.IsZero():
		return Errorf(TokenExpired, "X-Auth-Token was revoked, get a new one")
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt.Time):
		return Errorf(TokenExpired, "X-Auth-Token has expired, get a new one")
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
