package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"batchreset/cmd/harness"
	"batchreset/tasks/sdkhmac"
)

// upLimit is how long a process of the service may take until it is ready.
const upLimit = 10 * time.Second

// Stack is a redis-server and the processes of the service that use it.
type Stack struct {
	Redis *Redis

	url      string // of Redis
	program  *Program
	dir      string
	children []*harness.Process // without Redis
}

// Start starts a redis-server, with no process of the service yet. Logs go to dir, which is
// made if it is not there. End it with Close.
func Start(ctx context.Context, program *Program, dir string) (*Stack, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	redis, err := startRedis(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &Stack{Redis: redis, url: redis.URL(), program: program, dir: dir}, nil
}

// Close ends all processes of the stack.
func (s *Stack) Close() {
	s.killChildren()
	_ = s.Redis.Client.Close()
	s.Redis.Kill()
}

func (s *Stack) killChildren() {
	for _, p := range s.children {
		p.Kill()
	}
}

// Clear ends every process on the Redis and empties it.
func (s *Stack) Clear(ctx context.Context) error {
	s.killChildren()
	return s.Redis.Client.FlushAll(ctx).Err()
}

// start starts a process of the service.
func (s *Stack) start(ctx context.Context, command string, args ...string) (*harness.Process, error) {
	name := fmt.Sprintf("%03d-%s", len(s.children)+1, command)
	p, err := harness.Start(ctx, harness.Command{
		Name: name, Log: filepath.Join(s.dir, name+".log"),
		Args: append([]string{s.program.path, command, "--redis", s.url}, args...),
	})
	if err == nil {
		s.children = append(s.children, p)
	}
	return p, err
}

// Key makes an access key of a tenant.
func (s *Stack) Key(ctx context.Context, tenant string) (key sdkhmac.Key, err error) {
	out, _, err := harness.Run(ctx, s.program.path, "key", "add", "--redis", s.url, "--tenant", tenant, "--output", "json")
	if err != nil {
		return key, err
	}
	var made struct {
		Access string `json:"access_key"`
		Secret string `json:"secret_key"`
	}
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		return key, fmt.Errorf("key add: %w", err)
	}
	return sdkhmac.Key{Access: made.Access, Secret: made.Secret}, nil
}

// Token makes a token of a tenant and returns its secret.
func (s *Stack) Token(ctx context.Context, tenant string) (string, error) {
	out, _, err := harness.Run(ctx, s.program.path, "token", "add", "--redis", s.url, "--tenant", tenant)
	return strings.TrimSpace(out), err
}
