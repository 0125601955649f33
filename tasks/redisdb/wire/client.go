package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// Options are the settings of a Client.
type Options struct {
	// URL is one that parseAddress reads.
	URL string
	// DidYouMean is the end of a sentence about a parameter of the URL that is not known, "" if
	// none of those that are is near. Default: always that.
	DidYouMean func(name string, known []string) string
	// Dial, if set, makes the connections to a single server in place of the network, for
	// tests that simulate one.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Replicas is how many replicas must have what Commit writes; 0 = none is waited for.
	Replicas int
	// Hooks see every round trip. One call of a Cluster can be many of them.
	Hooks []redis.Hook
}

// Client is a connection to Redis: a server, a primary that Sentinels know, or a Cluster. It
// is safe for concurrent use.
type Client struct {
	redis.UniversalClient
	cluster  *redis.ClusterClient // nil: it is none
	replicas int
	group    *grouped
	idle     *idleQueues
	delayed  *delayedSets
	held     heldQueues
	shared   *subscription
	relay    *relay
	clocks   clocks
}

// ErrURL is in the chain of an error of Open that is about its URL: nothing was asked.
var ErrURL = errors.New("the URL cannot be used")

type urlError struct{ error }

func (e urlError) Is(target error) bool { return target == ErrURL }

func (e urlError) Unwrap() error { return e.error }

// Open makes a client. Nothing is sent yet. The caller closes it. Errors: ErrURL.
func Open(opts Options) (*Client, error) {
	if opts.DidYouMean == nil {
		opts.DidYouMean = func(string, []string) string { return "" }
	}
	rdb, err := connect(opts)
	if err != nil {
		return nil, urlError{err}
	}
	c := &Client{UniversalClient: rdb, replicas: opts.Replicas, group: newGrouped(rdb), idle: newIdleQueues(), delayed: newDelayedSets(), shared: newSubscription(rdb)}
	c.relay = newRelay(c.shared)
	hooks := append(opts.Hooks, crowded{})
	var cluster bool
	if c.cluster, cluster = rdb.(*redis.ClusterClient); cluster {
		c.cluster.OnNewNode(func(node *redis.Client) { addHooks(node, hooks) })
	} else {
		addHooks(rdb, hooks)
	}
	return c, nil
}

func addHooks(rdb interface{ AddHook(hook redis.Hook) }, hooks []redis.Hook) {
	for _, hook := range hooks {
		rdb.AddHook(hook)
	}
}

// Close closes every connection.
func (c *Client) Close() error {
	c.shared.close()
	return errors.Join(c.relay.client.Close(), c.UniversalClient.Close())
}

// ForEachPrimary calls look with each server that is written to, at the same time if there
// are several, and its address, as far as it is known.
func (c *Client) ForEachPrimary(ctx context.Context, look func(ctx context.Context, node redis.Cmdable, address string) error) error {
	if c.cluster != nil {
		return c.cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			return look(ctx, node, node.Options().Addr)
		})
	}
	address := ""
	if single, ok := c.UniversalClient.(*redis.Client); ok {
		address = single.Options().Addr
	}
	return look(ctx, c.UniversalClient, address)
}

// KeyOnEach returns some of the keys that name makes of 0, 1, …, of which the first is always one, so that each primary
// of a Cluster has one of them. Nothing is sent; a primary without slots has none.
func (c *Client) KeyOnEach(ctx context.Context, name func(n int) string) ([]string, error) {
	keys := []string{name(0)}
	if c.cluster == nil {
		return keys, nil
	}
	var primaries atomic.Int64
	if err := c.cluster.ForEachMaster(ctx, func(context.Context, *redis.Client) error {
		primaries.Add(1)
		return nil
	}); err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for n := 0; n < maxNames && len(has) < int(primaries.Load()); n++ {
		node, err := c.cluster.MasterForKey(ctx, name(n))
		if err != nil {
			return nil, err
		}
		if address := node.Options().Addr; !has[address] {
			has[address] = true
			if n > 0 {
				keys = append(keys, name(n))
			}
		}
	}
	return keys, nil
}

// maxNames is how many names KeyOnEach tries: a primary that has less than a hundredth of the slots may be left out.
const maxNames = 1000

// User is the Redis user of the client.
func (c *Client) User() string {
	name := ""
	switch client := c.UniversalClient.(type) {
	case *redis.Client:
		name = client.Options().Username
	case *redis.ClusterClient:
		name = client.Options().Username
	}
	if name == "" {
		return "default"
	}
	return name
}

// Clustered reports whether keys may be on different primaries.
func (c *Client) Clustered() bool { return c.cluster != nil }

// Stepwise reports whether what is about several keys must be done in steps, key by key: in
// a Cluster they may be on different nodes, and with replicas one key has to be on them
// before another one is written.
func (c *Client) Stepwise() bool { return c.cluster != nil || c.replicas > 0 }

// NewServer makes an asynq server that shares the client's connections.
func (c *Client) NewServer(cfg asynq.Config) *asynq.Server {
	return asynq.NewServerFromRedisClient(taker{c.group, c.idle, c.delayed, &c.held, c.relay}, cfg)
}

// NewInspector makes an asynq inspector that shares the client's connections.
func (c *Client) NewInspector() *asynq.Inspector {
	return asynq.NewInspectorFromRedisClient(c.UniversalClient)
}

// MakeRedisClient makes the client an asynq.RedisConnOpt, for asynq's dashboard. Whoever gets
// what it returns must not close it before the Client.
func (c *Client) MakeRedisClient() any { return c.UniversalClient }

// Answered reports whether an error is Redis's answer, and not that there was none.
func Answered(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// LogTo sends what go-redis logs by itself, for the whole process, to log. It is
// about single connections; calls that fail are reported by their callers.
func LogTo(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "go-redis", "text", fmt.Sprintf(format, v...))
}
