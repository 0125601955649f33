package worker

import (
	"context"
	"log/slog"

	"batchreset/tasks"
)

// tell has the tenant's webhook endpoints told of what has ended. The sweeper does it if
// this comes to nothing.
func (a *attempt) tell(ctx context.Context, ended tasks.Ended) {
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
	if err := a.store.TellIfWanted(ctx, a.d.Tenant, job, topics...); err != nil {
		a.say(slog.LevelWarn, "webhooks not told yet", slog.Any("error", err))
	}
}
