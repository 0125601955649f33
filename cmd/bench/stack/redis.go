package stack

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

// Redis is a redis-server of the benchmark.
type Redis struct {
	*harness.Server
	Client *redis.Client // the benchmark's own; it hides the method that would make another
}

// startRedis starts a redis-server that writes nothing to disk: what the disk costs is
// the same for everyone.
func startRedis(ctx context.Context, dir string) (*Redis, error) {
	r, err := harness.RedisSetup{Dir: dir, Config: []string{"appendonly no"}}.StartSingle(ctx)
	if err != nil {
		return nil, err
	}
	one := r.Servers[0]
	options := one.Options()
	options.PoolSize = 64
	return &Redis{one, redis.NewClient(options)}, nil
}

// Version is the version of the redis-server.
func (r *Redis) Version(ctx context.Context) (string, error) {
	return r.info(ctx, "server", "redis_version")
}

// Memory is what Redis has allocated, in bytes, once nobody but the benchmark is
// connected: a connection may take more than a record.
func (r *Redis) Memory(ctx context.Context) (float64, error) {
	const own = 2
	if err := harness.Until(ctx, 10*time.Second, func(ctx context.Context) error {
		n, err := r.figure(ctx, "clients", "connected_clients")
		if err == nil && n > own {
			err = fmt.Errorf("%.0f clients are still connected to Redis", n)
		}
		return err
	}); err != nil {
		return 0, err
	}
	return r.figure(ctx, "memory", "used_memory")
}

// cpuSeconds is the processor time that Redis has used so far.
func (r *Redis) cpuSeconds(ctx context.Context) (float64, error) {
	user, err := r.figure(ctx, "cpu", "used_cpu_user")
	if err != nil {
		return 0, err
	}
	system, err := r.figure(ctx, "cpu", "used_cpu_sys")
	return user + system, err
}

// CommandRate is how many commands Redis runs per second over a time, those of scripts among them.
func (r *Redis) CommandRate(ctx context.Context, d time.Duration) (perSecond float64, err error) {
	before, err := r.figure(ctx, "stats", "total_commands_processed")
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if !harness.Pause(ctx, d) {
		return 0, ctx.Err()
	}
	after, err := r.figure(ctx, "stats", "total_commands_processed")
	return (after - before) / time.Since(start).Seconds(), err
}

// CPUShare watches Redis for d and returns its share of a core, in percent.
func (r *Redis) CPUShare(ctx context.Context, d time.Duration) (percent float64, err error) {
	before, err := r.cpuSeconds(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if !harness.Pause(ctx, d) {
		return 0, ctx.Err()
	}
	after, err := r.cpuSeconds(ctx)
	return 100 * (after - before) / time.Since(begin).Seconds(), err
}

// figure returns a number from INFO.
func (r *Redis) figure(ctx context.Context, section, field string) (float64, error) {
	value, err := r.info(ctx, section, field)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(value, 64)
}

// info returns a field of INFO.
func (r *Redis) info(ctx context.Context, section, field string) (string, error) {
	text, err := r.Client.Info(ctx, section).Result()
	if err != nil {
		return "", err
	}
	return infoField(text, field)
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

// Processed is how many tasks asynq has finished in all queues since the last Clear.
func (r *Redis) Processed(ctx context.Context) (int, error) {
	queues, err := r.Client.SMembers(ctx, "asynq:queues").Result()
	if err != nil || len(queues) == 0 {
		return 0, err
	}
	keys := make([]string, len(queues))
	for i, queue := range queues {
		keys[i] = "asynq:{" + queue + "}:processed"
	}
	counts, err := r.Client.MGet(ctx, keys...).Result()
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

// Active is how many tasks workers have in hand.
func (r *Redis) Active(ctx context.Context) (int, error) {
	queues, err := r.Client.SMembers(ctx, "asynq:queues").Result()
	if err != nil {
		return 0, err
	}
	pipe := r.Client.Pipeline()
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

// Drained waits until n tasks are finished and returns the rate, in tasks per second, of
// the part between a twentieth and all of them: starting is a row of its own. It gives up
// when one of the workers has ended, or when nothing moves for half a minute.
func (r *Redis) Drained(ctx context.Context, n int, workers ...*harness.Process) (perSecond float64, err error) {
	const patience = 30 * time.Second
	var begin time.Time
	first, last := 0, 0
	moved := time.Now()
	for {
		done, err := r.Processed(ctx)
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
