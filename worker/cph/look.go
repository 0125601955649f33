package cph

import (
	"context"
	"errors"
	"fmt"

	"batchreset/worker"
)

// Look asks for the phone and, with a checkpoint that has one, for the call's job. The phone is
// in its initial state if the job has succeeded and the phone is at rest, or if its record says
// that it was reset since the checkpoint. Without a checkpoint a phone that runs is Unclear: CPH
// does not say what it was through.
func (d *Driver) Look(ctx context.Context, a worker.Attempt) (worker.Sight, error) {
	id, err := phoneID(a)
	if err != nil {
		return worker.Sight{}, err
	}
	m, err := readMark(a.Checkpoint, id)
	if err != nil || m.PhoneID != id {
		m = mark{PhoneID: id}
	}
	job, f := d.client.outcome(ctx, m)
	if f != nil && job != failed {
		return worker.Sight{}, errors.New("ShowJob: " + f.Error())
	}
	p, f := d.client.phone(ctx, id)
	if f != nil {
		return worker.Sight{}, errors.New("ShowCloudPhoneDetail: " + f.Error())
	}
	return worker.Sight{State: m.state(p, job), Evidence: m.evidence(p, job)}, nil
}

// state is what a phone and the job of its call say together.
func (m mark) state(p phone, job finding) worker.SightState {
	switch says := m.judge(p, job, false); {
	case says == pending, job == pending:
		return worker.Unclear
	case says == failed, job == failed:
		return worker.NotInitial
	case says == done:
		return worker.Initial
	}
	return worker.Unclear
}

var findingNames = map[finding]string{undecided: "not known any more", overdue: "timed out", pending: "running", done: "succeeded", failed: "failed"}

// evidence is what was seen, and by which call.
func (m mark) evidence(p phone, job finding) string {
	s := p.String()
	if m.JobID != "" {
		s = fmt.Sprintf("job %s %s (ShowJob); %s", m.JobID, findingNames[job], s)
	}
	return worker.Printable(s, worker.MaxEvidence)
}
