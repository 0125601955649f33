package redisdb

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"batchreset/tasks/redisdb/runs"
)

var (
	openRuns = prometheus.NewDesc("batchreset_runs",
		"Runs that have not ended, by state.", []string{"state"}, nil)
	runsWaiting = prometheus.NewDesc("batchreset_runs_longest_wait_seconds",
		"How long the run has waited that has waited longest for people, by reason: it is paused, or nobody has approved it; 0 = none waits.", []string{"reason"}, nil)
)

// RunMetrics are the open runs, as they are in Redis when somebody looks: the same from every process. Without Redis there are
// none.
type RunMetrics struct{ runs *runs.Runs }

// RunMetrics makes a collector.
func (db *DB) RunMetrics() RunMetrics { return RunMetrics{db.Runs} }

// Describe implements prometheus.Collector.
func (m RunMetrics) Describe(c chan<- *prometheus.Desc) {
	c <- openRuns
	c <- runsWaiting
}

// Collect implements prometheus.Collector. It asks Redis for a second at most.
func (m RunMetrics) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), checkPatience)
	defer cancel()
	census, err := m.runs.Census(ctx)
	if err != nil {
		return
	}
	for state, n := range census.Open {
		c <- gauge(openRuns, float64(n), string(state))
	}
	for reason, wait := range map[string]time.Duration{"paused": census.Paused, "approval": census.Approval} {
		c <- gauge(runsWaiting, wait.Seconds(), reason)
	}
}
