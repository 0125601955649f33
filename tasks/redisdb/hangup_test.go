package redisdb

import (
	"context"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

// hangUp ends a caller's context when the record of the caller's job is being created.
type hangUp struct {
	recorder
	end context.CancelFunc
}

func (h *hangUp) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		h.look(cmds...)
		return next(ctx, cmds)
	}
}

func (h *hangUp) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.look(cmd)
		return next(ctx, cmd)
	}
}

func (h *hangUp) look(cmds ...redis.Cmder) {
	for _, cmd := range cmds {
		for _, arg := range cmd.Args() {
			if arg == createScript.Hash() {
				h.end()
			}
		}
	}
}

func TestACallerWhoHangsUpLeavesNoRecordWithoutTasks(t *testing.T) {
	db, err := Open(t.Context(), Options{URL: "redis://" + miniredis.RunT(t).Addr(), Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	ctx, end := context.WithCancel(t.Context())
	db.Redis.AddHook(&hangUp{end: end})
	job, err := db.Records.Submit(ctx, tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1", "phone-2"}, AllowUnregistered: true})
	if err != nil || ctx.Err() == nil {
		t.Fatalf("%v, and the caller is there: %v", err, ctx.Err() == nil)
	}
	queued, err := db.Redis.NewInspector().ListPendingTasks(job.Queue)
	if err != nil || len(queued) != 2 {
		t.Errorf("%d tasks, %v", len(queued), err)
	}
}
