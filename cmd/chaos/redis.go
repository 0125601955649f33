package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// setup is how Redis is run: what --redis takes.
type setup string

const (
	always        setup = "always"         // one server, appendfsync always
	everysec      setup = "everysec"       // one server, appendfsync everysec
	sentinel      setup = "sentinel"       // a primary, two replicas, three Sentinels; --commit-replicas 1
	sentinelAsync setup = "sentinel-async" // the same without --commit-replicas
	cluster       setup = "cluster"        // three primaries with a replica each; --commit-replicas 1
)

var setups = []setup{always, sentinel, everysec, cluster, sentinelAsync}

// mixed stands for each setup in turn, by the seed.
const mixed = "mixed"

// parseSetup reads what --redis takes, for the run with this seed.
func parseSetup(name string, seed uint64) (setup, error) {
	if name == mixed {
		return setups[seed%uint64(len(setups))], nil
	}
	if !slices.Contains(setups, setup(name)) {
		return "", fmt.Errorf("--redis must be one of %v or %q, not %q", setups, mixed, name)
	}
	return setup(name), nil
}

// replicated says whether replicas take over from a server that dies.
func (s setup) replicated() bool { return s != always && s != everysec }

// commitReplicas is the --commit-replicas of api and worker.
func (s setup) commitReplicas() int {
	if s == sentinel || s == cluster {
		return 1
	}
	return 0
}

// forgets is the kind of fault at which Redis may lose what it has answered.
func (s setup) forgets() faultKind {
	switch s {
	case everysec:
		return redisKill
	case sentinelAsync:
		return failover
	}
	return ""
}

const masterName = "chaos"

// store is the Redis of a run.
type store struct {
	setup
	url    string
	client redis.UniversalClient // past the links
	nodes  map[string]*redis.Client
	names  map[string]string // of the processes, by address
}

// startStore starts the servers of a setup and waits until they can serve.
func (w *world) startStore(ctx context.Context, s setup, later func(func())) (err error) {
	w.store = &store{setup: s, nodes: map[string]*redis.Client{}, names: map[string]string{}}
	switch s {
	case sentinel, sentinelAsync:
		err = w.startSentinel(ctx, later)
	case cluster:
		err = w.startCluster(ctx, later)
	default:
		err = w.startSingle(ctx, later)
	}
	if err != nil {
		return fmt.Errorf("start Redis (see %s): %w", w.dir, err)
	}
	later(func() { _ = w.store.client.Close() })
	return nil
}

func (w *world) startSingle(ctx context.Context, later func(func())) error {
	addr, err := w.startNode(ctx, later, "redis")
	if err != nil {
		return err
	}
	w.store.url = "redis://" + addr
	w.store.client = redis.NewClient(&redis.Options{Addr: addr})
	for _, name := range []string{linkAPIToRedis, linkWorkerToRedis} {
		if err := w.openLink(name, addr, later); err != nil {
			return err
		}
	}
	return nil
}

// startNode starts one redis-server. It has a configuration file, which is where
// Sentinel and Cluster keep what a server has become.
func (w *world) startNode(ctx context.Context, later func(func()), name string, lines ...string) (addr string, err error) {
	fsync := always
	if w.setup == everysec {
		fsync = everysec
	}
	addr, err = freeAddr(ctx)
	if err != nil {
		return "", err
	}
	lines = append(lines, "appendonly yes", "appendfsync "+string(fsync), `save ""`)
	if err := w.startServer(ctx, later, name, addr, lines); err != nil {
		return "", err
	}
	node := redis.NewClient(&redis.Options{Addr: addr})
	later(func() { _ = node.Close() })
	w.store.nodes[addr], w.store.names[addr] = node, name
	return addr, until(ctx, startTimeout, func(ctx context.Context) error { return node.Ping(ctx).Err() })
}

