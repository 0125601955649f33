package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
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
func (s setup) forgets() fault.Kind {
	switch s {
	case everysec:
		return fault.RedisKill
	case sentinelAsync:
		return fault.Failover
	}
	return ""
}

// store is the Redis of a run.
type store struct {
	setup
	url    string
	client redis.UniversalClient    // past the links
	nodes  map[string]*redis.Client // of the servers that keep data, by process
}

// startStore starts the servers of a setup and waits until they can serve.
func (w *world) startStore(ctx context.Context, s setup, later func(func())) error {
	servers := harness.RedisSetup{Dir: w.dir, DownAfter: 2 * time.Second, Env: w.redisEnv}
	if s == everysec {
		servers.Config = []string{"appendfsync everysec"}
	}
	start := servers.StartSingle
	switch s {
	case sentinel, sentinelAsync:
		start = servers.StartSentinel
	case cluster:
		start = servers.StartCluster
	}
	r, err := start(ctx)
	if err != nil {
		return fmt.Errorf("start Redis (see %s): %w", w.dir, err)
	}
	w.store = &store{setup: s, url: r.URL(), client: r.Client(), nodes: map[string]*redis.Client{}}
	later(func() { _ = w.store.client.Close() })
	for _, server := range r.Servers {
		node := server.Client()
		later(func() { _ = node.Close() })
		w.store.nodes[server.Name] = node
		w.supervise(ctx, later, server.Process)
	}
	for _, server := range r.Sentinels {
		client := server.SentinelClient()
		later(func() { _ = client.Close() })
		w.watchSentinel(ctx, later, client)
		w.supervise(ctx, later, server.Process)
	}
	if s.replicated() {
		return nil
	}
	for _, name := range []string{fault.APIToRedis, fault.WorkerToRedis} {
		if err := w.openLink(name, r.Servers[0].Addr, later); err != nil {
			return err
		}
	}
	return nil
}

// redisEnv gives a server that keeps data a clock that is wrong, if that is wanted.
func (w *world) redisEnv(name string) ([]string, error) {
	if !w.has(fault.RedisClock) {
		return nil, nil
	}
	c, err := w.addClock(name, fault.RedisClock, drawSkew(w.skews, fault.RedisClock))
	return append(c.env(), "LD_PRELOAD="+w.library), err
}

// watchSentinel records what a Sentinel decides by itself: on a machine that is too busy
// it takes a primary for dead that is not.
func (w *world) watchSentinel(ctx context.Context, later func(func()), client *redis.SentinelClient) {
	sub := client.Subscribe(ctx, "+odown", "+switch-master")
	var done sync.WaitGroup
	done.Go(func() {
		for range sub.Channel() {
			now := w.rec.Now()
			w.rec.Add(history.Event{Kind: history.Fault, Begin: now, End: now, Fault: fault.Failover, Target: "seen by a Sentinel"})
		}
	})
	later(func() {
		_ = sub.Close()
		done.Wait()
	})
}

// withRole names the process of a server that is a "master" or a "slave" now, as Redis
// has it.
func (s *store) withRole(ctx context.Context, want string, r *rand.Rand) (name string, err error) {
	var names []string
	for name, node := range s.nodes {
		once, cancel := context.WithTimeout(ctx, time.Second)
		role, err := node.Do(once, "ROLE").Slice()
		cancel()
		if err == nil && len(role) > 0 && role[0] == want {
			names = append(names, name)
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
		if err := harness.Until(ctx, startTimeout, func(ctx context.Context) error {
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
