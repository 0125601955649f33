package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// WorkerStore knows the worker processes and the control planes that they call, and tells the former what to do.
type WorkerStore interface {
	// Workers and ControlPlanes are shared: they are not changed.
	Workers(ctx context.Context) ([]tasks.WorkerView, error)
	ControlPlanes(ctx context.Context) ([]tasks.ControlPlane, error)
	Worker(ctx context.Context, id string) (view tasks.WorkerView, found bool, err error)
	// Order fails with a tasks.Error where this cannot be done.
	Order(ctx context.Context, id string, order tasks.WorkerOrder, actor tasks.Actor) error
}

// machineryRoutes are the pages about worker processes and control planes.
func (s *site) machineryRoutes(e *echo.Echo, viewer, operator echo.MiddlewareFunc) {
	e.GET("/workers", s.workers, viewer)
	e.GET("/workers/:worker", s.worker, viewer)
	for _, order := range tasks.WorkerOrders {
		e.GET("/workers/:worker/"+string(order), s.askOrder(order), operator)
		e.POST("/workers/:worker/"+string(order), s.orderWorker(order), operator, s.form("reason"))
	}
	e.GET("/control-planes", s.controlPlanes, viewer)
}

// workerRow is a worker process as pages show it.
type workerRow struct{ tasks.WorkerView }

// StateText is what it does.
func (r workerRow) StateText() string {
	switch {
	case !r.Heard():
		return "not heard of for " + tasks.ShortDuration(r.Silent.Round(time.Second))
	case r.State == "":
		return string(tasks.WorkerWorks)
	}
	return string(r.State)
}

// StateClass is the look of its state.
func (r workerRow) StateClass() string {
	switch {
	case !r.Heard():
		return "failed"
	case r.State == tasks.WorkerQuiet, r.State == tasks.WorkerDrains:
		return "retrying"
	}
	return "succeeded"
}

// Clock says how its machine's clock differs from Redis's.
func (r workerRow) Clock() string {
	offset := r.Offset()
	switch {
	case r.ClockOffset == nil:
		return "–"
	case offset.Abs() < 10*time.Millisecond:
		return "right"
	case offset < 0:
		return tasks.ShortDuration(-offset) + " behind"
	}
	return tasks.ShortDuration(offset) + " ahead"
}

// Can reports whether it can be ordered something as it is.
func (r workerRow) Can(order string) bool {
	if !r.Reports || r.State == tasks.WorkerDrains {
		return false
	}
	switch tasks.WorkerOrder(order) {
	case tasks.OrderQuiet:
		return r.State != tasks.WorkerQuiet
	case tasks.OrderTake:
		return r.State == tasks.WorkerQuiet
	case tasks.OrderStop:
		return !r.Whole
	}
	return false
}

// ShutdownText is how long its attempts have when it stops.
func (r workerRow) ShutdownText() string {
	return tasks.ShortDuration(time.Duration(r.ShutdownTimeout) * time.Millisecond)
}

// fleetOfWorkers is what all worker processes together look like.
type fleetOfWorkers struct {
	Rows []workerRow
	// Living are those that were heard of, Taking those of them that take work.
	Living, Taking, Quiet, Draining, Silent int
	Machines, Slots, Busy                   int
	Versions                                []versionCount
	// Waiting are drivers that living workers have, none of which takes work.
	Waiting []string
}

// versionCount is how many workers have a version.
type versionCount struct {
	Version string
	Count   int
}

func newFleetOfWorkers(workers []tasks.WorkerView) fleetOfWorkers {
	f := fleetOfWorkers{}
	machines, versions, served := map[string]bool{}, map[string]int{}, map[string]bool{}
	for _, w := range workers {
		f.Rows = append(f.Rows, workerRow{w})
		if !w.Heard() {
			f.Silent++
			continue
		}
		f.Living++
		switch {
		case w.Takes():
			f.Taking++
		case w.State == tasks.WorkerQuiet:
			f.Quiet++
		default:
			f.Draining++
		}
		machines[w.Host] = true
		versions[w.Version]++
		f.Slots, f.Busy = f.Slots+w.Slots(), f.Busy+w.Busy()
		for _, d := range w.Drivers {
			served[d.Name] = served[d.Name] || w.Takes()
		}
	}
	f.Machines = len(machines)
	for version, count := range versions {
		f.Versions = append(f.Versions, versionCount{version, count})
	}
	slices.SortFunc(f.Versions, func(a, b versionCount) int { return strings.Compare(a.Version, b.Version) })
	for driver, taken := range served {
		if !taken {
			f.Waiting = append(f.Waiting, driver)
		}
	}
	slices.Sort(f.Waiting)
	return f
}

// Mixed says which versions there are side by side, or nothing if there is one.
func (f fleetOfWorkers) Mixed() string {
	if len(f.Versions) < 2 {
		return ""
	}
	texts := make([]string, len(f.Versions))
	for i, v := range f.Versions {
		name := v.Version
		if name == "" {
			name = "an older version that does not say which"
		}
		texts[i] = fmt.Sprintf("%d of %s", v.Count, name)
	}
	return strings.Join(texts, ", ")
}

// Summary is all of them in a sentence.
func (f fleetOfWorkers) Summary() string {
	texts := []string{fmt.Sprintf("%s on %s", counted(f.Living, "process", "processes"), counted(f.Machines, "machine", "machines"))}
	for _, part := range []struct {
		count int
		what  string
	}{{f.Quiet, "quiet"}, {f.Draining, "draining"}, {f.Silent, "not heard of"}} {
		if part.count > 0 {
			texts = append(texts, fmt.Sprintf("%d %s", part.count, part.what))
		}
	}
	return strings.Join(texts, ", ") + fmt.Sprintf("; %s of %s used.", number(f.Busy), counted(f.Slots, "slot", "slots"))
}

