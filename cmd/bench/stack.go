package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// stack is a redis-server and the processes of the service that use it.
type stack struct {
	*bench
	dir      string
	redis    *server
	children []*process // without Redis
}

// newStack starts a redis-server. The stack ends with the row.
func (b *bench) newStack(ctx context.Context, name string) (*stack, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &stack{bench: b, dir: dir}
	redis, err := startRedis(ctx, dir, "redis")
	if redis != nil {
		s.redis = redis
		b.stacks = append(b.stacks, s)
	}
	return s, err
}

func (b *bench) closeStacks() {
	for _, s := range b.stacks {
		s.killChildren()
		_ = s.redis.client.Close()
		s.redis.kill()
	}
	b.stacks = nil
}

func (s *stack) killChildren() {
	for _, p := range s.children {
		p.kill()
	}
}

// clear ends every process on the Redis and empties it.
func (s *stack) clear(ctx context.Context) error {
	s.killChildren()
	return s.redis.clear(ctx)
}

// start starts a process of the service.
func (s *stack) start(ctx context.Context, command string, args ...string) (*process, error) {
	name := fmt.Sprintf("%03d-%s", len(s.children)+1, command)
	p, err := start(ctx, s.dir, name, append([]string{s.binary, command, "--redis", s.redis.url()}, args...)...)
	if err == nil {
		s.children = append(s.children, p)
	}
	return p, err
}

// token makes a token of a tenant.
func (s *stack) token(ctx context.Context, tenant string) (string, error) {
	out, err := exec.CommandContext(ctx, s.binary, "token", "add", "--redis", s.redis.url(), "--tenant", tenant).Output()
	if err != nil {
		return "", fmt.Errorf("batchreset token add: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// api is an api process.
type api struct {
	*process
	addr, ops string
}

// startAPI starts an api with default settings but an open fleet, and without a bound that
// the load would meet: requests and instances are counted as they are by default.
func (s *stack) startAPI(ctx context.Context, flags ...string) (*api, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	ops, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	const most = "1000000000"
	if out, err := exec.CommandContext(ctx, s.binary, "tenant", "limit", "--redis", s.redis.url(), "--all",
		"--requests-per-second", most, "--open-instances", most).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("batchreset tenant limit: %w: %s", err, out)
	}
	p, err := s.start(ctx, "api", append([]string{"--listen", addr, "--ops-listen", ops, "--fleet", "open", "--max-backlog", "0"}, flags...)...)
	if err != nil {
		return nil, err
	}
	return &api{p, addr, ops}, until(ctx, 10*time.Second, func(ctx context.Context) error {
		return errors.Join(p.check(), ready(ctx, "http://"+addr+"/readyz"))
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
	*process
	ops string
}

// startWorker starts a worker with default settings but the simulator, whose resets take
// latency. It does not wait until the worker is up.
func (s *stack) startWorker(ctx context.Context, latency time.Duration, flags ...string) (*workerProcess, error) {
	ops, err := freeAddr(ctx)
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
	return until(ctx, 10*time.Second, func(ctx context.Context) error {
		if err := w.check(); err != nil {
			return err
		}
		n, err := s.redis.client.ZCard(ctx, "asynq:servers").Result()
		if err == nil && n == 0 {
			err = errors.New("no worker is up")
		}
		return err
	})
}

func ready(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}
