package login

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

const operatorKey = "operator"

// Operator is who sends the request; nil where there is no login.
func Operator(c echo.Context) *tasks.Operator {
	o, _ := c.Get(operatorKey).(*tasks.Operator)
	return o
}

// May reports whether the request's sender has a right. Where there is no login, everybody has them all.
func May(c echo.Context, right tasks.Right) bool {
	o := Operator(c)
	return o == nil || o.Role.May(right)
}

// Actor is who sends the request, for the audit trail, and the reason that was given.
func Actor(c echo.Context, reason string) tasks.Actor {
	a := tasks.Actor{By: "dashboard", From: c.RealIP(), Reason: reason}
	if o := Operator(c); o != nil {
		a.By, a.Principal = "operator "+o.Name, o.Name
	}
	return a
}

// Require lets through who has a right. As long as there is no operator, nobody may do anything, but
// for everybody on this machine where Config.OpenHere says so. What somebody may see they have to ask for properly.
func (d *Door) Require(right tasks.Right) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		next = d.cfg.Asks(next)
		return func(c echo.Context) error {
			o, err := d.whoIs(c)
			if err != nil {
				return err
			}
			if o == nil {
				has, err := d.cfg.Operators.HasOperators(c.Request().Context())
				switch {
				case err != nil:
					return err
				case has || d.cfg.Issuer != nil:
					return d.askToLogIn(c)
				case !d.cfg.OpenHere:
					return d.cfg.Refuse(c, http.StatusForbidden, "There is no operator yet, so nobody may see this. "+firstHow)
				case !fromHere(c.Request()):
					return d.cfg.Refuse(c, http.StatusForbidden, "There is no operator yet, so this site is for its own machine alone, without a proxy. 'batchreset operator add' makes one.")
				}
				return next(c)
			}
			c.Set(operatorKey, o)
			needed := right
			if needed == tasks.RightLook && !looks(c.Request()) && !own(c) {
				needed = tasks.RightAct // the dashboard's
			}
			if !May(c, needed) {
				return d.cfg.Refuse(c, http.StatusForbidden, whyNot(o.Role, needed))
			}
			return next(c)
		}
	}
}

// whyNot says who has a right that a role does not have.
func whyNot(role tasks.Role, right tasks.Right) string {
	switch {
	case !role.May(tasks.RightLook):
		return fmt.Sprintf("This program does not know your role %.80q.", role)
	case right == tasks.RightManage:
		return "Only an admin may do this."
	case role == tasks.RoleApprover:
		return "Approvers may look and decide about runs, not change."
	}
	return "Viewers may look, not change."
}

// whoIs returns the operator of the request's session, or nil.
func (d *Door) whoIs(c echo.Context) (*tasks.Operator, error) {
	secret := d.Session(c)
	if secret == "" {
		return nil, nil //nolint:nilnil // nobody, and that is no error
	}
	o, found, err := d.cfg.Operators.Session(c.Request().Context(), secret)
	if err != nil || !found {
		return nil, err
	}
	if o.Issuer != "" && !d.cfg.Issuer.lets(o) {
		return nil, nil //nolint:nilnil // the settings have changed since the log-in
	}
	return &o, nil
}

// askToLogIn sends people to the form, and tells programs.
func (d *Door) askToLogIn(c echo.Context) error {
	if r := c.Request(); looks(r) && r.Header.Get("Sec-Fetch-Dest") != "empty" {
		return d.cfg.Redirect(c, "/login?next="+url.QueryEscape(r.URL.RequestURI()))
	}
	return d.cfg.Refuse(c, http.StatusUnauthorized, "Log in first.")
}

// looks reports whether a request only asks for something.
func looks(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// fromHere reports whether a request comes from this machine itself, and means it: a page of
// another site whose name leads here has that site's name as its host.
func fromHere(r *http.Request) bool {
	listener, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !isLoopback(listener.String()) || !isLoopback(r.RemoteAddr) || isForwarded(r) {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func isLoopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

// isForwarded reports whether a proxy says that it sends a request for somebody else. nginx
// does not say so unless it is told to; but it asks in HTTP/1.0, which no browser does.
func isForwarded(r *http.Request) bool {
	for name := range r.Header {
		if name == "Via" || name == "X-Real-Ip" || strings.Contains(name, "Forwarded") ||
			strings.HasSuffix(name, "-Client-Ip") || strings.HasSuffix(name, "-Connecting-Ip") {
			return true
		}
	}
	return !r.ProtoAtLeast(1, 1)
}
