package client

import (
	"context"
	"crypto/tls"
	"net/http"
	"time"
)

// Health is what a server says of itself, whoever asks.
type Health struct {
	Version string
	// Ahead is by how much this machine's clock is ahead of the server's, as far as its answer tells: give or
	// take Doubt. Dated is false if it tells nothing.
	Ahead, Doubt time.Duration
	Dated        bool
	Took         time.Duration        // the answer
	TLS          *tls.ConnectionState // nil without TLS
}

// Health asks the server for its version, and looks at how it answers. It asks once.
func (c *Client) Health(ctx context.Context) (h Health, err error) {
	asked := time.Now()
	a, resp, err := c.send(ctx, c.http, http.MethodGet, "/healthz", nil, nil)
	if err != nil {
		return h, err
	}
	defer func() { _ = resp.Body.Close() }()
	h.Took, h.TLS = time.Since(asked), resp.TLS
	if a, err = c.read(a, resp.Body); err != nil {
		return h, err
	}
	if err := a.decode(&h); err != nil {
		return h, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		const second = time.Second // of which the header has whole ones, rounded down
		h.Ahead, h.Doubt, h.Dated = asked.Add(h.Took/2).Sub(date.Add(second/2)), (h.Took+second)/2, true
	}
	return h, nil
}

// Accepting asks whether the server takes new work: not while its Redis is nearly full. An error says that
// it cannot work at all. It asks once.
func (c *Client) Accepting(ctx context.Context) (bool, error) {
	a, err := c.try(ctx, http.MethodGet, "/readyz", nil, nil)
	if err != nil {
		return false, err
	}
	var ready struct {
		Accepting bool `json:"accepting"`
	}
	return ready.Accepting, a.decode(&ready)
}
