package ops

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// readyPatience is how long Redis may take to answer.
const readyPatience = 1500 * time.Millisecond

// answer is the envelope of what programs ask for.
type answer struct {
	Code    string `json:"error_code"`
	Message string `json:"error_msg"`
	Data    any    `json:"data,omitempty"`
}

var fine = answer{Code: "0", Message: "ok"}

// health is the data of healthz, as in package api.
type health struct {
	Version string `json:"version"`
}

// readiness is the data of readyz where there is a worker. One that is quiet is as it should be.
type readiness struct {
	Quiet bool `json:"quiet"`
}

// healthz says that the process is alive, whatever Redis does, and its version.
func (s *site) healthz(c echo.Context) error {
	return c.JSON(http.StatusOK, answer{fine.Code, fine.Message, health{s.Version}})
}

// readyz says whether Redis answers, can be trusted with jobs, and lets this process do its
// work.
func (s *site) readyz(c echo.Context) error {
	select {
	case <-s.Stopping:
		return c.JSON(http.StatusServiceUnavailable, answer{Code: string(tasks.Internal), Message: "this process is stopping; another one takes over"})
	default:
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), readyPatience)
	defer cancel()
	err := s.Store.Check(ctx)
	if err == nil && s.Quiet != nil {
		return c.JSON(http.StatusOK, answer{fine.Code, fine.Message, readiness{s.Quiet()}})
	}
	if err == nil {
		return c.JSON(http.StatusOK, fine)
	}
	why := "Redis does not answer"
	if e, sayable := errors.AsType[*tasks.Error](err); sayable {
		why = e.Message
	}
	s.Log.Error("not ready", "error", err)
	return c.JSON(http.StatusInternalServerError, answer{Code: string(tasks.Internal), Message: why})
}
