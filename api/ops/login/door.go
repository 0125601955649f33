// Package login says who a request to the operators' site is from, and what they may: it has the pages on which
// operators log in, choose a password and set up a second factor, and keeps the cookies of their browsers. It knows
// nothing of what they do on the site.
package login

import (
	"context"
	"log/slog"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// Config is what a Door consists of. Only Issuer and Path may be empty.
type Config struct {
	Operators Operators
	Trail     Trail
	Clock     Clock
	// Issuer knows operators who are not kept here; nil: there is none.
	Issuer *Issuer
	// Path is where browsers find the site behind a proxy, such as "/ops".
	Path string
	// OpenHere lets everybody on this machine do everything as long as there is no operator,
	// unless a proxy says that it forwards a request.
	OpenHere bool
	Log      *slog.Logger
	// Now is by which tries to log in are counted.
	Now func() time.Time
	Site
}

// Site is how the site answers of which the log-in is a part.
type Site struct {
	Show func(c echo.Context, status int, p Page) error
	// Refuse answers somebody who may not, and logs why.
	Refuse func(c echo.Context, status int, why string) error
	// RefusedOr answers an error, and says why if a change was refused. It reports whether there is one.
	RefusedOr func(c echo.Context, err error) (answered bool, answer error)
	// Redirect leads to another path of the site.
	Redirect func(c echo.Context, path string) error
	// Asks refuses an address with a parameter that the page does not take, Form a form with other fields than those
	// that are known.
	Asks echo.MiddlewareFunc
	Form func(known ...string) echo.MiddlewareFunc
}

// Page is a page for the site to show.
type Page struct {
	Template string
	Title    string
	Problem  string // with what was sent; may be empty
	// Framed has the links to other pages: it is for somebody who was let in.
	Framed bool
	// Content is what the template shows besides.
	Content any
}

// Operators are those who log in, and their sessions. What changes an operator reports whether there is one; it fails
// with tasks.ErrLastAdmin and tasks.ErrOperatorsReadOnly.
type Operators interface {
	HasOperators(ctx context.Context) (bool, error)
	// Invited reports whether secret is of a link that makes the first operator, and still
	// good; AddFirstOperator uses it, and reports whether it did.
	Invited(ctx context.Context, secret string) (bool, error)
	AddFirstOperator(ctx context.Context, secret string, o tasks.Operator, actor tasks.Actor) (added bool, err error)
	Operator(ctx context.Context, name string) (o tasks.Operator, found bool, err error)
	AddSession(ctx context.Context, secret string, o tasks.Operator, visit tasks.Visit) error
	Session(ctx context.Context, secret string) (o tasks.Operator, found bool, err error)
	EndSession(ctx context.Context, secret, from string) error
	SetPassword(ctx context.Context, name, hash string, actor tasks.Actor) (found bool, err error)
	// Welcome gives a password to who has the secret of a link, if Welcomed.
	Welcomed(ctx context.Context, name, secret string) (bool, error)
	Welcome(ctx context.Context, name, secret, hash string, actor tasks.Actor) (welcomed bool, err error)
	SecondFactors
}

// SecondFactors are one-time codes (RFC 6238: SHA-1, six digits, 30 seconds), which all apps know, and
// recovery codes.
type SecondFactors interface {
	Enrol(ctx context.Context, name, secret string, recovery []string, actor tasks.Actor) (found bool, err error)
	Unenrol(ctx context.Context, name string, actor tasks.Actor) (found bool, err error)
	FactorSecret(ctx context.Context, name string) (secret string, found bool, err error)
	// UseStep and UseRecovery report whether it is the first time, and a recovery code theirs.
	UseStep(ctx context.Context, name string, step int64) (first bool, err error)
	UseRecovery(ctx context.Context, name, code string) (first bool, err error)
	// AddHalf, Half and EndHalf are about who has given the right password, and not the code yet.
	AddHalf(ctx context.Context, secret string, o tasks.Operator) error
	Half(ctx context.Context, secret string) (o tasks.Operator, found bool, err error)
	EndHalf(ctx context.Context, secret string) error
}

// Trail is the audit trail, as far as it is about tries to log in.
type Trail interface {
	// FailedLogin puts a try to log in into the audit trail.
	FailedLogin(ctx context.Context, name, from string)
}

// Clock is the one that records go by.
type Clock interface {
	Now() time.Time
}

// Door is where operators come in.
type Door struct {
	cfg     Config
	guesses *guesses
}

// New returns the Door of a site.
func New(cfg Config) *Door { return &Door{cfg: cfg, guesses: newGuesses(cfg.Now)} }

// Routes are the ways in, which are open to everybody, and the pages on which operators change how they log in.
func (d *Door) Routes(e *echo.Echo) {
	e.GET(loginPath, d.loginPage, d.cfg.Asks)
	e.POST(loginPath, d.tried(d.login, "name", "password", "next"))
	e.POST("/logout", d.logout)
	e.GET(codePath, d.codePage, d.cfg.Asks)
	e.POST(codePath, d.tried(d.loginCode, "code", "next"))
	if d.cfg.Issuer != nil {
		e.GET(issuerPath, d.toIssuer, d.cfg.Asks)
		e.GET(callbackPath, d.fromIssuer) // issuers say more than we know
	}
	e.GET(firstPath, d.firstPage, d.cfg.Asks)
	e.POST(firstPath, d.makeFirst, d.cfg.Form("name", "password", "again", "token"))
	e.GET(welcomePath, d.welcomePage, d.cfg.Asks)
	e.POST(welcomePath, d.welcome, d.cfg.Form("name", "token", "password", "again"))

	viewer := d.Require(tasks.RightLook)
	e.GET(passwordPath, d.passwordPage, viewer)
	e.POST(passwordPath, d.changeOwnPassword, viewer, d.cfg.Form("old", "password", "again"))
	e.GET(secondPath, d.secondPage, viewer)
	e.POST(secondPath, d.enrol, viewer, d.cfg.Form("secret", "code", "password"))
	e.POST(secondPath+"/off", d.unenrol, viewer, d.cfg.Form("code", "password"))
}

// tried counts a try to log in and has its form read, in this order: only if another try is allowed.
func (d *Door) tried(handle func(c echo.Context, try guess) error, fields ...string) echo.HandlerFunc {
	form := d.cfg.Form(fields...)
	return func(c echo.Context) error {
		try := d.guesses.from(c.RealIP())
		if !try.welcome && !bringsDevice(c.Request()) {
			return d.notLoggedIn(c, tooManyTries)
		}
		return form(func(c echo.Context) error { return handle(c, try) })(c)
	}
}
