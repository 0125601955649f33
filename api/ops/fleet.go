package ops

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// FleetChanges are what people decide about the fleet. Changes that one instance does not allow fail with a
// *tasks.EntryError.
type FleetChanges interface {
	// Plan says what an import would do now, with the first few instances of each kind.
	Plan(ctx context.Context, changes []tasks.FleetChange, shared bool, first int, actor tasks.Actor) (tasks.FleetPlan, error)
	// ImportSeen does it, if it still is what was seen.
	ImportSeen(ctx context.Context, changes []tasks.FleetChange, shared bool, seen string, actor tasks.Actor) (tasks.FleetReport, error)
	// Protect returns those instances that are not registered, and those that are protected for longer already.
	Protect(ctx context.Context, instances []string, until tasks.Time, actor tasks.Actor) (missing, kept []string, err error)
	Unprotect(ctx context.Context, instances []string, actor tasks.Actor) (missing []string, err error)
	Unregister(ctx context.Context, instances []string, actor tasks.Actor) (missing []string, err error)
}

const (
	importPath  = "/fleet/import"
	previewPath = "/fleet/import/preview"
)

// fleetRoutes are the pages about the fleet and what can be done with an instance of it.
func (s *site) fleetRoutes(e *echo.Echo) {
	e.GET("/fleet", s.fleet, s.door.Require(tasks.RightLook), s.told)
	manager := func(more ...echo.MiddlewareFunc) []echo.MiddlewareFunc {
		return s.manager(tasks.ManagedFleet, tasks.RightManage, more...)
	}
	e.GET(importPath, s.importForm, manager()...)
	e.GET(previewPath, func(c echo.Context) error { return redirect(c, importPath) }, s.door.Require(tasks.RightLook))
	e.POST(previewPath, s.previewImport, manager()...)
	e.POST(importPath, s.importFleet, manager()...)

	guard := func(more ...echo.MiddlewareFunc) []echo.MiddlewareFunc {
		return s.manager(tasks.ManagedProtection, tasks.RightAct, more...)
	}
	e.GET("/instances/:instance/protect", s.askInstance("protect"), guard()...)
	e.POST("/instances/:instance/protect", s.protect, guard(s.form("until", "reason"))...)
	e.GET("/instances/:instance/unprotect", s.askInstance("unprotect"), guard()...)
	e.POST("/instances/:instance/unprotect", s.unprotect, guard(s.form("reason"))...)
	e.GET("/instances/:instance/remove", s.askInstance("remove"), manager()...)
	e.POST("/instances/:instance/remove", s.removeInstance, manager(s.form("reason"))...)
	e.GET("/instances/:instance/change", s.changeForm, manager()...)
	e.GET("/instances/:instance/ask", s.askChange, manager()...)
	e.POST("/instances/:instance/change", s.changeInstance, manager(s.form(append([]string{"seen", "reason"}, entryFields...)...))...)
}

// fleetPage lists registered instances.
type fleetPage struct {
	page
	// ID to Label are the filters as they were typed.
	ID, Tenant, Driver, Label string

	Protected bool
	Chips     []chip
	Exports   exports
	Instances []tasks.Instance
	Total     int   // of the whole fleet
	More      query // of the next page, or empty
}

func (s *site) fleet(c echo.Context) error {
	field := func(name string) string { return strings.TrimSpace(c.QueryParam(name)) }
	p := fleetPage{
		page: s.page(c, "Fleet"), ID: field("id"), Tenant: field("tenant"), Driver: field("driver"), Label: field("label"), Protected: field("protected") == "true",
		Chips: chipsOf(c, fleetFilters...), Exports: exportsOf(c),
	}
	if wantsFile(c) {
		return s.exportFleet(c, p)
	}
	err := s.findInstances(c, &p)
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		p.Problem = e.Message
		return s.show(c, http.StatusBadRequest, "fleet", p)
	}
	if err != nil {
		return err
	}
	return s.show(c, http.StatusOK, "fleet", p)
}

// fleetFilters are the filters of the list of the fleet.
var fleetFilters = []filterName{{"id", "ID begins with"}, {"tenant", "Tenant"}, {"driver", "Driver"}, {"label", "Label"}, {"protected", "Protected"}}

// filter is what the filters mean. Errors: tasks.BadRequest.
func (p *fleetPage) filter() (f tasks.FleetFilter, err error) {
	f = tasks.FleetFilter{Prefix: p.ID, Tenant: p.Tenant, Driver: p.Driver, Protected: p.Protected}
	if e, ok := errors.AsType[*tasks.FieldError](f.Check()); ok {
		return f, wrong("The field %s.", e)
	}
	if p.Label != "" {
		if f.Labels, err = tasks.ParseLabels(p.Label); err != nil {
			return f, wrong("The field label %v.", err)
		}
	}
	return f, nil
}

// exportFleet writes the instances that match, with the columns that an import reads.
func (s *site) exportFleet(c echo.Context, p fleetPage) error {
	return export(s, c, list[tasks.Instance]{
		name:  "fleet",
		heads: tasks.FleetColumns,
		cells: fleetCells,
		next: func(cursor string) ([]tasks.Instance, string, error) {
			f, err := p.filter()
			if err != nil {
				return nil, "", err
			}
			return s.Store.Search(c.Request().Context(), f, cursor, exportPage)
		},
	})
}

