package harness

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// readyLimit is how long a server may take to answer, or to meet the others, on a machine
// that is busy.
const readyLimit = time.Minute

// RedisSetup is how redis-servers are run. They keep every write that they have answered,
// unless Config says otherwise.
type RedisSetup struct {
	Dir      string   // gets a folder for each server: its data, configuration and log
	Config   []string // lines of redis.conf for the servers that keep data, which override ours
	RDB      string   // file with the data that a server starts with; empty: none
	TLS      *Certs   // nil: none. Otherwise clients have to show a certificate, too
	Password string   // of the servers that keep data
	// SentinelUser may do what clients ask Sentinels, with SentinelPassword, which the
	// Sentinels use among themselves, too.
	SentinelUser, SentinelPassword string
	// DownAfter is how long a primary is silent before Sentinels take it for dead; 0: 1 s.
	DownAfter time.Duration
	// Env returns what is added to the environment of a server that keeps data; nil: nothing.
	Env func(server string) ([]string, error)
}

// Certs are files with a certificate for servers and clients, its key, and the authority
// that has signed it.
type Certs struct {
	CA, Cert, Key string
	Client        *tls.Config
}

// Server is a redis-server on a port of the loopback interface.
type Server struct {
	*Process
	Addr  string
	setup RedisSetup // with the password of this server
}

// Redis are redis-servers that serve one store.
type Redis struct {
	// Servers keep the data. At the start the first one is the primary; in a Cluster the first
	// three are, and each has a replica three places after it.
	Servers   []*Server
	Sentinels []*Server
	setup     RedisSetup
	url       string
	client    func() redis.UniversalClient
}

// URL is what --redis takes.
func (r *Redis) URL() string { return r.url }

// Client returns a new client that finds the primaries by itself.
func (r *Redis) Client() redis.UniversalClient { return r.client() }

// Kill ends all servers.
func (r *Redis) Kill() {
	for _, s := range slices.Concat(r.Servers, r.Sentinels) {
		s.Kill()
	}
}

// ServerAt returns the server with this address.
func (r *Redis) ServerAt(addr string) (*Server, error) {
	for _, s := range r.Servers {
		if s.Addr == addr {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no server has the address %s", addr)
}

// add starts one more server that keeps data.
func (r *Redis) add(ctx context.Context, lines ...string) (*Server, error) {
	s, err := r.setup.start(ctx, fmt.Sprintf("redis-%d", len(r.Servers)+1), lines...)
	if err == nil {
		r.Servers = append(r.Servers, s)
	}
	return s, err
}

// StartSingle starts one server. It ends with ctx, or when it is killed.
func (s RedisSetup) StartSingle(ctx context.Context) (*Redis, error) {
	r := &Redis{setup: s}
	server, err := r.add(ctx)
	if err != nil {
		return nil, err
	}
	r.url = server.URL()
	r.client = func() redis.UniversalClient { return server.Client() }
	return r, nil
}

// start starts a server that keeps data and waits until it answers.
func (s RedisSetup) start(ctx context.Context, name string, lines ...string) (*Server, error) {
	conf := []string{"appendonly yes", "appendfsync always", `save ""`, "repl-diskless-sync-delay 0"}
	if s.Password != "" {
		conf = append(conf, "requirepass "+s.Password, "masterauth "+s.Password)
	}
	if c := s.TLS; c != nil {
		conf = append(conf, "tls-replication yes", "tls-cluster yes", "tls-auth-clients yes",
			"tls-cert-file "+c.Cert, "tls-key-file "+c.Key, "tls-ca-cert-file "+c.CA)
	}
	dir, err := s.makeDir(name)
	if err != nil {
		return nil, err
	}
	if s.RDB != "" {
		data, err := os.ReadFile(s.RDB)
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, "dump.rdb"), data, 0o600)); err != nil {
			return nil, err
		}
	}
	var env []string
	if s.Env != nil {
		if env, err = s.Env(name); err != nil {
			return nil, err
		}
	}
	return s.boot(ctx, Command{Name: name, Dir: dir, Env: env}, slices.Concat(conf, lines, s.Config))
}

func (s RedisSetup) makeDir(name string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(s.Dir, name))
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// boot starts a server with a configuration file, which is where Sentinel and Cluster keep
// what a server has become, and waits until it answers.
func (s RedisSetup) boot(ctx context.Context, c Command, conf []string, flags ...string) (*Server, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, errors.New("this needs a real redis-server: run .ci/setup, or install your system's redis-server package")
	}
	file := filepath.Join(c.Dir, "redis.conf")
	c.Args = append([]string{"redis-server", file}, flags...)
	c.Log = filepath.Join(c.Dir, "log")
	var server *Server
	var err error
	for range 5 { // a port that was free a moment ago can be taken by someone else
		var addr string
		if addr, err = FreeAddr(ctx); err != nil {
			return nil, err
		}
		lines := append([]string{"bind 127.0.0.1", "dir " + c.Dir, s.listen(addr)}, conf...)
		if err = os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return nil, err
		}
		server = &Server{Process: &Process{Command: c}, Addr: addr, setup: s}
		if err = server.Restart(ctx); err == nil {
			return server, nil
		}
	}
	return nil, err
}

// listen is the line about the port.
func (s RedisSetup) listen(addr string) string {
	_, port, _ := net.SplitHostPort(addr) // it has one
	if s.TLS != nil {
		return "port 0\ntls-port " + port
	}
	return "port " + port
}

func (s RedisSetup) clientTLS() *tls.Config {
	if s.TLS == nil {
		return nil
	}
	return s.TLS.Client
}

// url is what --redis takes for servers of a scheme, which is for use without TLS.
func (s RedisSetup) url(scheme string, servers []*Server, parameters url.Values) string {
	u := url.URL{Scheme: scheme, Host: strings.Join(addrs(servers), ",")}
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

func addrs(servers []*Server) []string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr
	}
	return list
}

// URL is what --redis takes for this server alone, without its password.
func (s *Server) URL() string {
	if s.setup.TLS != nil {
		return "rediss://" + s.Addr
	}
	return "redis://" + s.Addr
}

// Client returns a new client of this server alone.
func (s *Server) Client() *redis.Client { return redis.NewClient(s.Options()) }

// Options are those of a client of this server alone.
func (s *Server) Options() *redis.Options {
	return &redis.Options{Addr: s.Addr, TLSConfig: s.setup.clientTLS(), Password: s.setup.Password}
}

// Restart starts a server that has ended once more, on the same port and the same data, and
// waits until it answers.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Process.Restart(ctx); err != nil {
		return err
	}
	err := s.WaitLoaded(ctx)
	if err != nil {
		s.Kill()
	}
	return err
}

// WaitLoaded waits until the server answers and has loaded its data.
func (s *Server) WaitLoaded(ctx context.Context) error {
	options := s.Options()
	options.MaxRetries, options.DialerRetries = -1, 1
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }() // all is said
	return s.WaitReady(ctx, readyLimit, func(ctx context.Context) error {
		if err := Listens(ctx, s.Addr); err != nil {
			return err // go-redis would log it
		}
		// A replica or a full server answers PING with an error of its own: it is up, too.
		err := client.Ping(ctx).Err()
		if answer, answered := errors.AsType[redis.Error](err); answered && !redis.IsLoadingError(answer) {
			return nil
		}
		return err
	})
}
