package views

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// Overview is what operators see at a glance.
type Overview struct {
	redis     *wire.Client
	servers   *Servers
	activity  *Activity
	queues    func(ctx context.Context) ([]string, error)
	accepting func(ctx context.Context) bool
	leftOut   *codec.LeftOut
}

// NewOverview makes an Overview. queues names the queues that workers serve, accepting says
// whether there is room for new work.
func NewOverview(client *wire.Client, servers *Servers, activity *Activity, queues func(ctx context.Context) ([]string, error),
	accepting func(ctx context.Context) bool, leftOut *codec.LeftOut,
) *Overview {
	return &Overview{client, servers, activity, queues, accepting, leftOut}
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
		seen.Queues, err = v.queueStates(ctx)
	}
	if err == nil {
		seen.Workers, err = workerProcesses(v.redis.NewInspector())
	}
	if err == nil {
		seen.Redis, err = v.servers.Nodes(ctx)
	}
	if err != nil {
		return seen, fmt.Errorf("overview: %w", err)
	}
	return seen, nil
}

func (v *Overview) queueStates(ctx context.Context) ([]tasks.QueueState, error) {
	queues, err := v.queues(ctx)
	if err != nil {
		return nil, err
	}
	inspector := v.redis.NewInspector()
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
				if err := v.leftOut.Note("queue "+queue, err); err != nil {
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
		if !slices.ContainsFunc(slices.Collect(maps.Keys(s.Queues)), func(q string) bool { return strings.HasPrefix(q, codec.QueuePrefix) }) {
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
