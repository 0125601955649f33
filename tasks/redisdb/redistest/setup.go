package redistest

import (
	"crypto/tls"
	"net/url"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Setup is how the servers of a test are run. The zero value is without TLS and passwords.
type Setup struct {
	Config   []string // for the servers that keep data
	TLS      *Certs   // nil: none. Otherwise clients have to show a certificate, too
	Password string   // of the servers that keep data
	// SentinelUser may do what a client asks Sentinels, with SentinelPassword, which the
	// Sentinels use among themselves, too.
	SentinelUser, SentinelPassword string
}

// args are the configuration of a server that keeps data.
func (s Setup) args() []string {
	args := durable()
	if s.Password != "" {
		args = append(args, "--requirepass", s.Password, "--masterauth", s.Password)
	}
	if s.TLS != nil {
		args = append(args, "--port", "0", "--tls-replication", "yes", "--tls-cluster", "yes", "--tls-auth-clients", "yes",
			"--tls-cert-file", s.TLS.Cert, "--tls-key-file", s.TLS.Key, "--tls-ca-cert-file", s.TLS.CA)
	}
	return append(args, s.Config...)
}

// Start starts one server.
func (s Setup) Start(t testing.TB) *Server {
	t.Helper()
	server := &Server{dir: t.TempDir(), args: s.args(), tls: s.clientTLS(), password: s.Password}
	server.boot(t)
	return server
}

func (s Setup) clientTLS() *tls.Config {
	if s.TLS == nil {
		return nil
	}
	return s.TLS.Client
}

// url is what --redis takes for servers of a scheme, which is for use without TLS.
func (s Setup) url(scheme string, servers []*Server, parameters url.Values) string {
	u := url.URL{Scheme: scheme, Host: hosts(servers)}
	if s.Password != "" {
		u.User = url.UserPassword("", s.Password)
	}
	if s.TLS != nil {
		u.Scheme = "rediss" + scheme[len("redis"):]
		parameters.Set("cacert", s.TLS.CA)
		parameters.Set("cert", s.TLS.Cert)
		parameters.Set("key", s.TLS.Key)
	}
	if s.SentinelPassword != "" && scheme == "redis-sentinel" {
		parameters.Set("sentinel_username", s.SentinelUser)
		parameters.Set("sentinel_password", s.SentinelPassword)
	}
	u.RawQuery = parameters.Encode()
	return u.String()
}

// sentinelClient is one that may do everything.
func (s Setup) sentinelClient(addr string) *redis.SentinelClient {
	return redis.NewSentinelClient(&redis.Options{Addr: addr, TLSConfig: s.clientTLS(), Password: s.SentinelPassword})
}
