package views

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/wire"
)

// Servers are the servers of Redis that are written to.
type Servers struct {
	redis    *wire.Client
	embedded bool
}

// NewServers makes Servers. The embedded one has nothing to tell.
func NewServers(client *wire.Client, embedded bool) *Servers { return &Servers{client, embedded} }

// Nodes looks at all of them.
func (s *Servers) Nodes(ctx context.Context) (nodes []tasks.RedisNode, err error) {
	if s.embedded {
		return []tasks.RedisNode{{Address: "in this process", Durability: "Everything; with dev --state, what came since the last snapshot."}}, nil
	}
	var mu sync.Mutex
	err = s.redis.ForEachPrimary(ctx, func(ctx context.Context, server redis.Cmdable, address string) error {
		node, err := lookAtNode(ctx, server)
		node.Address = address
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node)
		return err
	})
	slices.SortFunc(nodes, func(a, b tasks.RedisNode) int { return strings.Compare(a.Address, b.Address) })
	return nodes, err
}

func lookAtNode(ctx context.Context, rdb redis.Cmdable) (tasks.RedisNode, error) {
	text, err := rdb.Info(ctx).Result()
	if err != nil {
		return tasks.RedisNode{}, err
	}
	info := wire.ParseInfo(text)
	count := func(name string) int64 {
		n, _ := strconv.ParseInt(info[name], 10, 64) // 0 if Redis does not say
		return n
	}
	node := tasks.RedisNode{
		FileFails: info["aof_enabled"] == "1" && info["aof_last_write_status"] == "err", SnapshotFails: info["rdb_last_bgsave_status"] == "err",
		SavedAt: tasks.FromMillis(1000 * count("rdb_last_save_time")),
		Version: info["redis_version"], Policy: info["maxmemory_policy"], AppendOnly: info["aof_enabled"] == "1", Memory: count("used_memory"), MaxMemory: count("maxmemory"),
		Replicas: count("connected_slaves"), Commands: count("instantaneous_ops_per_sec"),
	}
	config := map[string]string{}
	for _, name := range []string{"appendfsync", "save"} { // one by one: Redis 6.2 takes no more
		value, err := rdb.ConfigGet(ctx, name).Result()
		if err != nil {
			break // managed services may not let us ask
		}
		maps.Copy(config, value)
	}
	node.Durability = durability(node.AppendOnly, config)
	if err := CheckInfo(text); err != nil {
		node.Problem = err.Error()
	} else if node.FileFails {
		node.Problem = "The append-only file cannot be written."
	} else if node.SnapshotFails {
		node.Problem = "The last snapshot could not be written; until one can, Redis may refuse every change."
	} else if node.Fill() > 0.9 {
		node.Problem = fmt.Sprintf("%.0f %% of its memory are used; when it is full, no attempt begins.", 100*node.Fill())
	}
	return node, nil
}

// durability says what a crash of Redis's machine may lose, by what Redis tells of its configuration.
func durability(appendOnly bool, config map[string]string) string {
	fsync := config["appendfsync"]
	snapshots, told := config["save"]
	switch {
	case !appendOnly && told && snapshots == "":
		return "No append-only file, and no snapshots: a crash loses everything."
	case !appendOnly:
		return "No append-only file: a crash loses what came after the last snapshot."
	case fsync == "always":
		return "Append-only file, fsync always: a crash loses nothing."
	case fsync == "everysec":
		return "Append-only file, fsync every second: a crash of the machine loses up to two seconds."
	case fsync == "no":
		return "Append-only file, fsync left to the system: a crash of the machine may lose half a minute."
	}
	return "Append-only file; Redis does not tell how often it is synced."
}

// What is wrong with a server and may end by itself.
var (
	ErrReplica error = tasks.Errorf(tasks.Internal, "redis is a read-only replica; connect to the primary")
	ErrLoading error = tasks.Errorf(tasks.Internal, "redis is loading its data")
)

// CheckInfo judges the answer to INFO: whether the server can be trusted with jobs. Errors: a
// tasks.Error that may be shown to anyone.
func CheckInfo(text string) error {
	info := wire.ParseInfo(text)
	if err := CheckVersion(info["redis_version"]); err != nil {
		return err
	}
	if err := CheckPolicy(info["maxmemory_policy"]); err != nil {
		return err
	}
	if info["role"] == "slave" {
		return ErrReplica
	}
	if info["loading"] == "1" {
		return ErrLoading
	}
	return nil
}

// CheckVersion judges what a server says of its version.
func CheckVersion(version string) error {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return tasks.Errorf(tasks.Internal, "redis does not tell its version (redis_version:%s)", version)
	}
	if major < 6 || major == 6 && minor < 2 {
		return tasks.Errorf(tasks.Internal, "redis %s is too old, 6.2 or later is needed", version)
	}
	return nil
}

// CheckPolicy judges what a server does when its memory is full.
func CheckPolicy(policy string) error {
	if policy != "noeviction" {
		return tasks.Errorf(tasks.Internal, "redis has maxmemory-policy %s and may evict jobs; set maxmemory-policy noeviction", policy)
	}
	return nil
}
