package ops

import (
	"context"
	"errors"
	"fmt"
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

// maxScaleDrivers is how many drivers one question may name.
const maxScaleDrivers = 100

// scale says how much work there is, and how much of it workers can do side by side: of all drivers, or of those that are
// named, which are what a group of workers has.
func (s *site) scale(c echo.Context) error {
	drivers, err := scaleDrivers(c.QueryParams())
	if err != nil {
		return c.JSON(http.StatusBadRequest, answer{Code: string(tasks.BadRequest), Message: err.Error()})
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
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return c.JSON(http.StatusOK, scalingOf(census, workers, drivers))
}

// scaleDrivers are the drivers that a question names, each once; none: it is about all of them.
func scaleDrivers(query url.Values) ([]string, error) {
	names := []string{"driver"}
	if refused := checkFields("parameter", query, names, names); refused != nil {
		return nil, errors.New(refused.why)
	}
	drivers := query["driver"]
	if len(drivers) > maxScaleDrivers {
		return nil, fmt.Errorf("%d drivers are more than %d", len(drivers), maxScaleDrivers)
	}
	for _, driver := range drivers {
		if err := tasks.CheckDriver(driver); err != nil {
			return nil, fmt.Errorf("driver %w", err)
		}
	}
	slices.Sort(drivers)
	return slices.Compact(drivers), nil
}

// scalingOf adds up what the drivers have, or all of them if none is named.
func scalingOf(census tasks.Census, workers []tasks.WorkerProcess, drivers []string) scaling {
	parts := []tasks.Work{census.Work}
	if len(drivers) > 0 {
		parts = nil
	}
	for _, driver := range drivers {
		parts = append(parts, census.Drivers[driver])
	}
	var found scaling
	for _, work := range parts {
		found.Waiting += work.Waiting
		found.Running += work.Running
		found.Held += work.HeldItems()
		found.Open += work.Open()
	}
	for _, w := range workers {
		slots := w.Slots
		if len(drivers) > 0 {
			slots = 0
		}
		for _, driver := range drivers {
			slots += w.SlotsOf[driver]
		}
		found.Slots += slots
	}
	return found
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
