package tasks

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Instance is an entry of the fleet: a device, and whose it is.
type Instance struct {
	ID        string `json:"instance_id"`
	Tenant    string `json:"tenant"`
	Protected bool   `json:"protected,omitempty"`
	// Driver is the name of the driver that resets the device; empty: DefaultDriver.
	Driver string `json:"driver,omitempty"`
	// Address is where that driver finds it; empty: by its ID.
	Address string            `json:"address,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// DefaultDriver is the name of the driver of instances that name none.
const DefaultDriver = "default"

var driverName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// CheckDriver returns a sentence that says what is wrong with a driver's name, or nil.
func CheckDriver(name string) error {
	if !driverName.MatchString(name) {
		return fmt.Errorf("%.80q is not a driver's name: 1 to 32 characters of a-z 0-9 -, a letter first", name)
	}
	return nil
}

// MaxAddress is the size limit of an address in bytes.
const MaxAddress = 256

// CheckAddress returns a sentence that says what is wrong with an address, or nil. Each driver
// has its own form of it.
func CheckAddress(address string) error {
	switch {
	case len(address) > MaxAddress:
		return fmt.Errorf("is %d bytes long, the limit is %d", len(address), MaxAddress)
	case strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("%.80q has characters that are not visible ASCII", address)
	}
	return nil
}

// FleetChange is what an import says of an instance. What it does not say stays as it is.
type FleetChange struct {
	ID string
	// Tenant is the new owner; empty: the owner stays. A new instance must have one.
	Tenant string
	// Protected is nil if protection stays as it is. A new instance is not protected.
	Protected *bool
	// Driver is nil if the driver stays; empty: DefaultDriver.
	Driver *string
	// Address is nil if the address stays; empty: the instance has none any more.
	Address *string
	// Labels is nil if the labels stay; empty: the instance has none any more.
	Labels map[string]string
}

// FleetReport is what an import has done.
type FleetReport struct {
	New, Moved, Protected, Unprotected int // instances
	Readdressed                        int // instances that had another driver or address, or none
}

// Add adds what another part of the import has done.
func (r *FleetReport) Add(other FleetReport) {
	r.New += other.New
	r.Moved += other.Moved
	r.Protected += other.Protected
	r.Unprotected += other.Unprotected
	r.Readdressed += other.Readdressed
}

var tenantName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// CheckTenant returns a sentence that says what is wrong with a tenant's name,
// or nil.
func CheckTenant(name string) error {
	if !tenantName.MatchString(name) {
		return fmt.Errorf("%.80q is not a tenant: 1 to 64 characters of A-Z a-z 0-9 . _ -", name)
	}
	return nil
}

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
)

// Scopes lists every scope.
var Scopes = []Scope{ScopeSubmit, ScopeRead, ScopeCancel, ScopeOperate}

// DefaultScopes are the scopes of a token that is made without naming any.
var DefaultScopes = []Scope{ScopeSubmit, ScopeRead, ScopeCancel}

// Token is what the service stores about a caller's token. The token itself is not stored.
type Token struct {
	ID        string  `json:"token_id"`
	Hash      string  `json:"-"` // by which the store finds it
	Tenant    string  `json:"tenant"`
	Scopes    []Scope `json:"scopes"`
	CreatedAt Time    `json:"created_at,omitzero"`
	ExpiresAt Time    `json:"expires_at,omitzero"` // zero: never
	RevokedAt Time    `json:"revoked_at,omitzero"` // zero: not revoked
}

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
