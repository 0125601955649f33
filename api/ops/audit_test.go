package ops_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/hibiken/asynqmon"

	"batchreset/api/ops"
	"batchreset/tasks"
)

func TestADashboardsChangeIsInTheTrailFirst(t *testing.T) {
	opt := asynq.RedisClientOpt{Addr: miniredis.RunT(t).Addr()}
	client, inspector := asynq.NewClient(opt), asynq.NewInspector(opt)
	t.Cleanup(func() { _ = errors.Join(client.Close(), inspector.Close()) })
	if _, err := client.EnqueueContext(t.Context(), asynq.NewTask("x", nil), asynq.Queue("reset-0")); err != nil {
		t.Fatal(err)
	}
	var trail []tasks.AuditEntry
	var failure error
	site := ops.New(asynqmon.Options{RedisConnOpt: opt}, func(_ context.Context, e tasks.AuditEntry) error {
		trail = append(trail, e)
		return failure
	})
	ask := func(method, path string, want int) {
		t.Helper()
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
		if w.Code != want {
			t.Errorf("%s %s: %d %s, want %d", method, path, w.Code, w.Body, want)
		}
	}
	paused := func() bool {
		t.Helper()
		info, err := inspector.GetQueueInfo("reset-0")
		if err != nil {
			t.Fatal(err)
		}
		return info.Paused
	}
	ask(http.MethodGet, "/asynq/api/queues", http.StatusOK)
	if len(trail) != 0 {
		t.Errorf("a look is in the trail: %+v", trail)
	}
	failure = errors.New("no Redis")
	ask(http.MethodPost, "/asynq/api/queues/reset-0:pause", http.StatusServiceUnavailable)
	if paused() {
		t.Error("paused without an entry")
	}
	failure = nil
	ask(http.MethodPost, "/asynq/api/queues/reset-0:pause", http.StatusNoContent)
	want := tasks.AuditEntry{Action: tasks.ActionDashboard, By: "dashboard", From: "192.0.2.1", Detail: "POST /asynq/api/queues/reset-0:pause"}
	if got := trail[len(trail)-1]; got.Action != want.Action || got.By != want.By || got.From != want.From || got.Detail != want.Detail || !paused() {
		t.Errorf("entry %+v, want %+v", got, want)
	}
}
