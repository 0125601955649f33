package ops

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// Tenants is what the pages about tenants and the audit trail ask of the store.
type Tenants interface {
	Policies(ctx context.Context) ([]tasks.Policy, error)
	Usage(ctx context.Context, tenant string) (tasks.Usage, error)
	SetHalt(ctx context.Context, tenant string, halt *tasks.Halt) error
	AuditRecent(ctx context.Context, f tasks.AuditFilter, cursor string, limit int) (found []tasks.AuditEntry, older string, err error)
}

// tenantsPage is what operators have decided about tenants.
type tenantsPage struct {
	page
	Tenants []tenantRow
}

type tenantRow struct {
	tasks.Policy
	Usage tasks.Usage
}

// Name is the tenant, or what stands for all of them.
func (r tenantRow) Name() string {
	if r.Tenant == "" {
		return "all tenants"
	}
	return r.Tenant
}

// Limit is a limit for people.
func (tenantRow) Limit(n *int) string {
	switch {
	case n == nil:
		return "–"
	case *n == 0:
		return "none"
	}
	return strconv.Itoa(*n)
}

func (s *site) tenants(c echo.Context) error {
	ctx := c.Request().Context()
	policies, err := s.Store.Policies(ctx)
	if err != nil {
		return err
	}
	p := tenantsPage{page: s.page(c, "Tenants")}
	for _, policy := range policies {
		row := tenantRow{Policy: policy}
		if policy.Tenant != "" {
			if row.Usage, err = s.Store.Usage(ctx, policy.Tenant); err != nil {
				return err
			}
		}
		p.Tenants = append(p.Tenants, row)
	}
	return s.show(c, http.StatusOK, "tenants", p)
}

// haltPage asks once more before a halt or its end.
type haltPage struct {
	page
	Row    tenantRow
	Resume bool
}

func (s *site) askHalt(resume bool) echo.HandlerFunc {
	return func(c echo.Context) error {
		tenant, err := haltedTenant(c)
		if err != nil {
			return s.refuse(c, http.StatusBadRequest, err.Error())
		}
		p := haltPage{page: s.page(c, "Halt"), Row: tenantRow{Policy: tasks.Policy{Tenant: tenant}}, Resume: resume}
		if resume {
			p.Title = "Resume"
		}
		return s.show(c, http.StatusOK, "askhalt", p)
	}
}

// haltedTenant is whom a halt or its end is about; "" is all tenants, who have to be named
// as well, so that a name which got lost does not mean everybody.
func haltedTenant(c echo.Context) (string, error) {
	tenant, all := strings.TrimSpace(c.FormValue("tenant")), c.FormValue("all") == "true"
	switch {
	case all && tenant != "":
		return "", errors.New("choose one tenant or all, not both")
	case all:
		return "", nil
	case tenant == "":
		return "", errors.New("choose a tenant, or all")
	}
	return tenant, tasks.CheckTenant(tenant)
}

func (s *site) halt(c echo.Context) error {
	halt := &tasks.Halt{Since: tasks.Time{Time: time.Now()}, Reason: c.FormValue("reason")}
	return s.setHalt(c, tasks.ActionHalt, halt)
}

func (s *site) resume(c echo.Context) error { return s.setHalt(c, tasks.ActionResume, nil) }

func (s *site) setHalt(c echo.Context, action tasks.Action, halt *tasks.Halt) error {
	tenant, err := haltedTenant(c)
	if err != nil {
		return s.refuse(c, http.StatusBadRequest, err.Error())
	}
	reason := c.FormValue("reason")
	if err := tasks.CheckReason(reason); err != nil {
		return s.refuse(c, http.StatusBadRequest, "The reason "+err.Error()+".")
	}
	if err := s.audit(c, tasks.AuditEntry{Action: action, Tenant: tenant, Reason: reason}); err != nil {
		return err
	}
	if err := s.Store.SetHalt(c.Request().Context(), tenant, halt); err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/tenants")
}

// auditOnPage is how many entries the page shows.
const auditOnPage = 200

// auditPage is the end of the audit trail.
type auditPage struct {
	page
	Actions []tasks.Action
	Filter  tasks.AuditFilter
	Entries []tasks.AuditEntry
	Older   string // the query of the next page, or empty
}

func (s *site) auditTrail(c echo.Context) error {
	p := auditPage{page: s.page(c, "Audit"), Actions: tasks.Actions, Filter: tasks.AuditFilter{
		Action: tasks.Action(c.QueryParam("action")), Tenant: strings.TrimSpace(c.QueryParam("tenant")),
		Job: strings.TrimSpace(c.QueryParam("job")), InstanceID: strings.TrimSpace(c.QueryParam("instance")),
	}}
	var cursor string
	var err error
	p.Entries, cursor, err = s.Store.AuditRecent(c.Request().Context(), p.Filter, c.QueryParam("cursor"), auditOnPage)
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return s.refuse(c, http.StatusBadRequest, e.Message)
	}
	if err != nil {
		return err
	}
	if cursor != "" {
		older := c.QueryParams()
		older.Set("cursor", cursor)
		p.Older = older.Encode()
	}
	return s.show(c, http.StatusOK, "audit", p)
}
