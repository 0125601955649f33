package tasks

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// FieldError says what is wrong with something that somebody filled in.
type FieldError struct {
	Field string // such as instance_label
	// Why goes on where the name of the field ends.
	Why string
}

func (e *FieldError) Error() string { return e.Field + e.Why }

func fieldError(field, format string, args ...any) error {
	return &FieldError{field, fmt.Sprintf(format, args...)}
}

// MaxLife is the longest life of a token or access key that can be said: 100 years.
const MaxLife = 100 * 365 * 24 * time.Hour

// Grant is what a new token or access key is to be good for, as somebody wrote it.
type Grant struct {
	Tenant, Owner, Name string
	Life                time.Duration // until it expires; 0: it never does
	// Scopes are DefaultScopes if there are none. Addresses are networks, or addresses, each of which is a network of
	// its own.
	Scopes, Addresses []string
	InstanceLabels    map[string]string
}

// Token is what the grant says, once it is checked. Errors: *FieldError.
func (g Grant) Token() (Token, error) {
	n := Token{Tenant: g.Tenant, Owner: g.Owner, Name: g.Name, InstanceLabels: g.InstanceLabels}
	var err error
	if n.Scopes, err = parseScopes(g.Scopes); err != nil {
		return n, err
	}
	if n.Addresses, err = parseNetworks(g.Addresses); err != nil {
		return n, err
	}
	switch {
	case g.Tenant == "":
		return n, fieldError("tenant", " is missing")
	case g.Life < 0:
		return n, fieldError("ttl", " must not be negative")
	case g.Life > MaxLife:
		return n, fieldError("ttl", " must be at most %s; 0 = for ever", MaxLife)
	}
	if err := CheckTenant(g.Tenant); err != nil {
		return n, fieldError("tenant", ": %v", err)
	}
	if err := checkOwner(g.Owner, n.Scopes); err != nil {
		return n, err
	}
	if g.Name != "" {
		if err := CheckTokenName(g.Name); err != nil {
			return n, fieldError("name", ": %v", err)
		}
	}
	if err := CheckLabels(g.InstanceLabels); err != nil {
		return n, fieldError("instance_label", ": %v", err)
	}
	return n, nil
}

func checkOwner(owner string, scopes []Scope) error {
	if owner != "" {
		if err := CheckOperatorName(owner); err != nil {
			return fieldError("owner", ": %v", err)
		}
		return nil
	}
	if slices.Contains(scopes, ScopeApprove) {
		return fieldError("owner", ": is missing: a token with the scope %s needs an owner, who decides by name", ScopeApprove)
	}
	return nil
}

func parseScopes(names []string) (scopes []Scope, err error) {
	if len(names) == 0 {
		return DefaultScopes, nil
	}
	for _, name := range names {
		scope := Scope(name)
		if !slices.Contains(Scopes, scope) {
			return nil, fieldError("scope", " must be of %s, not %q", join(Scopes), name)
		}
		if slices.Contains(scopes, scope) {
			return nil, fieldError("scope", " has %s twice", scope)
		}
		scopes = append(scopes, scope)
	}
	return scopes, nil
}

func join[T ~string](names []T) string {
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = string(name)
	}
	return strings.Join(texts, ",")
}

func parseNetworks(texts []string) (networks []netip.Prefix, err error) {
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			address, err := netip.ParseAddr(text)
			if err != nil || address.Zone() != "" {
				return nil, fieldError("address", " must be a network such as 10.2.0.0/16, or an address, not %q", text)
			}
			network = netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen())
		}
		if network.Addr().Is4In6() { // callers' addresses are compared as IPv4's: it would have none of them
			return nil, fieldError("address", " %s must be written as a network of IPv4", text)
		}
		if network != network.Masked() {
			return nil, fieldError("address", " %s has bits beyond its length; the network is %s", text, network.Masked())
		}
		networks = append(networks, network)
	}
	return networks, nil
}

// NewTokenSecret makes what a caller presents as a token.
func NewTokenSecret() string { return "brt_" + rand.Text() + rand.Text() }

// DefaultOverlap is how long what is replaced is good beside what replaces it, if nobody says anything else.
const DefaultOverlap = 24 * time.Hour
