package ops_test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"batchreset/api"
	"batchreset/api/ops"
	"batchreset/tasks"
)

// newProxied makes the site as it is behind a proxy on this machine, and operators.
func newProxied(t *testing.T, names ...string) guarded {
	t.Helper()
	_, here, err := net.ParseCIDR("127.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	operators := map[string]tasks.Role{}
	for _, name := range names {
		operators[name] = tasks.RoleOperator
	}
	return newGuardedAs(t, ops.Config{ClientIP: api.ClientIP([]*net.IPNet{here})}.Frozen(), operators)
}

// try tries to log in from an address that a proxy tells, with the cookies of a browser.
func (g guarded) try(t *testing.T, from, name, password string, cookies ...*http.Cookie) answer {
	t.Helper()
	var kept []string
	for _, c := range cookies {
		kept = append(kept, c.Name+"="+c.Value)
	}
	return g.ask(t, http.MethodPost, "/login", nil, url.Values{"name": {name}, "password": {password}}, "X-Forwarded-For", from, "Cookie", strings.Join(kept, "; "))
}

// deviceOf is the cookie by which a browser is known again.
func deviceOf(t *testing.T, a answer) *http.Cookie {
	t.Helper()
	for _, line := range a.header["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(c.Name, "__Host-batchreset-device-") {
			if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.MaxAge < 24*60*60 {
				t.Errorf("cookie %+v", c)
			}
			return c
		}
	}
	t.Fatalf("no cookie for the device: %+v", a)
	return nil
}

const guessed = "another horse battery"

func TestGuessesAreRefused(t *testing.T) {
	g := newProxied(t, "alice", "bob")
	for range 5 {
		a := g.try(t, "203.0.113.1", "alice", guessed)
		g.want(t, a, http.StatusUnauthorized, "The name or the password is wrong.")
		if a.cookie != nil || !strings.Contains(a.body, "The name or the password is wrong.") {
			t.Errorf("answer %+v", a)
		}
	}
	// The sixth in a row is one too many, be the password right or not.
	a := g.try(t, "203.0.113.1", "alice", password)
	g.want(t, a, http.StatusTooManyRequests, "Too many tries")
	if a.cookie != nil || a.header.Get("Retry-After") == "" {
		t.Errorf("answer %+v", a)
	}
	if g.try(t, "203.0.113.1", "bob", password).status != http.StatusSeeOther {
		t.Error("nor may bob log in from there")
	}
	if g.try(t, "203.0.113.2", "alice", password).status != http.StatusSeeOther {
		t.Error("nor may alice log in elsewhere")
	}
	// What an attacker adds to the header stands before what the proxy adds.
	if g.try(t, "198.51.100.1, 203.0.113.1", "alice", password).status != http.StatusTooManyRequests {
		t.Error("a caller who forges an address may try again")
	}
	if log := g.log.String(); strings.Contains(log, password) || strings.Contains(log, guessed) || !strings.Contains(log, `"remote":"203.0.113.1"`) {
		t.Errorf("the log:\n%s", log)
	}
}

func TestANetworkOfIPv6CountsAsOneAddress(t *testing.T) {
	g := newProxied(t, "alice")
	for n := range 5 {
		g.try(t, fmt.Sprintf("2001:db8:0:1::%d", n), "alice", guessed)
	}
	if a := g.try(t, "2001:db8:0:1:ffff::1", "alice", password); a.status != http.StatusTooManyRequests {
		t.Errorf("the same network: %d", a.status)
	}
	if a := g.try(t, "2001:db8:0:2::1", "alice", password); a.status != http.StatusSeeOther {
		t.Errorf("another network: %d", a.status)
	}
}

func TestAnAddressHasSoManyTriesWhateverTheNames(t *testing.T) {
	g := newProxied(t, "alice")
	for n := range 20 {
		g.want(t, g.try(t, "203.0.113.1", fmt.Sprintf("guess-%d", n), "short"), http.StatusUnauthorized, "")
	}
	g.want(t, g.try(t, "203.0.113.1", "alice", password), http.StatusTooManyRequests, "")
	g.want(t, g.try(t, "203.0.113.2", "alice", password), http.StatusSeeOther, "")
}

// Somebody with many addresses has no more guesses for that. Then the operator gets in where
// the operator has logged in before, and nobody else does with what that browser has.
func TestManyWhoTryANameLockNobodyOutOfHerDevice(t *testing.T) {
	g := newProxied(t, "alice", "bob")
	alices, bobs := deviceOf(t, g.try(t, "192.0.2.1", "alice", password)), deviceOf(t, g.try(t, "192.0.2.2", "bob", password))
	for n := range 99 {
		g.want(t, g.try(t, fmt.Sprintf("203.0.113.%d", n), "alice", "short"), http.StatusUnauthorized, "")
	}
	refused := g.try(t, "192.0.2.1", "alice", password)
	g.want(t, refused, http.StatusTooManyRequests, "This name is being tried from many places")
	if !strings.Contains(refused.body, "where you have logged in before") {
		t.Errorf("the operator is not told what to do: %s", refused.body)
	}
	g.want(t, g.try(t, "192.0.2.3", "alice", password, bobs), http.StatusTooManyRequests, "")
	g.want(t, g.try(t, "192.0.2.3", "alice", password, &http.Cookie{Name: alices.Name, Value: bobs.Value}), http.StatusTooManyRequests, "")
	g.want(t, g.try(t, "192.0.2.1", "bob", password), http.StatusSeeOther, "")
	in := g.try(t, "203.0.113.1", "alice", password, bobs, alices)
	g.want(t, in, http.StatusSeeOther, "")
	if in.cookie == nil || in.cookie.Name != "__Host-batchreset" {
		t.Errorf("answer %+v", in)
	}

	hash, err := bcrypt.GenerateFromPassword([]byte(guessed), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.db.Operators.SetPassword(t.Context(), "alice", string(hash), tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	g.want(t, g.try(t, "192.0.2.1", "alice", guessed, alices), http.StatusTooManyRequests, "")
}

// An operator behind the address of somebody who guesses gets in, too, in a browser that did before.
func TestADeviceIsKnownAtAnAddressThatMayNotTry(t *testing.T) {
	g := newProxied(t, "alice")
	device := deviceOf(t, g.try(t, "192.0.2.1", "alice", password))
	for n := range 25 {
		g.try(t, "192.0.2.1", fmt.Sprintf("guess-%d", n%5), "short")
	}
	g.want(t, g.try(t, "192.0.2.1", "alice", password), http.StatusTooManyRequests, "")
	g.want(t, g.try(t, "192.0.2.1", "alice", password, device), http.StatusSeeOther, "")
	for range 4 {
		g.want(t, g.try(t, "192.0.2.1", "alice", guessed, device), http.StatusUnauthorized, "")
	}
	g.want(t, g.try(t, "192.0.2.1", "alice", password, device), http.StatusTooManyRequests, "")
}
