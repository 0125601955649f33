package ops

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// operatorPage asks once more before a change of an operator.
type operatorPage struct {
	page
	Ask   string
	Who   tasks.Operator
	Roles []tasks.Role
	Role  tasks.Role // that is chosen
	// Link is what somebody gets who shall choose a password, Until when it is good for nothing any more.
	Link  string
	Until tasks.Time
}

var operatorTitles = map[string]string{
	"add": "Add an operator", "role": "Another role", "password": "Another password", "remove": "Remove an operator", "second": "Take away a second factor",
}

// askOperator shows the form of a change.
func (s *site) askOperator(ask string) echo.HandlerFunc {
	return func(c echo.Context) error {
		p := operatorPage{page: s.page(c, operatorTitles[ask]), Ask: ask, Roles: tasks.Roles, Role: tasks.RoleViewer}
		if ask != "add" {
			o, refused, err := s.whom(c, ask)
			if refused != nil {
				return s.refuse(c, refused.status, refused.why)
			}
			if err != nil {
				return err
			}
			p.Who, p.Role = o, o.Role
		}
		return s.show(c, http.StatusOK, "askoperator", p)
	}
}

// whom is the operator whom a change is about: one that is kept here, and may be changed in this way.
func (s *site) whom(c echo.Context, ask string) (tasks.Operator, *refusal, error) {
	name := c.FormValue("name")
	if tasks.CheckOperatorName(name) != nil {
		return tasks.Operator{}, noSuchOperator, nil //nolint:nilerr // that is what the refusal says
	}
	o, found, err := s.Store.Accounts.Operator(c.Request().Context(), name)
	switch self := login.Operator(c) != nil && login.Operator(c).Issuer == "" && login.Operator(c).Name == name; {
	case err != nil:
		return o, nil, err
	case !found:
		return o, noSuchOperator, nil
	case self && (ask == "password" || ask == "second"): // or whoever finds an open session could keep it
		return o, &refusal{http.StatusForbidden, "For yourself, do this on the page of your own account: it asks for your password."}, nil
	}
	return o, nil, nil
}

var noSuchOperator = &refusal{http.StatusNotFound, "There is no such operator here. People whom an issuer knows are changed there."}

// reasonOf is the reason of a form, or what is wrong with it.
func reasonOf(c echo.Context) (string, *refusal) {
	reason := c.FormValue("reason")
	if err := tasks.CheckReason(reason); err != nil {
		return "", &refusal{http.StatusBadRequest, "The reason " + err.Error() + "."}
	}
	return reason, nil
}

// changeOperator does something with the operator of a form that was asked for.
func (s *site) changeOperator(c echo.Context, ask string, change func(ctx context.Context, name string, actor tasks.Actor) (bool, error)) error {
	_, refused, err := s.whom(c, ask)
	if err != nil {
		return err
	}
	reason, wrong := reasonOf(c)
	if refused = cmp.Or(refused, wrong); refused != nil {
		return s.refuse(c, refused.status, refused.why)
	}
	found, err := change(c.Request().Context(), c.FormValue("name"), login.Actor(c, reason))
	if answered, err := s.refusedOr(c, err); answered {
		return err
	}
	if !found {
		return s.refuse(c, noSuchOperator.status, noSuchOperator.why)
	}
	return redirect(c, "/operators")
}

func (s *site) setRole(c echo.Context) error {
	role := tasks.Role(c.FormValue("role"))
	if !slices.Contains(tasks.Roles, role) {
		return s.refuse(c, http.StatusBadRequest, fmt.Sprintf("There is no role %.80q.", role))
	}
	return s.changeOperator(c, "role", func(ctx context.Context, name string, actor tasks.Actor) (bool, error) {
		return s.Store.Accounts.SetRole(ctx, name, role, actor)
	})
}

func (s *site) removeOperator(c echo.Context) error {
	return s.changeOperator(c, "remove", s.Store.Accounts.Remove)
}

func (s *site) resetSecond(c echo.Context) error {
	return s.changeOperator(c, "second", s.Store.Accounts.Unenrol)
}

// inviteLasts is how long a link is good with which somebody chooses a password.
const inviteLasts = 24 * time.Hour

