package login

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"batchreset/tasks"
)

// A browser in which an operator has logged in keeps that, in a cookie, for deviceLife.
// Strangers who try the operator's name do not hold up whoever logs in there. It is good for
// nothing else: the password is asked for all the same.
const (
	devicePrefix = "__Host-batchreset-device-"
	deviceLife   = 90 * 24 * time.Hour
)

// deviceCookie is its name: several operators may use one browser, for several sites.
func (d *Door) deviceCookie(operator string) string {
	sum := sha256.Sum256([]byte(operator))
	return d.cookieName(devicePrefix + hex.EncodeToString(sum[:8]))
}

// newDevice makes the cookie.
func (d *Door) newDevice(o tasks.Operator) *http.Cookie {
	about := strconv.FormatInt(d.cfg.Clock.Now().Add(deviceLife).Unix(), 10) + "." + rand.Text()
	return &http.Cookie{
		Name: d.deviceCookie(o.Name), Value: about + "." + deviceSeal(o, about), Path: "/",
		MaxAge: int(deviceLife.Seconds()), Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}
}

// deviceSeal can be made only by who has the hash of the operator's password, so it ends
// with that, and every process knows it without having to keep it.
func deviceSeal(o tasks.Operator, about string) string {
	mac := hmac.New(sha256.New, []byte(o.PasswordHash))
	mac.Write([]byte("device " + o.Name + " " + about))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// bringsDevice reports whether a request may be from such a browser.
func bringsDevice(r *http.Request) bool {
	for _, c := range r.Cookies() {
		if strings.HasPrefix(c.Name, devicePrefix) {
			return true
		}
	}
	return false
}

// device tells the browsers apart in which an operator has logged in before. It is empty in
// another browser, and for an operator who does not exist.
func (d *Door) device(r *http.Request, o tasks.Operator) string {
	c, err := r.Cookie(d.deviceCookie(o.Name))
	if err != nil || o.PasswordHash == "" {
		return ""
	}
	cut := max(strings.LastIndexByte(c.Value, '.'), 0)
	about := c.Value[:cut]
	if !hmac.Equal([]byte(c.Value), []byte(about+"."+deviceSeal(o, about))) {
		return ""
	}
	until, _, _ := strings.Cut(about, ".")
	if end, err := strconv.ParseInt(until, 10, 64); err != nil || d.cfg.Clock.Now().Unix() >= end {
		return ""
	}
	return about
}
