package views

import (
	"context"
	"fmt"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/wire"
)

// Overview is what operators see at a glance.
type Overview struct {
	redis    *wire.Client
	servers  *Servers
	activity *Activity
	queues   Queues
	storage  Storage
	census   *Census
}

// Storage is the room that Redis has.
type Storage interface {
	// Accepting reports whether there is room for new work: until FullAt percent are used.
	Accepting(ctx context.Context) bool
	FullAt() int
}

// Queues are the queues that instances are reset from, and who serves them.
type Queues interface {
	States(ctx context.Context) ([]tasks.QueueState, error)
	Workers(ctx context.Context) ([]tasks.WorkerProcess, error)
	Unserved(ctx context.Context, states []tasks.QueueState) ([]string, error)
}

// NewOverview makes an Overview.
func NewOverview(client *wire.Client, servers *Servers, activity *Activity, queues Queues, storage Storage, census *Census) *Overview {
	return &Overview{client, servers, activity, queues, storage, census}
}

// Census is what work is open: see Census.Census.
func (v *Overview) Census(ctx context.Context) (tasks.Census, error) { return v.census.Census(ctx) }

// CensusOf is that of some jobs alone, as they are now: see Census.CensusOf.
func (v *Overview) CensusOf(ctx context.Context, jobs []string) (tasks.Census, error) {
	return v.census.CensusOf(ctx, jobs)
}

// EndedByTenant is Activity's.
func (v *Overview) EndedByTenant(ctx context.Context) (map[string]int64, error) {
	return v.activity.EndedByTenant(ctx)
}

// Processes are the worker processes that live, as asynq knows them.
func (v *Overview) Processes(ctx context.Context) ([]tasks.WorkerProcess, error) {
	return v.queues.Workers(ctx)
}

// Overview looks at everything that operators want to see at a glance.
func (v *Overview) Overview(ctx context.Context) (tasks.Overview, error) {
	now, err := v.redis.Time(ctx).Result()
	if err != nil {
		return tasks.Overview{}, fmt.Errorf("overview: %w", err)
	}
	seen := tasks.Overview{At: tasks.FromMillis(now.UnixMilli()), Accepting: v.storage.Accepting(ctx), FullAt: v.storage.FullAt()}
	if seen.Minutes, err = v.activity.minutes(ctx, now, 60); err == nil {
		seen.Work, err = v.Census(ctx)
	}
	if err == nil {
		seen.Queues, err = v.queues.States(ctx)
	}
	if err == nil {
		seen.Workers, err = v.queues.Workers(ctx)
	}
	if err == nil {
		seen.Unserved, err = v.queues.Unserved(ctx, seen.Queues)
	}
	if err == nil {
		seen.Redis, err = v.servers.Nodes(ctx)
	}
	if err != nil {
		return seen, fmt.Errorf("overview: %w", err)
	}
	return seen, nil
}
