package login

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"batchreset/tasks"
)

const (
	codePath = "/login/code"
	// halfCookie has the secret of who has given the right password.
	halfCookie = "__Host-batchreset-half"
	halfAge    = 5 * 60

	codeStep = 30 * time.Second
)

// askForCode leads to the second step of a log-in.
func (d *Door) askForCode(c echo.Context, o tasks.Operator, next string) error {
	secret := rand.Text() + rand.Text()
	if err := d.cfg.Operators.AddHalf(c.Request().Context(), secret, o); err != nil {
		return err
	}
	c.SetCookie(d.halfCookie(secret, halfAge))
	c.SetCookie(d.loginCookie(60))
	return d.cfg.Redirect(c, codePath+"?next="+url.QueryEscape(local(next)))
}

func (d *Door) halfCookie(secret string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: d.cookieName(halfCookie), Value: secret, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// half is who has given the right password in this browser.
func (d *Door) half(c echo.Context) (o tasks.Operator, secret string, found bool, err error) {
	cookie, err := c.Cookie(d.cookieName(halfCookie))
	if err != nil || cookie.Value == "" {
		return o, "", false, nil //nolint:nilerr // nobody, and that is no error
	}
	o, found, err = d.cfg.Operators.Half(c.Request().Context(), cookie.Value)
	return o, cookie.Value, found && o.Enrolled != "", err
}

func (d *Door) codePage(c echo.Context) error {
	next := local(c.QueryParam("next"))
	_, _, found, err := d.half(c)
	if err != nil {
		return err
	}
	if !found { // too late, or the cookie was not kept, which that page says
		return d.cfg.Redirect(c, loginPath+"?next="+url.QueryEscape(next))
	}
	return d.showCode(c, http.StatusOK, next, "")
}

// codeForm is what the form shows besides.
type codeForm struct {
	Next string // where to go after the login
}

func (d *Door) showCode(c echo.Context, status int, next, problem string) error {
	return d.cfg.Show(c, status, Page{Template: "code", Title: "Second step", Problem: problem, Content: codeForm{next}})
}

// loginCode is a try with a code.
func (d *Door) loginCode(c echo.Context, try guess) error {
	r := c.Request()
	o, secret, found, err := d.half(c)
	if err != nil {
		return err
	}
	if !found {
		return d.notLoggedIn(c, &refusal{http.StatusUnauthorized, "That took longer than five minutes. Begin again."})
	}
	try.device = d.device(r, o)
	refused, err := d.checkCode(r.Context(), try, o, r.PostForm.Get("code"))
	if err != nil {
		return err
	}
	next := local(r.PostForm.Get("next"))
	if refused != nil {
		if refused == wrongCode {
			d.cfg.Trail.FailedLogin(r.Context(), o.Name, c.RealIP())
		}
		d.cfg.Log.Warn("login failed", "operator", o.Name, "remote", c.RealIP(), "reason", refused.why)
		return d.showCode(c, refused.status, next, refused.why)
	}
	if err := d.cfg.Operators.EndHalf(r.Context(), secret); err != nil {
		d.cfg.Log.Warn("second step not ended", "error", err) // it ends by itself
	}
	c.SetCookie(d.halfCookie("", -1))
	return d.loggedIn(c, o, next)
}

var sixDigits = regexp.MustCompile(`^[0-9]{6}$`)

// plainCode is a code as it is compared, however it was typed.
func plainCode(text string) string {
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(strings.TrimSpace(text)))
}

// checkCode is nil if a text is a code of an operator's second factor that was not used before, or a recovery
// code. Then it is used.
func (d *Door) checkCode(ctx context.Context, try guess, o tasks.Operator, text string) (*refusal, error) {
	code := plainCode(text)
	if !sixDigits.MatchString(code) {
		if _, _, refused := d.guesses.admit(try, "a recovery code of "+o.Name); refused != nil {
			return refused, nil
		}
		first, err := d.cfg.Operators.UseRecovery(ctx, o.Name, code)
		if err != nil || !first {
			return wrongCode, err
		}
		d.cfg.Log.Warn("a recovery code was used", "operator", o.Name)
		return nil, nil //nolint:nilnil // it is right
	}
	if refused := d.guesses.admitCode(try, o.Name); refused != nil {
		return refused, nil
	}
	secret, found, err := d.cfg.Operators.FactorSecret(ctx, o.Name)
	if err != nil || !found {
		return wrongCode, err
	}
	step, fits := stepOf(secret, code, d.cfg.Clock.Now())
	if !fits {
		return wrongCode, nil
	}
	first, err := d.cfg.Operators.UseStep(ctx, o.Name, step)
	if err != nil || !first {
		return wrongCode, err
	}
	return nil, nil //nolint:nilnil // it is right
}

// stepOf is the step of time that a code is of: the present one, or the one before or after it, because clocks
// differ and people take time to type.
func stepOf(secret, code string, now time.Time) (step int64, fits bool) {
	present := now.Unix() / int64(codeStep/time.Second)
	for _, step := range []int64{present, present - 1, present + 1} {
		ok, err := hotp.ValidateCustom(code, uint64(step), secret, hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}) //nolint:gosec // time does not run before 1970
		if err == nil && ok {
			return step, true
		}
	}
	return 0, false
}
