package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"batchreset/tasks"
)

// outcomes are the names of the transitions in the metrics.
var outcomes = map[tasks.Transition]string{
	tasks.Succeed: "succeeded", tasks.Retry: "retry", tasks.Fail: "failed", tasks.LoseTrack: "unknown",
}

// workerMetrics are what a worker does. All handles are made beforehand: a worker ends ten
// thousand attempts a second.
type workerMetrics struct {
	prometheus.Collector
	slots, busy  prometheus.Gauge
	durations    *prometheus.HistogramVec
	byTransition map[tasks.Transition]prometheus.Observer
}

func newWorkerMetrics() workerMetrics {
	registry := prometheus.NewRegistry()
	factory := promauto.With(registry)
	m := workerMetrics{
		Collector: registry,
		slots: factory.NewGauge(prometheus.GaugeOpts{
			Name: "batchreset_worker_slots", Help: "Items that this worker can work on side by side, over all lanes.",
		}),
		busy: factory.NewGauge(prometheus.GaugeOpts{
			Name: "batchreset_worker_slots_busy", Help: "Items that this worker is working on.",
		}),
		durations: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "batchreset_attempt_duration_seconds", Help: "Attempts that have ended: how long the driver took, by outcome.",
			Buckets: []float64{.01, .05, .1, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200},
		}, []string{"outcome"}),
		byTransition: map[tasks.Transition]prometheus.Observer{},
	}
	for event, outcome := range outcomes {
		m.byTransition[event] = m.durations.WithLabelValues(outcome)
	}
	return m
}

// attempt counts an attempt that has ended.
func (m workerMetrics) attempt(e tasks.Transition, start time.Time) {
	m.byTransition[e].Observe(time.Since(start).Seconds())
}
