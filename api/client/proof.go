package client

import (
	"context"
	"net/http"
)

// typeJOSE is the only answer without an envelope.
const typeJOSE = "application/jose"

// Proof returns what became of a final job, signed by the service: a JWS in compact form. Whoever
// has the service's keys can verify it ('batchreset proof verify').
func (c *Client) Proof(ctx context.Context, id string) (string, error) {
	a, err := c.get(ctx, jobPath(id)+"/proof", http.Header{"Accept": {typeJOSE}})
	if err != nil {
		return "", err
	}
	if !a.signed() || len(a.data) == 0 {
		return "", a.unusable("no proof")
	}
	return string(a.data), nil
}

// signed reports whether the data is the whole body, as the service has signed it.
func (a answer) signed() bool {
	return a.status == http.StatusOK && a.header.Get("Content-Type") == typeJOSE
}
