package ops

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// Accounts are the operators that this service keeps, and the sessions of them and of others. What changes an
// operator reports whether there is one; it fails with tasks.ErrLastAdmin and tasks.ErrOperatorsReadOnly.
type Accounts interface {
	List(ctx context.Context) ([]tasks.Operator, error)
	Operator(ctx context.Context, name string) (o tasks.Operator, found bool, err error)
	// Add and AddInvited report whether there was none with this name.
	Add(ctx context.Context, o tasks.Operator, actor tasks.Actor) (added bool, err error)
	AddInvited(ctx context.Context, o tasks.Operator, secret string, lasts time.Duration, actor tasks.Actor) (added bool, err error)
	// Invite takes the password: who has the secret of a link chooses another one.
	Invite(ctx context.Context, name, secret string, lasts time.Duration, actor tasks.Actor) (found bool, err error)
	SetPassword(ctx context.Context, name, hash string, actor tasks.Actor) (found bool, err error)
	SetRole(ctx context.Context, name string, role tasks.Role, actor tasks.Actor) (found bool, err error)
	Remove(ctx context.Context, name string, actor tasks.Actor) (found bool, err error)
	// Unenrol takes a second factor away; RecoveryLeft is how many recovery codes are left of one.
	Unenrol(ctx context.Context, name string, actor tasks.Actor) (found bool, err error)
	RecoveryLeft(ctx context.Context, name string) (int, error)
	Sessions
}

// operatorRoutes are the pages about operators, and those about oneself.
func (s *site) operatorRoutes(e *echo.Echo, viewer, admin echo.MiddlewareFunc) {
	e.GET("/operators", s.operators, viewer)
	e.GET("/operators/add", s.askOperator("add"), admin)
	e.POST("/operators/add", s.addOperator, admin, s.form("name", "role", "password", "again", "reason"))
	e.GET("/operators/role", s.askOperator("role"), admin)
	e.POST("/operators/role", s.setRole, admin, s.form("name", "role", "reason"))
	e.GET("/operators/password", s.askOperator("password"), admin)
	e.POST("/operators/password", s.setPassword, admin, s.form("name", "password", "again", "reason"))
	e.GET("/operators/remove", s.askOperator("remove"), admin)
	e.POST("/operators/remove", s.removeOperator, admin, s.form("name", "reason"))
	e.GET("/operators/second", s.askOperator("second"), admin)
	e.POST("/operators/second", s.resetSecond, admin, s.form("name", "reason"))
	e.GET("/operators/sessions", s.sessions, admin)
	e.GET("/operators/sessions/end", s.askSessions, admin)
	e.POST("/operators/sessions/end", s.endSessions, admin, s.form("name", "id", "reason"))
	s.ownRoutes(e, viewer)
}

// operatorRow is somebody on the page of operators.
type operatorRow struct {
	tasks.Operator
	Kept     bool // by this service; else an issuer knows them
	Last     tasks.LastLogin
	Sessions int
	Own      bool // it is who looks
}

// Source is where somebody is known.
func (r operatorRow) Source() string {
	switch {
	case !r.Kept:
		return r.Last.Issuer
	case r.Last.Issuer != "":
		return "this service, and " + r.Last.Issuer
	}
	return "this service"
}

// State is whether somebody who is kept here can log in.
func (r operatorRow) State(now time.Time) string {
	switch {
	case !r.Kept || r.PasswordHash != "":
		return ""
	case now.Before(r.InvitedUntil.Time):
		return "invited"
	}
	return "no password"
}

type operatorsPage struct {
	page
	People []operatorRow
	Now    time.Time
	Issuer string
	// NoAdmin says that nobody who is kept here is an admin with a password.
	NoAdmin bool
	Exports exports
}

// operators lists everybody who may log in, as far as this service knows.
func (s *site) operators(c echo.Context) error {
	rows, err := s.people(c)
	if err != nil {
		return err
	}
	if wantsFile(c) {
		return s.exportOperators(c, rows)
	}
	p := operatorsPage{page: s.page(c, "Operators"), People: rows, Now: s.Store.Now(), NoAdmin: true, Exports: exportsOf(c)}
	for _, row := range rows {
		if row.Kept && row.Role == tasks.RoleAdmin && row.PasswordHash != "" {
			p.NoAdmin = false
		}
	}
	if s.Issuer != nil {
		p.Issuer = s.Issuer.Host()
	}
	return s.show(c, http.StatusOK, "operators", p)
}

// exportOperators writes who may log in, as the page has it: that somebody has a password, and never what it is.
func (s *site) exportOperators(c echo.Context, rows []operatorRow) error {
	type record struct {
		Name         string     `json:"name"`
		Role         tasks.Role `json:"role"`
		KnownBy      string     `json:"known_by"`
		State        string     `json:"state,omitempty"`
		CreatedAt    tasks.Time `json:"created_at,omitzero"`
		SecondFactor tasks.Time `json:"second_factor,omitzero"`
		LastLogin    tasks.Time `json:"last_login_at,omitzero"`
		From         string     `json:"last_login_from,omitempty"`
		Sessions     int        `json:"sessions"`
	}
	now := s.Store.Now()
	recordOf := func(r operatorRow) record {
		return record{r.Name, r.Role, r.Source(), r.State(now), r.CreatedAt, r.SecondFactor, r.Last.At, r.Last.From, r.Sessions}
	}
	return export(s, c, list[operatorRow]{
		name:  "operators",
		heads: []string{"name", "role", "known_by", "state", "created_at", "second_factor", "last_login_at", "last_login_from", "sessions"},
		cells: func(row operatorRow) []string {
			r := recordOf(row)
			return []string{
				r.Name, string(r.Role), r.KnownBy, r.State, cellOf(r.CreatedAt), cellOf(r.SecondFactor), cellOf(r.LastLogin), r.From, strconv.Itoa(r.Sessions),
			}
		},
		record: func(r operatorRow) any { return recordOf(r) },
		next:   whole(rows),
	})
}

// people are everybody who is kept here, or has logged in lately, by name.
func (s *site) people(c echo.Context) ([]operatorRow, error) {
	ctx := c.Request().Context()
	kept, err := s.Store.Accounts.List(ctx)
	if err != nil {
		return nil, err
	}
	last, err := s.Store.Accounts.LastLogins(ctx)
	if err != nil {
		return nil, err
	}
	rows := []operatorRow{}
	for _, o := range kept {
		rows = append(rows, operatorRow{Operator: o, Kept: true, Last: last[o.Name]})
		delete(last, o.Name)
	}
	for name, l := range last {
		if l.Issuer != "" { // else they are removed
			rows = append(rows, operatorRow{Operator: tasks.Operator{Name: name, Role: l.Role}, Last: l})
		}
	}
	slices.SortFunc(rows, func(a, b operatorRow) int { return cmp.Compare(a.Name, b.Name) })
	for i := range rows {
		open, err := s.Store.Accounts.Sessions(ctx, rows[i].Name)
		if err != nil {
			return nil, err
		}
		rows[i].Sessions, rows[i].Own = len(open), login.Operator(c) != nil && login.Operator(c).Name == rows[i].Name
	}
	return rows, nil
}
