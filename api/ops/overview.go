package ops

import (
	"context"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// overviewPage is the state of the service at a glance.
type overviewPage struct {
	page
	// Now is all that changes: see overviewNow.
	Now template.HTML
}

// overviewNow is what the overview shows to everybody alike who may do the same.
type overviewNow struct {
	tasks.Overview
	// Queues are those with something in them, or paused.
	Queues []tasks.QueueState
	Empty  int            // the other queues
	Halts  []tasks.Policy // of single tenants
	Held   []holding
	// MoreHeld is how many more things hold items.
	MoreHeld int
	Facts    workFacts
	// RunsWaiting and RunsPaused are runs that wait for people, the first ones, and how many more there are.
	RunsWaiting, RunsPaused tasks.SomeRuns
	// Machinery is about worker processes and control planes.
	Machinery machinery
	// Submitted, Finished and Failed are by minute, for the last hour.
	Submitted, Finished, Failed []int64
	Activity                    plot // of all three, without the minute that is not over
}

func (s *site) overview(c echo.Context) error {
	ctx := c.Request().Context()
	p := overviewPage{page: s.page(c, "Overview")}
	open, now, err := s.glance.show(p.MayAct(), func() (glance, error) { return s.lookAround(ctx) }, func(seen glance) (template.HTML, error) {
		var b strings.Builder
		err := s.pages.ExecuteTemplate(&b, "overviewnow", p.nowOf(seen))
		return template.HTML(b.String()), err //nolint:gosec // of a template
	})
	if err != nil {
		return err
	}
	p.Now, p.Count = now, number(open)+" open"
	return s.show(c, http.StatusOK, "overview", p)
}

// nowOf is what was seen, as the page shows it.
func (p page) nowOf(seen glance) overviewNow {
	o := seen.Overview
	n := overviewNow{Overview: o, Machinery: seen.machinery, Halts: seen.halts, Facts: factsOf(o), RunsWaiting: seen.waiting, RunsPaused: seen.paused}
	n.Held = p.holdingsOf(o.Work.Holdings[:min(len(o.Work.Holdings), rowsOnPage)])
	n.MoreHeld = len(o.Work.Holdings) - len(n.Held)
	for _, q := range o.Queues {
		if q.Pending+q.Later+q.Active > 0 || q.Paused {
			n.Queues = append(n.Queues, q)
		}
	}
	n.Empty = len(o.Queues) - len(n.Queues)
	for _, m := range o.Minutes {
		n.Submitted = append(n.Submitted, m.Submitted)
		n.Finished = append(n.Finished, m.Finished())
		n.Failed = append(n.Failed, m.Failed+m.Unknown)
	}
	n.Activity = activityPlot(o, n.Submitted, n.Finished, n.Failed)
	return n
}

// glance is what the overview shows to everybody alike.
type glance struct {
	tasks.Overview
	waiting, paused tasks.SomeRuns
	machinery       machinery
	halts           []tasks.Policy // of single tenants
}

// glanceLasts is how long a glance is good for: many may have the overview open, whose script asks as often.
const glanceLasts = 2 * time.Second

// sharedGlance is one for everybody who looks at the overview.
type sharedGlance struct {
	mu    sync.Mutex
	at    time.Time
	seen  glance
	err   error
	shown map[bool]template.HTML // by whether who looks may act
}

// show returns what is open, and what was seen lately as it is shown to those who may act, or may not; or
// it looks. Whoever comes meanwhile has the same.
func (g *sharedGlance) show(mayAct bool, look func() (glance, error), render func(glance) (template.HTML, error)) (open int, now template.HTML, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.at) > glanceLasts {
		g.seen, g.err = look()
		g.at, g.shown = time.Now(), map[bool]template.HTML{}
	}
	if g.err != nil {
		return 0, "", g.err
	}
	now, done := g.shown[mayAct]
	if !done {
		if now, err = render(g.seen); err == nil {
			g.shown[mayAct] = now
		}
	}
	return g.seen.Work.Open() + g.seen.Work.HeldItems(), now, err
}

// forgetAfter has who has changed something here see it at once.
func (g *sharedGlance) forgetAfter(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		err := next(c)
		if method := c.Request().Method; method != http.MethodGet {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.at = time.Time{}
		}
		return err
	}
}

// lookAround looks at everything, also if who asked goes away meanwhile: others wait for it.
func (s *site) lookAround(ctx context.Context) (seen glance, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), glancePatience)
	defer cancel()
	if seen.Overview, err = s.Store.Overview(ctx); err != nil {
		return seen, err
	}
	if seen.waiting, seen.paused, err = s.Store.Runs.ForPeople(ctx, runsNamed); err != nil {
		return seen, err
	}
	if seen.machinery, err = s.machinery(ctx); err != nil {
		return seen, err
	}
	policies, err := s.Store.List(ctx)
	seen.halts = slices.DeleteFunc(policies, func(p tasks.Policy) bool { return p.Tenant == "" || p.Halt() == nil })
	return seen, err
}

// glancePatience bounds a look.
const glancePatience = 10 * time.Second

// runsNamed is how many runs the overview names that wait for people, in one way.
const runsNamed = 3

// activityPlot shows what happened by minute, but for the last one, which is not over.
func activityPlot(o tasks.Overview, submitted, finished, failed []int64) plot {
	over := max(0, len(o.Minutes)-1)
	return plot{
		ID: "activity", Title: "Instances per minute, last hour", Unit: "per minute",
		Start: o.At.Truncate(time.Minute).Add(-time.Duration(over) * time.Minute), Step: time.Minute,
		Series: []series{
			{"submitted", "submitted", submitted[:over]},
			{"finished", "finished", finished[:over]},
			{"failed or unknown", "failed", failed[:over]},
		},
	}
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
