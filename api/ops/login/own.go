package login

import (
	"context"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// OwnPath is where the pages about who looks are, who may change what is there whatever their role.
const OwnPath = "/me"

const (
	passwordPath = OwnPath + "/password"
	secondPath   = OwnPath + "/second"
)

// own reports whether a request is about its sender alone.
func own(c echo.Context) bool {
	return c.Path() == OwnPath || strings.HasPrefix(c.Path(), OwnPath+"/")
}

// Self is who sends the request. Where nobody logs in, that is answered and it is nil.
func (d *Door) Self(c echo.Context) (*tasks.Operator, error) {
	if o := Operator(c); o != nil {
		return o, nil
	}
	return nil, d.cfg.Refuse(c, http.StatusNotFound, "Nobody is logged in, so there is nothing to see about you.")
}

// localSelf is Self for what is kept here: passwords and second factors.
func (d *Door) localSelf(c echo.Context) (*tasks.Operator, error) {
	o, err := d.Self(c)
	if o != nil && o.Issuer != "" {
		return nil, d.cfg.Refuse(c, http.StatusConflict, "Your password and your second factor are those of "+o.Issuer+": change them there.")
	}
	return o, err
}

// isMe is nil if a password is the one of who is logged in. It counts as a try to log in.
func (d *Door) isMe(c echo.Context, o tasks.Operator, password string) *refusal {
	try := d.guesses.from(c.RealIP())
	try.device = d.device(c.Request(), o)
	refused := d.guesses.check(c.Request().Context(), try, o.Name, o, password)
	if refused == wrongLogin {
		d.cfg.Trail.FailedLogin(c.Request().Context(), o.Name, c.RealIP())
		return &refusal{http.StatusForbidden, "Your password is wrong."} // 401 would have the page log in anew
	}
	return refused
}

// passwordPage shows the form with which somebody changes their password.
func (d *Door) passwordPage(c echo.Context) error {
	o, err := d.localSelf(c)
	if o == nil {
		return err
	}
	return d.showOwnPassword(c, http.StatusOK, "")
}

func (d *Door) showOwnPassword(c echo.Context, status int, problem string) error {
	return d.cfg.Show(c, status, Page{Template: "mypassword", Title: "Another password", Problem: problem, Framed: true})
}

// changeOwnPassword ends every session, and begins another one here.
func (d *Door) changeOwnPassword(c echo.Context) error {
	o, err := d.localSelf(c)
	if o == nil {
		return err
	}
	form := c.Request().PostForm
	if problem := PasswordProblem(form.Get("password"), form.Get("again")); problem != "" {
		return d.showOwnPassword(c, http.StatusBadRequest, problem)
	}
	if refused := d.isMe(c, *o, form.Get("old")); refused != nil {
		return d.showOwnPassword(c, refused.status, refused.why)
	}
	hash, err := HashPassword(form.Get("password"))
	if err != nil {
		return err
	}
	return d.renew(c, *o, func(ctx context.Context, actor tasks.Actor) (bool, error) {
		return d.cfg.Operators.SetPassword(ctx, o.Name, hash, actor)
	}, func() error { return d.cfg.Redirect(c, OwnPath) })
}

// renew changes what the sessions of who is logged in depend on, begins another one here, and answers.
func (d *Door) renew(c echo.Context, o tasks.Operator, change func(context.Context, tasks.Actor) (bool, error), then func() error) error {
	ctx := c.Request().Context()
	found, err := change(ctx, Actor(c, ""))
	if answered, err := d.cfg.RefusedOr(c, err); answered {
		return err
	}
	changed, there, err := d.cfg.Operators.Operator(ctx, o.Name)
	if err != nil {
		return err
	}
	if !found || !there || changed.Role != o.Role { // an admin was faster
		return d.cfg.Redirect(c, loginPath)
	}
	if err := d.begin(c, changed); err != nil {
		return err
	}
	return then()
}
