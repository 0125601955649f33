package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// audited has each request that may change something written to the audit trail first, and
// taken out again if the dashboard refuses it.
func (s *site) audited(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if looks(r) {
			return next(c)
		}
		ids, err := tasksOf(c)
		if err != nil {
			return s.refuse(c, http.StatusBadRequest, err.Error())
		}
		e := login.Actor(c, "").Entry(tasks.ActionDashboard).AboutTasks(ids)
		e.Detail = r.Method + " " + r.URL.Path
		err = s.Store.Decide(r.Context(), e, func(context.Context) error {
			if err := next(c); err != nil {
				return err
			}
			if status := c.Response().Status; status >= http.StatusBadRequest && status < http.StatusInternalServerError {
				return errRefused
			}
			return nil
		})
		if errors.Is(err, errRefused) {
			return nil // the dashboard has answered
		}
		return err
	}
}

// errRefused says that the dashboard has refused to change something.
var errRefused error = tasks.Errorf(tasks.BadRequest, "refused")

// oneTask has the ID in the path of a request about a task.
var oneTask = regexp.MustCompile(`_tasks/([^/:]+)(:[a-z]+)?$`)

// tasksOf returns the IDs of the tasks that a request to the dashboard names. The dashboard
// reads the same: it gets what was understood here, not what was sent.
func tasksOf(c echo.Context) ([]string, error) {
	r := c.Request()
	if id := oneTask.FindStringSubmatch(r.URL.Path); id != nil {
		return id[1:2], nil
	}
	if !strings.Contains(r.URL.Path, "_tasks:batch_") {
		return nil, nil
	}
	var batch struct {
		TaskIDs []string `json:"task_ids"`
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&batch); err != nil {
		return nil, fmt.Errorf("the list of tasks could not be read: %w", err)
	}
	again, err := json.Marshal(batch)
	r.Body = io.NopCloser(bytes.NewReader(again))
	return batch.TaskIDs, err
}
