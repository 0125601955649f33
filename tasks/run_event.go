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
	// State is that after it, Stage where a run waits.
	State RunState `json:"state"`
	Stage string   `json:"stage,omitempty"`
	// Reason is why the run paused, Principal who decided.
	Reason    string `json:"reason,omitempty"`
	Principal string `json:"principal,omitempty"`
	// Counts are those of a run that has ended; nil: what they are when it is told will do.
	Counts *Counts `json:"counts,omitempty"`
}

// Event is what has just happened to a run that is now as this one.
func (r Run) Event(topic Topic, at time.Time) RunEvent {
	e := RunEvent{Topic: topic, At: Time{at}, State: r.State}
	switch topic {
	case TopicRunWaiting:
		e.Stage = r.stage()
	case TopicRunPaused:
		e.Stage, e.Reason = r.stage(), r.Held.Reason
	case TopicRunFinished:
		e.Counts = &r.Counts
	}
	return e
}

// runNotice is the data of a notice about a run. It never has the list.
type runNotice struct {
	ID         string            `json:"run_id"`
	Name       string            `json:"name,omitempty"`
	State      RunState          `json:"state"`
	Stage      string            `json:"stage,omitempty"`
	Principal  string            `json:"principal,omitempty"`
	CreatedAt  Time              `json:"created_at,omitzero"`
	FinishedAt Time              `json:"finished_at,omitzero"`
	Total      int               `json:"total"`
	Counts     Counts            `json:"counts"`
	ListSHA256 string            `json:"list_sha256"`
	Held       Held              `json:"held,omitzero"`
	Approval   *Approval         `json:"approval,omitempty"`
	Decision   *RunDecision      `json:"decision,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Notice is what the endpoint is sent about an event of a run that Sum has completed.
func (r Run) Notice(event RunEvent, e Endpoint) Notice {
	data := runNotice{
		ID: r.ID, Name: r.Name, State: event.State, Stage: event.Stage, Principal: r.Principal, CreatedAt: r.CreatedAt,
		Total: r.Total, Counts: r.Counts, ListSHA256: r.ListSHA256, Approval: r.Approval, Reason: r.Reason, Labels: r.Labels,
	}
	if event.Counts != nil {
		data.Counts = *event.Counts
	}
	switch event.Topic {
	case TopicRunPaused:
		data.Held = Held{Reason: event.Reason, Since: event.At}
	case TopicRunFinished:
		data.FinishedAt = event.At
	case TopicRunDecided:
		data.Decision = r.decisionOf(event.Principal)
	}
	return Notice{
		Topic: event.Topic, Tenant: r.Tenant, EndpointID: e.ID,
		// A record that is made again under the same ID, after this one has expired, has other events.
		EventID: fmt.Sprintf("%s-%s-%d-%d", r.ID, strings.TrimPrefix(string(event.Topic), "run."), r.CreatedAt.UnixMilli(), event.Number),
		Body:    NoticeBody(event.Topic, event.At, data),
	}
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
