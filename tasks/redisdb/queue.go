package redisdb

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// unlimited is for asynq's own timeout: the record decides when an attempt has
// taken too long and when there have been enough.
const unlimited = 10 * 365 * 24 * time.Hour

// Queues are the asynq queues that instances are reset from.
type Queues struct {
	redis      *wire.Client
	number     int // new jobs are spread over so many
	maxBacklog int
	leftOut    *codec.LeftOut
	backlogs   *wire.Look[*backlog]
	servers    *wire.Look[[]*asynq.ServerInfo] // the lanes of all workers, which tell of themselves every 5 s
	looks      sync.WaitGroup                  // of QueueMetrics
}

func newQueues(client *wire.Client, number, maxBacklog int, leftOut *codec.LeftOut) *Queues {
	q := &Queues{redis: client, number: number, maxBacklog: maxBacklog, leftOut: leftOut}
	q.backlogs = wire.NewLook(backlogsFresh, backlogsPatience, q.measureBacklogs)
	q.servers = wire.NewLook(workersFresh, workersPatience, func(context.Context, *[]*asynq.ServerInfo) ([]*asynq.ServerInfo, error) {
		return client.NewInspector().Servers()
	})
	return q
}

// close waits for what looks at the queues.
func (q *Queues) close() {
	q.backlogs.Wait()
	q.servers.Wait()
	q.looks.Wait()
}

// enqueue hands the job's open items to the workers. It may be repeated: asynq
// refuses the ID of a task that it still knows, which is as good as enqueued.
func (q *Queues) enqueue(ctx context.Context, job tasks.Job) error {
	// The record is committed, so a caller who hangs up must not stop this half-way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	byDriver := map[string][]tasks.Delivery{}
	for _, d := range job.Deliveries() {
		byDriver[d.Driver] = append(byDriver[d.Driver], d)
	}
	for driver, deliveries := range byDriver {
		if err := q.redis.Enqueue(ctx, tasks.QueueOf(job.Queue, driver), len(deliveries), func(ctx context.Context, client *asynq.Client, i int) error {
			return enqueueOne(ctx, client, job, deliveries[i], asynq.ProcessAt(startOf(job)))
		}); err != nil {
			return &tasks.UndeliveredError{Job: job.ID, Cause: err}
		}
	}
	return nil
}

// startOf is when the job's tasks are handed out; long ago means at once. asynq cuts
// seconds off.
func startOf(job tasks.Job) time.Time { return job.NotBefore.Add(time.Second - time.Millisecond) }

func enqueueOne(ctx context.Context, client *asynq.Client, job tasks.Job, d tasks.Delivery, when asynq.Option) error {
	_, err := client.EnqueueContext(ctx, asynq.NewTaskWithHeaders(tasks.TypeReset, d.Encode(), headers(job.Traceparent)),
		asynq.TaskID(d.TaskID()),
		asynq.Queue(tasks.QueueOf(job.Queue, d.Driver)),
		asynq.MaxRetry(math.MaxInt32),
		asynq.Timeout(unlimited),
		asynq.Retention(job.TaskRetention),
		when,
	)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}

// headers of a job's tasks: its trace, of which each attempt and each notice is a part.
func headers(traceparent string) map[string]string {
	if traceparent == "" {
		return nil
	}
	return map[string]string{"traceparent": traceparent}
}

// Of returns the names of the queues that workers with a driver serve: those that jobs are now
// put into, and every other one of this driver that asynq knows, from when there were more.
func (q *Queues) Of(_ context.Context, driver string) ([]string, error) {
	known, err := q.redis.NewInspector().Queues()
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	queues := slices.DeleteFunc(known, func(q string) bool { of, ours := tasks.DriverOf(q); return !ours || of != driver })
	for n := range q.number {
		queues = append(queues, tasks.QueueName(driver, n))
	}
	slices.Sort(queues)
	return slices.Compact(queues), nil
}