// counted is a number of things.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

// machinery is what the overview says of worker processes and control planes.
type machinery struct {
	fleetOfWorkers

	Problems []string
}

func (s *site) machinery(ctx context.Context) (m machinery, err error) {
	workers, err := s.Store.Workers.Workers(ctx)
	if err != nil {
		return m, err
	}
	planes, err := s.Store.Workers.ControlPlanes(ctx)
	if err != nil {
		return m, err
	}
	m.fleetOfWorkers = newFleetOfWorkers(workers)
	m.Problems = problemsOf(planes, workers)
	return m, nil
}

// workersPage lists the worker processes.
type workersPage struct {
	page
	fleetOfWorkers

	Exports exports
}

func (s *site) workers(c echo.Context) error {
	workers, err := s.Store.Workers.Workers(c.Request().Context())
	if err != nil {
		return err
	}
	p := workersPage{s.page(c, "Workers"), newFleetOfWorkers(workers), exportsOf(c)}
	if wantsFile(c) {
		return s.exportWorkers(c, p.Rows)
	}
	return s.show(c, http.StatusOK, "workers", p)
}

// exportWorkers writes the worker processes, each with what it has under way.
func (s *site) exportWorkers(c echo.Context, rows []workerRow) error {
	return export(s, c, list[workerRow]{
		name:  "workers",
		heads: []string{"id", "host", "pid", "state", "version", "drivers", "slots_used", "slots", "oldest_item_since", "clock_offset_ms", "started_at"},
		cells: func(r workerRow) []string {
			drivers, offset, oldest := make([]string, len(r.Drivers)), "", tasks.Time{}
			for i, d := range r.Drivers {
				drivers[i] = d.Name
			}
			if r.ClockOffset != nil {
				offset = strconv.FormatInt(*r.ClockOffset, 10)
			}
			if len(r.Items) > 0 {
				oldest = r.Items[0].Since
			}
			return []string{
				r.ID, r.Host, strconv.Itoa(r.PID), r.StateText(), r.Version, strings.Join(drivers, " "), strconv.Itoa(r.Busy()), strconv.Itoa(r.Slots()),
				cellOf(oldest), offset, cellOf(r.Started),
			}
		},
		record: func(r workerRow) any {
			return struct {
				tasks.WorkerReport
				Heard  bool  `json:"heard"`
				Silent int64 `json:"silent_ms"`
			}{r.WorkerReport, r.Heard(), r.Silent.Milliseconds()}
		},
		next: whole(rows),
	})
}

// workerPage is one worker process.
type workerPage struct {
	page
	Worker workerRow
	Ask    tasks.WorkerOrder // that is to be confirmed
	// Alone are the drivers that no other worker takes work for.
	Alone []string
}

func (s *site) workerPage(c echo.Context) (p workerPage, found bool, err error) {
	view, found, err := s.Store.Workers.Worker(c.Request().Context(), c.Param("worker"))
	if err != nil {
		return p, false, err
	}
	if !found {
		return p, false, s.refuse(c, http.StatusNotFound, "There is no such worker. It has ended, or it died more than a minute ago.")
	}
	return workerPage{page: s.page(c, "Worker "+view.ID), Worker: workerRow{view}}, true, nil
}

func (s *site) worker(c echo.Context) error {
	p, found, err := s.workerPage(c)
	if !found {
		return err
	}
	return s.show(c, http.StatusOK, "worker", p)
}

// askOrder shows what a button will do, and asks once more.
func (s *site) askOrder(order tasks.WorkerOrder) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, found, err := s.workerPage(c)
		if !found {
			return err
		}
		if !p.Worker.Can(string(order)) {
			return s.refuse(c, http.StatusConflict, "This cannot be done: the worker is "+p.Worker.StateText()+whyNotStop(p.Worker, order)+".")
		}
		p.Ask = order
		workers, err := s.Store.Workers.Workers(c.Request().Context())
		if err != nil {
			return err
		}
		for _, d := range p.Worker.Drivers {
			if !slices.ContainsFunc(workers, func(w tasks.WorkerView) bool {
				_, has := w.Driver(d.Name)
				return has && w.Takes() && w.ID != p.Worker.ID
			}) {
				p.Alone = append(p.Alone, d.Name)
			}
		}
		return s.show(c, http.StatusOK, "askworker", p)
	}
}

func whyNotStop(w workerRow, order tasks.WorkerOrder) string {
	if order == tasks.OrderStop && w.Whole {
		return ", and its process is the whole service, this site included: stop it where it runs"
	}
	return ""
}

func (s *site) orderWorker(order tasks.WorkerOrder) echo.HandlerFunc {
	return func(c echo.Context) error {
		reason, id := c.FormValue("reason"), c.Param("worker")
		if err := tasks.CheckReason(reason); err != nil {
			return s.refuse(c, http.StatusBadRequest, "The reason "+err.Error()+".")
		}
		err := s.Store.Workers.Order(c.Request().Context(), id, order, login.Actor(c, reason))
		if e, ok := errors.AsType[*tasks.Error](err); ok {
			return s.refuse(c, http.StatusConflict, e.Message)
		}
		if err != nil {
			return err
		}
		return redirect(c, "/workers/"+id)
	}
}
