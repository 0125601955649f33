package cph

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"batchreset/worker"
)

// client makes the calls of CPH's API. Nothing of it follows redirects, and nothing repeats a
// POST.
type client struct {
	base   string // endpoint and project
	auth   authorizer
	sender *http.Transport // for POST
	reader *http.Transport // for GET
}

// authorizer is a way in.
type authorizer interface {
	// authorize sets the credentials of a request with this body.
	authorize(r *http.Request, body []byte) error
	// renew says whether a request that was refused with 401 may be tried again with new
	// credentials.
	renew(r *http.Request) bool
}

// readTimeout bounds a call that only reads, and sendTimeout one that resets: the rest of the
// attempt's time is for finding out what came of it.
const (
	readTimeout = 30 * time.Second
	sendTimeout = time.Minute
)

func newClient(cfg Config, auth authorizer, reader *http.Transport) *client {
	return &client{
		base:   strings.TrimRight(cfg.Endpoint, "/") + "/v1/" + cfg.ProjectID + "/cloud-phone/",
		auth:   auth,
		sender: newSender(),
		reader: reader,
	}
}

// newReader returns a transport for calls that may be repeated freely.
func newReader() *http.Transport {
	t := newTransport()
	t.MaxIdleConnsPerHost = 256
	t.IdleConnTimeout = time.Minute
	return t
}

// newSender returns a transport that has a connection of its own for each call: on one that is
// reused net/http may send a request again by itself.
func newSender() *http.Transport {
	t := newTransport()
	t.DisableKeepAlives = true
	return t
}

// newTransport returns what both have in common. With a dialer of its own a transport speaks
// HTTP/1.1 only.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// get reads what is at a path of the project.
func (c *client) get(ctx context.Context, path string, into any) *fault {
	said, f := c.read(ctx, path)
	switch {
	case f != nil:
		return f
	case !said.ok():
		return refusal(said)
	}
	if err := said.decode(into); err != nil {
		return misread(err.Error())
	}
	return nil
}

// read asks once, and again if only the credentials were too old.
func (c *client) read(ctx context.Context, path string) (reply, *fault) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	for first := true; ; first = false {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
		if err != nil {
			return reply{}, unreachable(err)
		}
		said, err := c.exchange(c.reader, r, nil)
		if err != nil {
			// What befell this connection may have befallen those that are kept.
			c.reader.CloseIdleConnections()
			return reply{}, unreachable(err)
		}
		if said.Status != http.StatusUnauthorized || !first || !c.auth.renew(r) {
			return said, nil
		}
	}
}

// exchange sends a request and reads its answer.
func (c *client) exchange(t *http.Transport, r *http.Request, body []byte) (reply, error) {
	dress(r)
	if err := c.auth.authorize(r, body); err != nil {
		return reply{}, err
	}
	response, err := t.RoundTrip(r)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = response.Body.Close() }()
	return reply{worker.ReadAnswer(response, maxBody)}, nil
}

// dress sets the headers of every request.
func dress(r *http.Request) {
	r.Header.Set("User-Agent", "batchreset")
	r.Header.Set("Accept", "application/json")
	if r.Method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
}

// unreachable is the fault of a call that was not answered.
func unreachable(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	return &fault{class: shut, message: worker.Printable(err.Error(), 200)}
}

func (c *client) close() {
	c.sender.CloseIdleConnections()
	c.reader.CloseIdleConnections()
}
