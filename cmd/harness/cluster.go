package harness

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	clusterPrimaries = 3
	clusterSlots     = 16384
)

// StartCluster starts a Redis Cluster of three primaries with a replica each, which replaces
// a dead primary after about four seconds, and waits until every node can serve. They end
// with ctx, or when they are killed.
func (s RedisSetup) StartCluster(ctx context.Context) (_ *Redis, err error) {
	r := &Redis{setup: s}
	var clients []*redis.Client
	defer func() {
		for _, c := range clients {
			_ = c.Close() // all is said
		}
		if err != nil {
			r.Kill()
		}
	}()
	for n := range 2 * clusterPrimaries {
		bus, err := FreeAddr(ctx) // the default may be no port at all
		if err != nil {
			return nil, err
		}
		_, busPort, _ := net.SplitHostPort(bus) // it has one
		node, err := r.add(ctx, "cluster-enabled yes", "cluster-port "+busPort, "cluster-node-timeout 2000")
		if err != nil {
			return nil, err
		}
		clients = append(clients, node.Client())
		// Each node needs an epoch of its own, or equal ones are resolved in time.
		if err := clients[n].Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", n+1).Err(); err != nil {
			return nil, err
		}
		host, port, _ := net.SplitHostPort(node.Addr) // it has one
		if n > 0 {
			if err := clients[0].Do(ctx, "CLUSTER", "MEET", host, port, busPort).Err(); err != nil {
				return nil, err
			}
		}
	}
	for n, primary := range clients[:clusterPrimaries] {
		from, next := n*clusterSlots/clusterPrimaries, (n+1)*clusterSlots/clusterPrimaries
		if err := primary.ClusterAddSlotsRange(ctx, from, next-1).Err(); err != nil {
			return nil, err
		}
		id, err := primary.ClusterMyID(ctx).Result()
		if err != nil {
			return nil, err
		}
		replica := clients[clusterPrimaries+n]
		// It fails until the replica has heard of its primary.
		if err := Until(ctx, readyLimit, func(ctx context.Context) error { return replica.ClusterReplicate(ctx, id).Err() }); err != nil {
			return nil, err
		}
	}
	for n, client := range clients {
		if err := Until(ctx, readyLimit, func(ctx context.Context) error { return clusterUp(ctx, client) }); err != nil {
			return nil, err
		}
		if n < clusterPrimaries {
			if err := r.Servers[n].waitReplicas(ctx, 1); err != nil {
				return nil, err
			}
		}
	}
	r.url = s.url("redis-cluster", r.Servers, url.Values{})
	r.client = func() redis.UniversalClient { return r.clusterClient() }
	return r, nil
}

// clusterUp returns an error unless a node can serve and knows of every replica: one that a
// primary has not heard of would not get its vote.
func clusterUp(ctx context.Context, node *redis.Client) error {
	info, err := node.ClusterInfo(ctx).Result()
	if err != nil {
		return err
	}
	if !strings.Contains(info, "cluster_state:ok") {
		return errors.New(info)
	}
	nodes, err := node.ClusterNodes(ctx).Result()
	if err == nil && strings.Count(nodes, "slave ") != clusterPrimaries {
		err = errors.New(nodes)
	}
	return err
}

func (r *Redis) clusterClient() *redis.ClusterClient {
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addrs(r.Servers), ClusterStateReloadInterval: time.Second,
		TLSConfig: r.setup.clientTLS(), Password: r.setup.Password,
	})
}

// Owner returns the primary of a Cluster that has the key.
func (r *Redis) Owner(ctx context.Context, key string) (*Server, error) {
	client := r.clusterClient()
	defer func() { _ = client.Close() }() // all is said
	owner, err := client.MasterForKey(ctx, key)
	if err != nil {
		return nil, err
	}
	return r.ServerAt(owner.Options().Addr)
}
