package api

import (
	"log/slog"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// audit writes an entry of the request to the audit trail and to the log. After an error
// nothing may be done.
func (s *server) audit(c echo.Context, e tasks.AuditEntry) error {
	e.By, e.From, e.Tenant, e.RequestID = by(c), c.RealIP(), tenant(c), requestID(c)
	if err := s.store.Audit(c.Request().Context(), e); err != nil {
		return err
	}
	s.logAudit(c, e)
	return nil
}

// by names who sends the request, as the audit trail does.
func by(c echo.Context) string {
	id, _ := c.Get(tokenKey).(string)
	return "token " + id
}

// logAudit writes an entry that is in the trail to the log.
func (s *server) logAudit(c echo.Context, e tasks.AuditEntry) {
	s.log.LogAttrs(c.Request().Context(), slog.LevelInfo, "audit", e.LogAttrs()...)
}

// aboutItems is an entry about those items of a job that a condition selects.
func aboutItems(action tasks.Action, job tasks.Job, selects func(tasks.ItemState) bool) tasks.AuditEntry {
	var instances []string
	for _, it := range job.Items {
		if selects(it.State) {
			instances = append(instances, it.InstanceID)
		}
	}
	return tasks.AuditEntry{Action: action, Job: job.ID}.About(instances)
}
