package ops

import (
	"encoding/json"
	"time"
)

// plot is a picture of numbers over time. With scripts it has axes and tells values; see site/plots.js.
type plot struct {
	ID, Title, Unit string
	Start           time.Time // of the first value
	Step            time.Duration
	Series          []series
}

// series are the values of a plot that belong together.
type series struct {
	Name   string  `json:"name"`
	Class  string  `json:"class"` // which gives it its colour
	Values []int64 `json:"values"`
}

// JSON is what the script needs.
func (p plot) JSON() (string, error) {
	raw, err := json.Marshal(map[string]any{
		"start": p.Start.Unix(), "step": int(p.Step.Seconds()), "unit": p.Unit, "series": p.Series,
	})
	return string(raw), err
}
