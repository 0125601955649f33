// Package relaytest is an HTTP server behind a relay that can swallow connections, for
// tests: all of it is in memory, so that testing/synctest can lend it a clock.
package relaytest

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

// Relay stands between clients and a server. A connection that it has swallowed is not
// closed: it takes what is sent, and nothing comes back any more.
type Relay struct {
	accepted chan net.Conn
	closed   chan struct{}

	mu    sync.Mutex
	conns []*conn
}

// Start starts a server that speaks HTTP/1.1 and, in plain text, HTTP/2. It ends with the
// test.
func Start(t testing.TB, h http.Handler) *Relay {
	t.Helper()
	r := &Relay{accepted: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: h, Protocols: new(http.Protocols)} //nolint:gosec // no stranger asks it
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve((*listener)(r)) })
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	return r
}

// Carry leads a transport through the relay, whatever http URL it is asked for.
func (r *Relay) Carry(transport *http.Transport, http2 bool) {
	transport.DialContext = r.dial
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
}

// Swallow has every connection that there is go dead. New ones work.
func (r *Relay) Swallow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.swallow()
	}
}

// Connections is how many there have been so far.
func (r *Relay) Connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

func (r *Relay) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	c := &conn{Conn: near, dead: make(chan struct{}), closed: make(chan struct{})}
	select {
	case r.accepted <- far:
	case <-r.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, c)
	return c, nil
}

// conn is a client's end of a connection.
type conn struct {
	net.Conn
	dead, closed   chan struct{}
	dying, closing sync.Once
}

func (c *conn) swallow() {
	c.dying.Do(func() {
		close(c.dead)
		go func() { _, _ = io.Copy(io.Discard, c.Conn) }() // the server notices nothing
	})
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.dead:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *conn) Write(p []byte) (int, error) {
	select {
	case <-c.dead:
		return len(p), nil
	default:
		return c.Conn.Write(p)
	}
}

func (c *conn) Close() error {
	c.closing.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// listener is the server's side.
type listener Relay

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	close(l.closed)
	return nil
}

func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "relay", Net: "memory"} }
