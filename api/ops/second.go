package ops

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"html/template"
	"image/png"
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

// SecondFactors are one-time codes (RFC 6238: SHA-1, six digits, 30 seconds), which all apps know, and
// recovery codes.
type SecondFactors interface {
	Enrol(ctx context.Context, name, secret string, recovery []string, actor tasks.Actor) (found bool, err error)
	Unenrol(ctx context.Context, name string, actor tasks.Actor) (found bool, err error)
	FactorSecret(ctx context.Context, name string) (secret string, found bool, err error)
	// UseStep and UseRecovery report whether it is the first time, and a recovery code theirs.
	UseStep(ctx context.Context, name string, step int64) (first bool, err error)
	UseRecovery(ctx context.Context, name, code string) (first bool, err error)
	RecoveryLeft(ctx context.Context, name string) (int, error)
	// AddHalf, Half and EndHalf are about who has given the right password, and not the code yet.
	AddHalf(ctx context.Context, secret string, o tasks.Operator) error
	Half(ctx context.Context, secret string) (o tasks.Operator, found bool, err error)
	EndHalf(ctx context.Context, secret string) error
}

const (
	codePath = "/login/code"
	// halfCookie has the secret of who has given the right password.
	halfCookie = "__Host-batchreset-half"
	halfAge    = 5 * 60

	codeStep = 30 * time.Second
	// recoveryCodes is how many there are, of recoveryLetters each: 16 of 32 are 80 bits.
	recoveryCodes   = 10
	recoveryLetters = 16
)

// askForCode leads to the second step of a log-in.
func (s *site) askForCode(c echo.Context, o tasks.Operator, next string) error {
	secret := rand.Text() + rand.Text()
	if err := s.Store.Accounts.AddHalf(c.Request().Context(), secret, o); err != nil {
		return err
	}
	c.SetCookie(s.halfCookie(secret, halfAge))
	c.SetCookie(s.loginCookie(60))
	return redirect(c, codePath+"?next="+url.QueryEscape(local(next)))
}

func (s *site) halfCookie(secret string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: s.cookieName(halfCookie), Value: secret, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// half is who has given the right password in this browser.
func (s *site) half(c echo.Context) (o tasks.Operator, secret string, found bool, err error) {
	cookie, err := c.Cookie(s.cookieName(halfCookie))
	if err != nil || cookie.Value == "" {
		return o, "", false, nil //nolint:nilerr // nobody, and that is no error
	}
	o, found, err = s.Store.Accounts.Half(c.Request().Context(), cookie.Value)
	return o, cookie.Value, found && o.Enrolled != "", err
}

func (s *site) codePage(c echo.Context) error {
	next := local(c.QueryParam("next"))
	_, _, found, err := s.half(c)
	if err != nil {
		return err
	}
	if !found { // too late, or the cookie was not kept, which that page says
		return redirect(c, loginPath+"?next="+url.QueryEscape(next))
	}
	return s.show(c, http.StatusOK, "code", page{Root: root(c), Title: "Second step", Next: next})
}

// loginCode is a try with a code.
func (s *site) loginCode(c echo.Context) error {
	r := c.Request()
	try := s.guesses.from(c.RealIP())
	if !try.welcome && !bringsDevice(r) {
		return s.notLoggedIn(c, tooManyTries)
	}
	if refused := readForm(r, "code", "next"); refused != nil {
		return s.refuse(c, refused.status, refused.why)
	}
	o, secret, found, err := s.half(c)
	if err != nil {
		return err
	}
	if !found {
		return s.notLoggedIn(c, &refusal{http.StatusUnauthorized, "That took longer than five minutes. Begin again."})
	}
	try.device = s.device(r, o)
	refused, err := s.checkCode(r.Context(), try, o, r.PostForm.Get("code"))
	if err != nil {
		return err
	}
	next := local(r.PostForm.Get("next"))
	if refused != nil {
		if refused == wrongCode {
			s.Store.FailedLogin(r.Context(), o.Name, c.RealIP())
		}
		s.Log.Warn("login failed", "operator", o.Name, "remote", c.RealIP(), "reason", refused.why)
		return s.show(c, refused.status, "code", page{Root: root(c), Title: "Second step", Next: next, Problem: refused.why})
	}
	if err := s.Store.Accounts.EndHalf(r.Context(), secret); err != nil {
		s.Log.Warn("second step not ended", "error", err) // it ends by itself
	}
	c.SetCookie(s.halfCookie("", -1))
	return s.loggedIn(c, o, next)
}

var sixDigits = regexp.MustCompile(`^[0-9]{6}$`)

// plainCode is a code as it is compared, however it was typed.
func plainCode(text string) string {
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(strings.TrimSpace(text)))
}

