package api

import (
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// noRoute stands for every path and method that has no route: callers can make up any number of
// them.
const noRoute = "other"

// metrics count requests: all of them, those that wait, and those for which there was no room.
type metrics struct {
	prometheus.Collector
	refused, cutOff prometheus.Counter
	turnedAway      prometheus.Counter
	requests        *prometheus.CounterVec
	durations       *prometheus.HistogramVec
}

func newMetrics(w *watchers) metrics {
	registry := prometheus.NewRegistry()
	factory := promauto.With(registry)
	m := metrics{
		Collector: registry,
		refused: factory.NewCounter(prometheus.CounterOpts{
			Name: "batchreset_waits_refused_total", Help: "Streams that were refused and polls that were answered at once, because too many waited.",
		}),
		cutOff: factory.NewCounter(prometheus.CounterOpts{
			Name: "batchreset_streams_cut_off_total", Help: "Streams that were broken off because their reader did not read.",
		}),
		turnedAway: factory.NewCounter(prometheus.CounterOpts{
			Name: "batchreset_strangers_turned_away_total", Help: "Requests that were refused because their address asked too much without a valid token.",
		}),
		requests: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_http_requests_total", Help: "Requests of the public API, by status code.",
		}, []string{"method", "route", "code"}),
		durations: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "batchreset_http_request_duration_seconds", Help: "Requests of the public API, without those that waited for a job or run.",
		}, []string{"method", "route"}),
	}
	for _, kind := range []kind{poll, stream} {
		factory.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "batchreset_waiting_requests", Help: "Requests that wait for a job or run: polls for its end, streams for each change.",
			ConstLabels: prometheus.Labels{"kind": string(kind)},
		}, func() float64 { return float64(w.count(kind)) })
	}
	return m
}

// count counts a request that was answered.
func (s *server) count(c echo.Context, duration time.Duration) {
	method, route := c.Request().Method, c.Path()
	if !s.routes[[2]string{method, route}] {
		method, route = noRoute, noRoute
	}
	s.metrics.requests.WithLabelValues(method, route, strconv.Itoa(c.Response().Status)).Inc()
	if c.Get(waitedKey) == nil {
		s.metrics.durations.WithLabelValues(method, route).Observe(duration.Seconds())
	}
}
