package redisdb

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hibiken/asynq"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/runs"
	"batchreset/tasks/redisdb/views"
	"batchreset/tasks/redisdb/wire"
)

// WebhookQueue is the asynq queue of notices. Its name must not begin like those that
// workers reset instances from.
const WebhookQueue = "webhooks"

// Notices are what endpoints are told of jobs and runs.
type Notices struct {
	redis     *wire.Client
	endpoints *registry.Endpoints
	jobs      *views.Jobs
	runs      *runs.Runs
	wanted    *wanted
}

func newNotices(client *wire.Client, endpoints *registry.Endpoints, jobs *views.Jobs, runs *runs.Runs) *Notices {
	return &Notices{redis: client, endpoints: endpoints, jobs: jobs, runs: runs, wanted: newWanted()}
}

// EnqueueNotices enqueues a notice for each endpoint that wants an untold event of the job, and
// marks the events as told. It may be repeated, by anybody: asynq refuses a notice that it still
// knows, and the mark keeps one that was sent and forgotten from being sent again.
func (n *Notices) EnqueueNotices(ctx context.Context, job tasks.Job) error {
	events := job.UntoldEvents()
	if len(events) == 0 {
		return nil
	}
	endpoints, err := n.endpoints.Of(ctx, job.Tenant)
	if err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	var notices []tasks.Notice
	var marks []any
	for _, event := range events {
		wanted := false
		for _, e := range endpoints {
			if e.Wants(event.Topic) {
				notices, wanted = append(notices, job.Notice(event, e)), true
			}
		}
		if wanted {
			marks = append(marks, markOf(event), event.Number)
		}
	}
	if len(notices) == 0 {
		return nil
	}
	if err := n.enqueue(ctx, codec.JobKey(job.ID), notices, job.Traceparent, job.TaskRetention); err != nil {
		return err
	}
	if err := n.redis.Run(ctx, toldScript, []string{codec.JobKey(job.ID)}, marks...).Err(); err != nil {
		return fmt.Errorf("mark as told: %w", err)
	}
	return nil
}

func markOf(n tasks.Event) string {
	if n.Topic == tasks.TopicItemFailed {
		return codec.ItemToldField(n.Item)
	}
	return codec.ToldField
}

// EnqueueRunNotices enqueues, in order, a notice for each endpoint that wants an untold event of a run that Sum has
// completed, and takes the events out of its record. It may be repeated, as EnqueueNotices may.
func (n *Notices) EnqueueRunNotices(ctx context.Context, run tasks.Run) error {
	if len(run.Untold) == 0 {
		return nil
	}
	endpoints, err := n.endpoints.Of(ctx, run.Tenant)
	if err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	var notices []tasks.Notice
	for _, event := range run.Untold {
		for _, e := range endpoints {
			if e.Wants(event.Topic) {
				notices = append(notices, run.Notice(event, e))
			}
		}
	}
	if len(notices) > 0 {
		if err := n.enqueue(ctx, codec.RunKey(run.ID), notices, run.Traceparent, run.TaskRetention); err != nil {
			return err
		}
	}
	return n.runs.Told(ctx, run)
}

// enqueue enqueues the notices of a record.
func (n *Notices) enqueue(ctx context.Context, record string, notices []tasks.Notice, traceparent string, retention time.Duration) error {
	// What a failover forgets must not have been told.
	if err := n.redis.Confirm(ctx, record, codec.RevField); err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	if err := n.redis.Enqueue(ctx, WebhookQueue, len(notices), func(ctx context.Context, client *asynq.Client, i int) error {
		return enqueueNotice(ctx, client, notices[i], traceparent, retention)
	}); err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	return nil
}

func enqueueNotice(ctx context.Context, client *asynq.Client, n tasks.Notice, traceparent string, retention time.Duration) error {
	_, err := client.EnqueueContext(ctx, asynq.NewTaskWithHeaders(tasks.TypeNotice, n.Encode(), headers(traceparent)),
		asynq.TaskID(n.TaskID()),
		asynq.Queue(WebhookQueue),
		asynq.MaxRetry(math.MaxInt32),
		asynq.Timeout(unlimited),
		asynq.Retention(retention),
	)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}

// EnqueueNoticesIfWanted is EnqueueNotices for somebody who has not read the job. Unless an endpoint of the
// tenant wants one of the topics it costs nothing; an endpoint that was added in the last
// seconds may be overlooked, which EnqueueNotices makes good later.
func (n *Notices) EnqueueNoticesIfWanted(ctx context.Context, tenant, job string, topics ...tasks.Topic) error {
	wanted, err := n.topicsOf(ctx, tenant)
	if err != nil || !slices.ContainsFunc(topics, func(t tasks.Topic) bool { return slices.Contains(wanted, t) }) {
		return err
	}
	record, err := n.jobs.Job(ctx, job)
	if errors.Is(err, tasks.JobGone) {
		return nil
	}
	if err != nil {
		return err
	}
	return n.EnqueueNotices(ctx, record)
}

const (
	// wantedFor is how long EnqueueNoticesIfWanted believes what it knows of a tenant.
	wantedFor = 5 * time.Second
	// wantedTenants is of how many tenants it knows something.
	wantedTenants = 10_000
)

// wanted remembers which topics the endpoints of tenants want.
type wanted = lru.Cache[string, wantedTopics]

type wantedTopics struct {
	topics []tasks.Topic
	until  time.Time
}

func newWanted() *wanted {
	cache, err := lru.New[string, wantedTopics](wantedTenants)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return cache
}

func (n *Notices) topicsOf(ctx context.Context, tenant string) ([]tasks.Topic, error) {
	if known, ok := n.wanted.Get(tenant); ok && time.Now().Before(known.until) {
		return known.topics, nil
	}
	endpoints, err := n.endpoints.Of(ctx, tenant)
	if err != nil {
		return nil, err
	}
	found := wantedTopics{until: time.Now().Add(wantedFor)}
	for _, topic := range tasks.Topics {
		if slices.ContainsFunc(endpoints, func(e tasks.Endpoint) bool { return e.Wants(topic) }) {
			found.topics = append(found.topics, topic)
		}
	}
	n.wanted.Add(tenant, found)
	return found.topics, nil
}

const (
	// waitingPage is how many notices are read at once, waitingLook how many in all.
	waitingPage = 500
	waitingLook = 10 * waitingPage
)

// Waiting returns how many notices wait for another try, by the ID of their endpoint. It looks at 5,000 of them at the
// most; all says that there are no more.
func (n *Notices) Waiting(ctx context.Context) (byEndpoint map[string]int, all bool, err error) {
	byEndpoint = map[string]int{}
	inspector := n.redis.NewInspector()
	for page := 1; page <= waitingLook/waitingPage; page++ {
		found, err := inspector.ListRetryTasks(WebhookQueue, asynq.PageSize(waitingPage), asynq.Page(page))
		if errors.Is(err, asynq.ErrQueueNotFound) {
			return byEndpoint, true, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("look for notices that wait: %w", err)
		}
		for _, task := range found {
			if notice, err := tasks.DecodeNotice(task.Payload); err == nil { // else nobody sends it either
				byEndpoint[notice.EndpointID]++
			}
		}
		if len(found) < waitingPage {
			return byEndpoint, true, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
	}
	return byEndpoint, false, nil
}
