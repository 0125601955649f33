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
	deadline time.Time
	started  atomic.Bool // the first byte may have left
}

type sendKey struct{}

var errTooLate = errors.New("the attempt's time was over before the request was sent")

// guard is a connection that refuses to begin a request past its deadline.
type guard struct {
	net.Conn
	*send
}

func (g *guard) Write(p []byte) (int, error) {
	if !g.started.Load() {
		if !time.Now().Before(g.deadline) {
			return 0, errTooLate
		}
		g.started.Store(true)
	}
	return g.Conn.Write(p)
}

// newSender returns a transport that opens a guarded connection for each request.
func newSender(config *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	secure := &tls.Dialer{NetDialer: dialer, Config: config}
	guarded := func(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			s, _ := ctx.Value(sendKey{}).(*send)
			return &guard{conn, s}, nil
		}
	}
	return &http.Transport{
		DialContext:       guarded(dialer.DialContext),
		DialTLSContext:    guarded(secure.DialContext), // the guard sees the request, not the handshake
		DisableKeepAlives: true,
	}
}
