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
	deadline time.Time
	phase    atomic.Int32
}

// The phases of a send.
const (
	connecting int32 = iota // what is written now is a proxy's or TLS's handshake
	connected               // what is written next is the request
	sent                    // its first byte may have left
	late                    // the deadline was past before that
	dropped                 // given up: nothing leaves any more
)

var errTooLate = errors.New("the attempt's time was over before the request was sent")

// connect ends the handshakes.
func (s *send) connect() { s.phase.CompareAndSwap(connecting, connected) }

// allow says whether a write may go out.
func (s *send) allow() bool {
	switch {
	case s.phase.Load() == connecting:
		return true
	case past(s.deadline):
		s.phase.CompareAndSwap(connected, late)
		return false
	}
	return s.phase.CompareAndSwap(connected, sent) || s.phase.Load() == sent
}

// drop returns the phase so far, and sees to it that what was not sent stays so:
// the transport may still be about to write.
func (s *send) drop() (phase int32) { return s.phase.Swap(dropped) }

// past looks at both clocks: the monotonic one stands still while a machine is
// suspended, the other one can be set back.
func past(deadline time.Time) bool {
	now := time.Now()
	return !now.Before(deadline) || !now.Round(0).Before(deadline.Round(0))
}

// guard is a connection that asks its send before every write.
type guard struct {
	net.Conn
	send *send
}

func (g *guard) Write(p []byte) (int, error) {
	if !g.send.allow() {
		return 0, errTooLate
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
