package main

import (
	"math"
	"slices"
)

// spread is what several measurements of one thing say.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf returns the spread of the values, of which there is at least one.
func spreadOf(values []float64) spread {
	return spread{Median: median(values), Min: slices.Min(values), Max: slices.Max(values)}
}

// median is NaN when there are no values.
func median(values []float64) float64 {
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

// groups returns the medians of n groups of neighbours. The extremes of many single
// samples say nothing about how well their median is known; those of the groups do.
func groups(values []float64, n int) []float64 {
	n = min(n, len(values))
	medians := make([]float64, n)
	for i := range medians {
		medians[i] = median(values[i*len(values)/n : (i+1)*len(values)/n])
	}
	return medians
}

// ratios returns a[i]/b[i].
func ratios(a, b []float64) []float64 {
	quotients := make([]float64, min(len(a), len(b)))
	for i := range quotients {
		quotients[i] = a[i] / b[i]
	}
	return quotients
}
