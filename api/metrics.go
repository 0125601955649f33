package api

import "github.com/prometheus/client_golang/prometheus"

// metrics say how many wait, and who could not.
type metrics struct {
	waiting         []prometheus.GaugeFunc
	refused, cutOff prometheus.Counter
}

func newMetrics(w *watchers) metrics {
	m := metrics{
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "batchreset_waits_refused_total", Help: "Streams that were refused and polls that were answered at once, because too many waited.",
		}),
		cutOff: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "batchreset_streams_cut_off_total", Help: "Streams that were broken off because their reader did not read.",
		}),
	}
	for _, kind := range []kind{poll, stream} {
		m.waiting = append(m.waiting, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "batchreset_waiting_requests", Help: "Requests that wait for a job: polls for its end, streams for each change.",
			ConstLabels: prometheus.Labels{"kind": string(kind)},
		}, func() float64 { return float64(w.count(kind)) }))
	}
	return m
}

// Describe implements prometheus.Collector.
func (a *API) Describe(c chan<- *prometheus.Desc) {
	for _, m := range a.server.metrics.all() {
		m.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (a *API) Collect(c chan<- prometheus.Metric) {
	for _, m := range a.server.metrics.all() {
		m.Collect(c)
	}
}

func (m metrics) all() []prometheus.Collector {
	all := []prometheus.Collector{m.refused, m.cutOff}
	for _, gauge := range m.waiting {
		all = append(all, gauge)
	}
	return all
}
