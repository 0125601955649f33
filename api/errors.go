package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// statuses is the one table from code to HTTP status. Any other error is
// internal.
var statuses = map[tasks.Code]int{
	tasks.BadRequest:      http.StatusBadRequest,
	tasks.NotYourInstance: http.StatusBadRequest,
	tasks.BadToken:        http.StatusUnauthorized,
	tasks.TokenExpired:    http.StatusUnauthorized,
	tasks.Forbidden:       http.StatusForbidden,
	tasks.Protected:       http.StatusForbidden,
	tasks.NoRoute:         http.StatusNotFound,
	tasks.NoJob:           http.StatusNotFound,
	tasks.JobFinal:        http.StatusConflict,
	tasks.OwnRun:          http.StatusForbidden,
	tasks.TooLarge:        http.StatusRequestEntityTooLarge,
	tasks.KeyReused:       http.StatusUnprocessableEntity,
	tasks.TooManyRequests: http.StatusTooManyRequests,
	tasks.StorageFull:     http.StatusInsufficientStorage,
	tasks.IAMAway:         http.StatusServiceUnavailable,
	tasks.Internal:        http.StatusInternalServerError,
}

// answerTo returns the status and the error that a caller is shown for err.
func answerTo(err error) (int, *tasks.Error) {
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		if status, known := statuses[e.Code]; known {
			return status, e
		}
	}
	if e, ok := errors.AsType[*echo.HTTPError](err); ok {
		switch e.Code {
		case http.StatusNotFound:
			return e.Code, tasks.Errorf(tasks.NoRoute, "there is no such API")
		case http.StatusMethodNotAllowed:
			return e.Code, tasks.Errorf(tasks.NoRoute, "this API does not have that method")
		}
	}
	return http.StatusInternalServerError, tasks.Errorf(tasks.Internal, "internal error")
}

// envelope is the KooPhone shape of every answer.
type envelope struct {
	Code    tasks.Code `json:"error_code"`
	Message string     `json:"error_msg"`
	Data    any        `json:"data,omitempty"`
}

func ok(c echo.Context, data any) error {
	return c.JSON(http.StatusOK, envelope{Code: tasks.OK, Message: "ok", Data: data})
}

// fail answers with an error. It is Echo's error handler, in place of its own,
// which does not look through wrapped errors.
func (s *server) fail(err error, c echo.Context) {
	if c.Response().Committed { // half of an answer was sent: see accessLog
		if !errors.Is(err, context.Canceled) {
			s.log.Warn("an answer broke off", "request_id", requestID(c), "error", err)
		}
		return
	}
	status, e := answerTo(err)
	if status == http.StatusTooManyRequests || status == http.StatusInsufficientStorage || status == http.StatusServiceUnavailable {
		setRetryAfter(c.Response().Header(), max(time.Second, e.RetryAfter))
	}
	if status >= http.StatusInternalServerError && e.Code != tasks.StorageFull && e.Code != tasks.IAMAway && !errors.Is(err, context.Canceled) {
		s.log.Error("request failed", "request_id", requestID(c), "error", err)
	}
	c.Set(codeKey, e.Code)
	if err := c.JSON(status, envelope{Code: e.Code, Message: e.Message}); err != nil {
		s.log.Debug("answer not sent", "request_id", requestID(c), "error", err)
	}
}
