package ops

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// ownRoutes are the pages about oneself, but for those of the log-in.
func (s *site) ownRoutes(e *echo.Echo, viewer echo.MiddlewareFunc) {
	e.GET(login.OwnPath, s.me, viewer)
	e.GET(login.OwnPath+"/sessions/end", s.askOwnSessions, viewer)
	e.POST(login.OwnPath+"/sessions/end", s.endOwnSessions, viewer, s.form("id"))
}

// mePage is about who looks.
type mePage struct {
	page
	sessionList
	Who tasks.Operator
	// Recovery is how many recovery codes are left.
	Recovery int
}

func (s *site) me(c echo.Context) error {
	o, err := s.door.Self(c)
	if o == nil {
		return err
	}
	p := mePage{page: s.page(c, "Your account"), Who: *o, sessionList: sessionList{Mine: s.current(c)}}
	if p.Sessions, err = s.Store.Accounts.Sessions(c.Request().Context(), o.Name); err != nil {
		return err
	}
	if o.Enrolled != "" {
		if p.Recovery, err = s.Store.Accounts.RecoveryLeft(c.Request().Context(), o.Name); err != nil {
			return err
		}
	}
	return s.show(c, http.StatusOK, "me", p)
}
