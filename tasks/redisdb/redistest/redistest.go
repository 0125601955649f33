// Package redistest starts real redis-server processes for tests.
package redistest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Server is a redis-server process on a free port of the loopback interface. It
// ends with the test.
type Server struct {
	Addr string
	dir  string
	args []string
	tls  *tls.Config // of clients; nil: no TLS
	log  lockedBuffer

	password string

	cmd    *exec.Cmd
	exited chan error
}

// lockedBuffer is what the process writes to while a test may read it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Start starts a redis-server with an append-only file, plus the given
// configuration, for example "--maxmemory", "1mb".
func Start(t testing.TB, config ...string) *Server {
	t.Helper()
	return Setup{Config: config}.Start(t)
}

// StartFrom starts a redis-server with the data of an RDB file. It keeps nothing of what is
// written to it.
func StartFrom(t testing.TB, file string) *Server {
	t.Helper()
	s := &Server{dir: t.TempDir(), args: []string{"--appendonly", "no", "--save", "", "--dbfilename", "dump.rdb"}}
	data, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.dir, "dump.rdb"), data, 0o600))
	s.boot(t)
	return s
}

// durable is the configuration that keeps every write that was answered.
func durable() []string {
	return []string{"--appendonly", "yes", "--appendfsync", "always", "--save", ""}
}

// boot starts the process for the first time and ends it with the test.
func (s *Server) boot(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("these tests need a real redis-server: run .ci/setup, or install your system's redis-server package")
	}
	// A port that was free a moment ago can be taken by someone else.
	var err error
	for range 5 {
		s.Addr = freeAddr(t)
		if err = s.start(); err == nil {
			t.Cleanup(s.Kill)
			return
		}
	}
	t.Fatalf("start redis-server: %v\n%s", err, s.log.String())
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// URL is what --redis takes.
func (s *Server) URL() string {
	if s.tls != nil {
		return "rediss://" + s.Addr
	}
	return "redis://" + s.Addr
}

// Client returns a client that is closed with the test.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	return s.ClientOf(t, 0)
}

// ClientOf is Client for another database.
func (s *Server) ClientOf(t testing.TB, database int) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr, TLSConfig: s.tls, Password: s.password, DB: database})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *Server) start() error {
	if err := s.launch(); err != nil {
		return err
	}
	return s.ready()
}

func (s *Server) launch() error {
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	flag := "--port"
	if s.tls != nil {
		flag = "--tls-port"
	}
	// A Sentinel's configuration file must come first.
	args := slices.Concat(s.args, []string{"--bind", "127.0.0.1", flag, port, "--dir", s.dir})
	s.cmd = exec.CommandContext(context.Background(), "redis-server", args...) // Kill ends it
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan error, 1)
	go func() { s.exited <- s.cmd.Wait() }()
	return nil
}

// ready waits until the server answers.
func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := redis.NewClient(&redis.Options{Addr: s.Addr, TLSConfig: s.tls, MaxRetries: -1, DialerRetries: 1})
	defer func() { _ = c.Close() }()
	for {
		// A replica or a full server answers PING with an error of its own; that
		// is up, too.
		err := c.Ping(ctx).Err()
		var answer redis.Error
		if err == nil || errors.As(err, &answer) && !redis.IsLoadingError(err) {
			return nil
		}
		select {
		case err := <-s.exited:
			s.exited <- err
			return fmt.Errorf("redis-server ended: %w", err)
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("redis-server does not answer: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Kill ends the process with SIGKILL and waits for it. The append-only file
// stays.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended already
	s.exited <- <-s.exited
}

// Restart starts the killed server again, on the same port and the same data.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatalf("restart redis-server: %v\n%s", err, s.log.String())
	}
}

// RestartLoading fills the server, which must not have an append-only file, and starts it
// again in such a way that loading its data goes on until loaded is called.
func (s *Server) RestartLoading(t testing.TB) (loaded func()) {
	t.Helper()
	const keys = 20_000 // at 10 ms
	c := s.Client(t)
	pipe := c.Pipeline()
	for n := range keys {
		pipe.Set(t.Context(), fmt.Sprint("filler:", n), n, 0)
	}
	_, err := pipe.Exec(t.Context())
	must(t, errors.Join(err, c.Save(t.Context()).Err()))
	s.Kill()
	// It answers after each so many bytes.
	s.args = append(s.args, "--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
	must(t, s.launch())
	until(t, 10*time.Second, "the server is loading", func(ctx context.Context) error {
		if err := c.Ping(ctx).Err(); !redis.IsLoadingError(err) {
			return errors.Join(errors.New("it is not"), err)
		}
		return nil
	})
	return func() {
		t.Helper()
		must(t, c.ConfigSet(t.Context(), "key-load-delay", "0").Err())
		must(t, s.ready())
	}
}
