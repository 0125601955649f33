package ops

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// Credentials are the callers' tokens and access keys.
type Credentials interface {
	Tenants(ctx context.Context) ([]string, error)
	// List returns every token and access key that is remembered, oldest first.
	List(ctx context.Context) ([]tasks.Token, error)
	// Add makes secret a token, and AddKey makes an access key and its secret one. ttl 0 means that it never expires.
	Add(ctx context.Context, secret string, n tasks.Token, ttl time.Duration, actor tasks.Actor) (tasks.Token, error)
	AddKey(ctx context.Context, access, secret string, n tasks.Token, ttl time.Duration, actor tasks.Actor) (tasks.Token, error)
	// Rotate and RotateKey make one in place of that with this ID, which is good for the overlap more. They fail with
	// tasks.ErrNoToken and tasks.TokenExpired.
	Rotate(ctx context.Context, id, secret string, overlap time.Duration, actor tasks.Actor) (tasks.Token, error)
	RotateKey(ctx context.Context, id, access, secret string, overlap time.Duration, actor tasks.Actor) (tasks.Token, error)
	Revoke(ctx context.Context, id string, actor tasks.Actor) (found bool, err error)
	// Sealed reports whether the secrets of access keys are sealed.
	Sealed() bool
}

const (
	// callersOnPage is how many credentials the page shows.
	callersOnPage = 500
	// endsSoon is how long before its end a credential is marked.
	endsSoon = 14 * 24 * time.Hour
)

type callersPage struct {
	page
	Callers []callerRow
	More    int
	Tenant  string // only that one's; empty: all
	Chips   []chip
	Exports exports
}

// callerRow is a token or access key as a row of the page.
type callerRow struct {
	tasks.Token
	State string // good, soon, expired or revoked
}

// Limits are what it is good for, beside its scopes.
func (r callerRow) Limits() string {
	var texts []string
	for _, network := range r.Addresses {
		texts = append(texts, "from "+network.String())
	}
	for _, name := range slices.Sorted(maps.Keys(r.InstanceLabels)) {
		texts = append(texts, "for "+name+"="+r.InstanceLabels[name])
	}
	return strings.Join(texts, ", ")
}

// Allowed are its scopes.
func (r callerRow) Allowed() string {
	names := make([]string, len(r.Scopes))
	for i, scope := range r.Scopes {
		names[i] = string(scope)
	}
	return strings.Join(names, ", ")
}

// KindName is what people call it.
func (r callerRow) KindName() string {
	if r.Kind == tasks.KindKey {
		return "access key"
	}
	return string(r.Kind)
}

// Ended reports whether it is good for nothing any more.
func (r callerRow) Ended() bool { return r.State == "expired" || r.State == "revoked" }

func newCallerRow(t tasks.Token, now time.Time) callerRow {
	row := callerRow{t, "good"}
	switch {
	case !t.RevokedAt.IsZero():
		row.State = "revoked"
	case t.ExpiresAt.IsZero():
	case !now.Before(t.ExpiresAt.Time):
		row.State = "expired"
	case now.Add(endsSoon).After(t.ExpiresAt.Time):
		row.State = "soon"
	}
	return row
}

// tenantFilter is that of lists that have no other one.
var tenantFilter = []filterName{{"tenant", "Tenant"}}

// callers lists who may call the API: those that are good first, then by tenant and age.
func (s *site) callers(c echo.Context) error {
	all, err := s.Store.Credentials.List(c.Request().Context())
	if err != nil {
		return err
	}
	p := callersPage{
		page: s.page(c, "Callers"), Tenant: c.QueryParam("tenant"),
		Chips: chipsOf(c, tenantFilter...), Exports: exportsOf(c),
	}
	for _, token := range all {
		if p.Tenant == "" || token.Tenant == p.Tenant {
			p.Callers = append(p.Callers, newCallerRow(token, s.Store.Now()))
		}
	}
	slices.SortStableFunc(p.Callers, func(a, b callerRow) int {
		if a.Ended() != b.Ended() {
			if b.Ended() {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Tenant, b.Tenant)
	})
	if wantsFile(c) {
		return s.exportCallers(c, p.Callers)
	}
	p.More = max(0, len(p.Callers)-callersOnPage)
	p.Callers = p.Callers[:len(p.Callers)-p.More]
	return s.show(c, http.StatusOK, "callers", p)
}

func (s *site) exportCallers(c echo.Context, rows []callerRow) error {
	return export(s, c, list[callerRow]{
		name:  "callers",
		heads: []string{"id", "kind", "tenant", "owner", "name", "scopes", "limits", "created_at", "last_used_at", "state", "expires_at", "revoked_at"},
		cells: func(r callerRow) []string {
			return []string{
				r.ID, r.KindName(), r.Tenant, r.Owner, r.Name, r.Allowed(), r.Limits(), cellOf(r.CreatedAt), cellOf(r.LastUsedAt), r.State, cellOf(r.ExpiresAt), cellOf(r.RevokedAt),
			}
		},
		record: func(r callerRow) any { return r.Token },
		next:   whole(rows),
	})
}