func (w *world) startServer(ctx context.Context, later func(func()), name, addr string, lines []string, flags ...string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	dir := filepath.Join(w.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lines = append(lines, "bind 127.0.0.1", "port "+port, "dir "+dir)
	file := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	var env []string
	if w.has(redisClock) && len(flags) == 0 { // Sentinels have the right time
		c, err := w.addClock(name, redisClock, drawSkew(w.skews, redisClock))
		if err != nil {
			return err
		}
		env = append(c.env(), "LD_PRELOAD="+w.library)
	}
	return w.start(ctx, later, name, env, append([]string{"redis-server", file}, flags...)...)
}

func (w *world) startSentinel(ctx context.Context, later func(func())) error {
	primary, err := w.startNode(ctx, later, "redis-1", "repl-diskless-sync-delay 0")
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(primary)
	if err != nil {
		return err
	}
	for _, name := range []string{"redis-2", "redis-3"} {
		if _, err := w.startNode(ctx, later, name, "repl-diskless-sync-delay 0", "replicaof "+host+" "+port); err != nil {
			return err
		}
	}
	// A Sentinel asks a primary for its replicas only every ten seconds.
	if err := replicas(ctx, w.store.nodes[primary], 2); err != nil {
		return err
	}
	var addrs []string
	for n := range 3 {
		addr, err := freeAddr(ctx)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("sentinel-%d", n+1)
		if err := w.startServer(ctx, later, name, addr, []string{
			"sentinel monitor " + masterName + " " + host + " " + port + " 2",
			"sentinel down-after-milliseconds " + masterName + " 2000",
			"sentinel failover-timeout " + masterName + " 4000",
		}, "--sentinel"); err != nil {
			return err
		}
		addrs = append(addrs, addr)
	}
	for _, addr := range addrs {
		client := redis.NewSentinelClient(&redis.Options{Addr: addr})
		later(func() { _ = client.Close() })
		if err := until(ctx, startTimeout, func(ctx context.Context) error {
			m, err := client.Master(ctx, masterName).Result()
			if err == nil && (m["flags"] != "master" || m["num-slaves"] != "2" || m["num-other-sentinels"] != "2") {
				err = fmt.Errorf("flags %s, %s replicas, %s other Sentinels", m["flags"], m["num-slaves"], m["num-other-sentinels"])
			}
			return err
		}); err != nil {
			return err
		}
		w.watchSentinel(ctx, later, client)
	}
	w.store.url = "redis-sentinel://" + strings.Join(addrs, ",") + "?master=" + masterName
	w.store.client = redis.NewFailoverClient(&redis.FailoverOptions{MasterName: masterName, SentinelAddrs: addrs})
	return nil
}

// watchSentinel records what a Sentinel decides by itself: on a machine that is too busy
// it takes a primary for dead that is not.
func (w *world) watchSentinel(ctx context.Context, later func(func()), client *redis.SentinelClient) {
	sub := client.Subscribe(ctx, "+odown", "+switch-master")
	var done sync.WaitGroup
	done.Go(func() {
		for range sub.Channel() {
			now := w.rec.now()
			w.rec.add(Event{Kind: Fault, Begin: now, End: now, Fault: failover, Target: "seen by a Sentinel"})
		}
	})
	later(func() {
		_ = sub.Close()
		done.Wait()
	})
}

// replicas waits until so many replicas of a primary are in step.
func replicas(ctx context.Context, primary *redis.Client, want int) error {
	return until(ctx, startTimeout, func(ctx context.Context) error {
		info, err := primary.Info(ctx, "replication").Result()
		if n := strings.Count(info, "state=online"); err == nil && n != want {
			err = fmt.Errorf("%d replicas online", n)
		}
		return err
	})
}

func (w *world) startCluster(ctx context.Context, later func(func())) error {
	const primaries, slots = 3, 16384
	var addrs []string
	for n := range 2 * primaries {
		bus, err := freeAddr(ctx)
		if err != nil {
			return err
		}
		_, busPort, _ := net.SplitHostPort(bus)
		addr, err := w.startNode(ctx, later, fmt.Sprintf("redis-%d", n+1),
			"cluster-enabled yes", "cluster-port "+busPort, "cluster-node-timeout 2000", "repl-diskless-sync-delay 0")
		if err != nil {
			return err
		}
		addrs = append(addrs, addr)
		node := w.store.nodes[addr]
		// Each node needs an epoch of its own, or equal ones are resolved in time.
		if err := node.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", n+1).Err(); err != nil {
			return err
		}
		host, port, _ := net.SplitHostPort(addr)
		if err := w.store.nodes[addrs[0]].Do(ctx, "CLUSTER", "MEET", host, port, busPort).Err(); n > 0 && err != nil {
			return err
		}
	}
	for n, addr := range addrs[:primaries] {
		node, replica := w.store.nodes[addr], w.store.nodes[addrs[primaries+n]]
		if err := node.ClusterAddSlotsRange(ctx, n*slots/primaries, (n+1)*slots/primaries-1).Err(); err != nil {
			return err
		}
		id, err := node.ClusterMyID(ctx).Result()
		if err != nil {
			return err
		}
		if err := until(ctx, startTimeout, func(ctx context.Context) error { return replica.ClusterReplicate(ctx, id).Err() }); err != nil {
			return err
		}
	}
	for n, addr := range addrs {
		if err := until(ctx, startTimeout, func(ctx context.Context) error { return clusterUp(ctx, w.store.nodes[addr], primaries) }); err != nil {
			return err
		}
		if n < primaries {
			if err := replicas(ctx, w.store.nodes[addr], 1); err != nil {
				return err
			}
		}
	}
	w.store.url = "redis-cluster://" + strings.Join(addrs, ",")
	w.store.client = redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, ClusterStateReloadInterval: time.Second})
	return nil
}

