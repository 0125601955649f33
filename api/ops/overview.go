package ops

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// overviewPage is the state of the service at a glance.
type overviewPage struct {
	page
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
	RunsWaiting, RunsPaused peopleWait
	// Machinery is about worker processes and control planes.
	Machinery machinery
	// Submitted, Finished and Failed are by minute, for the last hour.
	Submitted, Finished, Failed []int64
	Activity                    plot // of all three, without the minute that is not over
}

func (s *site) overview(c echo.Context) error {
	ctx := c.Request().Context()
	seen, err := s.glance.look(func() (glance, error) { return s.lookAround(ctx) })
	if err != nil {
		return err
	}
	o := seen.Overview
	p := overviewPage{page: s.page(c, "Overview"), Overview: o, Machinery: seen.machinery, Halts: seen.halts}
	p.Held, p.Facts = p.holdingsOf(o.Work.Holdings[:min(len(o.Work.Holdings), rowsOnPage)]), factsOf(o)
	p.MoreHeld = len(o.Work.Holdings) - len(p.Held)
	p.RunsWaiting, p.RunsPaused = seen.waiting, seen.paused
	for _, q := range o.Queues {
		if q.Pending+q.Later+q.Active > 0 || q.Paused {
			p.Queues = append(p.Queues, q)
		}
	}
	p.Empty = len(o.Queues) - len(p.Queues)
	for _, m := range o.Minutes {
		p.Submitted = append(p.Submitted, m.Submitted)
		p.Finished = append(p.Finished, m.Finished())
		p.Failed = append(p.Failed, m.Failed+m.Unknown)
	}
	p.Count = number(o.Work.Open()+o.Work.HeldItems()) + " open"
	p.Activity = activityPlot(o, p.Submitted, p.Finished, p.Failed)
	return s.show(c, http.StatusOK, "overview", p)
}

// glance is what the overview shows to everybody alike.
type glance struct {
	tasks.Overview
	waiting, paused peopleWait
	machinery       machinery
	halts           []tasks.Policy // of single tenants
}

// glanceLasts is how long a glance is good for: many may have the overview open.
const glanceLasts = time.Second

// sharedGlance is one for everybody who looks at the overview.
type sharedGlance struct {
	mu   sync.Mutex
	at   time.Time
	seen glance
	err  error
}

// look returns what was seen within the last second, or looks. Whoever comes meanwhile has the same.
func (g *sharedGlance) look(look func() (glance, error)) (glance, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.at) > glanceLasts {
		g.seen, g.err = look()
		g.at = time.Now()
	}
	return g.seen, g.err
}

// lookAround looks at everything, also if who asked goes away meanwhile: others wait for it.
func (s *site) lookAround(ctx context.Context) (seen glance, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), glancePatience)
	defer cancel()
	if seen.Overview, err = s.Store.Overview(ctx); err != nil {
		return seen, err
	}
	if seen.waiting, err = s.waitForPeople(ctx, tasks.RunWaiting); err != nil {
		return seen, err
	}
	if seen.paused, err = s.waitForPeople(ctx, tasks.RunPaused); err != nil {
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

// peopleWait are runs that go on only once somebody decides.
type peopleWait struct {
	Runs []tasks.Run
	More int
}

// runsNamed is how many runs the overview names that wait for people, in one way.
const runsNamed = 3

// waitForPeople are runs in a state, but for those that wait for their time alone.
func (s *site) waitForPeople(ctx context.Context, state tasks.RunState) (w peopleWait, err error) {
	w.Runs, w.More, err = s.Store.Runs.SearchOpen(ctx, tasks.RunSearch{RunFilter: tasks.RunFilter{State: state, Limit: runsNamed}})
	w.Runs = slices.DeleteFunc(w.Runs, func(r tasks.Run) bool { return state == tasks.RunWaiting && r.Approved() })
	return w, err
}

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
