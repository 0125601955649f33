package api

import (
	"encoding/json"
	"io"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// halt lets no attempt of the tenant begin any more, within a second.
func (s *server) halt(c echo.Context) error {
	reason, err := decodeReason(c.Request().Body)
	if err != nil {
		return err
	}
	return s.setHalt(c, tasks.AuditEntry{Action: tasks.ActionHalt, Reason: reason}, &tasks.Halt{Since: tasks.Time{Time: s.store.Now()}, Reason: reason})
}

// resume lets the tenant's attempts begin again, unless all tenants are halted.
func (s *server) resume(c echo.Context) error {
	return s.setHalt(c, tasks.AuditEntry{Action: tasks.ActionResume}, nil)
}

func (s *server) setHalt(c echo.Context, entry tasks.AuditEntry, halt *tasks.Halt) error {
	ctx := c.Request().Context()
	if err := s.audit(c, entry); err != nil {
		return err
	}
	if err := s.store.SetHalt(ctx, tenant(c), halt); err != nil {
		return err
	}
	policy, err := s.store.Policy(ctx, tenant(c))
	if err != nil {
		return err
	}
	return ok(c, haltState{Halted: policy.Halt != nil, Halt: policy.Halt})
}

// haltState is the data of an answer to halt and resume.
type haltState struct {
	Halted bool `json:"halted"`
	*tasks.Halt
}

// decodeReason reads a body that may have a reason, and may be empty.
func decodeReason(body io.Reader) (reason string, err error) {
	var request struct {
		Reason json.RawMessage `json:"reason"`
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return "", err
	}
	if len(raw) == 0 {
		return "", nil
	}
	if err := decodeObject(raw, &request); err != nil {
		return "", err
	}
	if !optional(request.Reason, &reason) {
		return "", tasks.Errorf(tasks.BadRequest, "reason must be a string")
	}
	if err := tasks.CheckReason(reason); err != nil {
		return "", tasks.Errorf(tasks.BadRequest, "reason %s", err)
	}
	return reason, nil
}
