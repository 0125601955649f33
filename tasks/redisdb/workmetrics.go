package redisdb

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/views"
)

// workPatience is how long a scrape waits for open work to be counted.
const workPatience = 2 * time.Second

var (
	itemsHeld = prometheus.NewDesc("batchreset_items_held",
		"Items that could begin but for a reason.", []string{"reason"}, nil)
	itemsHeldFor = prometheus.NewDesc("batchreset_items_held_longest_seconds",
		"How long that has held items which has held some for longest, by reason; 0 = nothing is held for it.", []string{"reason"}, nil)
	itemsWaiting = prometheus.NewDesc("batchreset_items_waiting",
		"Items that could begin now, or when their next try is due.", nil, nil)
	itemsRunning = prometheus.NewDesc("batchreset_items_running",
		"Items with an attempt under way.", nil, nil)
	itemsOpen = prometheus.NewDesc("batchreset_items_open",
		"Items that are waiting or running; those that are held are not among them.", nil, nil)
	oldestOpen = prometheus.NewDesc("batchreset_oldest_open_item_age_seconds",
		"How long the item has waited that has waited longest of those that could begin now; 0 = none waits.", nil, nil)
	halts = prometheus.NewDesc("batchreset_halts",
		"Halts that hold, by kind: of all tenants (all), of a tenant by operators (tenant), of a tenant by itself (own), of a run (run).", []string{"kind"}, nil)
	workAge = prometheus.NewDesc("batchreset_items_counted_seconds_ago",
		"How long ago the items were counted.", nil, nil)
	unreadableJobs = prometheus.NewDesc("batchreset_jobs_unreadable",
		"Open jobs whose records cannot be read; their items are in no number.", nil, nil)
)

// WorkMetrics are the open work and what holds it, as they are in Redis: the same from every process. Without Redis there are
// none.
type WorkMetrics struct {
	census   *views.Census
	policies *registry.Policies
	now      func() time.Time
}

// WorkMetrics makes a collector.
func (db *DB) WorkMetrics() WorkMetrics { return WorkMetrics{db.Census, db.Policies, db.Redis.Now} }

// Describe implements prometheus.Collector.
func (m WorkMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{itemsHeld, itemsHeldFor, itemsWaiting, itemsRunning, itemsOpen, oldestOpen, halts, workAge, unreadableJobs} {
		c <- d
	}
}

// Collect implements prometheus.Collector. What takes longer than two seconds is there at the next scrape.
func (m WorkMetrics) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), workPatience)
	defer cancel()
	if counts, err := m.policies.Halts(ctx); err == nil {
		for kind, n := range counts {
			c <- gauge(halts, float64(n), kind)
		}
	}
	census, err := m.census.Census(ctx)
	if err != nil {
		return
	}
	since := map[tasks.HoldReason]time.Duration{}
	for _, h := range census.Holdings {
		since[h.Reason] = max(since[h.Reason], census.At.Sub(h.Since.Time))
	}
	for _, reason := range tasks.HoldReasons {
		c <- gauge(itemsHeld, float64(census.Held[reason]), string(reason))
		c <- gauge(itemsHeldFor, since[reason].Seconds(), string(reason))
	}
	c <- gauge(itemsWaiting, float64(census.Waiting))
	c <- gauge(itemsRunning, float64(census.Running))
	c <- gauge(itemsOpen, float64(census.Open()))
	c <- gauge(oldestOpen, census.OldestAge().Seconds())
	c <- gauge(workAge, max(0, m.now().Sub(census.At.Time)).Seconds())
	c <- gauge(unreadableJobs, float64(census.Unreadable))
}
