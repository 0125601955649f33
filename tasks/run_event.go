package tasks

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// RunEvent is something that has happened to a run and that endpoints can be told of. The run's record has it until
// they are: with what may be another by then.
type RunEvent struct {
	Topic Topic `json:"event"`
	// Number is greater than that of every earlier event of the run.
	Number int64 `json:"-"`
	At     Time  `json:"at"`
	// State and Round are those after it, Stage where a run waits.
	State RunState `json:"state"`
	Stage string   `json:"stage,omitempty"`
	Round int      `json:"round"`
	// Reason is why the run paused, Principal who decided.
	Reason    string `json:"reason,omitempty"`
	Principal string `json:"principal,omitempty"`
	// Counts and Failures are those of a run that has ended; nil: those of when it is told will do.
	Counts   *Counts      `json:"counts,omitempty"`
	Failures []RunFailure `json:"failures,omitempty"`
}

// Event is what has just happened to a run that is now as this one.
func (r Run) Event(topic Topic, at time.Time) RunEvent {
	e := RunEvent{Topic: topic, At: Time{at}, State: r.State, Round: r.Round}
	switch topic {
	case TopicRunWaiting:
		e.Stage = r.stage()
	case TopicRunPaused:
		e.Stage, e.Reason = r.stage(), r.Held.Reason
	case TopicRunFinished:
		e.Counts, e.Failures = &r.Counts, r.Failures
	}
	return e
}

// Notice is what the endpoint is sent about an event of a run that Sum has completed.
func (r Run) Notice(event RunEvent, e Endpoint) Notice {
	n := Notice{
		Topic: event.Topic, Tenant: r.Tenant, EndpointID: e.ID,
		// A record that is made again under the same ID, after this one has expired, has other events.
		EventID: fmt.Sprintf("%s-%s-%d-%d", r.ID, strings.TrimPrefix(string(event.Topic), "run."), r.CreatedAt.UnixMilli(), event.Number),
	}
	r.State, r.Stage, r.Round = event.State, event.Stage, event.Round
	r.Held, r.FinishedAt, r.RatePerSecond, r.EstimatedFinishAt = Held{}, Time{}, 0, Time{}
	if event.Counts != nil {
		r.FinishedAt, r.Counts, r.Failures = event.At, *event.Counts, event.Failures
	}
	if event.Reason != "" {
		r.Held = Held{Reason: event.Reason, Since: event.At}
	}
	var data any = r
	if event.Topic == TopicRunDecided {
		data = struct {
			Run      Run          `json:"run"`
			Decision *RunDecision `json:"decision"`
		}{r, r.decisionOf(event.Principal)}
	}
	n.Body = NoticeBody(event.Topic, event.At, data)
	return n
}

// decisionOf is what a principal decided, or nil.
func (r Run) decisionOf(principal string) *RunDecision {
	if r.Approval == nil {
		return nil
	}
	i := slices.IndexFunc(r.Approval.Decisions, func(d RunDecision) bool { return d.Principal == principal })
	if i < 0 {
		return nil
	}
	return &r.Approval.Decisions[i]
}
