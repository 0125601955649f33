package client

import (
	"context"
	"time"
)

// Identity is what a server knows of a token.
type Identity struct {
	TokenID string   `json:"token_id"`
	Kind    string   `json:"kind,omitempty"` // token, access-key, iam, jwt, certificate; empty: from an older server
	Tenant  string   `json:"tenant"`
	Name    string   `json:"name,omitempty"`  // empty: nobody has said
	Owner   string   `json:"owner,omitempty"` // empty: nobody has said
	Scopes  []string `json:"scopes"`
	// Addresses are the networks that it may be used from; none: any.
	Addresses []string `json:"addresses,omitempty"`
	// InstanceLabels are those that an instance must have to be reset with it; none: any instance of the tenant.
	InstanceLabels map[string]string `json:"instance_labels,omitempty"`
	CreatedAt      time.Time         `json:"created_at,omitzero"`
	ExpiresAt      time.Time         `json:"expires_at,omitzero"` // zero: it does not
}

// WhoAmI asks the server whose the client's token is.
func (c *Client) WhoAmI(ctx context.Context) (who Identity, err error) {
	a, err := c.get(ctx, "/v1/whoami", nil)
	if err != nil {
		return who, err
	}
	if err := a.decode(&who); err != nil {
		return who, err
	}
	if who.TokenID == "" || who.Tenant == "" {
		return Identity{}, a.unusable("no token_id or tenant")
	}
	return who, nil
}
