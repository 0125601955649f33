package api

import (
	"context"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// halt lets no attempt of the tenant begin any more, within a second.
func (s *server) halt(c echo.Context) error {
	reason, err := decodeReason(c.Request().Body)
	if err != nil {
		return err
	}
	by := actor(c)
	by.Reason = reason
	return s.setHalt(c, s.store.Halt, by)
}

// resume ends the tenant's own halt. One of the operators' stays.
func (s *server) resume(c echo.Context) error {
	reason, err := decodeReason(c.Request().Body)
	if err != nil {
		return err
	}
	by := actor(c)
	by.Reason = reason
	return s.setHalt(c, s.store.Resume, by)
}

func (s *server) setHalt(c echo.Context, set func(context.Context, string, tasks.Halter, tasks.Actor) error, by tasks.Actor) error {
	ctx := c.Request().Context()
	if err := set(ctx, tenant(c), tasks.HaltedByTenant, by); err != nil {
		return err
	}
	policy, err := s.store.Policy(ctx, tenant(c))
	if err != nil {
		return err
	}
	return ok(c, newHaltState(policy))
}

// haltState is the data of an answer to halt and resume: whether resets are halted, and
// each halt that holds, with that of the operators first, which is also on top.
type haltState struct {
	Halted bool `json:"halted"`
	*haltBy
	Halts []haltBy `json:"halts"`
}

type haltBy struct {
	By tasks.Halter `json:"by"`
	tasks.Halt
}

func newHaltState(policy tasks.Policy) haltState {
	state := haltState{Halts: []haltBy{}}
	if policy.OperatorHalt != nil {
		state.Halts = append(state.Halts, haltBy{tasks.HaltedByOperator, *policy.OperatorHalt})
	}
	if policy.OwnHalt != nil {
		state.Halts = append(state.Halts, haltBy{tasks.HaltedByTenant, *policy.OwnHalt})
	}
	if len(state.Halts) > 0 {
		state.Halted, state.haltBy = true, &state.Halts[0]
	}
	return state
}

// decodeReason reads a body that may have a reason, and may be empty.
func decodeReason(body io.Reader) (reason string, err error) {
	var request struct {
		Reason jsontext.Value `json:"reason"`
	}
	if err := decodeOptional(body, &request); err != nil {
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
