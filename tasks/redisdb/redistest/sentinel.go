package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// masterName is what the Sentinels call the primary.
const masterName = "reset"

// SentinelRights are what a client needs of a Sentinel; deploy/RUNBOOK.md has them, too.
const SentinelRights = "&* -@all +auth +hello +ping +subscribe +sentinel|get-master-addr-by-name +sentinel|sentinels"

// Sentinel is one primary and two replicas, watched by three Sentinels that
// replace a dead primary after about two seconds. All end with the test.
type Sentinel struct {
	Data      []*Server
	Sentinels []*Server
	setup     Setup
}

// StartSentinel starts a Sentinel and waits until its members know each other.
// config is for the primary and the replicas.
func StartSentinel(t testing.TB, config ...string) *Sentinel {
	t.Helper()
	return Setup{Config: config}.StartSentinel(t)
}

// StartSentinel starts a Sentinel that is run like this.
func (s Setup) StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	w := &Sentinel{setup: s, Data: []*Server{s.Start(t)}}
	host, port, err := net.SplitHostPort(w.Data[0].Addr)
	must(t, err)
	follower := s
	follower.Config = append(slices.Clone(s.Config), "--replicaof", host, port)
	for range 2 {
		w.Data = append(w.Data, follower.Start(t))
	}
	primary := w.Data[0].Client(t)
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
		must(t, os.WriteFile(file, []byte(s.sentinelConf(host, port)), 0o600))
		server := &Server{dir: dir, args: []string{file, "--sentinel"}, tls: s.clientTLS(), password: s.SentinelPassword}
		server.boot(t)
		w.Sentinels = append(w.Sentinels, server)
	}
	for _, server := range w.Sentinels {
		client := s.sentinelClient(server.Addr)
		t.Cleanup(func() { _ = client.Close() })
		until(t, 15*time.Second, "the Sentinels agree", func(ctx context.Context) error {
			m, err := client.Master(ctx, masterName).Result()
			if err == nil && (m["flags"] != "master" || m["num-slaves"] != "2" || m["num-other-sentinels"] != "2") {
				err = fmt.Errorf("flags %s, %s replicas, %s other Sentinels", m["flags"], m["num-slaves"], m["num-other-sentinels"])
			}
			return err
		})
	}
	return w
}

// sentinelConf is the configuration of one of the Sentinels.
func (s Setup) sentinelConf(host, port string) string {
	conf := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s 2\n"+
		"sentinel down-after-milliseconds %[1]s 1000\n"+
		"sentinel failover-timeout %[1]s 2000\n", masterName, host, port)
	if s.Password != "" {
		conf += fmt.Sprintf("sentinel auth-pass %s %s\n", masterName, s.Password)
	}
	if s.SentinelPassword != "" {
		conf += fmt.Sprintf("requirepass %[1]s\nuser %[2]s on >%[1]s %[3]s\n", s.SentinelPassword, s.SentinelUser, SentinelRights)
	}
	if c := s.TLS; c != nil {
		conf += fmt.Sprintf("port 0\ntls-replication yes\ntls-auth-clients yes\ntls-cert-file %s\ntls-key-file %s\ntls-ca-cert-file %s\n", c.Cert, c.Key, c.CA)
	}
	return conf
}

// URL is what --redis takes.
func (s *Sentinel) URL() string {
	return s.setup.url("redis-sentinel", s.Sentinels, url.Values{"master": {masterName}})
}

// Primary returns the server that the Sentinels name as the primary.
func (s *Sentinel) Primary(t testing.TB) *Server {
	t.Helper()
	client := s.setup.sentinelClient(s.Sentinels[0].Addr)
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
