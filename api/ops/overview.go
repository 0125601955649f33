package ops

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// overviewPage is the state of the service at a glance.
type overviewPage struct {
	page
	tasks.Overview
	// Queues are those with something in them, or paused.
	Queues []tasks.QueueState
	Empty  int // the other queues
	Halted []tasks.Policy
	// Submitted, Finished and Failed are by minute, for the last hour.
	Submitted, Finished, Failed []int64
}

func (s *site) overview(c echo.Context) error {
	ctx := c.Request().Context()
	o, err := s.Store.Overview(ctx)
	if err != nil {
		return err
	}
	policies, err := s.Store.List(ctx)
	if err != nil {
		return err
	}
	p := overviewPage{page: s.page(c, "Overview"), Overview: o}
	for _, q := range o.Queues {
		if q.Pending+q.Later+q.Active > 0 || q.Paused {
			p.Queues = append(p.Queues, q)
		}
	}
	p.Empty = len(o.Queues) - len(p.Queues)
	p.Halted = slices.DeleteFunc(policies, func(policy tasks.Policy) bool { return policy.Halt() == nil })
	for _, m := range o.Minutes {
		p.Submitted = append(p.Submitted, m.Submitted)
		p.Finished = append(p.Finished, m.Finished())
		p.Failed = append(p.Failed, m.Failed+m.Unknown)
	}
	return s.show(c, http.StatusOK, "overview", p)
}

// chart is a picture of numbers, side by side.
type chart struct {
	Width      int
	Max, Total int64
	Last       int64 // but one: the last one may not be over
	Bars       []bar
}

// bar stands on the ground at height chartHeight.
type bar struct {
	X, Y, Height int
	Value        int64
}

const (
	chartHeight = 40
	barWidth    = 4
)

func newChart(values []int64) chart {
	c := chart{Width: len(values) * barWidth, Max: slices.Max(append(values, 0))}
	for i, v := range values {
		height := 0
		if v > 0 { // what is not nothing is seen
			height = max(1, int(v*chartHeight/c.Max))
		}
		c.Bars = append(c.Bars, bar{X: i * barWidth, Y: chartHeight - height, Height: height, Value: v})
		c.Total += v
	}
	if len(values) > 1 {
		c.Last = values[len(values)-2]
	}
	return c
}

// find leads to what somebody has the ID of: a job, an item, a run, or else an instance.
func (s *site) find(c echo.Context) error {
	id := strings.TrimSpace(c.QueryParam("q"))
	if id == "" {
		return redirect(c, "/")
	}
	if job, _, ok := tasks.ParseItemID(id); ok {
		id = job
	}
	if !tasks.ValidJobID(id) {
		return redirect(c, "/instances/"+url.PathEscape(id))
	}
	switch _, err := s.Store.Runs.Run(c.Request().Context(), id); {
	case err == nil:
		return redirect(c, "/runs/"+id)
	case !errors.Is(err, tasks.RunGone):
		return err
	}
	return redirect(c, "/jobs/"+id)
}
