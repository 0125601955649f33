package login

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

	"github.com/labstack/echo/v4"
	"github.com/pquerna/otp"

	"batchreset/tasks"
)

const (
	// recoveryCodes is how many there are, of recoveryLetters each: 16 of 32 are 80 bits.
	recoveryCodes   = 10
	recoveryLetters = 16
)

// newFactor is the secret of a second factor that is not in use yet.
type newFactor struct {
	Secret string
	QR     template.URL
}

// Grouped is the secret as people type it.
func (n newFactor) Grouped() string { return grouped(n.Secret) }

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

// showFactor shows how to set up a second factor with a secret.
func (d *Door) showFactor(c echo.Context, status int, o tasks.Operator, secret, problem string) error {
	key, err := otp.NewKeyFromURL("otpauth://totp/batchreset:" + url.PathEscape(o.Name) + "?" + url.Values{
		"secret": {secret}, "issuer": {"batchreset"},
	}.Encode())
	if err != nil {
		return err
	}
	image, err := key.Image(240, 240)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := png.Encode(&b, image); err != nil {
		return err
	}
	qr := template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())) //nolint:gosec // ours
	return d.cfg.Show(c, status, Page{Template: "second", Title: "Second factor", Problem: problem, Framed: true, Content: newFactor{secret, qr}})
}

// showNoFactor shows how to do without a second factor again.
func (d *Door) showNoFactor(c echo.Context, status int, problem string) error {
	return d.cfg.Show(c, status, Page{Template: "nosecond", Title: "Second factor", Problem: problem, Framed: true})
}

// secondPage shows how to set up a second factor, or how to do without one again.
func (d *Door) secondPage(c echo.Context) error {
	o, err := d.localSelf(c)
	if o == nil {
		return err
	}
	if o.Enrolled != "" {
		return d.showNoFactor(c, http.StatusOK, "")
	}
	return d.showFactor(c, http.StatusOK, *o, newFactorSecret(), "")
}

// newFactorSecret is 160 bits, as RFC 4226 recommends.
func newFactorSecret() string { return (rand.Text() + rand.Text())[:32] }

var factorSecret = regexp.MustCompile(`^[A-Z2-7]{32}$`)

// enrol sets up the second factor, once an app has shown that it has the secret.
func (d *Door) enrol(c echo.Context) error {
	o, err := d.localSelf(c)
	if o == nil {
		return err
	}
	form := c.Request().PostForm
	secret, code := form.Get("secret"), plainCode(form.Get("code"))
	switch {
	case !factorSecret.MatchString(secret):
		return d.cfg.Refuse(c, http.StatusBadRequest, "The secret is not one that this site has made.")
	case o.Enrolled != "":
		return d.cfg.Refuse(c, http.StatusConflict, "There is a second factor already.")
	}
	if refused := d.isMe(c, *o, form.Get("password")); refused != nil {
		return d.showFactor(c, refused.status, *o, secret, refused.why)
	}
	step, fits := stepOf(secret, code, d.cfg.Clock.Now())
	if !fits {
		return d.showFactor(c, http.StatusBadRequest, *o, secret, "The code does not fit. Take the one that the app shows now; the clock of its device must be right.")
	}
	var codes, shown []string
	for range recoveryCodes {
		code := rand.Text()[:recoveryLetters]
		codes, shown = append(codes, code), append(shown, grouped(code))
	}
	return d.renew(c, *o, func(ctx context.Context, actor tasks.Actor) (bool, error) {
		found, err := d.cfg.Operators.Enrol(ctx, o.Name, secret, codes, actor)
		if err == nil && found {
			_, err = d.cfg.Operators.UseStep(ctx, o.Name, step) // it was used now
		}
		return found, err
	}, func() error {
		return d.cfg.Show(c, http.StatusOK, Page{Template: "recovery", Title: "Recovery codes", Framed: true, Content: shown})
	})
}

// unenrol does without a second factor again. It takes the password and a code: whoever has only one of them
// must not be able to take the other away.
func (d *Door) unenrol(c echo.Context) error {
	o, err := d.localSelf(c)
	if o == nil {
		return err
	}
	if o.Enrolled == "" {
		return d.cfg.Redirect(c, OwnPath)
	}
	form := c.Request().PostForm
	refused := d.isMe(c, *o, form.Get("password"))
	if refused == nil {
		try := d.guesses.from(c.RealIP())
		try.device = d.device(c.Request(), *o)
		if refused, err = d.checkCode(c.Request().Context(), try, *o, form.Get("code")); err != nil {
			return err
		}
	}
	if refused != nil {
		return d.showNoFactor(c, refused.status, refused.why)
	}
	return d.renew(c, *o, func(ctx context.Context, actor tasks.Actor) (bool, error) {
		return d.cfg.Operators.Unenrol(ctx, o.Name, actor)
	}, func() error { return d.cfg.Redirect(c, OwnPath) })
}
