package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/cmd/harness"
)

// Spread is a Redis of one or more servers, and the processes of the service that use it.
type Spread struct {
	*Stack

	servers *harness.Redis
	client  redis.UniversalClient
}

// StartSpread starts one redis-server, or a Cluster of three primaries with a replica each. None writes anything to disk.
func StartSpread(ctx context.Context, program *Program, dir string, cluster bool) (*Spread, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	setup := harness.RedisSetup{Dir: dir, Config: []string{"appendonly no"}}
	start := setup.StartSingle
	if cluster {
		start = setup.StartCluster
	}
	servers, err := start(ctx)
	if err != nil {
		return nil, err
	}
	return &Spread{&Stack{url: servers.URL(), program: program, dir: dir}, servers, servers.Client()}, nil
}

// Close ends all processes.
func (s *Spread) Close() {
	s.killChildren()
	_ = s.client.Close()
	s.servers.Kill()
}

// Drained waits until asynq has finished n tasks in all queues.
func (s *Spread) Drained(ctx context.Context, n int) error {
	return harness.Until(ctx, 2*time.Minute, func(ctx context.Context) error {
		queues, err := s.client.SMembers(ctx, "asynq:queues").Result()
		if err != nil {
			return err
		}
		pipe := s.client.Pipeline()
		counts := make([]*redis.StringCmd, len(queues))
		for i, queue := range queues {
			counts[i] = pipe.Get(ctx, "asynq:{"+queue+"}:processed")
		}
		_, _ = pipe.Exec(ctx) // each carries its own error
		done := 0
		for _, count := range counts {
			text, err := count.Result()
			if errors.Is(err, redis.Nil) {
				continue
			}
			some, bad := strconv.Atoi(text)
			if err := errors.Join(err, bad); err != nil {
				return err
			}
			done += some
		}
		if done < n {
			return fmt.Errorf("%d of %d tasks are finished", done, n)
		}
		return nil
	})
}

// CPU is the processor time that the servers and the processes have used so far.
func (s *Spread) CPU() (servers, processes time.Duration, err error) {
	for _, server := range slices.Concat(s.servers.Servers, s.servers.Sentinels) {
		used, err := CPUTime(server.Process)
		if err != nil {
			return 0, 0, err
		}
		servers += used
	}
	for _, p := range s.children {
		used, err := CPUTime(p)
		if err != nil {
			return 0, 0, err
		}
		processes += used
	}
	return servers, processes, nil
}
