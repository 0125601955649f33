package main

import (
	"math/rand/v2"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
)

// loseTasks does what somebody may do on asynq's dashboard: it deletes some of the resets
// that wait, and queues that are empty. While Redis is away, there is nothing to delete.
// Who deletes a webhook's task does not want it told.
func (w *world) loseTasks(r *rand.Rand) {
	const most = 5 // of a queue
	inspector := asynq.NewInspectorFromRedisClient(w.store.client)
	queues, _ := inspector.Queues()
	for _, queue := range queues {
		for _, list := range []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
			inspector.ListPendingTasks, inspector.ListScheduledTasks, inspector.ListRetryTasks,
		} {
			waiting, _ := list(queue, asynq.PageSize(most))
			for _, t := range waiting {
				if t.Type == tasks.TypeReset && r.IntN(2) == 0 {
					_ = inspector.DeleteTask(queue, t.ID) // a worker may have taken it
				}
			}
		}
		_ = inspector.DeleteQueue(queue, false) // unless it is empty
	}
}
