package redisdb

import (
	"cmp"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"batchreset/tasks"
)

// Of so many drivers and so many codes of each process there are series; all others are otherSeries.
const (
	countedDrivers = 50
	countedCodes   = 50
	longestCode    = 64
	otherSeries    = "other"
)

// itemErrors counts items that failed or are unknown by driver and code. Codes are what control planes make up: they are bounded.
type itemErrors struct {
	vec            *prometheus.CounterVec
	mu             sync.Mutex
	drivers, codes map[string]bool
}

func newItemErrors() *itemErrors {
	e := &itemErrors{
		vec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_item_errors_total",
			Help: "Items that this process brought to an end as failed or unknown, by driver and error code. Beyond 50 codes or drivers: other.",
		}, []string{"driver", "code"}),
		drivers: map[string]bool{}, codes: map[string]bool{},
	}
	// Those that are ours are there before they happen.
	for _, code := range []tasks.Code{tasks.TimedOut, tasks.WorkerLost, tasks.BusyTooLong, tasks.NoLongerAllowed, tasks.ResetFailed, tasks.NotInTime, tasks.NotUnderstood, tasks.NotConfirmed} {
		e.series(tasks.DefaultDriver, code)
	}
	return e
}

func (e *itemErrors) count(driver string, code tasks.Code) { e.series(driver, code).Inc() }

func (e *itemErrors) series(driver string, code tasks.Code) prometheus.Counter {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.vec.WithLabelValues(known(e.drivers, driver, countedDrivers), known(e.codes, cmp.Or(string(code), noClass), countedCodes))
}

// known is a label value if it is one of the first that came.
func known(values map[string]bool, value string, most int) string {
	if values[value] {
		return value
	}
	if len(values) >= most || len(value) > longestCode {
		return otherSeries
	}
	values[value] = true
	return value
}
