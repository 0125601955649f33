package serve

import (
	"github.com/prometheus/client_golang/prometheus"

	"batchreset/cmd/batchreset/terminal"
)

// buildInfo is a metric that is always 1.
func buildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "batchreset_build_info", Help: "The version of this process.",
		ConstLabels: prometheus.Labels{"version": terminal.Version()},
	}, func() float64 { return 1 })
}
