package login

import (
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// welcomePath leads to the form where somebody chooses a password, with the secret of a link.
const welcomePath = "/welcome"

// WelcomeLink is the link with which an operator chooses a password, at the site of a URL.
func WelcomeLink(site, name, secret string) string {
	return site + welcomePath + "?" + url.Values{"name": {name}, "token": {secret}}.Encode()
}

// welcomeForm is what that form has.
type welcomeForm struct{ Name, Token string }

func (d *Door) showWelcome(c echo.Context, status int, form welcomeForm, problem string) error {
	return d.cfg.Show(c, status, Page{Template: "welcome", Title: "Choose a password", Problem: problem, Content: form})
}

func (d *Door) welcomePage(c echo.Context) error {
	form := welcomeForm{c.QueryParam("name"), c.QueryParam("token")}
	return d.ifWelcome(c, form, func() error { return d.showWelcome(c, http.StatusOK, form, "") })
}

// ifWelcome does something if a link is good. It stays so: programs that look at links before people do must
// not use it up.
func (d *Door) ifWelcome(c echo.Context, form welcomeForm, do func() error) error {
	if tasks.CheckOperatorName(form.Name) == nil {
		good, err := d.cfg.Operators.Welcomed(c.Request().Context(), form.Name, form.Token)
		if err != nil {
			return err
		}
		if good {
			return do()
		}
	}
	return d.cfg.Refuse(c, http.StatusGone, "This link is not good, or no longer: it works once, for 24 hours, until somebody makes another one. Ask an admin for one.")
}

// welcome gives somebody the password that they have chosen.
func (d *Door) welcome(c echo.Context) error {
	ctx, sent := c.Request().Context(), c.Request().PostForm
	form := welcomeForm{sent.Get("name"), sent.Get("token")}
	return d.ifWelcome(c, form, func() error {
		if problem := PasswordProblem(sent.Get("password"), sent.Get("again")); problem != "" {
			return d.showWelcome(c, http.StatusBadRequest, form, problem)
		}
		hash, err := HashPassword(sent.Get("password"))
		if err != nil {
			return err
		}
		by := tasks.Actor{By: "operator " + form.Name, Principal: form.Name, From: c.RealIP(), Reason: "with a link"}
		welcomed, err := d.cfg.Operators.Welcome(ctx, form.Name, form.Token, hash, by)
		if answered, err := d.cfg.RefusedOr(c, err); answered {
			return err
		}
		o, found, err := d.cfg.Operators.Operator(ctx, form.Name)
		if err != nil {
			return err
		}
		if !welcomed || !found { // somebody was faster
			return d.cfg.Redirect(c, loginPath)
		}
		return d.passwordGiven(c, o, "/")
	})
}
