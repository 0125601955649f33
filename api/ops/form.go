package ops

import (
	"errors"
	"fmt"
	"mime"
	"net/http"

	"github.com/labstack/echo/v4"
)

// maxBody is the most that a request may bring: a form, or what the dashboard sends; but for lists.
const maxBody = 16 << 10

// bodyLimit is the most that a request for a route may bring.
func bodyLimit(route string) int64 {
	switch route {
	case bulkPath:
		return maxBulkBody
	case previewPath, importPath:
		return maxImport
	}
	return maxBody
}

// limitBody refuses a body that says that it is too long, and has all others end there.
func (s *site) limitBody(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r, limit := c.Request(), bodyLimit(c.Path())
		if r.ContentLength > limit {
			return s.refuse(c, http.StatusRequestEntityTooLarge, tooLong(limit))
		}
		r.Body = http.MaxBytesReader(c.Response().Writer, r.Body, limit)
		return next(c)
	}
}

func tooLong(limit int64) string {
	if limit >= 1<<20 {
		return fmt.Sprintf("That is too long: a form with a list may have %d MiB.", limit>>20)
	}
	return fmt.Sprintf("That is too long: a form may have %d KiB.", limit>>10)
}

// form refuses a form that readForm refuses.
func (s *site) form(known ...string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if refused := readForm(c.Request(), known...); refused != nil {
				return s.refuse(c, refused.status, refused.why)
			}
			return next(c)
		}
	}
}

// readForm reads a form. It refuses one with other fields than those that are known, or with
// one of them twice, but for repeatable ones: what somebody filled in must not be
// skipped. Forms with files would end up in memory and in temporary files.
func readForm(r *http.Request, known ...string) *refusal {
	if kind, _, err := mime.ParseMediaType(r.Header.Get(echo.HeaderContentType)); err != nil || kind != echo.MIMEApplicationForm {
		return &refusal{http.StatusUnsupportedMediaType, "A form has to be sent as " + echo.MIMEApplicationForm + "."}
	}
	err := r.ParseForm()
	if long, is := errors.AsType[*http.MaxBytesError](err); is {
		return &refusal{http.StatusRequestEntityTooLarge, tooLong(long.Limit)}
	}
	if err != nil || r.URL.RawQuery != "" {
		return &refusal{http.StatusBadRequest, "The form could not be read, or its address has a query."}
	}
	return checkFields("field", r.PostForm, known, repeatableFields)
}
