package ops

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// WorkCensus counts the work that is open, and says what holds items.
type WorkCensus interface {
	// Census is of all work, as it was seconds ago or, on a large system, up to a minute. CensusOf is of some jobs as they are
	// now.
	Census(ctx context.Context) (tasks.Census, error)
	CensusOf(ctx context.Context, jobs []string) (tasks.Census, error)
	// EndedByTenant is how many items of each tenant have ended in tasks.PaceWindow.
	EndedByTenant(ctx context.Context) (map[string]int64, error)
	Processes(ctx context.Context) ([]tasks.WorkerProcess, error)
}

// workRoutes are what programs ask about open work.
func (s *site) workRoutes(e *echo.Echo) { e.GET("/scale", s.scale) }

// holding is something that holds items, with where it can be ended.
type holding struct {
	tasks.Holding
	Link, Do string // relative to the first page; may be empty
}

// holdingsOf are what a page shows of them.
func (p page) holdingsOf(all []tasks.Holding) (shown []holding) {
	for _, h := range all {
		link, do := p.wayOut(h)
		shown = append(shown, holding{h, link, do})
	}
	return shown
}

// wayOut leads to where a holding can be ended, or else to where there is more about it.
func (p page) wayOut(h tasks.Holding) (link, do string) {
	ask := func(query string) (string, string) {
		if p.MayAct() {
			return "tenants/resume?" + query, "Resume"
		}
		return "tenants", "Tenants"
	}
	switch h.Reason {
	case tasks.HoldHalt:
		return ask("all=true")
	case tasks.HoldTenantHalt:
		return ask("tenant=" + url.QueryEscape(h.Tenant))
	case tasks.HoldOwnHalt:
		return ask("tenant=" + url.QueryEscape(h.Tenant) + "&own=true")
	case tasks.HoldRunPaused:
		return "runs/" + url.PathEscape(h.Run), "The run"
	case tasks.HoldQueuePaused:
		return "asynq/queues/" + url.PathEscape(h.Queue), "The queue"
	case tasks.HoldUnserved, tasks.HoldUnreachable:
		return "workers", "Workers"
	case tasks.HoldQuota:
		return "tenants", "Limits"
	}
	switch {
	case h.Run != "":
		return "runs/" + url.PathEscape(h.Run), "The run"
	case h.Job != "":
		return "jobs/" + url.PathEscape(h.Job), "The job"
	case h.Tenant != "":
		return "jobs?state=pending&tenant=" + url.QueryEscape(h.Tenant), "Their jobs"
	}
	return "jobs?state=pending", "Their jobs"
}

// heldIn are what holds the items of some jobs now.
func (s *site) heldIn(ctx context.Context, p page, jobs ...string) ([]holding, error) {
	if len(jobs) == 0 {
		return nil, nil
	}
	c, err := s.Store.CensusOf(ctx, jobs)
	return p.holdingsOf(c.Holdings), err
}

// heldItem is what holds an item of a job now, or nil. Items of a job that have the same driver are held for the same.
func (s *site) heldItem(ctx context.Context, p page, job tasks.Job, it tasks.Item) (held *holding, err error) {
	if it.State != tasks.ItemPending && it.State != tasks.ItemRetrying {
		return nil, nil
	}
	all, err := s.heldIn(ctx, p, job.ID)
	for i := range all {
		switch all[i].Driver {
		case it.DriverName():
			return &all[i], err
		case "": // of several drivers
			held = &all[i]
		}
	}
	return held, err
}

// openJobsOf are the jobs of a run that have not ended.
func openJobsOf(run tasks.Run) (jobs []string) {
	for _, part := range slices.Sorted(maps.Keys(run.Open)) {
		jobs = append(jobs, tasks.PartJobID(run.ID, part))
	}
	return jobs
}

// countedLately is how old numbers may be that a page does not give their time with.
const countedLately = 10 * time.Second

// workFacts are the numbers of open work.
type workFacts struct {
	tasks.Census
	Pace  tasks.Pace
	Stale bool // they are old enough to say so
}

func factsOf(o tasks.Overview) workFacts {
	return workFacts{o.Work, o.Pace(), o.At.Sub(o.Work.At.Time) > countedLately}
}

// scaling is what an autoscaler goes by.
type scaling struct {
	Waiting int `json:"items_waiting"`
	Running int `json:"items_running"`
	Held    int `json:"items_held"`
	Open    int `json:"items_open"`
	Slots   int `json:"worker_slots"`
}

// scale says how much work there is, and how much of it workers can do side by side: of all drivers, or of one.
func (s *site) scale(c echo.Context) error {
	query := c.QueryParams()
	if refused := checkFields("parameter", query, []string{"driver"}, nil); refused != nil {
		return c.JSON(refused.status, answer{Code: string(tasks.BadRequest), Message: refused.why})
	}
	driver, one := query.Get("driver"), query.Has("driver")
	if one {
		if err := tasks.CheckDriver(driver); err != nil {
			return c.JSON(http.StatusBadRequest, answer{Code: string(tasks.BadRequest), Message: "driver " + err.Error()})
		}
	}
	census, err := s.Store.Census(c.Request().Context())
	var workers []tasks.WorkerProcess
	if err == nil {
		workers, err = s.Store.Processes(c.Request().Context())
	}
	if err != nil {
		s.Log.Error("open work not counted", "error", err)
		return c.JSON(http.StatusServiceUnavailable, answer{Code: string(tasks.Internal), Message: "Redis does not answer"})
	}
	work := census.Work
	if one {
		work = census.Drivers[driver]
	}
	found := scaling{Waiting: work.Waiting, Running: work.Running, Held: work.HeldItems(), Open: work.Open()}
	for _, w := range workers {
		if one {
			found.Slots += w.SlotsOf[driver]
		} else {
			found.Slots += w.Slots
		}
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return c.JSON(http.StatusOK, found)
}

// About says whose items they are, as far as that is one tenant, run or driver.
func (h holding) About() string {
	var about []string
	if h.Tenant != "" {
		about = append(about, h.Tenant)
	}
	if h.Driver != "" && h.Driver != tasks.DefaultDriver {
		about = append(about, "driver "+h.Driver)
	}
	return strings.Join(about, ", ")
}
