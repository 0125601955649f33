package httpdriver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// send is one POST, from before its connection to after its answer.
type send struct {
	maySend func() error
	attempt context.Context // ends when nobody waits for the answer any more
	phase   atomic.Int32
	refused error // why it was late, once it is
}

func newSend(ctx context.Context, maySend func() error) *send {
	return &send{maySend: maySend, attempt: ctx}
}

// The phases of a send.
const (
	connecting int32 = iota // what is written now is a proxy's or TLS's handshake
	connected               // what is written next is the request
	asking                  // the request is ready and waits for leave to go
	sent                    // its first byte may have left
	late                    // it was not allowed any more before that
	dropped                 // given up: nothing leaves any more
)

// connect ends the handshakes.
func (s *send) connect() { s.phase.CompareAndSwap(connecting, connected) }

// allow says whether a write may go out. The first one of the request asks, once; the rest
// of the request follows it.
func (s *send) allow() error {
	if s.phase.CompareAndSwap(connected, asking) {
		if err := s.ask(); err != nil {
			s.refused = err
			s.phase.CompareAndSwap(asking, late)
			return err
		}
		s.phase.CompareAndSwap(asking, sent)
	}
	if phase := s.phase.Load(); phase == connecting || phase == sent {
		return nil
	}
	return errDropped
}

// ask asks for leave, for as long as somebody waits for the answer: it may have a long way
// to go.
func (s *send) ask() error {
	answer := make(chan error, 1)
	go func() { answer <- s.maySend() }()
	select {
	case err := <-answer:
		if err != nil {
			return err
		}
	case <-s.attempt.Done():
	}
	switch err := s.attempt.Err(); { // it may have ended at the moment of the answer
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return errLate
	}
	return errDropped
}

// drop returns the phase so far, and sees to it that what was not sent stays so:
// the transport may still be about to write.
func (s *send) drop() (phase int32) { return s.phase.Swap(dropped) }

var (
	errDropped = errors.New("the request was given up before it was sent")
	errLate    = errors.New("the attempt's time was over before the request was sent")
)

// guard is a connection that writes what its send allows.
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
func newSender(certificates *tls.Config) *http.Transport {
	t := newTransport(certificates)
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
func newPoller(certificates *tls.Config) *http.Transport {
	t := newTransport(certificates)
	t.MaxIdleConnsPerHost = 256
	t.IdleConnTimeout = time.Minute
	return t
}

// newTransport returns what both have in common. With a dialer of its own a
// transport speaks HTTP/1.1 only, which the guard counts on: one connection, one
// request.
func newTransport(certificates *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig:     certificates.Clone(),
	}
}
