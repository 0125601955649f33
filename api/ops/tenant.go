package ops

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// everyTenant stands for all tenants in a path. Before a name it says that the name is one: some names, such as halt,
// are those of other pages. No tenant has it in its name.
const everyTenant = "~"

// tenantRoutes are the pages about one tenant, or about all of them.
func (s *site) tenantRoutes(e *echo.Echo) {
	e.GET("/tenants/:tenant", s.tenant, s.door.Require(tasks.RightLook), s.told)
	e.GET("/tenants/:tenant/limits", s.askLimits, s.manager(tasks.ManagedLimits, tasks.RightManage)...)
	e.POST("/tenants/:tenant/limits", s.setLimits, s.manager(tasks.ManagedLimits, tasks.RightManage, s.form(limitFields("seen", "reason")...))...)
}

func limitFields(more ...string) []string {
	for _, kind := range tasks.LimitKinds {
		more = append(more, kind.Name)
	}
	return more
}

// tenantPath is where the page of a tenant is, below the first page.
func tenantPath(tenant string) string {
	switch tenant {
	case "", "halt", "resume", ".", "..":
		return "tenants/" + everyTenant + tenant
	}
	return "tenants/" + tenant
}

// tenantIn is the tenant of the path, "" for all. Errors: tasks.NoRoute.
func tenantIn(c echo.Context) (string, error) {
	name, marked := strings.CutPrefix(c.Param("tenant"), everyTenant)
	if marked && name == "" {
		return "", nil
	}
	if err := tasks.CheckTenant(name); err != nil {
		return "", tasks.Errorf(tasks.NoRoute, "%s.", err)
	}
	return name, nil
}

// tenantPage is what holds for a tenant and where it comes from. Its limits may be those that are to be confirmed.
type tenantPage struct {
	page
	Row    tenantRow
	Path   string
	Limits []limitRow
	Usage  []usageRow
	// Callers are how many tokens and access keys the tenant has that are good.
	Callers int
	// Seen is what the tenant's own limits were when the question was asked.
	Seen string
}

// limitRow is a limit as a row of the page.
type limitRow struct {
	tasks.LimitKind
	Own   string // of the tenant; empty: none
	Holds string
	From  string // where that comes from
	// NewOwn and NewHolds are what is to be confirmed.
	NewOwn, NewHolds string
}

// Label is the limit's name for people.
func (r limitRow) Label() string {
	text := strings.ReplaceAll(r.Name, "_", " ")
	return strings.ToUpper(text[:1]) + text[1:]
}

// Changes reports whether something of the limit is to become another.
func (r limitRow) Changes() bool { return r.Own != r.NewOwn }

// usageRow is how much of a limit is used.
type usageRow struct {
	What, Used, Limit string
	Of                int // the limit; 0: none
	Is                int
}

// boundText is a limit that holds for people.
func boundText(n int) string {
	if n == 0 {
		return "no bound"
	}
	return number(n)
}

// ownText is a limit as a form has it.
func ownText(n *int) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(*n)
}

// limitRows are the limits of a tenant, or of all, as they are and as they are to become.
func limitRows(own, all, after tasks.Policy) []limitRow {
	if own.Tenant == "" {
		all = tasks.Policy{}
	}
	holds, will := own.Under(all), after.Under(all)
	rows := make([]limitRow, len(tasks.LimitKinds))
	for i, kind := range tasks.LimitKinds {
		row := limitRow{
			LimitKind: kind, Own: ownText(*kind.Of(&own.Limits)), Holds: boundText(**kind.Of(&holds.Limits)),
			NewOwn: ownText(*kind.Of(&after.Limits)), NewHolds: boundText(**kind.Of(&will.Limits)), From: "default",
		}
		switch {
		case row.Own != "" && own.Tenant == "":
			row.From = "set for all"
		case row.Own != "":
			row.From = "its own"
		case *kind.Of(&all.Limits) != nil:
			row.From = "for all tenants"
		}
		rows[i] = row
	}
	return rows
}

// policiesOf are those of a tenant, or of all if tenant is empty, and of all.
func (s *site) policiesOf(c echo.Context, tenant string) (own, all tasks.Policy, err error) {
	policies, err := s.Store.List(c.Request().Context())
	if err != nil {
		return own, all, err
	}
	own = tasks.Policy{Tenant: tenant}
	for _, p := range policies {
		if p.Tenant == tenant {
			own = p
		}
		if p.Tenant == "" {
			all = p
		}
	}
	return own, all, nil
}

