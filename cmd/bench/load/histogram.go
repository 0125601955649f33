package load

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// NewHistogram counts from a microsecond to a minute, in microseconds, to three digits.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Minute.Microseconds(), 3)
}

// Record counts a duration in a histogram of NewHistogram. What is out of its range counts as
// the least or the most that it knows.
func Record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 1), time.Minute.Microseconds())) // within its range
}

// Quantile returns, in milliseconds, what q percent of the durations do not exceed.
func Quantile(h *hdrhistogram.Histogram, q float64) float64 {
	return float64(h.ValueAtQuantile(q)) / 1000
}