// fleetCells are an instance as a row with tasks.FleetColumns. What is not protected has an empty cell, which an import leaves as
// it is: an old file must not end a protection that began since.
func fleetCells(in tasks.Instance) []string {
	protected, p := "", tasks.Protection{}
	if in.Protected {
		protected, p = strconv.FormatBool(true), in.Protection
	}
	generation := ""
	if in.Generation > 0 {
		generation = strconv.Itoa(in.Generation)
	}
	return []string{in.ID, in.Tenant, protected, p.By, p.Reason, cellOf(p.Since), cellOf(p.Until), in.Driver, in.Address, tasks.LabelText(in.Labels), generation}
}

// exportPage is how many instances are read at once for a file.
const exportPage = 500

// findInstances fills a list. Errors: tasks.BadRequest.
func (s *site) findInstances(c echo.Context, p *fleetPage) error {
	f, err := p.filter()
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	if p.Total, err = s.Store.Size(ctx); err != nil {
		return err
	}
	var cursor string
	p.Instances, cursor, err = s.Store.Search(ctx, f, c.QueryParam("cursor"), rowsOnPage)
	p.More = olderQuery(c, cursor)
	return err
}

// askedInstance is an instance and what is to be done with it.
type askedInstance struct {
	page
	Ask   string
	Entry tasks.Instance
}

// instanceIn is the instance of the path, and whether it is registered. Errors: tasks.NoRoute.
func (s *site) instanceIn(c echo.Context) (in tasks.Instance, registered bool, err error) {
	id := c.Param("instance")
	if err := tasks.CheckInstanceID(id); err != nil {
		return in, false, tasks.Errorf(tasks.NoRoute, "The instance %v.", err)
	}
	fleet, err := s.Store.Registered(c.Request().Context(), []string{id})
	if err != nil {
		return in, false, err
	}
	in, registered = fleet[id]
	in.ID = id
	return in, registered, nil
}

func notRegistered(id string) error {
	return tasks.Errorf(tasks.NoRoute, "The instance %s is not registered.", id)
}

func instancePath(id string) string { return "/instances/" + id }

func (s *site) askInstance(action string) echo.HandlerFunc {
	return func(c echo.Context) error {
		in, registered, err := s.instanceIn(c)
		if err != nil {
			return err
		}
		if !registered {
			return notRegistered(in.ID)
		}
		if action == "unprotect" && !in.Protected {
			return tasks.Errorf(tasks.JobFinal, "The instance %s is not protected.", in.ID)
		}
		title := strings.ToUpper(action[:1]) + action[1:]
		return s.show(c, http.StatusOK, "askinstance", askedInstance{s.page(c, title+" "+in.ID), action, in})
	}
}

// changed answers once something was done with the instance of the path.
func (s *site) changed(c echo.Context, missing []string, err error) error {
	if err != nil {
		return err
	}
	if missing != nil {
		return notRegistered(missing[0])
	}
	return redirect(c, instancePath(c.Param("instance")))
}

func (s *site) protect(c echo.Context) error {
	reason, err := reasonIn(c)
	if err != nil {
		return err
	}
	until, err := untilIn(c, s.Store.Now())
	if err != nil {
		return err
	}
	in, _, err := s.instanceIn(c)
	if err != nil {
		return err
	}
	missing, kept, err := s.Store.Protect(c.Request().Context(), []string{in.ID}, until, login.Actor(c, reason))
	if err == nil && kept != nil {
		err = tasks.Errorf(tasks.JobFinal, "The instance %s is protected for longer already, and unchanged. To make that shorter, end it first.", in.ID)
	}
	return s.changed(c, missing, err)
}

// untilIn is the end of a protection, zero for none. Errors: tasks.BadRequest.
func untilIn(c echo.Context, now time.Time) (tasks.Time, error) {
	text := strings.TrimSpace(c.FormValue("until"))
	if text == "" {
		return tasks.Time{}, nil
	}
	for _, form := range []string{inputTime, inputTime + ":05", time.RFC3339} {
		if at, err := time.Parse(form, text); err == nil {
			if !at.After(now) {
				return tasks.Time{}, wrong("The field until is in the past.")
			}
			return tasks.Time{Time: at.UTC()}, nil
		}
	}
	return tasks.Time{}, wrong("The field until must be a time like 2027-03-31T00:00, in UTC, not %.80q.", text)
}

func (s *site) unprotect(c echo.Context) error { return s.withReason(c, s.Store.Unprotect) }

func (s *site) removeInstance(c echo.Context) error { return s.withReason(c, s.Store.Unregister) }

func (s *site) withReason(c echo.Context, do func(context.Context, []string, tasks.Actor) ([]string, error)) error {
	reason, err := reasonIn(c)
	if err != nil {
		return err
	}
	in, _, err := s.instanceIn(c)
	if err != nil {
		return err
	}
	missing, err := do(c.Request().Context(), []string{in.ID}, login.Actor(c, reason))
	return s.changed(c, missing, err)
}