// tenantPage is the page of the tenant of the path with its limits as they are. Errors: tasks.NoRoute.
func (s *site) tenantPage(c echo.Context) (p tenantPage, own, all tasks.Policy, err error) {
	tenant, err := tenantIn(c)
	if err != nil {
		return p, own, all, err
	}
	own, all, err = s.policiesOf(c, tenant)
	if err != nil {
		return p, own, all, err
	}
	seen, err := json.Marshal(own.Limits)
	if err != nil {
		return p, own, all, err
	}
	p = tenantPage{
		page: s.page(c, "Tenant "+cmp.Or(tenant, "all")), Row: tenantRow{Policy: own}, Path: tenantPath(tenant),
		Limits: limitRows(own, all, own), Seen: string(seen),
	}
	return p, own, all, nil
}

func (s *site) tenant(c echo.Context) error {
	p, own, all, err := s.tenantPage(c)
	if err != nil {
		return err
	}
	if own.Tenant == "" {
		return s.show(c, http.StatusOK, "tenant", p)
	}
	ctx := c.Request().Context()
	usage, err := s.Store.Usage(ctx, own.Tenant)
	if err != nil {
		return err
	}
	p.Usage = usageRows(usage, own.Under(all).Limits)
	tokens, err := s.Store.Credentials.List(ctx)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.Tenant == own.Tenant && !newCallerRow(t, s.Store.Now()).Ended() {
			p.Callers++
		}
	}
	return s.show(c, http.StatusOK, "tenant", p)
}

func usageRows(u tasks.Usage, holds tasks.Limits) []usageRow {
	rows := []usageRow{
		{What: "Accepted in the last hour", Is: u.AcceptedLastHour, Of: *holds.InstancesPerHour},
		{What: "Begun in the last hour", Is: u.BegunLastHour, Of: *holds.InstancesPerHour},
		{What: "Accepted in the last hour without a run", Is: u.DirectLastHour, Of: *holds.DirectInstancesPerHour},
		{What: "Open instances", Is: u.OpenInstances, Of: *holds.OpenInstances},
	}
	for i, r := range rows {
		rows[i].Limit, rows[i].Used = boundText(r.Of), "not counted"
		if r.Of > 0 {
			rows[i].Used = number(r.Is)
		}
	}
	return rows
}

// limitsIn are the limits of a form: an empty field is none of its own. Errors: tasks.BadRequest.
func limitsIn(c echo.Context) (limits tasks.Limits, err error) {
	for _, kind := range tasks.LimitKinds {
		text := strings.TrimSpace(c.FormValue(kind.Name))
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return limits, wrong("The field %s must be a whole number, or empty, not %.40q.", kind.Name, text)
		}
		if err := kind.Check(n); err != nil {
			return limits, wrong("The field %s %v.", kind.Name, err)
		}
		*kind.Of(&limits) = &n
	}
	return limits, nil
}

// askLimits shows what limits will become, and asks once more.
func (s *site) askLimits(c echo.Context) error {
	p, own, all, err := s.tenantPage(c)
	if err != nil {
		return err
	}
	after := own
	if after.Limits, err = limitsIn(c); err != nil {
		return err
	}
	p.Limits = limitRows(own, all, after)
	changes := false
	for _, row := range p.Limits {
		changes = changes || row.Changes()
	}
	if !changes {
		return wrong("Nothing would change: the limits are what they are.")
	}
	p.Title = "Change limits"
	return s.show(c, http.StatusOK, "asklimits", p)
}

func (s *site) setLimits(c echo.Context) error {
	p, _, _, err := s.tenantPage(c)
	if err != nil {
		return err
	}
	limits, err := limitsIn(c)
	if err != nil {
		return err
	}
	reason, err := reasonIn(c)
	if err != nil {
		return err
	}
	if c.FormValue("seen") != p.Seen {
		return tasks.Errorf(tasks.JobFinal, "Somebody else has changed these limits since the question was asked. Nothing was changed: look at them again.")
	}
	if err := s.Store.SetLimits(c.Request().Context(), p.Row.Tenant, limits, true, login.Actor(c, reason)); err != nil {
		return err
	}
	return redirect(c, "/"+p.Path)
}
