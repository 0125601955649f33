package report

import (
	"math"
	"slices"
)

// Spread is what several measurements of one thing say.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// SpreadOf returns the spread of the values, of which there is at least one.
func SpreadOf(values []float64) Spread {
	return Spread{Median: Median(values), Min: slices.Min(values), Max: slices.Max(values)}
}

// Range is the lowest and the highest, as text.
func (s Spread) Range() string { return Number(s.Min) + " .. " + Number(s.Max) }

// Median is the one in the middle, or the mean of the two there; NaN when there are no
// values.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Groups returns the medians of n groups of neighbours. The extremes of many single
// samples say nothing about how well their median is known; those of the groups do.
func Groups(values []float64, n int) []float64 {
	n = min(n, len(values))
	medians := make([]float64, n)
	for i := range medians {
		medians[i] = Median(values[i*len(values)/n : (i+1)*len(values)/n])
	}
	return medians
}

// Ratios returns a[i]/b[i], for as many as both have.
func Ratios(a, b []float64) []float64 {
	quotients := make([]float64, min(len(a), len(b)))
	for i := range quotients {
		quotients[i] = a[i] / b[i]
	}
	return quotients
}
