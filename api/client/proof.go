package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// typeJOSE is the only answer without an envelope that comes as a whole.
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

// Proof writes what became of each instance of a run that has ended, signed by the service, to w: lines
// of JSON, one by one, as the service sends them ('batchreset proof verify' checks them). After an error,
// what was written is no proof. It asks once.
func (r Runs) Proof(ctx context.Context, id string, w io.Writer) error {
	signed := false
	for line, err := range lines[json.RawMessage](ctx, r.client, http.MethodGet, runPath(id)+"/proof", nil) {
		if err != nil {
			return err
		}
		signed = bytes.HasPrefix(line, []byte(`{"signature":`))
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	if !signed { // somebody on the way has taken a part for the whole
		return fmt.Errorf("%w from %s that is whole: it has no signature", ErrNoAnswer, r.client.shown)
	}
	return nil
}

// signed reports whether the data is the whole body, as the service has signed it.
func (a answer) signed() bool {
	return a.status == http.StatusOK && a.header.Get("Content-Type") == typeJOSE
}
