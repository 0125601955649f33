package redisdb

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/runs"
	"batchreset/tasks/redisdb/views"
	"batchreset/tasks/redisdb/wire"
)

// checkPatience is how long a scrape waits for Redis to answer.
const checkPatience = time.Second

// classes are the error classes of metrics, by item code. What is not here is the
// upstream's own code, or stands for it.
var classes = map[tasks.Code]string{
	tasks.TimedOut:        "timed_out",
	tasks.WorkerLost:      "worker_lost",
	tasks.BusyTooLong:     "busy",
	tasks.NoLongerAllowed: "not_allowed",
	tasks.NotInTime:       "not_in_time",
}

const (
	noClass       = "none"
	classUpstream = "upstream"
	// classStopped is for items that are unknown because their job was cancelled or
	// stopped while an earlier call was in doubt.
	classStopped = "stopped"
)

// metrics are what the process has done to records, and its round trips to Redis. As a
// redis.Hook it sees each of them.
type metrics struct {
	submitted, reopened prometheus.Counter
	finished            *prometheus.CounterVec
	succeeded           prometheus.Counter // of finished
	paused              *prometheus.CounterVec
	roundTrips          prometheus.Histogram
	unanswered          prometheus.Counter
	errors              *itemErrors
	activity            *views.Activity // set by Open
}

func newMetrics() *metrics {
	submitted := func(by string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name: "batchreset_items_submitted_total", Help: "Items accepted by this process, by how: a new job (submit), or a job tried again (retry).",
			ConstLabels: prometheus.Labels{"by": by},
		})
	}
	m := &metrics{
		submitted: submitted("submit"), reopened: submitted("retry"),
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_items_finished_total", Help: "Items that this process brought to a final state, by state and, if failed or unknown, by class of error.",
		}, []string{"state", "class"}),
		paused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_runs_paused_total", Help: "Runs that this process has paused, by what: somebody (hand), a canary that failed, or too many failures.",
		}, []string{"by"}),
		roundTrips: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "batchreset_redis_round_trip_duration_seconds", Help: "Round trips to Redis, each with one command or many.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}),
		unanswered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "batchreset_redis_round_trips_unanswered_total", Help: "Round trips to Redis without an answer: no connection, or not in time.",
		}),
	}
	m.errors = newItemErrors()
	// Each series is there before it happens, or its first event would be no increase.
	m.succeeded = m.finished.WithLabelValues(string(tasks.ItemSucceeded), noClass)
	m.finished.WithLabelValues(string(tasks.ItemCancelled), noClass)
	for _, state := range []tasks.ItemState{tasks.ItemFailed, tasks.ItemUnknown} {
		m.finished.WithLabelValues(string(state), classUpstream)
		for _, class := range classes {
			m.finished.WithLabelValues(string(state), class)
		}
	}
	m.finished.WithLabelValues(string(tasks.ItemUnknown), classStopped)
	for _, by := range []string{runs.ByHand, runs.ByCanary, runs.ByFailures} {
		m.paused.WithLabelValues(by)
	}
	return m
}

// accept counts items that were accepted, with one of the counters.
func (m *metrics) accept(by prometheus.Counter, items int) {
	m.activity.Submit(items)
	by.Add(float64(items))
}

// pause counts a run that was paused.
func (m *metrics) pause(by string) { m.paused.WithLabelValues(by).Inc() }

// end counts an item of a delivery that has come to a final state.
func (m *metrics) end(d tasks.Delivery, state tasks.ItemState, code tasks.Code) {
	m.activity.End(state, 1)
	if state == tasks.ItemFailed || state == tasks.ItemUnknown {
		m.errors.count(d.DriverName(), code)
	}
	if state != tasks.ItemCancelled {
		m.activity.EndOf(d.Tenant)
	}
	switch state {
	case tasks.ItemSucceeded:
		m.succeeded.Inc()
	case tasks.ItemCancelled:
		m.finished.WithLabelValues(string(state), noClass).Inc()
	default:
		class, ok := classes[code]
		if !ok {
			class = classUpstream
		}
		m.finished.WithLabelValues(string(state), class).Inc()
	}
}

// stop counts the items that ended with their job, from the answer of a script: how many
// were cancelled, how many are unknown.
func (m *metrics) stop(a []any) {
	cancelled, unknown := codec.Number(a[0]), codec.Number(a[1])
	m.activity.End(tasks.ItemCancelled, int(cancelled))
	m.activity.End(tasks.ItemUnknown, int(unknown))
	m.finished.WithLabelValues(string(tasks.ItemCancelled), noClass).Add(float64(cancelled))
	m.finished.WithLabelValues(string(tasks.ItemUnknown), classStopped).Add(float64(unknown))
}

// DialHook implements redis.Hook.
func (m *metrics) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (m *metrics) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmd)
		m.roundTrip(start, err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (m *metrics) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmds)
		m.roundTrip(start, err)
		return err
	}
}