// addOperator adds somebody, with a password or a link.
func (s *site) addOperator(c echo.Context) error {
	ctx, form := c.Request().Context(), c.Request().PostForm
	o := tasks.Operator{Name: form.Get("name"), Role: tasks.Role(form.Get("role"))}
	o.CreatedAt.Time = s.Store.Now()
	reason, wrong := reasonOf(c)
	hash, problem, err := passwordOf(c)
	if err != nil {
		return err
	}
	if wrong := tasks.CheckOperatorName(o.Name); wrong != nil {
		problem = wrong.Error()
	}
	if !slices.Contains(tasks.Roles, o.Role) {
		problem = cmp.Or(problem, "Choose a role.")
	}
	if wrong != nil {
		problem = cmp.Or(problem, wrong.why)
	}
	p := operatorPage{page: s.page(c, operatorTitles["add"]), Ask: "add", Roles: tasks.Roles, Role: o.Role}
	p.Name, p.Problem = o.Name, problem
	if problem != "" {
		return s.show(c, http.StatusBadRequest, "askoperator", p)
	}
	var added bool
	secret := rand.Text()
	if hash != "" {
		o.PasswordHash = hash
		added, err = s.Store.Accounts.Add(ctx, o, login.Actor(c, reason))
	} else {
		added, err = s.Store.Accounts.AddInvited(ctx, o, secret, inviteLasts, login.Actor(c, reason))
	}
	if answered, err := s.refusedOr(c, err); answered {
		return err
	}
	if !added {
		p.Problem = "There is an operator with this name."
		return s.show(c, http.StatusConflict, "askoperator", p)
	}
	if hash != "" {
		return redirect(c, "/operators")
	}
	return s.showLink(c, o, secret)
}

// setPassword gives somebody else another password, or has them choose one with a link.
func (s *site) setPassword(c echo.Context) error {
	o, refused, err := s.whom(c, "password")
	if err != nil {
		return err
	}
	if refused != nil {
		return s.refuse(c, refused.status, refused.why)
	}
	hash, problem, err := passwordOf(c)
	if err != nil {
		return err
	}
	if problem != "" {
		p := operatorPage{page: s.page(c, operatorTitles["password"]), Ask: "password", Who: o}
		p.Problem = problem
		return s.show(c, http.StatusBadRequest, "askoperator", p)
	}
	if hash != "" {
		return s.changeOperator(c, "password", func(ctx context.Context, name string, actor tasks.Actor) (bool, error) {
			return s.Store.Accounts.SetPassword(ctx, name, hash, actor)
		})
	}
	reason, wrong := reasonOf(c)
	if wrong != nil {
		return s.refuse(c, wrong.status, wrong.why)
	}
	secret := rand.Text()
	found, err := s.Store.Accounts.Invite(c.Request().Context(), o.Name, secret, inviteLasts, login.Actor(c, reason))
	if answered, err := s.refusedOr(c, err); answered {
		return err
	}
	if !found {
		return s.refuse(c, noSuchOperator.status, noSuchOperator.why)
	}
	return s.showLink(c, o, secret)
}

// passwordOf is the hash of a password that was typed twice; empty if none was, which asks for a link.
func passwordOf(c echo.Context) (hash, problem string, err error) {
	password, again := c.FormValue("password"), c.FormValue("again")
	if password == "" && again == "" {
		return "", "", nil
	}
	if problem := login.PasswordProblem(password, again); problem != "" {
		return "", problem, nil
	}
	hash, err = login.HashPassword(password)
	return hash, "", err
}

// showLink shows the link, once.
func (s *site) showLink(c echo.Context, o tasks.Operator, secret string) error {
	p := operatorPage{page: s.page(c, "A link for "+o.Name), Ask: "link", Who: o, Until: tasks.FromMillis(s.Store.Now().Add(inviteLasts).UnixMilli())}
	p.Link = login.WelcomeLink(s.address(c), o.Name, secret)
	return s.show(c, http.StatusOK, "askoperator", p)
}

// address is where browsers find the site, by the settings or by what this browser says.
func (s *site) address(c echo.Context) string {
	if s.URL != "" {
		return s.URL
	}
	if origin := c.Request().Header.Get("Origin"); strings.HasPrefix(origin, "http") {
		return origin + s.Path
	}
	return c.Scheme() + "://" + c.Request().Host + s.Path
}
