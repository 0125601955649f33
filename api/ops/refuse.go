package ops

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// refusal is an answer to somebody who may not, or not now.
type refusal struct {
	status int
	why    string
}

// refuse answers and logs.
func (s *site) refuse(c echo.Context, status int, why string) error {
	name := ""
	if o := login.Operator(c); o != nil {
		name = o.Name
	}
	s.logRefusal(c.Request(), c.RealIP(), name, why)
	if r := c.Request(); looks(r) || r.Header.Get("Sec-Fetch-Dest") == "document" {
		return s.show(c, status, "refused", page{Root: root(c), Title: http.StatusText(status), Problem: why, Operator: login.Operator(c), Navigation: login.Operator(c) != nil, Section: section(c)})
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

// refusedOr answers an error, and says why if the change was refused. It reports whether there is one.
func (s *site) refusedOr(c echo.Context, err error) (answered bool, answer error) {
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return true, s.refuse(c, http.StatusConflict, e.Message)
	}
	return err != nil, err
}
