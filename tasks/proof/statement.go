package proof

import (
	"fmt"

	"batchreset/tasks"
)

// version of the statement. It changes when an older reader would misunderstand a newer one;
// more fields are no such change.
const version = 1

// Statement is what a proof says. Its types are its own, because a proof has to be readable when
// the job record has long been changed. A time that is not known, and who asked, if a job's
// record does not have it, are absent.
type Statement struct {
	Version  int        `json:"version"`
	Issuer   Issuer     `json:"issuer"`
	IssuedAt tasks.Time `json:"issued_at"`

	JobID       string            `json:"job_id"`
	Tenant      string            `json:"tenant"`
	RequestID   string            `json:"request_id"`
	RequestedBy Requester         `json:"requested_by,omitzero"`
	Reason      string            `json:"reason,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// List is tasks.ListHash of the instances.
	List string `json:"list_sha256"`

	State      tasks.JobState `json:"state"`
	CreatedAt  tasks.Time     `json:"created_at,omitzero"`
	StartedAt  tasks.Time     `json:"started_at,omitzero"`
	FinishedAt tasks.Time     `json:"finished_at,omitzero"`
	Total      int            `json:"total"`
	Counts     tasks.Counts   `json:"counts"`
	Items      []Item         `json:"items"`
}

// Issuer is the program that made the statement.
type Issuer struct {
	Service string `json:"service"`
	Version string `json:"version"`
}

// Requester is who asked, as in the audit trail: "token <ID>", and an address. Principal is the person or
// program behind the token, which the record of a run has.
type Requester struct {
	By        string `json:"by"`
	Principal string `json:"principal,omitempty"`
	From      string `json:"from,omitempty"`
}

// Item is what became of one instance. One of a run that was never in a job has neither ID nor driver.
type Item struct {
	ID         string          `json:"item_id,omitempty"`
	InstanceID string          `json:"instance_id"`
	State      tasks.ItemState `json:"state"`
	// Attempts counts every attempt that was begun.
	Attempts   int        `json:"attempts"`
	StartedAt  tasks.Time `json:"started_at,omitzero"`
	FinishedAt tasks.Time `json:"finished_at,omitzero"`
	Code       tasks.Code `json:"error_code,omitempty"`
	Evidence   string     `json:"evidence,omitempty"`
	Driver     string     `json:"driver,omitempty"`
	// History lists the attempts that did not succeed, the last 20 of them.
	History []Attempt `json:"history,omitempty"`
}

// Attempt is one that has ended without success.
type Attempt struct {
	Number     int        `json:"attempt"`
	StartedAt  tasks.Time `json:"started_at,omitzero"`
	FinishedAt tasks.Time `json:"finished_at,omitzero"`
	Outcome    string     `json:"outcome"`
	Code       tasks.Code `json:"error_code,omitempty"`
}

// Of is the statement about a final job, by this version of the service at this time. But for
// these two it is always the same.
func Of(job tasks.Job, serviceVersion string, now tasks.Time) Statement {
	s := Statement{
		Version: version, Issuer: Issuer{"batchreset", serviceVersion}, IssuedAt: now,
		JobID: job.ID, Tenant: job.Tenant, RequestID: job.RequestID, RequestedBy: Requester{By: job.By, From: job.From},
		Reason: job.Reason, Labels: job.Labels, State: job.State,
		CreatedAt: job.CreatedAt, StartedAt: job.StartedAt, FinishedAt: job.FinishedAt,
		Total: job.Total, Counts: job.Counts,
	}
	for _, it := range job.Items {
		s.Items = append(s.Items, itemOf(it))
	}
	s.List = tasks.ListHash(s.instances())
	return s
}

func itemOf(it tasks.Item) Item {
	item := Item{
		ID: it.ID, InstanceID: it.InstanceID, State: it.State, Attempts: it.Attempts,
		StartedAt: it.StartedAt, FinishedAt: it.FinishedAt, Code: it.Code, Evidence: it.Evidence, Driver: it.DriverName(),
	}
	for _, h := range it.History {
		item.History = append(item.History, Attempt{h.Number, h.StartedAt, h.FinishedAt, h.Outcome, h.Code})
	}
	return item
}

func (s Statement) instances() (ids []string) {
	for _, it := range s.Items {
		ids = append(ids, it.InstanceID)
	}
	return ids
}

// check finds what in a statement contradicts the rest of it.
func (s Statement) check() error {
	if s.Version != version {
		return fmt.Errorf("it has version %d, and this program reads version %d", s.Version, version)
	}
	var counts tasks.Counts
	seen := map[string]bool{}
	for n, it := range s.Items {
		count := counts.Of(it.State)
		switch {
		case it.ID != tasks.ItemID(s.JobID, n):
			return fmt.Errorf("item %d is called %.80q", n, it.ID)
		case !it.State.Final() || count == nil:
			return fmt.Errorf("item %d is %.80q, which is no end", n, it.State)
		case seen[it.InstanceID]:
			return fmt.Errorf("it has the instance %.80q twice", it.InstanceID)
		}
		seen[it.InstanceID] = true
		*count++
	}
	switch {
	case s.Total != len(s.Items) || s.Total == 0:
		return fmt.Errorf("it counts %d items, and has %d", s.Total, len(s.Items))
	case s.Counts != counts || s.State != counts.State():
		return fmt.Errorf("it says that the job is %.80q with %+v, and by its items it is %s with %+v", s.State, s.Counts, counts.State(), counts)
	case s.List != tasks.ListHash(s.instances()):
		return fmt.Errorf("list_sha256 is not that of its instances")
	}
	return nil
}
