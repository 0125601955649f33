package login

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

// loginForm is what the form shows besides, and the way to the issuer if there is one.
type loginForm struct {
	Name   string // that was typed
	Next   string // where to go after the login
	Issuer string // its host
}

// loginPage shows the form.
func (d *Door) loginPage(c echo.Context) error {
	problem := ""
	if _, err := c.Cookie(d.cookieName(loginCookie)); err == nil {
		c.SetCookie(d.loginCookie(-1))
		o, err := d.whoIs(c)
		if err != nil {
			return err
		}
		if o == nil {
			problem = notKept
		}
	}
	return d.showLogin(c, http.StatusOK, loginForm{Next: c.QueryParam("next")}, problem)
}

func (d *Door) showLogin(c echo.Context, status int, form loginForm, problem string) error {
	form.Next = local(form.Next)
	if d.cfg.Issuer != nil {
		form.Issuer = d.cfg.Issuer.Host()
	}
	return d.cfg.Show(c, status, Page{Template: "login", Title: "Log in", Problem: problem, Content: form})
}

// login is a try to log in.
func (d *Door) login(c echo.Context, try guess) error {
	r := c.Request()
	name := r.PostForm.Get("name")
	if tasks.CheckOperatorName(name) != nil { // before it is looked up or counted
		d.cfg.Trail.FailedLogin(r.Context(), "", c.RealIP())
		return d.notLoggedIn(c, wrongLogin)
	}
	o, _, err := d.cfg.Operators.Operator(r.Context(), name)
	if err != nil {
		return err
	}
	try.device = d.device(r, o)
	if refused := d.guesses.check(r.Context(), try, name, o, r.PostForm.Get("password")); refused != nil {
		if refused == wrongLogin {
			d.cfg.Trail.FailedLogin(r.Context(), o.Name, c.RealIP())
		}
		return d.notLoggedIn(c, refused)
	}
	return d.passwordGiven(c, o, r.PostForm.Get("next"))
}

// passwordGiven asks for the second factor of an operator who has one, and lets in who has none.
func (d *Door) passwordGiven(c echo.Context, o tasks.Operator, next string) error {
	if o.Enrolled != "" {
		return d.askForCode(c, o, next)
	}
	return d.loggedIn(c, o, next)
}

// loggedIn makes a session: every login that succeeds ends here.
func (d *Door) loggedIn(c echo.Context, o tasks.Operator, next string) error {
	if err := d.begin(c, o); err != nil {
		return err
	}
	d.cfg.Log.Info("login", "operator", o.Name, "role", string(o.Role), "issuer", o.Issuer, "remote", c.RealIP())
	return d.cfg.Redirect(c, local(next))
}

// begin makes a session in place of the one that this browser had.
func (d *Door) begin(c echo.Context, o tasks.Operator) error {
	d.endSession(c)
	secret := rand.Text() + rand.Text()
	if err := d.cfg.Operators.AddSession(c.Request().Context(), secret, o, tasks.Visit{From: c.RealIP(), Agent: c.Request().UserAgent()}); err != nil {
		return err
	}
	c.SetCookie(d.sessionCookie(secret, 0))
	if o.PasswordHash != "" {
		c.SetCookie(d.newDevice(o))
	}
	c.SetCookie(d.loginCookie(60))
	return nil
}

// notLoggedIn shows the form again after a try with it.
func (d *Door) notLoggedIn(c echo.Context, why *refusal) error {
	return d.notLoggedInTo(c, c.Request().PostForm.Get("next"), why)
}

// notLoggedInTo shows the form again, for a login that leads to a page: every login that fails ends here. The name is empty
// where the form was not read, or has none that could be one.
func (d *Door) notLoggedInTo(c echo.Context, next string, why *refusal) error {
	name := c.Request().PostForm.Get("name")
	if tasks.CheckOperatorName(name) != nil {
		name = ""
	}
	d.cfg.Log.Warn("login failed", "operator", name, "remote", c.RealIP(), "reason", why.why)
	if why.status != http.StatusUnauthorized {
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(int(patience.Seconds())))
	}
	return d.showLogin(c, why.status, loginForm{Name: name, Next: next}, why.why)
}

// logout ends the session.
func (d *Door) logout(c echo.Context) error {
	d.endSession(c)
	c.SetCookie(d.sessionCookie("", -1))
	c.SetCookie(d.loginCookie(-1))
	return d.cfg.Redirect(c, loginPath)
}

func (d *Door) endSession(c echo.Context) {
	secret := d.Session(c)
	if secret == "" {
		return
	}
	if err := d.cfg.Operators.EndSession(c.Request().Context(), secret, c.RealIP()); err != nil {
		d.cfg.Log.Warn("session not ended", "error", err) // it ends by itself
	}
}

// Session is the secret of the session of who sends the request, which may have ended; empty: there is none.
func (d *Door) Session(c echo.Context) string {
	cookie, err := c.Cookie(d.cookieName(sessionCookie))
	if err != nil {
		return ""
	}
	return cookie.Value
}

// cookieName tells the cookies of sites apart that are below several paths of a host. They are
// all for the whole host: a cookie whose name begins with __Host- has to be, and only such a
// name keeps other hosts of the domain from setting it.
func (d *Door) cookieName(name string) string { return name + strings.ReplaceAll(d.cfg.Path, "/", ".") }

// sessionCookie makes the cookie of a session, for as long as the browser runs.
func (d *Door) sessionCookie(secret string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: d.cookieName(sessionCookie), Value: secret, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

func (d *Door) loginCookie(maxAge int) *http.Cookie {
	return &http.Cookie{Name: d.cookieName(loginCookie), Value: "1", Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteLaxMode}
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
