package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// subscriptions counts the connections with one.
func subscriptions(t *testing.T, rdb redis.UniversalClient) int {
	t.Helper()
	clients, err := rdb.Do(t.Context(), "CLIENT", "LIST", "TYPE", "pubsub").Text()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(clients, " laddr=")
}

// TestOneSubscriptionForAProcess has many asynq servers, which all hear of a task that is
// cancelled on the dashboard, over one connection, also after it broke.
func TestOneSubscriptionForAProcess(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	ctx, stop := context.WithCancel(t.Context())
	listening := make(chan error, 3)
	for _, listen := range []func(context.Context) error{
		w.db.Redis.Listen,
		func(ctx context.Context) error { return w.db.Jobs.Finished(ctx, func(string) {}) },
		func(ctx context.Context) error { return w.db.Jobs.Finished(ctx, func(string) {}) },
	} {
		go func() { listening <- listen(ctx) }()
	}
	t.Cleanup(func() {
		stop()
		for range 3 {
			if err := <-listening; err != nil {
				t.Error(err)
			}
		}
	})
	const servers = 8
	began, cancelled := make(chan string, servers), make(chan string, servers)
	for range servers {
		server := w.db.Redis.NewServer(asynq.Config{Queues: map[string]int{"reset-0": 1}, Concurrency: 1, LogLevel: asynq.FatalLevel, TaskCheckInterval: 10 * time.Millisecond})
		if err := server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
			began <- task.Type()
			<-ctx.Done()
			cancelled <- task.Type()
			return fmt.Errorf("%w: cancelled", asynq.SkipRetry)
		})); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Shutdown)
	}
	client, inspector := asynq.NewClientFromRedisClient(w.rdb), asynq.NewInspectorFromRedisClient(w.rdb)
	round := func(name string) {
		for i := range servers {
			if _, err := client.Enqueue(asynq.NewTask(fmt.Sprint(name, i), nil), asynq.Queue("reset-0"), asynq.TaskID(fmt.Sprint(name, i))); err != nil {
				t.Fatal(err)
			}
		}
		for range servers { // each server has one
			await(t, began)
		}
		for i := range servers {
			id := fmt.Sprint(name, i)
			eventually(t, "the cancelled task ends", func(context.Context) error {
				if err := inspector.CancelProcessing(id); err != nil {
					return err
				}
				select {
				case ended := <-cancelled:
					if ended != id {
						t.Errorf("%s ended, and %s was cancelled", ended, id)
					}
					return nil
				case <-time.After(500 * time.Millisecond):
					return errors.New("it goes on")
				}
			})
		}
	}
	round("a")
	if n := subscriptions(t, w.rdb); n != 1 {
		t.Errorf("%d connections are subscribed", n)
	}
	if err := w.rdb.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	round("b")
	if n := subscriptions(t, w.rdb); n != 1 {
		t.Errorf("%d connections are subscribed after one broke", n)
	}
}

// TestASubscriptionThatWasRefusedComesBack when its user may have it again.
func TestASubscriptionThatWasRefusedComesBack(t *testing.T) {
	server := redistest.StartWithUsers(t, "../../deploy/redis/users.acl")
	admin := server.Client(t)
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: server.URLOf("worker"), Roles: []redisdb.Role{redisdb.RoleWorker}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	ctx, stop := context.WithCancel(t.Context())
	heard, done := make(chan string, 100), make(chan error, 1)
	go func() { done <- db.Jobs.Finished(ctx, func(job string) { heard <- job }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	hears := func(job string) {
		t.Helper()
		eventually(t, "it is heard", func(ctx context.Context) error {
			if err := admin.Publish(ctx, "reset:finished", job).Err(); err != nil {
				return err
			}
			select {
			case <-heard:
				return nil
			case <-time.After(100 * time.Millisecond):
				return errors.New("nothing")
			}
		})
	}
	hears("a")
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "worker", "resetchannels").Err(); err != nil {
		t.Fatal(err)
	}
	if err := db.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "must not publish to the channel") {
		t.Errorf("without channels: %v", err)
	}
	eventually(t, "the subscription is gone", func(context.Context) error {
		if n := subscriptions(t, admin); n > 0 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "worker", "&reset:*", "&asynq:cancel").Err(); err != nil {
		t.Fatal(err)
	}
	hears("b")
	if err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func await(t *testing.T, c <-chan string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
	}
}

// TestNoRoomForAConnection names the cause, at the start and later.
func TestNoRoomForAConnection(t *testing.T) {
	server := redistest.Start(t, "maxclients 4")
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for range 4 { // more than there is room for
		idle := server.Client(t)
		if idle.Ping(t.Context()).Err() != nil {
			break
		}
	}
	other, err := redisdb.Open(t.Context(), redisdb.Options{URL: server.URL()})
	if err == nil {
		t.Cleanup(func() { _ = other.Close() })
	}
	if err == nil || !strings.Contains(err.Error(), "maxclients is reached") {
		t.Errorf("at the start: %v", err)
	}
	const callers = 20 // they need more than the connection that there is
	failed := make(chan error, callers)
	for range callers {
		go func() { failed <- db.Check(t.Context()) }()
	}
	n := 0
	for range callers {
		if err := <-failed; err != nil {
			n++
			if tasks.CodeOf(err) != tasks.Internal || !strings.Contains(err.Error(), "maxclients is reached") {
				t.Errorf("later: %v", err)
			}
		}
	}
	if n == 0 {
		t.Error("there was room for everybody")
	}
}
