package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// masterName is what the Sentinels call the primary.
const masterName = "reset"

// Sentinel is one primary and two replicas, watched by three Sentinels that
// replace a dead primary after about two seconds. All end with the test.
type Sentinel struct {
	Data      []*Server
	Sentinels []*Server
}

// StartSentinel starts a Sentinel and waits until its members know each other.
// config is for the primary and the replicas.
func StartSentinel(t testing.TB, config ...string) *Sentinel {
	t.Helper()
	s := &Sentinel{Data: []*Server{Start(t, config...)}}
	host, port, err := net.SplitHostPort(s.Data[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.Data = append(s.Data, Start(t, append(config, "--replicaof", host, port)...))
	}
	primary := s.Data[0].Client(t)
	// Sentinels ask a primary for its replicas only every ten seconds.
	until(t, 10*time.Second, "the replicas follow", func(ctx context.Context) error {
		info, err := primary.Info(ctx, "replication").Result()
		if n := strings.Count(info, "state=online"); err == nil && n != 2 {
			err = fmt.Errorf("%d replicas online", n)
		}
		return err
	})
	for range 3 {
		dir := t.TempDir()
		file := filepath.Join(dir, "sentinel.conf") // a Sentinel keeps what it learns there
		conf := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s 2\n"+
			"sentinel down-after-milliseconds %[1]s 1000\n"+
			"sentinel failover-timeout %[1]s 2000\n", masterName, host, port)
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		server := &Server{dir: dir, args: []string{file, "--sentinel"}}
		server.boot(t)
		s.Sentinels = append(s.Sentinels, server)
	}
	for _, server := range s.Sentinels {
		client := redis.NewSentinelClient(&redis.Options{Addr: server.Addr})
		t.Cleanup(func() { _ = client.Close() })
		until(t, 15*time.Second, "the Sentinels agree", func(ctx context.Context) error {
			m, err := client.Master(ctx, masterName).Result()
			if err == nil && (m["flags"] != "master" || m["num-slaves"] != "2" || m["num-other-sentinels"] != "2") {
				err = fmt.Errorf("flags %s, %s replicas, %s other Sentinels", m["flags"], m["num-slaves"], m["num-other-sentinels"])
			}
			return err
		})
	}
	return s
}

// URL is what --redis takes.
func (s *Sentinel) URL() string {
	return "redis-sentinel://" + hosts(s.Sentinels) + "?master=" + masterName
}

// Primary returns the server that the Sentinels name as the primary.
func (s *Sentinel) Primary(t testing.TB) *Server {
	t.Helper()
	client := redis.NewSentinelClient(&redis.Options{Addr: s.Sentinels[0].Addr})
	defer func() { _ = client.Close() }()
	addr, err := client.GetMasterAddrByName(t.Context(), masterName).Result()
	if err != nil {
		t.Fatal(err)
	}
	return serverAt(t, s.Data, strings.Join(addr, ":"))
}

// KillPrimary ends the primary with SIGKILL and returns it.
func (s *Sentinel) KillPrimary(t testing.TB) *Server {
	t.Helper()
	primary := s.Primary(t)
	primary.Kill()
	return primary
}

func hosts(servers []*Server) string {
	addrs := make([]string, len(servers))
	for i, s := range servers {
		addrs[i] = s.Addr
	}
	return strings.Join(addrs, ",")
}

func serverAt(t testing.TB, servers []*Server, addr string) *Server {
	t.Helper()
	for _, s := range servers {
		if s.Addr == addr {
			return s
		}
	}
	t.Fatalf("no server of this test has the address %s", addr)
	return nil
}

// until calls check until it returns nil; after the limit the test ends.
func until(t testing.TB, limit time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("waited %s until %s: %v", limit, what, errors.Join(err, ctx.Err()))
		}
	}
}
