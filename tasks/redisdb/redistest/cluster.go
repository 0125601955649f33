package redistest

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	clusterPrimaries = 3
	clusterSlots     = 16384
)

// Cluster is a Redis Cluster of three primaries with a replica each, which
// replaces a dead primary after about four seconds. All end with the test.
type Cluster struct {
	Nodes []*Server // the first three were the primaries at the start
	setup Setup
}

// StartCluster starts a Cluster and waits until every node can serve. config is
// for every node.
func StartCluster(t testing.TB, config ...string) *Cluster {
	t.Helper()
	return Setup{Config: config}.StartCluster(t)
}

// StartCluster starts a Cluster that is run like this.
func (s Setup) StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{setup: s}
	clients := make([]*redis.Client, 0, 2*clusterPrimaries)
	for range 2 * clusterPrimaries {
		_, bus, err := net.SplitHostPort(freeAddr(t)) // the default may be no port at all
		if err != nil {
			t.Fatal(err)
		}
		one := s
		one.Config = append(slices.Clone(s.Config), "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000")
		node := one.Start(t)
		clients = append(clients, node.Client(t))
		host, port, err := net.SplitHostPort(node.Addr)
		if err != nil {
			t.Fatal(err)
		}
		// Each node needs an epoch of its own, or equal ones are resolved in time.
		n := len(c.Nodes)
		must(t, clients[n].Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", n+1).Err())
		if n > 0 {
			must(t, clients[0].Do(t.Context(), "CLUSTER", "MEET", host, port, bus).Err())
		}
		c.Nodes = append(c.Nodes, node)
	}
	for n, client := range clients[:clusterPrimaries] {
		from, next := n*clusterSlots/clusterPrimaries, (n+1)*clusterSlots/clusterPrimaries
		must(t, client.ClusterAddSlotsRange(t.Context(), from, next-1).Err())
	}
	for n, client := range clients[clusterPrimaries:] {
		primary, err := clients[n].ClusterMyID(t.Context()).Result()
		must(t, err)
		until(t, 10*time.Second, "a replica knows its primary", func(ctx context.Context) error {
			return client.ClusterReplicate(ctx, primary).Err()
		})
	}
	for _, client := range clients {
		until(t, 10*time.Second, "the Cluster is up", func(ctx context.Context) error {
			info, err := client.ClusterInfo(ctx).Result()
			if err == nil && !strings.Contains(info, "cluster_state:ok") {
				err = errors.New(info)
			}
			if err != nil {
				return err
			}
			// A replica that a primary has not heard of would not get its vote.
			nodes, err := client.ClusterNodes(ctx).Result()
			if err == nil && strings.Count(nodes, "slave ") != clusterPrimaries {
				err = errors.New(nodes)
			}
			return err
		})
	}
	for _, client := range clients[clusterPrimaries:] {
		until(t, 10*time.Second, "the replicas follow", func(ctx context.Context) error {
			info, err := client.Info(ctx, "replication").Result()
			if err == nil && !strings.Contains(info, "master_link_status:up") {
				err = errors.New(info)
			}
			return err
		})
	}
	return c
}

// URL is what --redis takes.
func (c *Cluster) URL() string { return c.setup.url("redis-cluster", c.Nodes, url.Values{}) }

// KillPrimary ends the primary that owns the key with SIGKILL and returns it.
func (c *Cluster) KillPrimary(t testing.TB, key string) *Server {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: strings.Split(hosts(c.Nodes), ","), TLSConfig: c.setup.clientTLS(), Password: c.setup.Password,
	})
	defer func() { _ = client.Close() }()
	owner, err := client.MasterForKey(t.Context(), key)
	must(t, err)
	primary := serverAt(t, c.Nodes, owner.Options().Addr)
	primary.Kill()
	return primary
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
