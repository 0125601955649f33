package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"
	"golang.org/x/oauth2"

	"batchreset/tasks"
)

const (
	issuerPath   = "/login/issuer"
	callbackPath = "/login/issuer/callback"
	// journeyCookie keeps a log-in that is on its way through the issuer in the browser that began it: nobody
	// else can end it, nor have somebody log in as them.
	journeyCookie = "__Host-batchreset-issuer"
	journeyAge    = 10 * 60
	// maxJourneyNext leaves room in the cookie: browsers keep 4 KiB.
	maxJourneyNext = 2 << 10
)

func (d *Door) journeyCookie(value string, maxAge int) *http.Cookie {
	// Lax: it has to come back with the redirect of another site.
	return &http.Cookie{Name: d.cookieName(journeyCookie), Value: value, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// toIssuer begins a log-in at the issuer.
func (d *Door) toIssuer(c echo.Context) error {
	next := c.QueryParam("next")
	if !d.guesses.from(c.RealIP()).welcome {
		return d.notLoggedInTo(c, next, tooManyTries)
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), issuerTimeout)
	defer cancel()
	known, err := d.cfg.Issuer.ready(ctx)
	if err != nil {
		return d.issuerAway(c, next)
	}
	j := journey{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: local(next)}
	if len(j.Next) > maxJourneyNext {
		j.Next = "/"
	}
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	c.SetCookie(d.journeyCookie(base64.RawURLEncoding.EncodeToString(text), journeyAge))
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return c.Redirect(http.StatusSeeOther, known.where(j))
}

func (d *Door) issuerAway(c echo.Context, next string) error {
	return d.notLoggedInTo(c, next, &refusal{http.StatusServiceUnavailable, d.cfg.Issuer.Host() + " does not answer. Try again in a moment, or log in with a name and a password of this site."})
}

// journey is the log-in that this browser has begun; it is over now, whatever becomes of it.
func (d *Door) journey(c echo.Context) (j journey, found bool) {
	cookie, err := c.Cookie(d.cookieName(journeyCookie))
	if err != nil {
		return j, false
	}
	c.SetCookie(d.journeyCookie("", -1))
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || json.Unmarshal(text, &j) != nil {
		return j, false
	}
	return j, j.State != "" && j.Nonce != "" && j.Verifier != ""
}

// notBegunHere is about a log-in that this browser has not begun: somebody else's, or one that is over.
var notBegunHere = &refusal{http.StatusBadRequest, "This log-in was not begun in this browser, or at another address of this site, or more than ten minutes ago, or it is over. Begin again."}

// fromIssuer is where the issuer sends a browser back to.
func (d *Door) fromIssuer(c echo.Context) error {
	if !d.guesses.from(c.RealIP()).welcome {
		return d.notLoggedIn(c, tooManyTries)
	}
	query := c.QueryParams()
	for _, name := range []string{"code", "state", "iss", "error"} {
		if len(query[name]) > 1 {
			return d.notLoggedIn(c, &refusal{http.StatusBadRequest, fmt.Sprintf("The answer of the issuer has %s twice.", name)})
		}
	}
	j, begun := d.journey(c)
	if !begun || subtle.ConstantTimeCompare([]byte(j.State), []byte(query.Get("state"))) != 1 {
		return d.notLoggedInTo(c, j.Next, notBegunHere)
	}
	if iss := query.Get("iss"); iss != "" && iss != d.cfg.Issuer.cfg.URL { // RFC 9207
		return d.notLoggedInTo(c, j.Next, &refusal{http.StatusBadRequest, "This answer is from another issuer."})
	}
	if failed := query.Get("error"); failed != "" {
		return d.notLoggedInTo(c, j.Next, &refusal{http.StatusUnauthorized, fmt.Sprintf("%s did not log you in: %.60s %.200s", d.cfg.Issuer.Host(), failed, query.Get("error_description"))})
	}
	o, err := d.known(c.Request().Context(), j, query.Get("code"))
	if errors.Is(err, errIssuerAway) {
		return d.issuerAway(c, j.Next)
	}
	if no, ok := errors.AsType[*notLetIn](err); ok {
		d.cfg.Trail.FailedLogin(c.Request().Context(), no.name, c.RealIP())
		return d.notLoggedInTo(c, j.Next, &refusal{http.StatusForbidden, no.why})
	}
	if err != nil {
		return err
	}
	return d.loggedIn(c, o, j.Next)
}

// known is who an issuer says has logged in.
func (d *Door) known(ctx context.Context, j journey, code string) (tasks.Operator, error) {
	ctx, cancel := context.WithTimeout(ctx, issuerTimeout)
	defer cancel()
	known, err := d.cfg.Issuer.ready(ctx)
	if err != nil {
		return tasks.Operator{}, err
	}
	if code == "" {
		return tasks.Operator{}, &notLetIn{why: "The issuer's answer has no code. Begin again."}
	}
	return d.cfg.Issuer.operator(ctx, known, j, code)
}
