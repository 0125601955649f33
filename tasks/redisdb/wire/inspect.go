package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// inspected is the client of an asynq inspector that the sweeper looks through.
//
// asynq answers "no such queue" for one that is not in its list of queues, whatever is in
// it; a queue gets out of that list when somebody deletes it on the dashboard. An inspected
// says that every queue is listed, so that it is the tasks that are looked for.
//
// asynq judges by the clock of who asks which tasks are orphaned and which servers live. An
// inspected makes it answer neither: the sweeper goes by what Redis itself lets lapse.
type inspected struct {
	redis.UniversalClient
	batch *looks // nil: each look goes by itself
	// What asynq does not tell: how long the last list was, and that something was not answered.
	listed int
	err    error
}

// looks are task look-ups of one queue that travel together: asynq is asked for each task
// twice, once to collect what it sends, and once to read the answers.
type looks struct {
	pipe     redis.Pipeliner // until it is sent
	sent     []*redis.Cmd
	answered int
}

var errCollected = errors.New("the look-up is on its way")

// serversSince is how old the last sign of a server may be, by its own clock, to be looked
// at. Whether it lives is said by its key, which Redis lets lapse.
const serversSince = 7 * 24 * time.Hour

// SIsMember implements redis.Cmdable, which is where asynq asks whether there is a queue.
func (i *inspected) SIsMember(ctx context.Context, _ string, _ any) *redis.BoolCmd {
	answer := redis.NewBoolCmd(ctx)
	answer.SetVal(true)
	return answer
}

// EvalSha implements redis.Scripter.
func (i *inspected) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	switch {
	case i.batch != nil && i.batch.pipe != nil:
		i.batch.sent = append(i.batch.sent, i.batch.pipe.EvalSha(ctx, sha, keys, args...))
		return failed(ctx, errCollected)
	case i.batch != nil:
		i.batch.answered++
		return i.batch.sent[i.batch.answered-1]
	}
	return i.eval(ctx, i.UniversalClient.EvalSha, sha, keys, args)
}

// Eval implements redis.Scripter: Redis has not known the script.
func (i *inspected) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return i.eval(ctx, i.UniversalClient.Eval, script, keys, args)
}

func (i *inspected) eval(ctx context.Context, run func(context.Context, string, []string, ...any) *redis.Cmd, script string, keys []string, args []any) *redis.Cmd {
	switch {
	case strings.HasSuffix(keys[0], "}:lease"): // which tasks are orphaned
		answer := redis.NewCmd(ctx)
		answer.SetVal([]any{})
		return answer
	case keys[0] == "asynq:servers", keys[0] == "asynq:workers":
		args = []any{time.Now().Add(-serversSince).Unix()}
	}
	answer := run(ctx, script, keys, args...)
	i.note(answer.Err())
	if list, err := answer.Slice(); err == nil && strings.HasSuffix(keys[0], "}:active") {
		i.listed = len(list) / 2 // a message and a result for each
	}
	return answer
}

// Get implements redis.Cmdable, which is where asynq reads a server.
func (i *inspected) Get(ctx context.Context, key string) *redis.StringCmd {
	answer := i.UniversalClient.Get(ctx, key)
	i.note(answer.Err())
	return answer
}

// HVals implements redis.Cmdable, which is where asynq reads what a server works on.
func (i *inspected) HVals(ctx context.Context, key string) *redis.StringSliceCmd {
	answer := i.UniversalClient.HVals(ctx, key)
	i.note(answer.Err())
	return answer
}

// note keeps that there was no answer. A reply is one, even if it is an error.
func (i *inspected) note(err error) {
	if err != nil && !Answered(err) {
		i.err = err
	}
}

// looksAtOnce is how many tasks are looked up in one round trip.
const looksAtOnce = 1000

// TaskLook is asynq's answer about a task.
type TaskLook struct {
	Info *asynq.TaskInfo
	Err  error
	// Behind is the error of Redis, if any: without one Redis has answered, whatever asynq
	// makes of it.
	Behind error
}

// LookUp asks asynq for tasks of one queue. The answers are in the same order.
func (c *Client) LookUp(ctx context.Context, queue string, ids []string) []TaskLook {
	found := make([]TaskLook, 0, len(ids))
	for len(ids) > 0 {
		some := ids[:min(len(ids), looksAtOnce)]
		found, ids = append(found, c.lookUp(ctx, queue, some)...), ids[len(some):]
	}
	return found
}

