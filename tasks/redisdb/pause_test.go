package redisdb_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// TestALaneDoesNotSpin counts how often asynq tries to take a task in one second
// without a working Redis, on a client of its own making and on ours.
func TestALaneDoesNotSpin(t *testing.T) {
	set := func(name, value string) func(*testing.T, *redistest.Server) {
		return func(t *testing.T, s *redistest.Server) {
			if err := s.Client(t).ConfigSet(t.Context(), name, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, row := range []struct {
		name   string
		damage func(*testing.T, *redistest.Server)
		repair func(*testing.T, *redistest.Server)
	}{
		{
			"while Redis is away",
			func(_ *testing.T, s *redistest.Server) { s.Kill() },
			func(t *testing.T, s *redistest.Server) { s.Restart(t) },
		},
		{"while Redis is full", set("maxmemory", "1"), set("maxmemory", "0")},
		{
			"while Redis is read-only",
			func(t *testing.T, s *redistest.Server) { follow(t, s, "127.0.0.1", "1") },
			func(t *testing.T, s *redistest.Server) { follow(t, s, "no", "one") },
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			// Without these go-redis slows the first failures by itself.
			url := server.URL() + "?pool_size=1&max_retries=-1"
			parsed, err := redis.ParseURL(url)
			if err != nil {
				t.Fatal(err)
			}
			plain := redis.NewClient(parsed)
			t.Cleanup(func() { _ = plain.Close() })
			db, err := redisdb.Open(t.Context(), redisdb.Options{URL: url})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })

			without := startLane(t, "other", plain, func(cfg asynq.Config) *asynq.Server {
				return asynq.NewServerFromRedisClient(plain, cfg)
			})
			with := startLane(t, "reset-0", client(t, db), db.Redis.NewServer)

			row.damage(t, server)
			spun := without.failuresInASecond(t)
			paused := with.failuresInASecond(t)
			t.Logf("%d attempts without the pause, %d with it", spun, paused)
			if paused < 1 || paused > 11 {
				t.Errorf("%d attempts in a second, want 1 to 11", paused)
			}
			if spun < 5*paused {
				t.Errorf("only %d attempts without the pause: the test shows nothing", spun)
			}
			row.repair(t, server)
			with.processes(t, plain)
		})
	}
}

func follow(t *testing.T, s *redistest.Server, host, port string) {
	t.Helper()
	if err := s.Client(t).ReplicaOf(t.Context(), host, port).Err(); err != nil {
		t.Fatal(err)
	}
}

// lane is a running asynq server and what it does.
type lane struct {
	queue     string
	failures  atomic.Int64
	processed chan string
}

func startLane(t *testing.T, queue string, rdb redis.UniversalClient, newServer func(asynq.Config) *asynq.Server) *lane {
	t.Helper()
	l := &lane{queue: queue, processed: make(chan string, 100)}
	rdb.AddHook(l)
	server := newServer(asynq.Config{
		Concurrency: 1, Queues: map[string]int{queue: 1}, LogLevel: asynq.FatalLevel, TaskCheckInterval: 20 * time.Millisecond,
	})
	err := server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		l.processed <- task.Type()
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	return l
}

func (*lane) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook and ProcessPipelineHook count what asynq's taking of a task got for an
// answer.
func (l *lane) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		l.count(cmd, err)
		return err
	}
}

func (l *lane) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			l.count(cmd, errors.Join(cmd.Err(), err))
		}
		return err
	}
}

func (l *lane) count(cmd redis.Cmder, err error) {
	if err != nil && !errors.Is(err, redis.Nil) && slices.Contains(cmd.Args(), any("asynq:{"+l.queue+"}:paused")) {
		l.failures.Add(1)
	}
}

// failuresInASecond counts from the first failure on.
func (l *lane) failuresInASecond(t *testing.T) int64 {
	t.Helper()
	eventually(t, "asynq meets an error", func(context.Context) error {
		if l.failures.Load() == 0 {
			return errors.New("none so far")
		}
		return nil
	})
	before := l.failures.Load()
	<-time.After(time.Second) // the second that is measured
	return l.failures.Load() - before
}

// processes enqueues tasks until one is done.
func (l *lane) processes(t *testing.T, rdb redis.UniversalClient) {
	t.Helper()
	client := asynq.NewClientFromRedisClient(rdb)
	eventually(t, "asynq processes tasks", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if _, err := client.EnqueueContext(ctx, asynq.NewTask("probe", nil), asynq.Queue(l.queue)); err != nil {
			return err
		}
		select {
		case <-l.processed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// eventually calls check until it returns nil; after the time of a recovery the
// test ends.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	if err := harness.Until(t.Context(), recovery, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// While Redis stands still for a moment, nobody is refused for a limit that cannot be counted.
func TestARequestThatCannotBeCountedGoesOn(t *testing.T) {
	server := redistest.Start(t)
	w := open(t, redisdb.Options{URL: server.URL()})
	if err := w.db.Quotas.Pace(t.Context(), "acme"); err != nil { // the limit is known
		t.Fatal(err)
	}
	if err := server.Client(t).Do(t.Context(), "CLIENT", "PAUSE", 1500, "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // as long as a handler has
	defer cancel()
	if err := w.db.Quotas.Pace(ctx, "acme"); err != nil {
		t.Error(err)
	}
}
