package ops

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// entryFields are those of a form for an entry of the fleet.
var entryFields = []string{"tenant", "driver", "address", "labels", "reassigned", "shared"}

// entryPage is a form for an entry of the fleet, or the question whether that is what was meant.
type entryPage struct {
	page
	ID         string
	Registered bool
	// Tenant to Labels are as they were typed.
	Tenant, Driver, Address, Labels string

	Reassigned, Shared bool

	Step     tasks.FleetStep // once it was checked
	Effects  []tasks.FleetEffect
	Unserved []string // drivers that no living worker has
	Seen     string
}

// Fields are those of the form once more.
func (p entryPage) Fields() url.Values {
	fields := url.Values{"tenant": {p.Tenant}, "driver": {p.Driver}, "address": {p.Address}, "labels": {p.Labels}}
	for name, set := range map[string]bool{"reassigned": p.Reassigned, "shared": p.Shared} {
		if set {
			fields.Set(name, "true")
		}
	}
	return fields
}

// LabelText is a set of labels for people.
func (entryPage) LabelText(labels map[string]string) string { return tasks.LabelText(labels) }

// entryIn is a form as it was typed, for the instance of the path as it is. Errors: tasks.NoRoute.
func (s *site) entryIn(c echo.Context) (p entryPage, in tasks.Instance, err error) {
	in, registered, err := s.instanceIn(c)
	if err != nil {
		return p, in, err
	}
	field := func(name string) string { return strings.TrimSpace(c.FormValue(name)) }
	return entryPage{
		page: s.page(c, "Change "+in.ID), ID: in.ID, Registered: registered, Tenant: field("tenant"), Driver: field("driver"), Address: field("address"),
		Labels: field("labels"), Reassigned: field("reassigned") == "true", Shared: field("shared") == "true",
	}, in, nil
}

func (s *site) changeForm(c echo.Context) error {
	p, in, err := s.entryIn(c)
	if err != nil {
		return err
	}
	p.Tenant, p.Driver, p.Address, p.Labels = in.Tenant, in.Driver, in.Address, tasks.LabelText(in.Labels)
	return s.show(c, http.StatusOK, "changeentry", p)
}

// change is what the form says that is not so yet. Errors: tasks.BadRequest.
func (p entryPage) change(in tasks.Instance) (tasks.FleetChange, error) {
	c := tasks.FleetChange{ID: p.ID, Reassigned: p.Reassigned}
	if p.Tenant != in.Tenant {
		if err := tasks.CheckTenant(p.Tenant); err != nil {
			return c, wrong("The field tenant: %v.", err)
		}
		c.Tenant = p.Tenant
	}
	if p.Driver != in.Driver {
		c.Driver = &p.Driver
	}
	if p.Address != in.Address {
		c.Address = &p.Address
	}
	labels := map[string]string{}
	if p.Labels != "" {
		var err error
		if labels, err = tasks.ParseLabels(p.Labels); err != nil {
			return c, wrong("The field labels %v.", err)
		}
	}
	if !maps.Equal(labels, in.Labels) {
		c.Labels = labels
	}
	if err := c.Check(); err != nil {
		return c, wrong("The field %v.", err)
	}
	return c, nil
}

// refusedEntry gives a change that an instance does not allow its text.
func refusedEntry(err error) error {
	if e, ok := errors.AsType[*tasks.EntryError](err); ok {
		return tasks.Errorf(tasks.BadRequest, "Refused, and nothing was changed: %v.", e)
	}
	return err
}

// askChange shows what an entry would become, and asks once more.
func (s *site) askChange(c echo.Context) error {
	p, in, err := s.entryIn(c)
	if err != nil {
		return err
	}
	change, err := p.change(in)
	var plan tasks.FleetPlan
	if err == nil {
		plan, err = s.Store.Plan(c.Request().Context(), []tasks.FleetChange{change}, p.Shared, 1, login.Actor(c, ""))
		err = refusedEntry(err)
	}
	if err == nil && !plan.Changes() {
		err = wrong("Nothing would change: the entry is what it is.")
	}
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		p.Problem = e.Message
		return s.show(c, http.StatusBadRequest, "changeentry", p)
	}
	if err != nil {
		return err
	}
	p.Seen, p.Step = plan.Seen, plan.Parts[0].First[0]
	for _, part := range plan.Parts {
		p.Effects = append(p.Effects, part.Effect)
	}
	if p.Unserved, err = s.unserved(c, []tasks.FleetChange{change}); err != nil {
		return err
	}
	return s.show(c, http.StatusOK, "askentry", p)
}

func (s *site) changeInstance(c echo.Context) error {
	p, in, err := s.entryIn(c)
	if err != nil {
		return err
	}
	change, err := p.change(in)
	if err != nil {
		return err
	}
	reason, err := reasonIn(c)
	if err != nil {
		return err
	}
	seen := c.FormValue("seen")
	if !tasks.ValidListHash(seen) {
		return wrong("The form does not say what was looked at.")
	}
	if _, err := s.Store.ImportSeen(c.Request().Context(), []tasks.FleetChange{change}, p.Shared, seen, login.Actor(c, reason)); err != nil {
		return refusedEntry(err)
	}
	return redirect(c, instancePath(in.ID))
}

// unserved are those drivers of changes that no living worker has.
func (s *site) unserved(c echo.Context, changes []tasks.FleetChange) (names []string, err error) {
	wanted := map[string]bool{}
	for _, change := range changes {
		if change.Driver != nil {
			wanted[tasks.Instance{Driver: *change.Driver}.Device().Driver] = true
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	overview, err := s.Store.Overview(c.Request().Context())
	if err != nil {
		return nil, err
	}
	for _, w := range overview.Workers {
		for _, driver := range w.Drivers {
			delete(wanted, driver)
		}
	}
	return sortedKeys(wanted), nil
}