func (c *Client) lookUp(ctx context.Context, queue string, ids []string) []TaskLook {
	batch := c.askFor(ctx, queue, ids)
	if redis.HasErrorPrefix(batch.sent[0].Err(), "NOSCRIPT") {
		// By itself, which makes asynq load the script.
		_, _ = asynq.NewInspectorFromRedisClient(&inspected{UniversalClient: c.UniversalClient}).GetTaskInfo(queue, ids[0])
		batch = c.askFor(ctx, queue, ids)
	}
	inspector := asynq.NewInspectorFromRedisClient(&inspected{UniversalClient: c.UniversalClient, batch: batch})
	found := make([]TaskLook, len(ids))
	for i, id := range ids {
		info, err := inspector.GetTaskInfo(queue, id)
		found[i] = TaskLook{Info: info, Err: err, Behind: batch.sent[i].Err()}
	}
	return found
}

// askFor sends the look-ups of tasks of one queue, and brings the answers.
func (c *Client) askFor(ctx context.Context, queue string, ids []string) *looks {
	batch := &looks{pipe: c.Pipeline()}
	inspector := asynq.NewInspectorFromRedisClient(&inspected{UniversalClient: c.UniversalClient, batch: batch})
	for _, id := range ids {
		_, _ = inspector.GetTaskInfo(queue, id)
	}
	_, _ = batch.pipe.Exec(ctx) // each carries its own error
	batch.pipe = nil
	return batch
}

// activePage is how many active tasks are read at once: a power of two, so that a page which
// cannot be read is halved down to the task that is to blame.
const activePage = 1 << 10

// Active returns the tasks of a queue that workers have in hand. An error comes with those
// that could be read.
func (c *Client) Active(ctx context.Context, queue string) ([]*asynq.TaskInfo, error) {
	l := activeList{client: inspected{UniversalClient: c.UniversalClient}, queue: queue}
	l.inspector = asynq.NewInspectorFromRedisClient(&l.client)
	for page := 0; l.read(ctx, page, activePage); page++ {
	}
	if err := errors.Join(l.troubles...); err != nil {
		return l.found, fmt.Errorf("list active tasks: %w", err)
	}
	return l.found, nil
}

// activeList is a list of active tasks in the making.
type activeList struct {
	client    inspected
	inspector *asynq.Inspector
	queue     string
	found     []*asynq.TaskInfo
	troubles  []error
}

// read reads a page, and reports whether there may be another one behind it.
func (l *activeList) read(ctx context.Context, page, size int) (more bool) {
	if err := ctx.Err(); err != nil {
		l.troubles = append(l.troubles, err)
		return false
	}
	l.client.listed, l.client.err = 0, nil
	some, err := l.inspector.ListActiveTasks(l.queue, asynq.Page(page+1), asynq.PageSize(size))
	if err == nil {
		l.found = append(l.found, some...)
		return l.client.listed == size
	}
	if l.client.err != nil || size == 1 || !l.readable() {
		l.troubles = append(l.troubles, err)
		return l.client.err == nil && size == 1
	}
	return l.read(ctx, 2*page, size/2) && l.read(ctx, 2*page+1, size/2)
}

// readable reports whether it is single tasks that cannot be read, and not the list: a page
// beyond its end can be.
func (l *activeList) readable() bool {
	_, err := l.inspector.ListActiveTasks(l.queue, asynq.Page(1<<30), asynq.PageSize(1))
	return err == nil
}

// InHand returns the IDs of the tasks that living asynq servers say they work on. They say so
// every five seconds.
func (c *Client) InHand(context.Context) (map[string]bool, error) {
	client := &inspected{UniversalClient: c.UniversalClient}
	servers, err := asynq.NewInspectorFromRedisClient(client).Servers()
	if err = cmp.Or(err, client.err); err != nil {
		return nil, fmt.Errorf("list servers: %w", err)
	}
	found := map[string]bool{}
	for _, server := range servers {
		for _, w := range server.ActiveWorkers {
			found[w.TaskID] = true
		}
	}
	return found, nil
}
