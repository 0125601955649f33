package ops

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// Policies are halts and limits.
type Policies interface {
	// SetLimits sets those of the limits that are not nil, after it has dropped the others if clearFirst is set.
	SetLimits(ctx context.Context, tenant string, limits tasks.Limits, clearFirst bool, actor tasks.Actor) error
	List(ctx context.Context) ([]tasks.Policy, error)
	// Policy is what holds for a tenant; for an empty one, what holds for all.
	Policy(ctx context.Context, tenant string) (tasks.Policy, error)
	Halt(ctx context.Context, tenant string, whose tasks.Halter, actor tasks.Actor) error
	Resume(ctx context.Context, tenant string, whose tasks.Halter, actor tasks.Actor) error
}

// Quotas say how much of its limits a tenant uses.
type Quotas interface {
	Usage(ctx context.Context, tenant string) (tasks.Usage, error)
}

// tenantsPage is what operators have decided about tenants, all of them in the first row.
type tenantsPage struct {
	page
	Tenants []tenantRow
	More    int // that the page does not list
	Exports exports
}

// tenantsOnPage is how many tenants it lists, besides those that have something of their
// own.
const tenantsOnPage = 200

type tenantRow struct {
	tasks.Policy
	holds tasks.Policy // with what all tenants have
	usage tasks.Usage
	Work  tasks.Work
	Pace  tasks.Pace
}

// Name is the tenant, or what stands for all of them.
func (r tenantRow) Name() string {
	if r.Tenant == "" {
		return "all tenants"
	}
	return r.Tenant
}

// Path is where its page is.
func (r tenantRow) Path() string { return tenantPath(r.Tenant) }

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

// Used is how much is used of a limit, for people.
func (r tenantRow) Used(limit string) string {
	if n, counted := r.used(limit); counted {
		return strconv.Itoa(n)
	}
	return "–"
}

// used is how much is used of a limit, which alone makes the service count.
func (r tenantRow) used(limit string) (n int, counted bool) {
	var bound *int
	switch limit {
	case "accepted":
		bound, n = r.holds.InstancesPerHour, r.usage.AcceptedLastHour
	case "begun":
		bound, n = r.holds.InstancesPerHour, r.usage.BegunLastHour
	case "open":
		bound, n = r.holds.OpenInstances, r.usage.OpenInstances
	}
	return n, bound != nil && *bound > 0
}

func (s *site) tenants(c echo.Context) error {
	ctx := c.Request().Context()
	policies, err := s.Store.List(ctx)
	if err != nil {
		return err
	}
	names, err := s.Store.Credentials.Tenants(ctx)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(policies, func(p tasks.Policy) bool { return p.Tenant == name })
	})
	p := tenantsPage{page: s.page(c, "Tenants"), Exports: exportsOf(c)}
	if !wantsFile(c) {
		p.More = max(0, len(names)-tenantsOnPage)
	}
	for _, name := range names[:len(names)-p.More] {
		policies = append(policies, tasks.Policy{Tenant: name})
	}
	if p.Tenants, err = s.tenantRows(ctx, policies); err != nil {
		return err
	}
	if wantsFile(c) {
		return s.exportTenants(c, p.Tenants)
	}
	return s.show(c, http.StatusOK, "tenants", p)
}

