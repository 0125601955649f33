package redisdb

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

// Overview looks at everything that operators want to see at a glance.
func (db *DB) Overview(ctx context.Context) (tasks.Overview, error) {
	now, err := db.rdb.Time(ctx).Result()
	if err != nil {
		return tasks.Overview{}, fmt.Errorf("overview: %w", err)
	}
	o := tasks.Overview{At: tasks.FromMillis(now.UnixMilli()), Accepting: db.Accepting(ctx)}
	if o.Minutes, err = db.minutes(ctx, now, 60); err == nil {
		o.OpenJobs, err = db.rdb.ZCard(ctx, openKey).Result()
	}
	if err == nil {
		o.Queues, err = db.queueStates(ctx)
	}
	if err == nil {
		o.Workers, err = workerProcesses(db.NewInspector())
	}
	if err == nil {
		o.Redis, err = db.nodes(ctx)
	}
	if err != nil {
		return o, fmt.Errorf("overview: %w", err)
	}
	return o, nil
}

func (db *DB) queueStates(ctx context.Context) ([]tasks.QueueState, error) {
	queues, err := db.Queues(ctx)
	if err != nil {
		return nil, err
	}
	inspector := db.NewInspector()
	known, err := inspector.Queues()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(queues, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	states := make([]tasks.QueueState, 0, len(queues))
	for _, queue := range queues {
		info := &asynq.QueueInfo{}
		if slices.Contains(known, queue) { // something has been in it
			if info, err = inspector.GetQueueInfo(queue); err != nil {
				if err := db.leaveOut("queue "+queue, err); err != nil {
					return nil, err
				}
				continue
			}
		}
		states = append(states, tasks.QueueState{
			Name: queue, Pending: info.Pending, Later: info.Scheduled + info.Retry, Active: info.Active, Oldest: info.Latency, Paused: info.Paused,
		})
	}
	return states, nil
}

// workerProcesses gathers the lanes of each worker.
func workerProcesses(inspector *asynq.Inspector) ([]tasks.WorkerProcess, error) {
	servers, err := inspector.Servers()
	if err != nil {
		return nil, err
	}
	type name struct {
		host string
		pid  int
	}
	byName := map[name]*tasks.WorkerProcess{}
	var workers []*tasks.WorkerProcess
	for _, s := range servers {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(s.Queues)), func(q string) bool { return strings.HasPrefix(q, queuePrefix) }) {
			continue // it sends webhooks
		}
		w := byName[name{s.Host, s.PID}]
		if w == nil {
			w = &tasks.WorkerProcess{Host: s.Host, PID: s.PID, Started: tasks.FromMillis(s.Started.UnixMilli())}
			byName[name{s.Host, s.PID}] = w
			workers = append(workers, w)
		}
		w.Lanes++
		w.Busy += len(s.ActiveWorkers)
	}
	slices.SortFunc(workers, func(a, b *tasks.WorkerProcess) int { return cmp.Or(strings.Compare(a.Host, b.Host), a.PID-b.PID) })
	processes := make([]tasks.WorkerProcess, len(workers))
	for i, w := range workers {
		processes[i] = *w
	}
	return processes, nil
}

// nodes looks at the servers of Redis that are written to. The one in this process has
// nothing to tell.
func (db *DB) nodes(ctx context.Context) (nodes []tasks.RedisNode, err error) {
	if db.opts.Embedded {
		return []tasks.RedisNode{{Address: "in this process", Durability: "Nothing survives a restart."}}, nil
	}
	cluster, ok := db.rdb.(*redis.ClusterClient)
	if !ok {
		node, err := lookAtNode(ctx, db.rdb)
		if c, ok := db.rdb.(*redis.Client); ok {
			node.Address = c.Options().Addr
		}
		return []tasks.RedisNode{node}, err
	}
	var mu sync.Mutex
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		node, err := lookAtNode(ctx, c)
		node.Address = c.Options().Addr
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
	info := parseInfo(text)
	count := func(name string) int64 {
		n, _ := strconv.ParseInt(info[name], 10, 64) // 0 if Redis does not say
		return n
	}
	node := tasks.RedisNode{
		Version: info["redis_version"], Memory: count("used_memory"), MaxMemory: count("maxmemory"),
		Replicas: count("connected_slaves"), Commands: count("instantaneous_ops_per_sec"),
	}
	// Managed services may not let us ask.
	config, _ := rdb.ConfigGet(ctx, "appendfsync").Result()
	node.Durability = durability(info["aof_enabled"] == "1", config["appendfsync"])
	if err := checkInfo(text); err != nil {
		node.Problem = err.Error()
	} else if info["aof_enabled"] == "1" && info["aof_last_write_status"] == "err" {
		node.Problem = "The append-only file cannot be written."
	} else if node.Fill() > 0.9 {
		node.Problem = "The memory is nearly full; when it is, no attempt begins."
	}
	return node, nil
}

// durability says what a crash of Redis's machine may lose.
func durability(appendOnly bool, fsync string) string {
	switch {
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
