package ops

import (
	"context"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// Sessions are who is logged in now.
type Sessions interface {
	// LastLogins are by name.
	LastLogins(ctx context.Context) (map[string]tasks.LastLogin, error)
	Sessions(ctx context.Context, names ...string) ([]tasks.Session, error)
	// EndSessions ends the one with an ID, or all if that is empty, but for the one with the secret but.
	EndSessions(ctx context.Context, name, id, but string, actor tasks.Actor) (ended int, err error)
	SessionID(secret string) string
}

// sessionList is a table of sessions.
type sessionList struct {
	Sessions []tasks.Session
	Mine     string // ID of the session of who looks
	// End leads to the question whether one shall end, to which its ID is added, and its operator if that is Asked for;
	// empty: nowhere.
	End   string
	Asked bool
}

// Rows are the list with a way to end each.
func (l sessionList) Rows(end string, asked bool) sessionList {
	l.End, l.Asked = end, asked
	return l
}

// sessionsPage lists who is logged in.
type sessionsPage struct {
	page
	sessionList
	Whose string // only that one's; empty: everybody's
	// ID is the session that shall end; empty: all, or all others where they are one's own.
	ID string
}

func (s *site) sessions(c echo.Context) error {
	p := sessionsPage{page: s.page(c, "Sessions"), Whose: c.QueryParam("name"), sessionList: sessionList{Mine: s.current(c)}}
	names := []string{p.Whose}
	if p.Whose == "" {
		rows, err := s.people(c)
		if err != nil {
			return err
		}
		names = nil
		for _, row := range rows {
			names = append(names, row.Name)
		}
	}
	var err error
	if p.Sessions, err = s.Store.Accounts.Sessions(c.Request().Context(), names...); err != nil {
		return err
	}
	return s.show(c, http.StatusOK, "sessions", p)
}

// current is the ID of the session of who looks.
func (s *site) current(c echo.Context) string {
	secret := s.door.Session(c)
	if secret == "" {
		return ""
	}
	return s.Store.Accounts.SessionID(secret)
}

// askSessions asks once more before sessions end.
func (s *site) askSessions(c echo.Context) error {
	p := sessionsPage{page: s.page(c, "End sessions"), Whose: c.QueryParam("name"), ID: c.QueryParam("id"), sessionList: sessionList{Mine: s.current(c)}}
	if tasks.CheckOperatorName(p.Whose) != nil {
		return s.refuse(c, noSuchOperator.status, noSuchOperator.why)
	}
	found, err := s.Store.Accounts.Sessions(c.Request().Context(), p.Whose)
	if err != nil {
		return err
	}
	if p.Sessions = onlySession(found, p.ID); len(p.Sessions) == 0 {
		return s.refuse(c, http.StatusNotFound, noSuchSession)
	}
	return s.show(c, http.StatusOK, "asksessions", p)
}

const noSuchSession = "There is no such session, or it has ended."

// onlySession is the session with an ID, or all if that is empty.
func onlySession(all []tasks.Session, id string) []tasks.Session {
	return slices.DeleteFunc(all, func(one tasks.Session) bool { return id != "" && one.ID != id })
}

func (s *site) endSessions(c echo.Context) error {
	name := c.FormValue("name")
	if tasks.CheckOperatorName(name) != nil {
		return s.refuse(c, noSuchOperator.status, noSuchOperator.why)
	}
	reason, wrong := reasonOf(c)
	if wrong != nil {
		return s.refuse(c, wrong.status, wrong.why)
	}
	if _, err := s.Store.Accounts.EndSessions(c.Request().Context(), name, c.FormValue("id"), "", login.Actor(c, reason)); err != nil {
		return err
	}
	return redirect(c, "/operators/sessions")
}

// askOwnSessions asks once more before own sessions end; without an ID, all but this one.
func (s *site) askOwnSessions(c echo.Context) error {
	o, err := s.door.Self(c)
	if o == nil {
		return err
	}
	p := sessionsPage{page: s.page(c, "End sessions"), Whose: o.Name, ID: c.QueryParam("id"), sessionList: sessionList{Mine: s.current(c)}}
	found, err := s.Store.Accounts.Sessions(c.Request().Context(), o.Name)
	if err != nil {
		return err
	}
	for _, one := range onlySession(found, p.ID) {
		if p.ID != "" || one.ID != p.Mine {
			p.Sessions = append(p.Sessions, one)
		}
	}
	if len(p.Sessions) == 0 {
		return s.refuse(c, http.StatusNotFound, noSuchSession)
	}
	return s.show(c, http.StatusOK, "myend", p)
}

func (s *site) endOwnSessions(c echo.Context) error {
	o, err := s.door.Self(c)
	if o == nil {
		return err
	}
	id, but := c.FormValue("id"), ""
	if id == "" {
		but = s.door.Session(c)
	}
	if _, err := s.Store.Accounts.EndSessions(c.Request().Context(), o.Name, id, but, login.Actor(c, "")); err != nil {
		return err
	}
	return redirect(c, login.OwnPath)
}
