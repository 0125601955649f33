package ops

import (
	"crypto/rand"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

const (
	// sessionCookie goes over TLS, or to this machine itself, and to no other path or
	// host: see RFC 6265bis, 4.1.3.
	sessionCookie = "__Host-batchreset"
	// loginCookie goes over plain HTTP, too. It only says that somebody has just logged in:
	// if it comes back without the other one, the browser did not keep that.
	loginCookie = "batchreset-login"
	loginPath   = "/login"
)

const notKept = "The name and the password are right, but the cookie of the login did not come back. Browsers keep it only over https, or at localhost on the same machine: open this site with https://."

// loginPage shows the form.
func (s *site) loginPage(c echo.Context) error {
	p := s.loginForm(c, c.QueryParam("next"))
	if _, err := c.Cookie(s.cookieName(loginCookie)); err == nil {
		c.SetCookie(s.loginCookie(-1))
		o, err := s.whoIs(c)
		if err != nil {
			return err
		}
		if o == nil {
			p.Problem = notKept
		}
	}
	return s.show(c, http.StatusOK, "login", p)
}

// loginForm is the page with the form, and with the way to the issuer if there is one.
type loginForm struct {
	page
	Issuer string // its host
}

func (s *site) loginForm(c echo.Context, next string) loginForm {
	p := loginForm{page: page{Root: root(c), Title: "Log in", Next: local(next)}}
	if s.Issuer != nil {
		p.Issuer = s.Issuer.Host()
	}
	return p
}

// login is a try to log in. The form is read only if another try is allowed.
func (s *site) login(c echo.Context) error {
	r := c.Request()
	try := s.guesses.from(c.RealIP())
	if !try.welcome && !bringsDevice(r) {
		return s.notLoggedIn(c, tooManyTries)
	}
	if refused := readForm(r, "name", "password", "next"); refused != nil {
		return s.refuse(c, refused.status, refused.why)
	}
	name := r.PostForm.Get("name")
	if tasks.CheckOperatorName(name) != nil { // before it is looked up or counted
		s.Store.FailedLogin(r.Context(), "", c.RealIP())
		return s.notLoggedIn(c, wrongLogin)
	}
	o, _, err := s.Store.Operator(r.Context(), name)
	if err != nil {
		return err
	}
	try.device = s.device(r, o)
	if refused := s.guesses.check(r.Context(), try, name, o, r.PostForm.Get("password")); refused != nil {
		if refused == wrongLogin {
			s.Store.FailedLogin(r.Context(), o.Name, c.RealIP())
		}
		return s.notLoggedIn(c, refused)
	}
	return s.passwordGiven(c, o, r.PostForm.Get("next"))
}

// passwordGiven asks for the second factor of an operator who has one, and lets in who has none.
func (s *site) passwordGiven(c echo.Context, o tasks.Operator, next string) error {
	if o.Enrolled != "" {
		return s.askForCode(c, o, next)
	}
	return s.loggedIn(c, o, next)
}

// loggedIn makes a session: every login that succeeds ends here.
func (s *site) loggedIn(c echo.Context, o tasks.Operator, next string) error {
	if err := s.begin(c, o); err != nil {
		return err
	}
	s.Log.Info("login", "operator", o.Name, "role", string(o.Role), "issuer", o.Issuer, "remote", c.RealIP())
	return redirect(c, local(next))
}

// begin makes a session in place of the one that this browser had.
func (s *site) begin(c echo.Context, o tasks.Operator) error {
	s.endSession(c)
	secret := rand.Text() + rand.Text()
	if err := s.Store.AddSession(c.Request().Context(), secret, o, tasks.Visit{From: c.RealIP(), Agent: c.Request().UserAgent()}); err != nil {
		return err
	}
	c.SetCookie(s.sessionCookie(secret, 0))
	if o.PasswordHash != "" {
		c.SetCookie(s.newDevice(o))
	}
	c.SetCookie(s.loginCookie(60))
	return nil
}

// notLoggedIn shows the form again after a try with it.
func (s *site) notLoggedIn(c echo.Context, why *refusal) error {
	return s.notLoggedInTo(c, c.Request().PostForm.Get("next"), why)
}

// notLoggedInTo shows the form again, for a login that leads to a page: every login that fails ends here. The name is empty
// where the form was not read, or has none that could be one.
func (s *site) notLoggedInTo(c echo.Context, next string, why *refusal) error {
	name := c.Request().PostForm.Get("name")
	if tasks.CheckOperatorName(name) != nil {
		name = ""
	}
	s.Log.Warn("login failed", "operator", name, "remote", c.RealIP(), "reason", why.why)
	if why.status != http.StatusUnauthorized {
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(int(patience.Seconds())))
	}
	p := s.loginForm(c, next)
	p.Name, p.Problem = name, why.why
	return s.show(c, why.status, "login", p)
}

// logout ends the session.
func (s *site) logout(c echo.Context) error {
	s.endSession(c)
	c.SetCookie(s.sessionCookie("", -1))
	c.SetCookie(s.loginCookie(-1))
	return redirect(c, loginPath)
}

func (s *site) endSession(c echo.Context) {
	cookie, err := c.Cookie(s.cookieName(sessionCookie))
	if err != nil {
		return
	}
	if err := s.Store.EndSession(c.Request().Context(), cookie.Value, c.RealIP()); err != nil {
		s.Log.Warn("session not ended", "error", err) // it ends by itself
	}
}

// cookieName tells the cookies of sites apart that are below several paths of a host. They are
// all for the whole host: a cookie whose name begins with __Host- has to be, and only such a
// name keeps other hosts of the domain from setting it.
func (s *site) cookieName(name string) string { return name + strings.ReplaceAll(s.Path, "/", ".") }

// sessionCookie makes the cookie of a session, for as long as the browser runs.
func (s *site) sessionCookie(secret string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: s.cookieName(sessionCookie), Value: secret, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

func (s *site) loginCookie(maxAge int) *http.Cookie {
	return &http.Cookie{Name: s.cookieName(loginCookie), Value: "1", Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// local is where to go after a login: a path of this site.
func local(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") || len(next) > maxNext {
		return "/"
	}
	return next
}

// maxNext leaves room in the form for the rest of it.
const maxNext = 4 << 10
