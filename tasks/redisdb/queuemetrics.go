package redisdb

import (
	"context"
	"slices"
	"time"

	"batchreset/tasks/redisdb/codec"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
)

// queuesPatience is how long a scrape waits for asynq, whose calls have no deadline.
const queuesPatience = 2 * time.Second

var (
	queueTasks = prometheus.NewDesc("batchreset_queue_tasks",
		"Tasks in an asynq queue, by asynq's state.", []string{"queue", "state"}, nil)
	queueOldest = prometheus.NewDesc("batchreset_queue_oldest_pending_age_seconds",
		"How long the task has been waiting that a worker takes next.", []string{"queue"}, nil)
	queuePaused = prometheus.NewDesc("batchreset_queue_paused",
		"1 if nothing is taken from the queue because somebody paused it, else 0.", []string{"queue"}, nil)
	driverServed = prometheus.NewDesc("batchreset_driver_served",
		"1 if a living worker has the driver, else 0; for each driver that has queues.", []string{"driver"}, nil)
	jobsOpen = prometheus.NewDesc("batchreset_jobs_open",
		"Jobs that have not ended, and those that ended in the last minutes and that the sweeper has not looked at since.", nil, nil)
)

// QueueMetrics are the queues and the open jobs, as they are in Redis when somebody
// looks: the same from every process. Without Redis there are none.
//
// github.com/hibiken/asynq/x/metrics has a collector, too: without a deadline, without series for
// a queue that has had no task yet, and with nothing at all once a single queue cannot be read.
type QueueMetrics struct {
	queues *Queues
	same   singleflight.Group
}

// QueueMetrics makes a collector, which must not be used after the DB is closed.
func (q *Queues) QueueMetrics() *QueueMetrics { return &QueueMetrics{queues: q} }

// Describe implements prometheus.Collector.
func (q *QueueMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{queueTasks, queueOldest, queuePaused, driverServed, jobsOpen} {
		c <- d
	}
}

// Collect implements prometheus.Collector. Whoever comes while another looks has the
// same answer. A look that Redis holds up is not waited for; Close does that.
func (q *QueueMetrics) Collect(c chan<- prometheus.Metric) {
	answer := make(chan []prometheus.Metric, 1)
	q.queues.looks.Go(func() {
		seen, _, _ := q.same.Do("", func() (any, error) { return q.look(), nil })
		answer <- seen.([]prometheus.Metric)
	})
	select {
	case seen := <-answer:
		for _, m := range seen {
			c <- m
		}
	case <-time.After(queuesPatience):
	}
}

// look asks Redis for everything, or returns nothing.
func (q *QueueMetrics) look() []prometheus.Metric {
	ctx, cancel := context.WithTimeout(context.Background(), queuesPatience)
	defer cancel()
	open, err := q.queues.redis.ZCard(ctx, codec.OpenKey).Result()
	if err != nil {
		return nil
	}
	inspector := q.queues.redis.NewInspector()
	known, err := inspector.Queues()
	if err != nil {
		return nil
	}
	queues, err := q.queues.Queues(ctx)
	if err != nil {
		return nil
	}
	served, err := q.queues.Served(ctx)
	if err != nil {
		return nil
	}
	seen := []prometheus.Metric{gauge(jobsOpen, float64(open))}
	for _, driver := range driversOf(queues) {
		value := 0.0
		if served[driver] {
			value = 1
		}
		seen = append(seen, gauge(driverServed, value, driver))
	}
	for _, queue := range append(queues, WebhookQueue) {
		info := &asynq.QueueInfo{Queue: queue}
		if slices.Contains(known, queue) { // something has been in it
			if info, err = inspector.GetQueueInfo(queue); err != nil {
				if q.queues.leftOut.Note("queue "+queue, err) != nil {
					return nil
				}
				continue
			}
		}
		seen = append(seen, queueGauges(info)...)
	}
	return seen
}

func queueGauges(info *asynq.QueueInfo) []prometheus.Metric {
	paused := 0.0
	if info.Paused {
		paused = 1
	}
	gauges := []prometheus.Metric{
		gauge(queueOldest, info.Latency.Seconds(), info.Queue),
		gauge(queuePaused, paused, info.Queue),
	}
	for state, n := range map[asynq.TaskState]int{
		asynq.TaskStatePending: info.Pending, asynq.TaskStateActive: info.Active, asynq.TaskStateScheduled: info.Scheduled,
		asynq.TaskStateRetry: info.Retry, asynq.TaskStateArchived: info.Archived, asynq.TaskStateCompleted: info.Completed,
	} {
		gauges = append(gauges, gauge(queueTasks, float64(n), info.Queue, state.String()))
	}
	return gauges
}

func gauge(d *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}