// clusterUp reports an error unless a node can serve and knows of every replica: one
// that a primary has not heard of would not get its vote.
func clusterUp(ctx context.Context, node *redis.Client, replicas int) error {
	info, err := node.ClusterInfo(ctx).Result()
	if err == nil && !strings.Contains(info, "cluster_state:ok") {
		err = errors.New(info)
	}
	if err != nil {
		return err
	}
	nodes, err := node.ClusterNodes(ctx).Result()
	if err == nil && strings.Count(nodes, "slave ") != replicas {
		err = errors.New(nodes)
	}
	return err
}

// withRole names the process of a server that is a "master" or a "slave" now, as Redis
// has it.
func (s *store) withRole(ctx context.Context, want string, r *rand.Rand) (name string, err error) {
	var names []string
	for addr, node := range s.nodes {
		once, cancel := context.WithTimeout(ctx, time.Second)
		role, err := node.Do(once, "ROLE").Slice()
		cancel()
		if err == nil && len(role) > 0 && role[0] == want {
			names = append(names, s.names[addr])
		}
	}
	if len(names) == 0 {
		return "", fmt.Errorf("no %s answers", want)
	}
	slices.Sort(names)
	return names[r.IntN(len(names))], nil
}

// limitMemory sets maxmemory on every server.
func (s *store) limitMemory(ctx context.Context, limit string) error {
	for _, node := range s.nodes {
		if err := until(ctx, startTimeout, func(ctx context.Context) error {
			return node.ConfigSet(ctx, "maxmemory", limit).Err()
		}); err != nil {
			return err
		}
	}
	return nil
}

// ageLeases makes every task that is worked on look as if its worker had been gone for
// a minute, as a jump of the clock would.
func (s *store) ageLeases(ctx context.Context) {
	// While Redis is away, there is nothing to age.
	queues := s.client.SMembers(ctx, "asynq:queues").Val()
	for _, queue := range queues {
		leases := "asynq:{" + queue + "}:lease"
		held := s.client.ZRangeWithScores(ctx, leases, 0, -1).Val()
		if len(held) == 0 {
			continue
		}
		for i := range held {
			held[i].Score -= 60
		}
		s.client.ZAddXX(ctx, leases, held...)
	}
}
