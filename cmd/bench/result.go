package main

import "math"

// result is a line of the table.
type result struct {
	Row     string    `json:"row"`
	What    string    `json:"what"`
	Unit    string    `json:"unit"`
	Rounds  []float64 `json:"rounds"` // one value for each round
	Target  *target   `json:"target,omitempty"`
	Stretch float64   `json:"stretch,omitempty"` // a better target, which need not be met
	Note    string    `json:"note,omitempty"`
	Failure string    `json:"failure,omitempty"` // why there is no value
}

// target is a bound that the median has to keep.
type target struct {
	Limit   float64 `json:"limit"`
	AtLeast bool    `json:"at_least"` // otherwise at most
}

func atLeast(limit float64) *target { return &target{Limit: limit, AtLeast: true} }

func atMost(limit float64) *target { return &target{Limit: limit} }

func (t target) met(value float64) bool {
	if t.AtLeast {
		return value >= t.Limit
	}
	return value <= t.Limit
}

// verdict is what a result means for its target.
type verdict string

const (
	met     verdict = "met"
	stretch verdict = "stretch met"
	noise   verdict = "within noise" // the median misses it, the best round does not
	missed  verdict = "MISSED"       // the best round, too
	failed  verdict = "FAILED"       // there is no figure
	untold  verdict = ""             // there is no target: the figure is for comparison
)

func (r result) verdict() verdict {
	if r.Failure != "" || len(r.Rounds) == 0 {
		return failed
	}
	for _, v := range r.Rounds {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return failed
		}
	}
	if r.Target == nil {
		return untold
	}
	s := spreadOf(r.Rounds)
	best := s.Min
	if r.Target.AtLeast {
		best = s.Max
	}
	switch {
	case r.Stretch != 0 && target{r.Stretch, r.Target.AtLeast}.met(s.Median):
		return stretch
	case r.Target.met(s.Median):
		return met
	case r.Target.met(best):
		return noise
	}
	return missed
}

// bad says that a result makes the benchmark fail.
func (v verdict) bad() bool { return v == missed || v == failed }
