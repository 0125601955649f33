package wire

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

// protocol is RESP2. With RESP3, go-redis looks for notifications of the server
// before every answer, which we have no use for.
const protocol = 2

// dialTimeout is how long a connection may take to come about.
const dialTimeout = time.Second

// connect makes a client for a URL. Nothing is sent yet.
func connect(opts Options) (redis.UniversalClient, error) {
	a, err := parseAddress(opts.URL, opts.DidYouMean)
	if err != nil {
		return nil, err
	}
	// Without this, a call to a Redis that is paused or cut off would outlive
	// the deadline of the request that made it.
	a.ContextTimeoutEnabled = true
	a.Protocol = protocol
	a.DialTimeout = cmp.Or(a.DialTimeout, dialTimeout)
	switch a.topology {
	case sentinel:
		return redis.NewFailoverClient(a.Failover()), nil
	case cluster:
		return newCluster(a), nil
	}
	a.Dialer = opts.Dial
	return redis.NewClient(a.Simple()), nil
}

func newCluster(a *address) *redis.ClusterClient {
	// asynq calls without a deadline: this is how long it hangs on a node
	// that is frozen or cut off before it asks the new primary.
	a.ReadTimeout = cmp.Or(a.ReadTimeout, 2*time.Second)
	o := a.Cluster()
	// A failed dial does not make go-redis look for the new primary; its
	// own default is to look once a minute.
	o.ClusterStateReloadInterval = time.Second
	return redis.NewClusterClient(o)
}

// tlsFiles are the files with what TLS goes by; empty ones are not used.
type tlsFiles struct{ authority, cert, key string }

// config is for connections to servers whose certificates have the name sni or, without one,
// that of the host.
func (f tlsFiles) config(sni string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: sni}
	if f.authority != "" {
		text, err := os.ReadFile(f.authority)
		if err != nil {
			return nil, fmt.Errorf("parameter cacert: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("parameter cacert: no certificate is in %s", f.authority)
		}
	}
	if f.cert == "" && f.key == "" {
		return cfg, nil
	}
	if f.cert == "" || f.key == "" {
		return nil, errors.New(`has one of the parameters "cert" and "key" without the other`)
	}
	// Read for each connection: certificates that live for days are renewed in place.
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		return &pair, err
	}
	if _, err := cfg.GetClientCertificate(nil); err != nil {
		return nil, fmt.Errorf("parameters cert and key: %w", err)
	}
	return cfg, nil
}

// crowded is a hook that names the cause when a server takes no more connections. It says so
// once, in place of its answer to go-redis's greeting, and hangs up; go-redis takes that for a
// server that does not know the greeting, and goes on until the connection breaks.
type crowded struct{}

// ErrCrowded is the error of calls while a server takes no more connections.
var ErrCrowded = errors.New("redis takes no more connections: its maxclients is reached")

// DialHook implements redis.Hook. Over TLS Redis hangs up without a word.
func (crowded) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if tcp, ok := conn.(*net.TCPConn); ok {
			return &greeted{TCPConn: tcp}, err
		}
		return conn, err
	}
}

// ProcessHook implements redis.Hook.
func (crowded) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (crowded) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// greeted is a connection whose first answer is looked at.
type greeted struct {
	*net.TCPConn
	answered bool
}

func (c *greeted) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if !c.answered {
		c.answered = true
		if bytes.HasPrefix(b[:n], []byte("-ERR max number of clients")) {
			return 0, ErrCrowded
		}
	}
	return n, err
}
