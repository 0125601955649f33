package redisdb

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
)

// States returns how the queues are that workers serve, by number.
func (q *Queues) States(ctx context.Context) ([]tasks.QueueState, error) {
	queues, err := q.Queues(ctx)
	if err != nil {
		return nil, err
	}
	inspector := q.redis.NewInspector()
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
				if err := q.leftOut.Note("queue "+queue, err); err != nil {
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

// Workers returns the worker processes, with the lanes of each gathered.
func (q *Queues) Workers(ctx context.Context) ([]tasks.WorkerProcess, error) {
	servers, err := q.servers.Get(ctx)
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
		if !slices.ContainsFunc(slices.Collect(maps.Keys(s.Queues)), func(q string) bool { return strings.HasPrefix(q, tasks.QueuePrefix) }) {
			continue // it sends webhooks
		}
		w := byName[name{s.Host, s.PID}]
		if w == nil {
			w = &tasks.WorkerProcess{Host: s.Host, PID: s.PID, Started: tasks.FromMillis(s.Started.UnixMilli()), SlotsOf: map[string]int{}}
			byName[name{s.Host, s.PID}] = w
			workers = append(workers, w)
		}
		w.Slots += s.Concurrency
		for _, driver := range driversOf(slices.Collect(maps.Keys(s.Queues))) {
			w.SlotsOf[driver] += s.Concurrency // an asynq server has the queues of one driver
			if !slices.Contains(w.Drivers, driver) {
				w.Drivers = append(w.Drivers, driver)
			}
		}
		slices.Sort(w.Drivers)
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

// PausedQueues are the queues that nothing is taken from, because somebody has paused them.
func (q *Queues) PausedQueues(ctx context.Context) (map[string]bool, error) {
	states, err := q.States(ctx)
	if err != nil {
		return nil, fmt.Errorf("list paused queues: %w", err)
	}
	paused := map[string]bool{}
	for _, s := range states {
		if s.Paused {
			paused[s.Name] = true
		}
	}
	return paused, nil
}

// Served are the drivers that living workers have.
func (q *Queues) Served(ctx context.Context) (map[string]bool, error) {
	servers, err := q.servers.Get(ctx)
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	served := map[string]bool{}
	for _, s := range servers {
		for queue := range s.Queues {
			if driver, ours := tasks.DriverOf(queue); ours {
				served[driver] = true
			}
		}
	}
	return served, nil
}

// driversOf are the drivers that have these queues.
func driversOf(queues []string) (drivers []string) {
	for _, queue := range queues {
		if driver, ours := tasks.DriverOf(queue); ours && !slices.Contains(drivers, driver) {
			drivers = append(drivers, driver)
		}
	}
	return drivers
}

// Unserved are the drivers that instances wait for and that no living worker has.
func (q *Queues) Unserved(ctx context.Context, states []tasks.QueueState) ([]string, error) {
	served, err := q.Served(ctx)
	if err != nil {
		return nil, err
	}
	var waiting []string
	for _, s := range states {
		if s.Pending+s.Later > 0 {
			waiting = append(waiting, s.Name)
		}
	}
	return slices.DeleteFunc(driversOf(waiting), func(driver string) bool { return served[driver] }), nil
}
