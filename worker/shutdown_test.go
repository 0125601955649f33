package worker

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
)

// away is a store whose Redis goes away while the driver works.
type away struct{ Attempts }

func (away) PolicyOf(context.Context, string, string) (tasks.Policy, error) {
	return tasks.Policy{}.Under(tasks.Policy{}), nil
}

func (away) Halt(context.Context, string, tasks.Halter, tasks.Actor) error { return nil }

func (away) Begin(context.Context, tasks.Delivery, string, string, time.Duration) (tasks.Begun, error) {
	return tasks.Begun{Number: 1}, nil
}

func (away) Finish(context.Context, tasks.Delivery, string, tasks.Outcome, bool) (tasks.Ended, error) {
	return tasks.Ended{}, errors.New("connection refused")
}

// TestStoppingWaitsForAttemptsThatAsynqHasForgotten: the log is all that tells of their
// outcomes.
func TestStoppingWaitsForAttemptsThatAsynqHasForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		cfg := Config{
			QueuesOf:    func(context.Context, string) ([]string, error) { return nil, nil },
			Concurrency: 1, Lanes: 1, MaxAttempts: 1, AttemptTimeout: time.Minute, ShutdownTimeout: time.Minute,
		}
		reset := driverFunc(func(context.Context, Attempt) error { return nil })
		w, err := New[Server](cfg, Store{Attempts: away{}, Policies: away{}}, reset, nil, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		d := tasks.Delivery{ItemID: tasks.ItemID(strings.Repeat("0", 32), 0), Number: 1, InstanceID: "phone-1", Tenant: "acme"}
		go func() { _ = w.process(t.Context(), asynq.NewTask(tasks.TypeReset, d.Encode())) }() // no lane waits for it
		synctest.Wait()
		w.shutdown()
		stopping, ended, stopped := strings.Index(log.String(), "worker stopping"), strings.Index(log.String(), "attempt ended"), strings.Index(log.String(), "worker stopped")
		if stopping < 0 || ended < stopping || stopped < ended {
			t.Errorf("the log has\n%s", log.String())
		}
	})
}
