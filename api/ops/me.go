package ops

import (
	"context"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"golang.org/x/crypto/bcrypt"

	"batchreset/tasks"
)

// mePath leads to the page of who looks.
const mePath = "/me"

// own reports whether a request is about its sender alone, which every role may change.
func own(c echo.Context) bool {
	return c.Path() == mePath || strings.HasPrefix(c.Path(), mePath+"/")
}

// ownRoutes are the pages about oneself.
func (s *site) ownRoutes(e *echo.Echo, viewer echo.MiddlewareFunc) {
	e.GET(mePath, s.me, viewer)
	e.GET("/me/password", s.ownForm("password"), viewer)
	e.POST("/me/password", s.changeOwnPassword, viewer, s.form("old", "password", "again"))
	e.GET("/me/sessions/end", s.askOwnSessions, viewer)
	e.POST("/me/sessions/end", s.endOwnSessions, viewer, s.form("id"))
	e.GET("/me/second", s.secondPage, viewer)
	e.POST("/me/second", s.enrol, viewer, s.form("secret", "code", "password"))
	e.POST("/me/second/off", s.unenrol, viewer, s.form("code", "password"))
}

// mePage is about who looks.
type mePage struct {
	page
	sessionList
	Who tasks.Operator
	// Recovery is how many recovery codes are left.
	Recovery int
}

// mySelf is who sends the request. Where nobody logs in, that is answered and it is nil.
func (s *site) mySelf(c echo.Context) (*tasks.Operator, error) {
	if o := operator(c); o != nil {
		return o, nil
	}
	return nil, s.refuse(c, http.StatusNotFound, "Nobody is logged in, so there is nothing to see about you.")
}

// localSelf is mySelf for what is kept here: passwords and second factors.
func (s *site) localSelf(c echo.Context) (*tasks.Operator, error) {
	o, err := s.mySelf(c)
	if o != nil && o.Issuer != "" {
		return nil, s.refuse(c, http.StatusConflict, "Your password and your second factor are those of "+o.Issuer+": change them there.")
	}
	return o, err
}

func (s *site) me(c echo.Context) error {
	o, err := s.mySelf(c)
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

// ownForm shows a form about what is kept here.
func (s *site) ownForm(form string) echo.HandlerFunc {
	return func(c echo.Context) error {
		o, err := s.localSelf(c)
		if o == nil {
			return err
		}
		return s.show(c, http.StatusOK, "my"+form, mePage{page: s.page(c, "Another password"), Who: *o})
	}
}

// isMe is nil if a password is the one of who is logged in. It counts as a try to log in.
func (s *site) isMe(c echo.Context, o tasks.Operator, password string) *refusal {
	try := s.guesses.from(c.RealIP())
	try.device = s.device(c.Request(), o)
	refused := s.guesses.check(c.Request().Context(), try, o.Name, o, password)
	if refused == wrongLogin {
		s.Store.FailedLogin(c.Request().Context(), o.Name, c.RealIP())
		return &refusal{http.StatusForbidden, "Your password is wrong."} // 401 would have the page log in anew
	}
	return refused
}

// changeOwnPassword ends every session, and begins another one here.
func (s *site) changeOwnPassword(c echo.Context) error {
	o, err := s.localSelf(c)
	if o == nil {
		return err
	}
	form := c.Request().PostForm
	again := func(status int, problem string) error {
		p := mePage{page: s.page(c, "Another password"), Who: *o}
		p.Problem = problem
		return s.show(c, status, "mypassword", p)
	}
	if problem := passwordProblem(form.Get("password"), form.Get("again")); problem != "" {
		return again(http.StatusBadRequest, problem)
	}
	if refused := s.isMe(c, *o, form.Get("old")); refused != nil {
		return again(refused.status, refused.why)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(form.Get("password")), PasswordCost)
	if err != nil {
		return err
	}
	return s.renew(c, *o, func(ctx context.Context, actor tasks.Actor) (bool, error) {
		return s.Store.Accounts.SetPassword(ctx, o.Name, string(hash), actor)
	}, func() error { return redirect(c, mePath) })
}

// renew changes what the sessions of who is logged in depend on, begins another one here, and answers.
func (s *site) renew(c echo.Context, o tasks.Operator, change func(context.Context, tasks.Actor) (bool, error), then func() error) error {
	ctx := c.Request().Context()
	found, err := change(ctx, actor(c, ""))
	if answered, err := s.refusedOr(c, err); answered {
		return err
	}
	changed, there, err := s.Store.Operator(ctx, o.Name)
	if err != nil {
		return err
	}
	if !found || !there || changed.Role != o.Role { // an admin was faster
		return redirect(c, loginPath)
	}
	if err := s.begin(c, changed); err != nil {
		return err
	}
	return then()
}

// askOwnSessions asks once more before own sessions end; without an ID, all but this one.
func (s *site) askOwnSessions(c echo.Context) error {
	o, err := s.mySelf(c)
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
	o, err := s.mySelf(c)
	if o == nil {
		return err
	}
	id, but := c.FormValue("id"), ""
	if cookie, err := c.Cookie(s.cookieName(sessionCookie)); err == nil && id == "" {
		but = cookie.Value
	}
	if _, err := s.Store.Accounts.EndSessions(c.Request().Context(), o.Name, id, but, actor(c, "")); err != nil {
		return err
	}
	return redirect(c, mePath)
}
