package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/harness"
)

// stack is a redis-server and the processes of the service that use it.
type stack struct {
	*bench
	dir      string
	redis    *server
	children []*harness.Process // without Redis
}

// newStack starts a redis-server. The stack ends with the row.
func (b *bench) newStack(ctx context.Context, name string) (*stack, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &stack{bench: b, dir: dir}
	var err error
	if s.redis, err = startRedis(ctx, dir); err != nil {
		return nil, err
	}
	b.stacks = append(b.stacks, s)
	return s, nil
}

func (b *bench) closeStacks() {
	for _, s := range b.stacks {
		s.killChildren()
		_ = s.redis.client.Close()
		s.redis.Kill()
	}
	b.stacks = nil
}

func (s *stack) killChildren() {
	for _, p := range s.children {
		p.Kill()
	}
}

// clear ends every process on the Redis and empties it.
func (s *stack) clear(ctx context.Context) error {
	s.killChildren()
	return s.redis.clear(ctx)
}

// start starts a process of the service.
func (s *stack) start(ctx context.Context, command string, args ...string) (*harness.Process, error) {
	name := fmt.Sprintf("%03d-%s", len(s.children)+1, command)
	p, err := harness.Start(ctx, harness.Command{
		Name: name, Log: filepath.Join(s.dir, name+".log"),
		Args: append([]string{s.binary, command, "--redis", s.redis.URL()}, args...),
	})
	if err == nil {
		s.children = append(s.children, p)
	}
	return p, err
}

// token makes a token of a tenant.
func (s *stack) token(ctx context.Context, tenant string) (string, error) {
	out, _, err := harness.Run(ctx, s.binary, "token", "add", "--redis", s.redis.URL(), "--tenant", tenant)
	return strings.TrimSpace(out), err
}

// api is an api process.
type api struct {
	*harness.Process
	addr, ops string
}

// startAPI starts an api with default settings but an open fleet, and without a bound that
// the load would meet: requests and instances are counted as they are by default.
func (s *stack) startAPI(ctx context.Context, flags ...string) (*api, error) {
	addr, err := harness.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	ops, err := harness.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	const most = "1000000000"
	if _, _, err := harness.Run(ctx, s.binary, "tenant", "limit", "--redis", s.redis.URL(), "--all",
		"--requests-per-second", most, "--open-instances", most); err != nil {
		return nil, err
	}
	p, err := s.start(ctx, "api", append([]string{"--listen", addr, "--ops-listen", ops, "--fleet", "open", "--max-backlog", "0"}, flags...)...)
	if err != nil {
		return nil, err
	}
	return &api{p, addr, ops}, p.WaitReady(ctx, 10*time.Second, func(ctx context.Context) error {
		return harness.Get(ctx, "http://"+addr+"/readyz")
	})
}

// startTenant starts an api and makes a token of one tenant.
func (s *stack) startTenant(ctx context.Context, flags ...string) (a *api, token string, err error) {
	if token, err = s.token(ctx, "bench"); err != nil {
		return nil, "", err
	}
	a, err = s.startAPI(ctx, flags...)
	return a, token, err
}

// workerProcess is a worker process.
type workerProcess struct {
	*harness.Process
	ops string
}

// startWorker starts a worker with default settings but the simulator, whose resets take
// latency. It does not wait until the worker is up.
func (s *stack) startWorker(ctx context.Context, latency time.Duration, flags ...string) (*workerProcess, error) {
	ops, err := harness.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.start(ctx, "worker", append([]string{
		"--driver", "simulator", "--simulator-latency", latency.String(), "--ops-listen", ops,
	}, flags...)...)
	if err != nil {
		return nil, err
	}
	return &workerProcess{p, ops}, nil
}

// up waits until asynq has heard of the worker.
func (s *stack) up(ctx context.Context, w *workerProcess) error {
	return w.WaitReady(ctx, 10*time.Second, func(ctx context.Context) error {
		n, err := s.redis.client.ZCard(ctx, "asynq:servers").Result()
		if err == nil && n == 0 {
			err = errors.New("no worker is up")
		}
		return err
	})
}

// fill submits n instances and leaves no api behind.
func (s *stack) fill(ctx context.Context, n int, flags ...string) error {
	a, token, err := s.startTenant(ctx, flags...)
	if err != nil {
		return err
	}
	defer a.Kill()
	_, err = load.Submit(ctx, a.addr, token, n)
	return err
}
