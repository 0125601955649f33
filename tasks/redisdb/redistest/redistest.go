// Package redistest starts the Redis of cmd/harness for tests: servers end with the test, and
// what fails ends it.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/cmd/harness"
)

// Setup is how the servers of a test are run. Dir is the test's own, unless it is set.
type Setup harness.RedisSetup

// Server is a redis-server that ends with the test.
type Server struct{ *harness.Server }

// Start starts a redis-server that keeps every write, plus the given lines of redis.conf, for
// example "maxmemory 1mb".
func Start(t testing.TB, config ...string) *Server {
	t.Helper()
	return Setup{Config: config}.Start(t)
}

// StartFrom starts a redis-server with the data of an RDB file. It keeps nothing of what is
// written to it.
func StartFrom(t testing.TB, file string) *Server {
	t.Helper()
	return Setup{Config: []string{"appendonly no"}, RDB: file}.Start(t)
}

// Start starts one server.
func (s Setup) Start(t testing.TB) *Server {
	t.Helper()
	return &Server{s.run(t, harness.RedisSetup.StartSingle).Servers[0]}
}

// run starts servers that live until the test has cleaned up what uses them.
func (s Setup) run(t testing.TB, start func(harness.RedisSetup, context.Context) (*harness.Redis, error)) *harness.Redis {
	t.Helper()
	if s.Dir == "" {
		s.Dir = t.TempDir()
	}
	r, err := start(harness.RedisSetup(s), context.WithoutCancel(t.Context()))
	must(t, err)
	t.Cleanup(r.Kill)
	return r
}

// Client returns a client that is closed with the test.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	return s.ClientOf(t, 0)
}

// ClientOf is Client for another database.
func (s *Server) ClientOf(t testing.TB, database int) *redis.Client {
	t.Helper()
	options := s.Options()
	options.DB = database
	c := redis.NewClient(options)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Restart starts the killed server again, on the same port and the same data.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	must(t, s.Server.Restart(context.WithoutCancel(t.Context())))
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
	s.Args = append(s.Args, "--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
	must(t, s.Process.Restart(context.WithoutCancel(t.Context())))
	must(t, s.WaitReady(t.Context(), 10*time.Second, func(ctx context.Context) error {
		if err := c.Ping(ctx).Err(); !redis.IsLoadingError(err) {
			return errors.Join(errors.New("the server is not loading"), err)
		}
		return nil
	}))
	return func() {
		t.Helper()
		must(t, c.ConfigSet(t.Context(), "key-load-delay", "0").Err())
		must(t, s.WaitLoaded(t.Context()))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
