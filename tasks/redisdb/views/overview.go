package views

import (
	"context"
	"fmt"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// Overview is what operators see at a glance.
type Overview struct {
	redis     *wire.Client
	servers   *Servers
	activity  *Activity
	queues    Queues
	accepting func(ctx context.Context) bool
}

// Queues are the queues that instances are reset from, and who serves them.
type Queues interface {
	States(ctx context.Context) ([]tasks.QueueState, error)
	Workers() ([]tasks.WorkerProcess, error)
	Unserved(states []tasks.QueueState) ([]string, error)
}

// NewOverview makes an Overview. accepting says
// whether there is room for new work.
func NewOverview(client *wire.Client, servers *Servers, activity *Activity, queues Queues,
	accepting func(ctx context.Context) bool,
) *Overview {
	return &Overview{client, servers, activity, queues, accepting}
}

// Overview looks at everything that operators want to see at a glance.
func (v *Overview) Overview(ctx context.Context) (tasks.Overview, error) {
	now, err := v.redis.Time(ctx).Result()
	if err != nil {
		return tasks.Overview{}, fmt.Errorf("overview: %w", err)
	}
	seen := tasks.Overview{At: tasks.FromMillis(now.UnixMilli()), Accepting: v.accepting(ctx)}
	if seen.Minutes, err = v.activity.minutes(ctx, now, 60); err == nil {
		seen.OpenJobs, err = v.redis.ZCard(ctx, codec.OpenKey).Result()
	}
	if err == nil {
		seen.Queues, err = v.queues.States(ctx)
	}
	if err == nil {
		seen.Workers, err = v.queues.Workers()
	}
	if err == nil {
		seen.Unserved, err = v.queues.Unserved(seen.Queues)
	}
	if err == nil {
		seen.Redis, err = v.servers.Nodes(ctx)
	}
	if err != nil {
		return seen, fmt.Errorf("overview: %w", err)
	}
	return seen, nil
}
