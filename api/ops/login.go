package ops

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/labstack/echo/v4"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"

	"batchreset/tasks"
)

const (
	// sessionCookie goes over TLS, or to this machine itself, and to no other path or
	// host: see RFC 6265bis, 4.1.3.
	sessionCookie = "__Host-batchreset"
	// hashingAtOnce bounds the processors that wrong passwords can keep busy.
	hashingAtOnce = 2
	// Somebody who guesses has guessBurst tries, and then one every guessEvery, for each
	// name and from each address.
	guessBurst = 5
	guessEvery = 10 * time.Second
	guessers   = 10_000 // that are remembered
)

// nobodysHash is compared with the password of a name that does not exist, so that the
// time of the answer does not tell.
func nobodysHash() []byte {
	hash, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), PasswordCost)
	if err != nil {
		panic(err) // only for a cost or a password that is out of range
	}
	return hash
}

// PasswordCost makes a guess cost about a quarter of a second of a core.
const PasswordCost = 12

// guesses bounds the tries to log in.
type guesses struct {
	hashing chan struct{}
	nobody  func() []byte
	tries   *lru.Cache[string, *rate.Limiter]
}

func newGuesses() *guesses {
	tries, err := lru.New[string, *rate.Limiter](guessers)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &guesses{hashing: make(chan struct{}, hashingAtOnce), nobody: sync.OnceValue(nobodysHash), tries: tries}
}

// allow counts a try of somebody.
func (g *guesses) allow(who string) bool {
	fresh := rate.NewLimiter(rate.Every(guessEvery), guessBurst)
	if known, ok, _ := g.tries.PeekOrAdd(who, fresh); ok {
		return known.Allow()
	}
	return fresh.Allow()
}

// right says whether a password is the operator's; hash is empty if there is no such
// operator.
func (g *guesses) right(ctx context.Context, hash, password string) (bool, error) {
	select {
	case g.hashing <- struct{}{}:
		defer func() { <-g.hashing }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	known := []byte(hash)
	if hash == "" {
		known = g.nobody()
	}
	return bcrypt.CompareHashAndPassword(known, []byte(password)) == nil && hash != "", nil
}

// loginPage shows the form.
func (s *site) loginPage(c echo.Context) error {
	return s.show(c, http.StatusOK, "login", page{Title: "Log in", Next: c.QueryParam("next")})
}

// login makes a session.
func (s *site) login(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 10*time.Second)
	defer cancel()
	name, next := c.FormValue("name"), c.FormValue("next")
	again := func(status int, problem string) error {
		s.Log.Warn("login failed", "operator", printable(name), "remote", c.RealIP(), "reason", problem)
		return s.show(c, status, "login", page{Title: "Log in", Name: name, Next: next, Problem: problem})
	}
	if !s.guesses.allow("from "+c.RealIP()) || !s.guesses.allow("as "+name) {
		c.Response().Header().Set(echo.HeaderRetryAfter, "10")
		return again(http.StatusTooManyRequests, "Too many tries. Wait a moment.")
	}
	o, _, err := s.Store.Operator(ctx, name)
	if err != nil {
		return err
	}
	right, err := s.guesses.right(ctx, o.PasswordHash, c.FormValue("password"))
	if err != nil {
		return err
	}
	if !right {
		return again(http.StatusUnauthorized, "The name or the password is wrong.")
	}
	s.endSession(c) // whose cookie this browser had
	secret := rand.Text() + rand.Text()
	if err := s.Store.AddSession(ctx, secret, o); err != nil {
		return err
	}
	c.SetCookie(sessionCookieOf(secret, 0))
	s.Log.Info("login", "operator", o.Name, "role", string(o.Role), "remote", c.RealIP())
	return c.Redirect(http.StatusSeeOther, local(next))
}

// logout ends the session.
func (s *site) logout(c echo.Context) error {
	s.endSession(c)
	c.SetCookie(sessionCookieOf("", -1))
	return c.Redirect(http.StatusSeeOther, "/login")
}

func (s *site) endSession(c echo.Context) {
	cookie, err := c.Cookie(sessionCookie)
	if err != nil {
		return
	}
	if err := s.Store.EndSession(c.Request().Context(), cookie.Value); err != nil {
		s.Log.Warn("session not ended", "error", err) // it ends by itself
	}
}

// sessionCookieOf makes the cookie of a session, for as long as the browser runs.
func sessionCookieOf(secret string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: sessionCookie, Value: secret, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// local is where to go after a login: a path of this site.
func local(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

// printable cuts what a stranger typed down to what fits a line of the log.
func printable(name string) string {
	if tasks.CheckOperatorName(name) != nil {
		return "(not a name)"
	}
	return name
}