// checkCode is nil if a text is a code of an operator's second factor that was not used before, or a recovery
// code. Then it is used.
func (s *site) checkCode(ctx context.Context, try guess, o tasks.Operator, text string) (*refusal, error) {
	code := plainCode(text)
	if !sixDigits.MatchString(code) {
		if _, _, refused := s.guesses.admit(try, "a recovery code of "+o.Name); refused != nil {
			return refused, nil
		}
		first, err := s.Store.Accounts.UseRecovery(ctx, o.Name, code)
		if err != nil || !first {
			return wrongCode, err
		}
		s.Log.Warn("a recovery code was used", "operator", o.Name)
		return nil, nil //nolint:nilnil // it is right
	}
	if refused := s.guesses.admitCode(try, o.Name); refused != nil {
		return refused, nil
	}
	secret, found, err := s.Store.Accounts.FactorSecret(ctx, o.Name)
	if err != nil || !found {
		return wrongCode, err
	}
	step, fits := stepOf(secret, code, s.Store.Now())
	if !fits {
		return wrongCode, nil
	}
	first, err := s.Store.Accounts.UseStep(ctx, o.Name, step)
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

// enrolPage shows the secret of a second factor that is not in use yet, then the recovery codes.
type enrolPage struct {
	page
	Who      tasks.Operator
	Secret   string
	QR       template.URL
	Recovery []string
}

// Grouped is the secret as people type it.
func (p enrolPage) Grouped() string { return grouped(p.Secret) }

// grouped is a text in groups of four.
func grouped(text string) string {
	var b strings.Builder
	for i, r := range text {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// newEnrolPage makes the page of a secret.
func (s *site) newEnrolPage(c echo.Context, o tasks.Operator, secret string) (enrolPage, error) {
	p := enrolPage{page: s.page(c, "Second factor"), Who: o, Secret: secret}
	key, err := otp.NewKeyFromURL("otpauth://totp/batchreset:" + url.PathEscape(o.Name) + "?" + url.Values{
		"secret": {secret}, "issuer": {"batchreset"},
	}.Encode())
	if err != nil {
		return p, err
	}
	image, err := key.Image(240, 240)
	if err != nil {
		return p, err
	}
	var b bytes.Buffer
	if err := png.Encode(&b, image); err != nil {
		return p, err
	}
	p.QR = template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())) //nolint:gosec // ours
	return p, nil
}

// secondPage shows how to set up a second factor, or how to do without one again.
func (s *site) secondPage(c echo.Context) error {
	o, err := s.localSelf(c)
	if o == nil {
		return err
	}
	if o.Enrolled != "" {
		return s.show(c, http.StatusOK, "nosecond", enrolPage{page: s.page(c, "Second factor"), Who: *o})
	}
	p, err := s.newEnrolPage(c, *o, newFactorSecret())
	if err != nil {
		return err
	}
	return s.show(c, http.StatusOK, "second", p)
}

// newFactorSecret is 160 bits, as RFC 4226 recommends.
func newFactorSecret() string { return (rand.Text() + rand.Text())[:32] }

var factorSecret = regexp.MustCompile(`^[A-Z2-7]{32}$`)

// enrol sets up the second factor, once an app has shown that it has the secret.
func (s *site) enrol(c echo.Context) error {
	o, err := s.localSelf(c)
	if o == nil {
		return err
	}
	form := c.Request().PostForm
	secret, code := form.Get("secret"), plainCode(form.Get("code"))
	switch {
	case !factorSecret.MatchString(secret):
		return s.refuse(c, http.StatusBadRequest, "The secret is not one that this site has made.")
	case o.Enrolled != "":
		return s.refuse(c, http.StatusConflict, "There is a second factor already.")
	}
	again := func(status int, problem string) error {
		p, err := s.newEnrolPage(c, *o, secret)
		if err != nil {
			return err
		}
		p.Problem = problem
		return s.show(c, status, "second", p)
	}
	if refused := s.isMe(c, *o, form.Get("password")); refused != nil {
		return again(refused.status, refused.why)
	}
	step, fits := stepOf(secret, code, s.Store.Now())
	if !fits {
		return again(http.StatusBadRequest, "The code does not fit. Take the one that the app shows now; the clock of its device must be right.")
	}
	p := enrolPage{Who: *o}
	codes := []string{}
	for range recoveryCodes {
		code := rand.Text()[:recoveryLetters]
		codes, p.Recovery = append(codes, code), append(p.Recovery, grouped(code))
	}
	return s.renew(c, *o, func(ctx context.Context, actor tasks.Actor) (bool, error) {
		found, err := s.Store.Accounts.Enrol(ctx, o.Name, secret, codes, actor)
		if err == nil && found {
			_, err = s.Store.Accounts.UseStep(ctx, o.Name, step) // it was used now
		}
		return found, err
	}, func() error {
		p.page = s.page(c, "Recovery codes")
		return s.show(c, http.StatusOK, "recovery", p)
	})
}

// unenrol does without a second factor again. It takes the password and a code: whoever has only one of them
// must not be able to take the other away.
func (s *site) unenrol(c echo.Context) error {
	o, err := s.localSelf(c)
	if o == nil {
		return err
	}
	if o.Enrolled == "" {
		return redirect(c, mePath)
	}
	form := c.Request().PostForm
	refused := s.isMe(c, *o, form.Get("password"))
	if refused == nil {
		try := s.guesses.from(c.RealIP())
		try.device = s.device(c.Request(), *o)
		if refused, err = s.checkCode(c.Request().Context(), try, *o, form.Get("code")); err != nil {
			return err
		}
	}
	if refused != nil {
		p := enrolPage{page: s.page(c, "Second factor"), Who: *o}
		p.Problem = refused.why
		return s.show(c, refused.status, "nosecond", p)
	}
	return s.renew(c, *o, func(ctx context.Context, actor tasks.Actor) (bool, error) {
		return s.Store.Accounts.Unenrol(ctx, o.Name, actor)
	}, func() error { return redirect(c, mePath) })
}
