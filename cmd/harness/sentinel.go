package harness

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// masterName is what the Sentinels call the primary.
const masterName = "reset"

// SentinelRights are what a client needs of a Sentinel; deploy/RUNBOOK.md has them, too.
const SentinelRights = "&* -@all +auth +hello +ping +subscribe +sentinel|get-master-addr-by-name +sentinel|sentinels"

// StartSentinel starts a primary and two replicas, watched by three Sentinels that replace a
// dead primary about a second after DownAfter, and waits until all know each other. They end
// with ctx, or when they are killed.
func (s RedisSetup) StartSentinel(ctx context.Context) (_ *Redis, err error) {
	r := &Redis{setup: s}
	defer func() {
		if err != nil {
			r.Kill()
		}
	}()
	primary, err := r.add(ctx)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		return nil, err
	}
	for range 2 {
		if _, err := r.add(ctx, "replicaof "+host+" "+port); err != nil {
			return nil, err
		}
	}
	// A Sentinel asks a primary for its replicas only every ten seconds.
	if err := primary.waitReplicas(ctx, 2); err != nil {
		return nil, err
	}
	for n := range 3 {
		if err := r.addSentinel(ctx, fmt.Sprintf("sentinel-%d", n+1), host, port); err != nil {
			return nil, err
		}
	}
	for _, sentinel := range r.Sentinels {
		if err := sentinel.waitSentinel(ctx); err != nil {
			return nil, err
		}
	}
	r.url = s.url("redis-sentinel", r.Sentinels, url.Values{"master": {masterName}})
	r.client = func() redis.UniversalClient {
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: masterName, SentinelAddrs: addrs(r.Sentinels), SentinelPassword: s.SentinelPassword,
			Password: s.Password, TLSConfig: s.clientTLS(),
		})
	}
	return r, nil
}

func (r *Redis) addSentinel(ctx context.Context, name, host, port string) error {
	dir, err := r.setup.makeDir(name)
	if err != nil {
		return err
	}
	own := r.setup
	own.Password = own.SentinelPassword
	sentinel, err := own.boot(ctx, Command{Name: name, Dir: dir}, r.setup.sentinelConf(host, port), "--sentinel")
	if err == nil {
		r.Sentinels = append(r.Sentinels, sentinel)
	}
	return err
}

// sentinelConf is the configuration of a Sentinel.
func (s RedisSetup) sentinelConf(host, port string) []string {
	downAfter := s.DownAfter
	if downAfter == 0 {
		downAfter = time.Second
	}
	conf := []string{
		fmt.Sprintf("sentinel monitor %s %s %s 2", masterName, host, port),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", masterName, downAfter.Milliseconds()),
		fmt.Sprintf("sentinel failover-timeout %s %d", masterName, 2*downAfter.Milliseconds()),
	}
	if s.Password != "" {
		conf = append(conf, fmt.Sprintf("sentinel auth-pass %s %s", masterName, s.Password))
	}
	if s.SentinelPassword != "" {
		conf = append(conf, "requirepass "+s.SentinelPassword,
			fmt.Sprintf("user %s on >%s %s", s.SentinelUser, s.SentinelPassword, SentinelRights))
	}
	if c := s.TLS; c != nil {
		conf = append(conf, "tls-replication yes", "tls-auth-clients yes",
			"tls-cert-file "+c.Cert, "tls-key-file "+c.Key, "tls-ca-cert-file "+c.CA)
	}
	return conf
}

// SentinelClient returns a new client of a Sentinel.
func (s *Server) SentinelClient() *redis.SentinelClient { return redis.NewSentinelClient(s.Options()) }

// waitSentinel waits until a Sentinel knows the other two, the primary and its replicas.
func (s *Server) waitSentinel(ctx context.Context) error {
	client := s.SentinelClient()
	defer func() { _ = client.Close() }() // all is said
	return s.WaitReady(ctx, readyLimit, func(ctx context.Context) error {
		m, err := client.Master(ctx, masterName).Result()
		if err == nil && (m["flags"] != "master" || m["num-slaves"] != "2" || m["num-other-sentinels"] != "2") {
			err = fmt.Errorf("%s: flags %s, %s replicas, %s other Sentinels", s.Name, m["flags"], m["num-slaves"], m["num-other-sentinels"])
		}
		return err
	})
}

// NamedPrimary returns the server that the first Sentinel names as the primary.
func (r *Redis) NamedPrimary(ctx context.Context) (*Server, error) {
	client := r.Sentinels[0].SentinelClient()
	defer func() { _ = client.Close() }() // all is said
	addr, err := client.GetMasterAddrByName(ctx, masterName).Result()
	if err != nil {
		return nil, err
	}
	return r.ServerAt(strings.Join(addr, ":"))
}

// waitReplicas waits until so many replicas of a primary are in step.
func (s *Server) waitReplicas(ctx context.Context, want int) error {
	client := s.Client()
	defer func() { _ = client.Close() }() // all is said
	return s.WaitReady(ctx, readyLimit, func(ctx context.Context) error {
		info, err := client.Info(ctx, "replication").Result()
		if n := strings.Count(info, "state=online"); err == nil && n != want {
			err = fmt.Errorf("%s: %d replicas online", s.Name, n)
		}
		return err
	})
}