// Queues returns the names of all queues that there are: those of the default driver that jobs are
// now put into, and every other one of ours that asynq knows.
func (q *Queues) Queues(context.Context) ([]string, error) {
	known, err := q.redis.NewInspector().Queues()
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	queues := slices.DeleteFunc(known, func(q string) bool { return !strings.HasPrefix(q, tasks.QueuePrefix) })
	for n := range q.number {
		queues = append(queues, tasks.QueueName(tasks.DefaultDriver, n))
	}
	slices.Sort(queues)
	return slices.Compact(queues), nil
}

// spread is how many of the queues a tenant's jobs go to. Few, so that a tenant with a
// long backlog stands in the way of few others; more than one, so that the others
// have somewhere else to go.
const spread = 2

// candidates are the queues of a tenant, the same in every process.
func candidates(tenant string, queues int) []int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(tenant)) // never fails
	return rand.New(rand.NewPCG(h.Sum64(), 0)).Perm(queues)[:min(spread, queues)]
}

// place chooses the queue of a new job: the shortest of its tenant's.
func (q *Queues) place(tenant string, items int) string {
	ours := candidates(tenant, q.number)
	rand.Shuffle(len(ours), func(i, j int) { ours[i], ours[j] = ours[j], ours[i] })
	return tasks.QueueName(tasks.DefaultDriver, q.backlog().shortest(ours, items))
}

const (
	// backlogsFresh is how long a look at the lengths of the queues is good for.
	backlogsFresh = time.Second
	// backlogsWait is how long a submit waits for a look, if the last one is so old that it
	// says nothing. backlogsPatience bounds the look, but for what asynq does, which has no context.
	backlogsWait     = 50 * time.Millisecond
	backlogsStale    = 10 * time.Second
	backlogsPatience = 10 * time.Second
)

// backlog is how many tasks each queue has, waiting or worked on: at a look, and what was
// added here since.
type backlog struct {
	mu    sync.Mutex
	ready map[int]int
	all   int // over all queues, with those that wait for their time
}

// shortest returns the queue that has the least, and adds so many tasks to it.
func (b *backlog) shortest(queues []int, tasks int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := slices.MinFunc(queues, func(x, y int) int { return b.ready[x] - b.ready[y] })
	b.ready[queue] += tasks
	b.all += tasks
	return queue
}

// total is how many tasks there are, about.
func (b *backlog) total() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all
}

// backlog is what is known of the queues. Nobody waits long for it.
func (q *Queues) backlog() *backlog {
	if known, ok := q.backlogs.Recent(backlogsStale, backlogsWait); ok {
		return known
	}
	return &backlog{ready: map[int]int{}}
}

// measureBacklogs asks asynq. What it does not answer counts as empty.
func (q *Queues) measureBacklogs(context.Context, **backlog) (*backlog, error) {
	inspector := q.redis.NewInspector()
	b := &backlog{ready: map[int]int{}}
	known, err := inspector.Queues()
	if err != nil {
		return b, nil //nolint:nilerr // what asynq does not answer counts as empty
	}
	for _, queue := range known {
		if _, ours := tasks.DriverOf(queue); !ours {
			continue
		}
		info, err := inspector.GetQueueInfo(queue)
		if err != nil {
			continue
		}
		n, _ := strconv.Atoi(queue[strings.LastIndexByte(queue, '-')+1:])
		b.ready[n] += info.Pending + info.Active
		b.all += info.Pending + info.Active + info.Scheduled + info.Retry
	}
	return b, nil
}

// refuseBacklog refuses a job while too many instances wait.
func (q *Queues) refuseBacklog() error {
	if q.maxBacklog == 0 || q.backlog().total() < q.maxBacklog {
		return nil
	}
	refused := tasks.Errorf(tasks.TooManyRequests, "%d instances or more wait to be reset, the service takes no more for now", q.maxBacklog)
	refused.RetryAfter = 5 * time.Second
	return refused
}
