package worker

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A look for queues may take all of its time while Redis stands still, and then the next one is due.
func TestAWorkerWhoseRedisStandsStillAnswersAfterEachLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		defer end()
		w := &Worker{
			asked: make(chan struct{}), draining: ctx, log: slog.New(slog.DiscardHandler), drivers: map[string]*equipment{"default": {}},
			cfg: Config{QueuesOf: func(ctx context.Context, _ string) ([]string, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}},
		}
		go w.serveQueues(ctx)
		time.Sleep(queuesEvery) // the first look begins
		for n := range 20 {
			synctest.Wait()
			asking, cancel := context.WithTimeout(ctx, queuesEvery+time.Second)
			if err := w.Answer(asking); err != nil {
				t.Fatalf("ask %d: %v", n, err)
			}
			cancel()
		}
	})
}
