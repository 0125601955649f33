package login

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// firstPath leads to the form that makes the first operator. The way there is a link that a
// process prints when it starts and finds none: whoever reads what it prints may log in.
const firstPath = "/first-operator"

const (
	firstHow   = "'batchreset operator add' makes one. So does the link that each api or worker that starts without one prints to its standard output, good for an hour, unless its Redis user may not write operators."
	firstStale = "This link is not good, or no longer: it works once, for an hour. Start an api or a worker again for another one, or use 'batchreset operator add'."
)

// FirstOperatorLink is the link, at the site of a URL.
func FirstOperatorLink(site, secret string) string { return site + firstPath + "?token=" + secret }

// firstPage shows the form. The link stays good: programs that look at links before people do
// must not use it up.
func (d *Door) firstPage(c echo.Context) error {
	token := c.QueryParam("token")
	invited, err := d.cfg.Operators.Invited(c.Request().Context(), token)
	if err != nil {
		return err
	}
	if !invited {
		return d.notInvited(c)
	}
	return d.showFirst(c, http.StatusOK, firstForm{Token: token}, "")
}

// makeFirst makes the first operator, who is logged in at once.
func (d *Door) makeFirst(c echo.Context) error {
	ctx, form := c.Request().Context(), c.Request().PostForm
	token, name, password := form.Get("token"), form.Get("name"), form.Get("password")
	invited, err := d.cfg.Operators.Invited(ctx, token)
	if err != nil {
		return err
	}
	if !invited { // before a password is hashed
		return d.notInvited(c)
	}
	problem := PasswordProblem(password, form.Get("again"))
	if err := tasks.CheckOperatorName(name); err != nil {
		problem = err.Error()
	}
	if problem != "" {
		return d.showFirst(c, http.StatusBadRequest, firstForm{Token: token, Name: name}, problem)
	}
	hash, err := HashPassword(password)
	if err != nil {
		return err
	}
	o := tasks.Operator{Name: name, Role: tasks.RoleAdmin, PasswordHash: hash}
	o.CreatedAt.Time = d.cfg.Clock.Now()
	added, err := d.cfg.Operators.AddFirstOperator(ctx, token, o, Actor(c, "with the link for the first operator"))
	if err != nil {
		return err
	}
	if !added { // somebody was faster
		return d.notInvited(c)
	}
	return d.loggedIn(c, o, "/")
}

// firstForm is what the form shows besides.
type firstForm struct{ Token, Name string }

func (d *Door) showFirst(c echo.Context, status int, form firstForm, problem string) error {
	return d.cfg.Show(c, status, Page{Template: "first", Title: "The first operator", Problem: problem, Content: form})
}

// notInvited leads to the login where that is possible.
func (d *Door) notInvited(c echo.Context) error {
	has, err := d.cfg.Operators.HasOperators(c.Request().Context())
	if err != nil {
		return err
	}
	if has {
		return d.cfg.Redirect(c, loginPath)
	}
	return d.cfg.Refuse(c, http.StatusGone, firstStale)
}