func (m *metrics) roundTrip(start time.Time, err error) {
	m.roundTrips.Observe(time.Since(start).Seconds())
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	if !wire.Answered(err) { // redis.Nil is an answer
		m.unanswered.Inc()
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.submitted, m.reopened, m.finished, m.paused, m.roundTrips, m.unanswered, m.errors.vec}
}

var (
	redisUp     = prometheus.NewDesc("batchreset_redis_up", "1 if Redis answers this process and can be trusted with jobs, else 0.", nil, nil)
	redisMemory = prometheus.NewDesc("batchreset_redis_memory_used_bytes",
		"What Redis has allocated. Of several servers the one that is fullest.", nil, nil)
	redisMaxMemory = prometheus.NewDesc("batchreset_redis_memory_max_bytes",
		"What the same server may allocate before it refuses writes; 0 = no bound.", nil, nil)
	clockOffset = prometheus.NewDesc("batchreset_clock_offset_seconds",
		"By how much this machine's clock is ahead of Redis's; of several servers the one from which it differs most.", nil, nil)
	acceptingWork = prometheus.NewDesc("batchreset_accepting_new_work",
		"1 if there is room in Redis for new work (--full-at), else 0. What stops work is done either way.", nil, nil)
	redisAppendOnly = prometheus.NewDesc("batchreset_redis_append_only",
		"1 if every server of Redis writes each change to a file, else 0.", nil, nil)
	redisSaveFails = prometheus.NewDesc("batchreset_redis_save_failing",
		"1 if a server of Redis cannot save: its append-only file (aof), or its last snapshot (rdb); else 0.", []string{"kind"}, nil)
	redisSnapshotAge = prometheus.NewDesc("batchreset_redis_snapshot_age_seconds",
		"How long ago the last snapshot was written, or Redis was started; of several servers the longest.", nil, nil)
	failedLogins = prometheus.NewDesc("batchreset_login_failures_total",
		"Tries to log in at this process's site that failed.", nil, nil)
	secretsUnreadable = prometheus.NewDesc("batchreset_secrets_unreadable",
		"Secrets in Redis that this process cannot open with its --secret-key-file, of up to 100 of each kind that it looks at once a minute.", nil, nil)
	lateAudit = prometheus.NewDesc("batchreset_audit_entries_waiting",
		"Entries of the audit trail that this process could not write yet; until then they are in its log only.", nil, nil)
)

// Describe implements prometheus.Collector.
func (db *DB) Describe(c chan<- *prometheus.Desc) {
	c <- redisUp
	c <- redisMemory
	c <- redisMaxMemory
	c <- clockOffset
	c <- acceptingWork
	c <- lateAudit
	c <- secretsUnreadable
	for _, d := range []*prometheus.Desc{redisAppendOnly, redisSaveFails, redisSnapshotAge, failedLogins} {
		c <- d
	}
	for _, m := range db.metrics.all() {
		m.Describe(c)
	}
}

// Collect implements prometheus.Collector. It asks Redis whether it is there, for a
// second at most.
func (db *DB) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), checkPatience)
	defer cancel()
	up := 1.0
	if db.Check(ctx) != nil {
		up = 0
	}
	c <- gauge(redisUp, up)
	if nodes, err := db.servers.Nodes(ctx); err == nil && len(nodes) > 0 {
		fullest := slices.MaxFunc(nodes, func(a, b tasks.RedisNode) int { return cmp.Compare(a.Fill(), b.Fill()) })
		c <- gauge(redisMemory, float64(fullest.Memory))
		c <- gauge(redisMaxMemory, float64(fullest.MaxMemory))
		db.collectSaves(c, nodes)
	}
	if offset, known := db.Redis.ClockOffset(); known {
		c <- gauge(clockOffset, offset.Seconds())
	}
	accepting := 0.0
	if db.Storage.Accepting(ctx) {
		accepting = 1
	}
	c <- gauge(acceptingWork, accepting)
	if seen, looked := db.Secrets.Last(); looked {
		c <- gauge(secretsUnreadable, float64(len(seen.Unopened)))
	}
	c <- gauge(lateAudit, float64(db.Audit.Waiting()))
	c <- prometheus.MustNewConstMetric(failedLogins, prometheus.CounterValue, float64(db.Audit.FailedLogins()))
	for _, m := range db.metrics.all() {
		m.Collect(c)
	}
}

// collectSaves says whether the servers keep what they are told.
func (db *DB) collectSaves(c chan<- prometheus.Metric, nodes []tasks.RedisNode) {
	appends, file, snapshot, age := 1.0, 0.0, 0.0, time.Duration(0)
	for _, node := range nodes {
		if !node.AppendOnly {
			appends = 0
		}
		if node.FileFails {
			file = 1
		}
		if node.SnapshotFails {
			snapshot = 1
		}
		if !node.SavedAt.IsZero() {
			age = max(age, db.Redis.Now().Sub(node.SavedAt.Time))
		}
	}
	c <- gauge(redisAppendOnly, appends)
	c <- gauge(redisSaveFails, file, "aof")
	c <- gauge(redisSaveFails, snapshot, "rdb")
	c <- gauge(redisSnapshotAge, age.Seconds())
}
