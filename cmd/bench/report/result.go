package report

import (
	"encoding/json"
	"math"
)

// Result is a line of the table. Its JSON has the spread of the rounds and the verdict, too.
type Result struct {
	Row     string    `json:"row"`
	What    string    `json:"what"`
	Unit    string    `json:"unit"`
	Rounds  []float64 `json:"rounds"` // one value for each round
	Target  *Target   `json:"target,omitempty"`
	Stretch float64   `json:"stretch,omitempty"` // a better target, which need not be met
	Note    string    `json:"note,omitempty"`
	Failure string    `json:"failure,omitempty"` // why there is no value
}

// Target is a bound that the median has to keep.
type Target struct {
	Limit   float64 `json:"limit"`
	AtLeast bool    `json:"at_least"` // otherwise at most
}

// AtLeast is a target for figures of which more is better.
func AtLeast(limit float64) *Target { return &Target{Limit: limit, AtLeast: true} }

// AtMost is a target for figures of which less is better.
func AtMost(limit float64) *Target { return &Target{Limit: limit} }

func (t Target) met(value float64) bool {
	if t.AtLeast {
		return value >= t.Limit
	}
	return value <= t.Limit
}

// Verdict is what a result means for its target.
type Verdict string

// The verdicts. Missed and Failed make the benchmark fail.
const (
	Met         Verdict = "met"
	StretchMet  Verdict = "stretch met"
	WithinNoise Verdict = "within noise" // the median misses it, the best round does not
	Missed      Verdict = "MISSED"       // the best round, too
	Failed      Verdict = "FAILED"       // there is no figure
	NoTarget    Verdict = ""             // the figure is for comparison
)

// Verdict judges the rounds.
func (r Result) Verdict() Verdict {
	if r.Failure != "" || len(r.Rounds) == 0 {
		return Failed
	}
	for _, v := range r.Rounds {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return Failed
		}
	}
	if r.Target == nil {
		return NoTarget
	}
	s := SpreadOf(r.Rounds)
	best := s.Min
	if r.Target.AtLeast {
		best = s.Max
	}
	switch {
	case r.Stretch != 0 && Target{r.Stretch, r.Target.AtLeast}.met(s.Median):
		return StretchMet
	case r.Target.met(s.Median):
		return Met
	case r.Target.met(best):
		return WithinNoise
	}
	return Missed
}

// bad says that a result makes the benchmark fail.
func (v Verdict) bad() bool { return v == Missed || v == Failed }

// MarshalJSON adds what follows from the rounds. Those of a failed result are left out.
func (r Result) MarshalJSON() ([]byte, error) {
	type fields Result // without this method
	judged := struct {
		fields
		Spread  *Spread `json:"spread,omitempty"`
		Verdict Verdict `json:"verdict"`
	}{fields: fields(r), Verdict: r.Verdict()}
	if judged.Verdict == Failed {
		judged.Rounds = nil // JSON has no NaN
	} else {
		spread := SpreadOf(r.Rounds)
		judged.Spread = &spread
	}
	return json.Marshal(judged)
}
