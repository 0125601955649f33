package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/cmd/harness"
)

// server is a redis-server of the benchmark.
type server struct {
	*harness.Server
	client *redis.Client
}

// startRedis starts a redis-server that writes nothing to disk: what the disk costs is
// the same for everyone.
func startRedis(ctx context.Context, dir string) (*server, error) {
	r, err := harness.RedisSetup{Dir: dir, Config: []string{"appendonly no"}}.StartSingle(ctx)
	if err != nil {
		return nil, err
	}
	one := r.Servers[0]
	options := one.Options()
	options.PoolSize = 64
	return &server{one, redis.NewClient(options)}, nil
}

func (s *server) clear(ctx context.Context) error { return s.client.FlushAll(ctx).Err() }

// memory is what Redis has allocated, in bytes, once nobody but the benchmark is
// connected: a connection may take more than a record.
func (s *server) memory(ctx context.Context) (float64, error) {
	const own = 2
	if err := harness.Until(ctx, 10*time.Second, func(ctx context.Context) error {
		n, err := s.figure(ctx, "clients", "connected_clients")
		if err == nil && n > own {
			err = fmt.Errorf("%.0f clients are still connected to Redis", n)
		}
		return err
	}); err != nil {
		return 0, err
	}
	return s.figure(ctx, "memory", "used_memory")
}

// cpuSeconds is the processor time that Redis has used so far.
func (s *server) cpuSeconds(ctx context.Context) (float64, error) {
	user, err := s.figure(ctx, "cpu", "used_cpu_user")
	if err != nil {
		return 0, err
	}
	system, err := s.figure(ctx, "cpu", "used_cpu_sys")
	return user + system, err
}

// load watches Redis for d and returns its share of a core, in percent.
func (s *server) load(ctx context.Context, d time.Duration) (percent float64, err error) {
	before, err := s.cpuSeconds(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if !harness.Pause(ctx, d) {
		return 0, ctx.Err()
	}
	after, err := s.cpuSeconds(ctx)
	return 100 * (after - before) / time.Since(begin).Seconds(), err
}

// figure returns a number from INFO.
func (s *server) figure(ctx context.Context, section, field string) (float64, error) {
	text, err := s.client.Info(ctx, section).Result()
	if err != nil {
		return 0, err
	}
	value, err := infoField(text, field)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(value, 64)
}

// infoField finds a field in the text of INFO.
func infoField(info, field string) (string, error) {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("the INFO of Redis has no %s", field)
}

// processed is how many tasks asynq has finished in all queues since the last clear.
func (s *server) processed(ctx context.Context) (int, error) {
	queues, err := s.client.SMembers(ctx, "asynq:queues").Result()
	if err != nil || len(queues) == 0 {
		return 0, err
	}
	keys := make([]string, len(queues))
	for i, queue := range queues {
		keys[i] = "asynq:{" + queue + "}:processed"
	}
	counts, err := s.client.MGet(ctx, keys...).Result()
	sum := 0
	for _, count := range counts {
		if text, ok := count.(string); ok {
			n, bad := strconv.Atoi(text)
			err = errors.Join(err, bad)
			sum += n
		}
	}
	return sum, err
}

// active is how many tasks workers have in hand.
func (s *server) active(ctx context.Context) (int, error) {
	queues, err := s.client.SMembers(ctx, "asynq:queues").Result()
	if err != nil {
		return 0, err
	}
	pipe := s.client.Pipeline()
	var lengths []*redis.IntCmd
	for _, queue := range queues {
		lengths = append(lengths, pipe.LLen(ctx, "asynq:{"+queue+"}:active"))
	}
	_, err = pipe.Exec(ctx)
	sum := 0
	for _, length := range lengths {
		sum += int(length.Val())
	}
	return sum, err
}

// drained waits until n tasks are finished and returns the rate, in tasks per second, of
// the part between a twentieth and all of them: starting is a row of its own.
func (s *server) drained(ctx context.Context, n int, workers ...*harness.Process) (perSecond float64, err error) {
	const patience = 30 * time.Second
	var begin time.Time
	first, last := 0, 0
	moved := time.Now()
	for {
		done, err := s.processed(ctx)
		if err != nil {
			return 0, err
		}
		now := time.Now()
		if begin.IsZero() && done >= n/20 {
			begin, first = now, done
		}
		if done > last {
			moved = now
		}
		last = done
		if last >= n {
			return float64(last-first) / time.Since(begin).Seconds(), nil
		}
		for _, w := range workers {
			if err := w.Check(); err != nil {
				return 0, err
			}
		}
		if now.Sub(moved) > patience {
			return 0, fmt.Errorf("%d of %d tasks are finished, and none for %s", done, n, patience)
		}
		if !harness.Pause(ctx, 5*time.Millisecond) {
			return 0, ctx.Err()
		}
	}
}