// tenantRows are the rows of policies, of which the first one is that of all tenants.
func (s *site) tenantRows(ctx context.Context, policies []tasks.Policy) (rows []tenantRow, err error) {
	census, err := s.Store.Census(ctx)
	if err != nil {
		return nil, err
	}
	ended, err := s.Store.EndedByTenant(ctx)
	if err != nil {
		return nil, err
	}
	for _, policy := range policies {
		row := tenantRow{Policy: policy, Work: census.Work}
		if policy.Tenant != "" {
			row.Work = census.Tenants[policy.Tenant]
			row.Pace = tasks.PaceOf(ended[policy.Tenant], tasks.PaceWindow, row.Work.Ahead(), census.At.Time)
		} else {
			row.Pace = tasks.PaceOf(sum(ended), tasks.PaceWindow, row.Work.Ahead(), census.At.Time)
		}
		if policy.Tenant == "" { // what holds where nothing was set
			row.Limits = policy.Under(tasks.Policy{}).Limits
		} else {
			row.holds = policy.Under(policies[0])
			if *row.holds.InstancesPerHour+*row.holds.OpenInstances > 0 {
				if row.usage, err = s.Store.Usage(ctx, policy.Tenant); err != nil {
					return nil, err
				}
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// exportTenants writes the tenants. Of a limit the cell is empty where the tenant has none of its own, and use is empty
// where it is not counted.
func (s *site) exportTenants(c echo.Context, rows []tenantRow) error {
	used := func(r tenantRow, limit string) string {
		if n, counted := r.used(limit); counted {
			return strconv.Itoa(n)
		}
		return ""
	}
	return export(s, c, list[tenantRow]{
		name: "tenants",
		heads: []string{
			"tenant", "halted_since", "halt_reason", "own_halt_since", "own_halt_reason", "waiting", "running", "held", "to_come", "empty_at",
			"instances_per_hour", "accepted_last_hour", "begun_last_hour", "open_limit", "open_instances", "requests_per_second", "max_failures",
		},
		cells: func(r tenantRow) []string {
			cells := []string{r.Name()}
			for _, halt := range []*tasks.Halt{r.OperatorHalt, r.OwnHalt} {
				if halt == nil {
					halt = new(tasks.Halt)
				}
				cells = append(cells, cellOf(halt.Since), halt.Reason)
			}
			return append(cells,
				strconv.Itoa(r.Work.Waiting), strconv.Itoa(r.Work.Running), strconv.Itoa(r.Work.HeldItems()), strconv.Itoa(r.Work.ToCome), cellOf(r.Pace.Empty),
				ownText(r.InstancesPerHour), used(r, "accepted"), used(r, "begun"), ownText(r.OpenInstances), used(r, "open"),
				ownText(r.RequestsPerSecond), ownText(r.MaxFailures))
		},
		record: func(r tenantRow) any {
			record := struct {
				Tenant  string       `json:"tenant"`
				Halt    *tasks.Halt  `json:"halt,omitempty"`
				OwnHalt *tasks.Halt  `json:"own_halt,omitempty"`
				Limits  tasks.Limits `json:"limits"`
				Work    tasks.Work   `json:"work"`
				EmptyAt tasks.Time   `json:"empty_at,omitzero"`
				// Accepted to Open are nil where they are not counted.
				Accepted *int `json:"accepted_last_hour,omitempty"`
				Begun    *int `json:"begun_last_hour,omitempty"`
				Open     *int `json:"open_instances,omitempty"`
			}{Tenant: r.Name(), Halt: r.OperatorHalt, OwnHalt: r.OwnHalt, Limits: r.Limits, Work: r.Work, EmptyAt: r.Pace.Empty}
			for limit, n := range map[string]**int{"accepted": &record.Accepted, "begun": &record.Begun, "open": &record.Open} {
				if count, counted := r.used(limit); counted {
					*n = &count
				}
			}
			return record
		},
		next: whole(rows),
	})
}

func sum(numbers map[string]int64) (all int64) {
	for _, n := range numbers {
		all += n
	}
	return all
}

// haltPage asks once more before a halt or its end.
type haltPage struct {
	page
	Row    tenantRow
	Resume bool
	Own    bool // the tenant's own halt is meant
	// Work is what a halt stops and lets end, as counted At; Counted says that it is known.
	Work    tasks.Work
	At      tasks.Time
	Counted bool
}

// Stops are the instances that a halt stops.
func (p haltPage) Stops() int { return p.Work.Waiting }

// Released are the instances that the end of a halt lets begin, as far as nothing else holds them.
func (p haltPage) Released() int {
	switch {
	case p.Own:
		return p.Work.Held[tasks.HoldOwnHalt]
	case p.Row.Tenant == "":
		return p.Work.Held[tasks.HoldHalt]
	}
	return p.Work.Held[tasks.HoldTenantHalt]
}

// countPatience bounds how long a question waits for its numbers: the brake must work when the count does not.
const countPatience = 2 * time.Second

// count fills the numbers of a halt. Without them the question is asked, too.
func (s *site) count(ctx context.Context, p *haltPage) {
	ctx, cancel := context.WithTimeout(ctx, countPatience)
	defer cancel()
	census, err := s.Store.Census(ctx)
	if err != nil {
		s.Log.Warn("open work not counted", "error", err)
		return
	}
	p.Work, p.At, p.Counted = census.Work, census.At, true
	if tenant := p.Row.Tenant; tenant != "" {
		var named bool
		p.Work, named = census.Tenants[tenant]
		p.Counted = named || len(census.Tenants) < tasks.CensusNames // else it may have been left out
	}
}

func (s *site) askHalt(resume bool) echo.HandlerFunc {
	return func(c echo.Context) error {
		tenant, err := haltedTenant(c)
		if err != nil {
			return s.refuse(c, http.StatusBadRequest, err.Error())
		}
		p := haltPage{page: s.page(c, "Halt"), Row: tenantRow{Policy: tasks.Policy{Tenant: tenant}}, Resume: resume, Own: c.QueryParam("own") == "true"}
		if resume {
			p.Title = "Resume"
		}
		s.count(c.Request().Context(), &p)
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

func (s *site) halt(c echo.Context) error { return s.setHalt(c, s.Store.Halt, tasks.HaltedByOperator) }

// resume ends the operators' halt, or the tenant's own if that is asked for.
func (s *site) resume(c echo.Context) error {
	whose := tasks.HaltedByOperator
	if c.FormValue("own") == "true" {
		whose = tasks.HaltedByTenant
	}
	return s.setHalt(c, s.Store.Resume, whose)
}

func (s *site) setHalt(c echo.Context, set func(context.Context, string, tasks.Halter, tasks.Actor) error, whose tasks.Halter) error {
	tenant, err := haltedTenant(c)
	if err != nil {
		return s.refuse(c, http.StatusBadRequest, err.Error())
	}
	reason := c.FormValue("reason")
	if err := tasks.CheckReason(reason); err != nil {
		return s.refuse(c, http.StatusBadRequest, "The reason "+err.Error()+".")
	}
	if err := set(c.Request().Context(), tenant, whose, login.Actor(c, reason)); err != nil {
		return err
	}
	return redirect(c, "/tenants")
}

// auditOnPage is how many entries the page shows.
const auditOnPage = 200

// auditPage is the end of the audit trail.
type auditPage struct {
	page
	Chips   []chip
	Exports exports
	Actions []tasks.Action
	Filter  tasks.AuditFilter
	Entries []tasks.AuditEntry
	Older   query // of the next page, or empty
}

// auditFilters are the filters of the audit trail.
var auditFilters = []filterName{{"action", "Action"}, {"tenant", "Tenant"}, {"job", "Job"}, {"run", "Run"}, {"instance", "Instance"}}

// exportAudit writes the newest entries that a filter selects.
func (s *site) exportAudit(c echo.Context, f tasks.AuditFilter) error {
	return export(s, c, list[tasks.AuditEntry]{
		name:  "audit",
		heads: []string{"at", "action", "by", "from", "tenant", "job", "run", "instances", "detail", "reason"},
		cells: func(e tasks.AuditEntry) []string {
			return []string{
				cellOf(e.At), string(e.Action), e.Who(), e.From, e.Tenant, e.Job, e.Run, strings.Join(e.InstanceIDs, " "), e.Detail, e.Reason,
			}
		},
		next: func(cursor string) ([]tasks.AuditEntry, string, error) {
			return s.Store.Recent(c.Request().Context(), f, cursor, auditOnPage)
		},
	})
}

func (s *site) auditTrail(c echo.Context) error {
	p := auditPage{page: s.page(c, "Audit"), Chips: chipsOf(c, auditFilters...), Exports: exportsOf(c), Actions: tasks.Actions, Filter: tasks.AuditFilter{
		Action: tasks.Action(c.QueryParam("action")), Tenant: strings.TrimSpace(c.QueryParam("tenant")),
		Job: strings.TrimSpace(c.QueryParam("job")), Run: strings.TrimSpace(c.QueryParam("run")), InstanceID: strings.TrimSpace(c.QueryParam("instance")),
	}}
	if wantsFile(c) {
		return s.exportAudit(c, p.Filter)
	}
	var cursor string
	var err error
	p.Entries, cursor, err = s.Store.Recent(c.Request().Context(), p.Filter, c.QueryParam("cursor"), auditOnPage)
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return s.refuse(c, http.StatusBadRequest, e.Message)
	}
	if err != nil {
		return err
	}
	p.Older = olderQuery(c, cursor)
	return s.show(c, http.StatusOK, "audit", p)
}
