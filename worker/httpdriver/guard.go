package httpdriver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// send is one POST, from before its connection to after its answer.
type send struct {
	maySend func() error
	phase   atomic.Int32
	refused error // why it was late, once it is
}

// The phases of a send.
const (
	connecting int32 = iota // what is written now is a proxy's or TLS's handshake
	connected               // what is written next is the request
	sent                    // its first byte may have left
	late                    // it was not allowed any more before that
	dropped                 // given up: nothing leaves any more
)

// connect ends the handshakes.
func (s *send) connect() { s.phase.CompareAndSwap(connecting, connected) }

// allow says whether a write may go out.
func (s *send) allow() error {
	if s.phase.Load() == connecting {
		return nil
	}
	if err := s.maySend(); err != nil {
		s.refused = err
		s.phase.CompareAndSwap(connected, late)
		return err
	}
	if s.phase.CompareAndSwap(connected, sent) || s.phase.Load() == sent {
		return nil
	}
	return errDropped
}

// drop returns the phase so far, and sees to it that what was not sent stays so:
// the transport may still be about to write.
func (s *send) drop() (phase int32) { return s.phase.Swap(dropped) }

var errDropped = errors.New("the request was given up before it was sent")

// guard is a connection that asks its send before every write.
type guard struct {
	net.Conn
	send *send
}

func (g *guard) Write(p []byte) (int, error) {
	if err := g.send.allow(); err != nil {
		return 0, err
	}
	return g.Conn.Write(p)
}

type sendKey struct{}

// newSender returns a transport that opens a guarded connection for each
// request. The request's context carries its send.
func newSender() *http.Transport {
	t := newTransport()
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &guard{conn, ctx.Value(sendKey{}).(*send)}, nil
	}
	t.DisableKeepAlives = true
	return t
}

// newPoller returns a transport for requests that may be repeated freely.
func newPoller() *http.Transport {
	t := newTransport()
	t.MaxIdleConnsPerHost = 256
	t.IdleConnTimeout = time.Minute
	return t
}

// newTransport returns what both have in common. With a dialer of its own a
// transport speaks HTTP/1.1 only, which the guard counts on: one connection, one
// request.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
	}
}
