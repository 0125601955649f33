package worker

import (
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
	slots, busy prometheus.Gauge
	quiet       prometheus.Gauge
	durations   *prometheus.HistogramVec
	looksFailed *prometheus.CounterVec
	resolved    *prometheus.CounterVec
}

// How it becomes known what came of a call that was in doubt.
const (
	bySight  = "look"   // a look at the instance shows it
	byPoll   = "poll"   // the control plane tells of that very call
	byRepeat = "repeat" // it answers a repeat of the call under its key
)

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
		quiet: factory.NewGauge(prometheus.GaugeOpts{
			Name: "batchreset_worker_quiet", Help: "1 while this worker takes nothing new because an operator wants that, else 0.",
		}),
		durations: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "batchreset_attempt_duration_seconds", Help: "Attempts that have ended: how long the driver took, by driver and outcome.",
			Buckets: []float64{.01, .05, .1, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200},
		}, []string{"driver", "outcome"}),
		looksFailed: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_looks_failed_total", Help: "Looks at an instance in which the driver could not see anything.",
		}, []string{"driver"}),
		resolved: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_doubts_resolved_total",
			Help: "Calls in doubt whose outcome became known, by how: a look at the instance (look), what the control plane says of the call (poll), its answer to a repeat under the same key (repeat).",
		}, []string{"driver", "how"}),
	}
	return m
}

// newWaveDurations makes the metric of waves. They take minutes, or days if people pause them.
func newWaveDurations() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "batchreset_run_wave_duration_seconds", Help: "Waves of runs, canaries among them, that have ended: how long they took, pauses included.",
		Buckets: []float64{1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400},
	})
}

// of are the durations of a driver's attempts, by how they end.
func (m workerMetrics) of(driver string) map[tasks.Transition]prometheus.Observer {
	durations := map[tasks.Transition]prometheus.Observer{}
	for event, outcome := range outcomes {
		durations[event] = m.durations.WithLabelValues(driver, outcome)
	}
	return durations
}

// doubts are the counters of a driver's calls in doubt whose outcome became known.
func (m workerMetrics) doubts(driver string) map[string]prometheus.Counter {
	counters := map[string]prometheus.Counter{}
	for _, how := range []string{bySight, byPoll, byRepeat} {
		counters[how] = m.resolved.WithLabelValues(driver, how)
	}
	return counters
}
