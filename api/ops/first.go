package ops

import (
	"cmp"
	"net/http"

	"github.com/labstack/echo/v4"
	"golang.org/x/crypto/bcrypt"

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
func (s *site) firstPage(c echo.Context) error {
	token := c.QueryParam("token")
	invited, err := s.Store.Invited(c.Request().Context(), token)
	if err != nil {
		return err
	}
	if !invited {
		return s.notInvited(c)
	}
	return s.showFirst(c, http.StatusOK, page{Token: token})
}

// makeFirst makes the first operator, who is logged in at once.
func (s *site) makeFirst(c echo.Context) error {
	ctx, form := c.Request().Context(), c.Request().PostForm
	token, name, password := form.Get("token"), form.Get("name"), form.Get("password")
	invited, err := s.Store.Invited(ctx, token)
	if err != nil {
		return err
	}
	if !invited { // before a password is hashed
		return s.notInvited(c)
	}
	if problem := cmp.Or(nameProblem(name), passwordProblem(password, form.Get("again"))); problem != "" {
		return s.showFirst(c, http.StatusBadRequest, page{Token: token, Name: name, Problem: problem})
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), PasswordCost)
	if err != nil {
		return err
	}
	o := tasks.Operator{Name: name, Role: tasks.RoleAdmin, PasswordHash: string(hash)}
	o.CreatedAt.Time = s.Store.Now()
	added, err := s.Store.AddFirstOperator(ctx, token, o, actor(c, "with the link for the first operator"))
	if err != nil {
		return err
	}
	if !added { // somebody was faster
		return s.notInvited(c)
	}
	return s.loggedIn(c, o, "/")
}

// nameProblem says what is wrong with the name of an operator; empty: nothing.
func nameProblem(name string) string {
	if err := tasks.CheckOperatorName(name); err != nil {
		return err.Error()
	}
	return ""
}

// passwordProblem says what is wrong with a password that was typed twice; empty: nothing.
func passwordProblem(password, again string) string {
	if err := tasks.CheckPassword(password); err != nil {
		return "The password " + err.Error() + "."
	}
	if password != again {
		return "The passwords differ."
	}
	return ""
}

func (s *site) showFirst(c echo.Context, status int, p page) error {
	p.Root, p.Title = root(c), "The first operator"
	return s.show(c, status, "first", p)
}

// notInvited leads to the login where that is possible.
func (s *site) notInvited(c echo.Context) error {
	has, err := s.Store.HasOperators(c.Request().Context())
	if err != nil {
		return err
	}
	if has {
		return redirect(c, loginPath)
	}
	return s.refuse(c, http.StatusGone, firstStale)
}
