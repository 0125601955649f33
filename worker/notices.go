package worker

import (
	"context"
	"log/slog"

	"batchreset/tasks"
)

// tell has the webhook endpoints of the tenant told of what has happened to a run, whose open jobs are these.
func (r *Runner) tell(ctx context.Context, run tasks.Run, jobs map[int]tasks.Job) error {
	if len(run.Untold) == 0 {
		return nil
	}
	return r.store.EnqueueRunNotices(ctx, run.Sum(jobs, r.store.Now()))
}

// enqueueNotices has the webhook endpoints of the tenant told of what has ended. If that
// fails, the sweeper does it.
func (a *attempt) enqueueNotices(ctx context.Context, ended tasks.Ended) {
	var topics []tasks.Topic
	if ended.State == tasks.ItemFailed || ended.State == tasks.ItemUnknown {
		topics = append(topics, tasks.TopicItemFailed)
	}
	if ended.JobFinal {
		topics = append(topics, tasks.TopicJobFinished)
	}
	if topics == nil {
		return
	}
	job, _, _ := tasks.ParseItemID(a.d.ItemID)
	if err := a.store.EnqueueNoticesIfWanted(ctx, a.d.Tenant, job, topics...); err != nil {
		a.say(slog.LevelWarn, "webhooks not told yet", slog.Any("error", err))
	}
}
