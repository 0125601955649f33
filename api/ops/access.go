package ops

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// Operators are those who log in, and their sessions.
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
	// UseForm reports whether the form with this ID is sent for the first time.
	UseForm(ctx context.Context, id string) (first bool, err error)
}

const operatorKey = "operator"

// operator is who sends the request; nil where there is no login.
func operator(c echo.Context) *tasks.Operator {
	o, _ := c.Get(operatorKey).(*tasks.Operator)
	return o
}

// may reports whether the request's sender has a right. Where there is no login, everybody has them all.
func may(c echo.Context, right tasks.Right) bool {
	o := operator(c)
	return o == nil || o.Role.May(right)
}

// require lets through who has a right. As long as there is no operator, nobody may do anything, but
// for everybody on this machine where Config.OpenHere says so. What somebody may see they have to ask for properly.
func (s *site) require(right tasks.Right) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		next = s.asks(next)
		return func(c echo.Context) error {
			o, err := s.whoIs(c)
			if err != nil {
				return err
			}
			if o == nil {
				has, err := s.Store.HasOperators(c.Request().Context())
				switch {
				case err != nil:
					return err
				case has || s.Issuer != nil:
					return s.askToLogIn(c)
				case !s.OpenHere:
					return s.refuse(c, http.StatusForbidden, "There is no operator yet, so nobody may see this. "+firstHow)
				case !fromHere(c.Request()):
					return s.refuse(c, http.StatusForbidden, "There is no operator yet, so this site is for its own machine alone, without a proxy. 'batchreset operator add' makes one.")
				}
				return next(c)
			}
			c.Set(operatorKey, o)
			needed := right
			if needed == tasks.RightLook && !looks(c.Request()) && !own(c) {
				needed = tasks.RightAct // the dashboard's
			}
			if !may(c, needed) {
				return s.refuse(c, http.StatusForbidden, whyNot(o.Role, needed))
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
func (s *site) whoIs(c echo.Context) (*tasks.Operator, error) {
	cookie, err := c.Cookie(s.cookieName(sessionCookie))
	if err != nil || cookie.Value == "" {
		return nil, nil //nolint:nilnil,nilerr // nobody, and that is no error
	}
	o, found, err := s.Store.Session(c.Request().Context(), cookie.Value)
	if err != nil || !found {
		return nil, err
	}
	if o.Issuer != "" && !s.Issuer.lets(o) {
		return nil, nil //nolint:nilnil // the settings have changed since the log-in
	}
	return &o, nil
}

// askToLogIn sends people to the form, and tells programs.
func (s *site) askToLogIn(c echo.Context) error {
	if r := c.Request(); looks(r) && r.Header.Get("Sec-Fetch-Dest") != "empty" {
		return redirect(c, "/login?next="+url.QueryEscape(r.URL.RequestURI()))
	}
	return s.refuse(c, http.StatusUnauthorized, "Log in first.")
}

// refuse answers and logs.
func (s *site) refuse(c echo.Context, status int, why string) error {
	name := ""
	if o := operator(c); o != nil {
		name = o.Name
	}
	s.logRefusal(c.Request(), c.RealIP(), name, why)
	if r := c.Request(); looks(r) || r.Header.Get("Sec-Fetch-Dest") == "document" {
		return s.show(c, status, "refused", page{Root: root(c), Title: http.StatusText(status), Problem: why, Operator: operator(c), Navigation: operator(c) != nil, Section: section(c)})
	}
	return c.JSON(status, map[string]string{"error": why})
}

func (s *site) logRefusal(r *http.Request, remote, operator, why string) {
	s.Log.Warn("request refused", "method", cut(r.Method), "path", cut(r.URL.Path), "remote", remote, "operator", operator, "reason", why)
}

// cut keeps what strangers send from filling the log.
func cut(text string) string { return fmt.Sprintf("%.256s", text) }

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
