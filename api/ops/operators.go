package ops

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/crypto/bcrypt"

	"batchreset/tasks"
)

// Accounts are the operators that this service keeps, and the sessions of them and of others. What changes an
// operator reports whether there is one; it fails with tasks.ErrLastAdmin and tasks.ErrOperatorsReadOnly.
type Accounts interface {
	List(ctx context.Context) ([]tasks.Operator, error)
	// Add and AddInvited report whether there was none with this name.
	Add(ctx context.Context, o tasks.Operator, actor tasks.Actor) (added bool, err error)
	AddInvited(ctx context.Context, o tasks.Operator, secret string, lasts time.Duration, actor tasks.Actor) (added bool, err error)
	// Invite takes the password; Welcome gives one to who has the secret of a link.
	Invite(ctx context.Context, name, secret string, lasts time.Duration, actor tasks.Actor) (found bool, err error)
	Welcomed(ctx context.Context, name, secret string) (bool, error)
	Welcome(ctx context.Context, name, secret, hash string, actor tasks.Actor) (welcomed bool, err error)
	SetPassword(ctx context.Context, name, hash string, actor tasks.Actor) (found bool, err error)
	SetRole(ctx context.Context, name string, role tasks.Role, actor tasks.Actor) (found bool, err error)
	Remove(ctx context.Context, name string, actor tasks.Actor) (found bool, err error)
	Sessions
	SecondFactors
}

// Sessions are who is logged in now.
type Sessions interface {
	// LastLogins are by name.
	LastLogins(ctx context.Context) (map[string]tasks.LastLogin, error)
	Sessions(ctx context.Context, names ...string) ([]tasks.Session, error)
	// EndSessions ends the one with an ID, or all if that is empty, but for the one with the secret but.
	EndSessions(ctx context.Context, name, id, but string, actor tasks.Actor) (ended int, err error)
	SessionID(secret string) string
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
	e.GET(welcomePath, s.welcomePage, s.asks)
	e.POST(welcomePath, s.welcome, s.form("name", "token", "password", "again"))
	s.ownRoutes(e, viewer)
	e.GET(codePath, s.codePage, s.asks)
	e.POST(codePath, s.loginCode)
	if s.Issuer != nil {
		e.GET(issuerPath, s.toIssuer, s.asks)
		e.GET(callbackPath, s.fromIssuer) // issuers say more than we know
	}
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
		rows[i].Sessions, rows[i].Own = len(open), operator(c) != nil && operator(c).Name == rows[i].Name
	}
	return rows, nil
}

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
	o, found, err := s.Store.Operator(c.Request().Context(), name)
	switch self := operator(c) != nil && operator(c).Issuer == "" && operator(c).Name == name; {
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
	found, err := change(c.Request().Context(), c.FormValue("name"), actor(c, reason))
	if answered, err := s.refusedOr(c, err); answered {
		return err
	}
	if !found {
		return s.refuse(c, noSuchOperator.status, noSuchOperator.why)
	}
	return redirect(c, "/operators")
}

// refusedOr answers an error, and says why if the change was refused. It reports whether there is one.
func (s *site) refusedOr(c echo.Context, err error) (answered bool, answer error) {
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return true, s.refuse(c, http.StatusConflict, e.Message)
	}
	return err != nil, err
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
	problem = cmp.Or(nameProblem(o.Name), problem)
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
		added, err = s.Store.Accounts.Add(ctx, o, actor(c, reason))
	} else {
		added, err = s.Store.Accounts.AddInvited(ctx, o, secret, inviteLasts, actor(c, reason))
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
	found, err := s.Store.Accounts.Invite(c.Request().Context(), o.Name, secret, inviteLasts, actor(c, reason))
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
	if problem := passwordProblem(password, again); problem != "" {
		return "", problem, nil
	}
	b, err := bcrypt.GenerateFromPassword([]byte(password), PasswordCost)
	return string(b), "", err
}

// showLink shows the link, once.
func (s *site) showLink(c echo.Context, o tasks.Operator, secret string) error {
	p := operatorPage{page: s.page(c, "A link for "+o.Name), Ask: "link", Who: o, Until: tasks.FromMillis(s.Store.Now().Add(inviteLasts).UnixMilli())}
	p.Link = s.address(c) + welcomePath + "?" + url.Values{"name": {o.Name}, "token": {secret}}.Encode()
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
	cookie, err := c.Cookie(s.cookieName(sessionCookie))
	if err != nil || cookie.Value == "" {
		return ""
	}
	return s.Store.Accounts.SessionID(cookie.Value)
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
	if _, err := s.Store.Accounts.EndSessions(c.Request().Context(), name, c.FormValue("id"), "", actor(c, reason)); err != nil {
		return err
	}
	return redirect(c, "/operators/sessions")
}

// welcomePath leads to the form where somebody chooses a password, with the secret of a link.
const welcomePath = "/welcome"

// welcomeForm is that form.
type welcomeForm struct {
	page
}

func (s *site) welcomePage(c echo.Context) error {
	p := welcomeForm{page{Root: root(c), Title: "Choose a password", Name: c.QueryParam("name"), Token: c.QueryParam("token")}}
	return s.ifWelcome(c, p.Name, p.Token, func() error { return s.show(c, http.StatusOK, "welcome", p) })
}

// ifWelcome does something if a link is good. It stays so: programs that look at links before people do must
// not use it up.
func (s *site) ifWelcome(c echo.Context, name, token string, do func() error) error {
	if tasks.CheckOperatorName(name) == nil {
		good, err := s.Store.Accounts.Welcomed(c.Request().Context(), name, token)
		if err != nil {
			return err
		}
		if good {
			return do()
		}
	}
	return s.refuse(c, http.StatusGone, "This link is not good, or no longer: it works once, for 24 hours, until somebody makes another one. Ask an admin for one.")
}

// welcome gives somebody the password that they have chosen.
func (s *site) welcome(c echo.Context) error {
	ctx, form := c.Request().Context(), c.Request().PostForm
	p := welcomeForm{page{Root: root(c), Title: "Choose a password", Name: form.Get("name"), Token: form.Get("token")}}
	return s.ifWelcome(c, p.Name, p.Token, func() error {
		if p.Problem = passwordProblem(form.Get("password"), form.Get("again")); p.Problem != "" {
			return s.show(c, http.StatusBadRequest, "welcome", p)
		}
		hash, err := bcrypt.GenerateFromPassword([]byte(form.Get("password")), PasswordCost)
		if err != nil {
			return err
		}
		by := tasks.Actor{By: "operator " + p.Name, Principal: p.Name, From: c.RealIP(), Reason: "with a link"}
		welcomed, err := s.Store.Accounts.Welcome(ctx, p.Name, p.Token, string(hash), by)
		if answered, err := s.refusedOr(c, err); answered {
			return err
		}
		o, found, err := s.Store.Operator(ctx, p.Name)
		if err != nil {
			return err
		}
		if !welcomed || !found { // somebody was faster
			return redirect(c, loginPath)
		}
		return s.passwordGiven(c, o, "/")
	})
}
