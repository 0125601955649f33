package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// manageRoutes are the pages on which admins say who may do what.
func (s *site) manageRoutes(e *echo.Echo) {
	s.tenantRoutes(e)
	s.callerRoutes(e)
	s.fleetRoutes(e)
	s.webhookRoutes(e)
	s.approvalRoutes(e)
}

// manager has the middleware of a page on which something is managed.
func (s *site) manager(what tasks.Managed, right tasks.Right, more ...echo.MiddlewareFunc) []echo.MiddlewareFunc {
	return append([]echo.MiddlewareFunc{s.door.Require(right), s.writable(what), s.told}, more...)
}

// commandFor is the command that manages the same.
var commandFor = map[tasks.Managed]string{
	tasks.ManagedLimits: "tenant limit", tasks.ManagedCallers: "token' or 'batchreset key", tasks.ManagedFleet: "fleet",
	tasks.ManagedProtection: "fleet protect", tasks.ManagedWebhooks: "webhook",
}

// writable refuses what Redis would not let this process write: before anything is asked, and before a part of it is
// done.
func (s *site) writable(what tasks.Managed) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			may, err := s.Store.MayManage(c.Request().Context(), what)
			if err != nil {
				return err
			}
			if !may {
				return s.refuse(c, http.StatusForbidden, fmt.Sprintf("This process's Redis user may not do this: use the command 'batchreset %s', or open the site of a process whose Redis user may. deploy/README.md, \"Managing in the site\", says which.", commandFor[what]))
			}
			return next(c)
		}
	}
}

// told answers with what a tasks.Error says.
func (s *site) told(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		err := next(c)
		e, ok := errors.AsType[*tasks.Error](err)
		if !ok {
			return err
		}
		status := http.StatusConflict
		switch e.Code {
		case tasks.BadRequest:
			status = http.StatusBadRequest
		case tasks.NoRoute:
			status = http.StatusNotFound
		case tasks.Internal:
			status = http.StatusServiceUnavailable
		case tasks.TooLarge:
			status = http.StatusRequestEntityTooLarge
		case tasks.StorageFull:
			status = http.StatusInsufficientStorage
		}
		return s.refuse(c, status, e.Message)
	}
}

func wrong(format string, args ...any) error { return tasks.Errorf(tasks.BadRequest, format, args...) }

// reasonIn is the reason of a form. Errors: tasks.BadRequest.
func reasonIn(c echo.Context) (string, error) {
	reason := c.FormValue("reason")
	if err := tasks.CheckReason(reason); err != nil {
		return "", wrong("The reason %v.", err)
	}
	return reason, nil
}

// Forms are those that are good for once.
type Forms interface {
	// UseForm reports whether the form with this ID is sent for the first time.
	UseForm(ctx context.Context, id string) (first bool, err error)
}

// useForm refuses a form that was sent before: a page that is loaded again must not do it again. Errors:
// tasks.BadRequest; tasks.JobFinal if it was.
func (s *site) useForm(c echo.Context) error {
	id := c.FormValue("form")
	if !tasks.ValidFormID(id) {
		return wrong("The field form is missing: begin again with an empty form.")
	}
	first, err := s.Store.UseForm(c.Request().Context(), id)
	if err == nil && !first {
		err = tasks.Errorf(tasks.JobFinal, "This form was sent before, and nothing is done twice. What it made is in the list; a secret is shown once only. Begin again with an empty form, or rotate what was made.")
	}
	return err
}

// repeatableFields are those that a form may have several times.
var repeatableFields = []string{"state", "target", "scope", "event"}

// checkFields refuses fields of a form, or parameters of an address, that are not known, and those that are there twice:
// what somebody filled in must not be skipped.
func checkFields(kind string, fields map[string][]string, known, repeatable []string) *refusal {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch n := len(fields[name]); {
		case !slices.Contains(known, name):
			return &refusal{http.StatusBadRequest, fmt.Sprintf("Unknown %s %.80q%s", kind, name, cmp.Or(tasks.DidYouMean(name, known), "."))}
		case n > 1 && !slices.Contains(repeatable, name):
			return &refusal{http.StatusBadRequest, fmt.Sprintf("The %s %s is there %d times.", kind, name, n)}
		}
	}
	return nil
}
