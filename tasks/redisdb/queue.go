package redisdb

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
)

// unlimited is for asynq's own timeout: the record decides when an attempt has
// taken too long and when there have been enough.
const unlimited = 10 * 365 * 24 * time.Hour

const queuePrefix = "reset-"

// queueName is the name of queue n.
func queueName(n int) string { return fmt.Sprintf("%s%d", queuePrefix, n) }

// enqueue hands the job's open items to the workers. It may be repeated: asynq
// refuses the ID of a task that it still knows, which is as good as enqueued.
func (db *DB) enqueue(ctx context.Context, job tasks.Job) error {
	// The record is committed, so a caller who hangs up must not stop this half-way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	deliveries := job.Deliveries()
	if err := db.enqueueAll(ctx, job.Queue, len(deliveries), func(ctx context.Context, client *asynq.Client, i int) error {
		return enqueueOne(ctx, client, job, deliveries[i], asynq.ProcessAt(startOf(job)))
	}); err != nil {
		return &tasks.UndeliveredError{Job: job.ID, Cause: err}
	}
	return nil
}

// startOf is when the job's tasks are handed out; long ago means at once. asynq cuts
// seconds off.
func startOf(job tasks.Job) time.Time { return job.NotBefore.Add(time.Second - time.Millisecond) }

func enqueueOne(ctx context.Context, client *asynq.Client, job tasks.Job, d tasks.Delivery, when asynq.Option) error {
	_, err := client.EnqueueContext(ctx, asynq.NewTaskWithHeaders(tasks.TypeReset, d.Encode(), headers(job)),
		asynq.TaskID(d.TaskID()),
		asynq.Queue(job.Queue),
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
func headers(job tasks.Job) map[string]string {
	if job.Traceparent == "" {
		return nil
	}
	return map[string]string{"traceparent": job.Traceparent}
}

// Queues returns the names of the queues that workers serve: those that jobs are now
// put into, and every other one of ours that asynq knows, from when there were more.
func (db *DB) Queues(context.Context) ([]string, error) {
	known, err := db.NewInspector().Queues()
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	queues := slices.DeleteFunc(known, func(q string) bool { return !strings.HasPrefix(q, queuePrefix) })
	for n := range db.opts.Queues {
		queues = append(queues, queueName(n))
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
func (db *DB) place(tenant string, items int) string {
	ours := candidates(tenant, db.opts.Queues)
	rand.Shuffle(len(ours), func(i, j int) { ours[i], ours[j] = ours[j], ours[i] })
	return queueName(db.backlogs.shortest(ours, items))
}

const (
	// backlogsFresh is how long a look at the lengths of the queues is good for.
	backlogsFresh = time.Second
	// backlogsPatience is how long a submit waits for a look, if the last one is so old
	// that it says nothing.
	backlogsPatience = 50 * time.Millisecond
	backlogsStale    = 10 * time.Second
)

// backlogs remembers how many tasks each queue has, waiting or worked on.
type backlogs struct {
	measure func() (ready map[int]int, all int)
	looks   sync.WaitGroup

	mu      sync.Mutex
	tasks   map[int]int // at the last look, and what was added here since
	all     int         // the same over all queues, with those that wait for their time
	at      time.Time
	looking chan struct{} // closed at the end of the look that goes on; nil: none does
}

// shortest returns the queue that has the least, and adds so many tasks to it.
func (b *backlogs) shortest(queues []int, tasks int) int {
	b.look()
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := slices.MinFunc(queues, func(x, y int) int { return b.tasks[x] - b.tasks[y] })
	b.tasks[queue] += tasks
	b.all += tasks
	return queue
}

// total is how many tasks there are, about.
func (b *backlogs) total() int {
	b.look()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all
}

// look has somebody look again if what is known is old.
func (b *backlogs) look() {
	b.mu.Lock()
	age, looking := time.Since(b.at), b.looking
	if age > backlogsFresh && looking == nil {
		looking = make(chan struct{})
		b.looking = looking
		b.looks.Go(func() {
			tasks, all := b.measure()
			b.mu.Lock()
			b.tasks, b.all, b.at, b.looking = tasks, all, time.Now(), nil
			b.mu.Unlock()
			close(looking)
		})
	}
	b.mu.Unlock()
	if age > backlogsStale {
		select {
		case <-looking:
		case <-time.After(backlogsPatience):
		}
	}
}

// measureBacklogs asks asynq. What it does not answer counts as empty.
func (db *DB) measureBacklogs() (ready map[int]int, all int) {
	inspector := db.NewInspector()
	ready = map[int]int{}
	for n := range db.opts.Queues {
		if info, err := inspector.GetQueueInfo(queueName(n)); err == nil {
			ready[n] = info.Pending + info.Active
			all += ready[n] + info.Scheduled + info.Retry
		}
	}
	return ready, all
}
