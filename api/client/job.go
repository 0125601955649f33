package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// Job is the job status record.
type Job struct {
	ID         string            `json:"job_id"`
	State      string            `json:"state"`
	RunID      string            `json:"run_id"` // of the run that it is a part of; empty: of none
	RequestID  string            `json:"request_id"`
	CreatedAt  time.Time         `json:"created_at"`
	StartedAt  time.Time         `json:"started_at"` // zero until known, like FinishedAt
	FinishedAt time.Time         `json:"finished_at"`
	NotBefore  time.Time         `json:"not_before"` // zero: at once
	Held       Held              `json:"held"`
	Total      int               `json:"total"`
	Counts     Counts            `json:"counts"`
	Items      []Item            `json:"items"` // none in a list of jobs
	Reason     string            `json:"reason"`
	Labels     map[string]string `json:"labels"`

	// Record is the whole record as the server sent it, newer fields included.
	Record json.RawMessage `json:"-"`
}

// Held says why instances that could begin do not.
type Held struct {
	Reason string    `json:"reason"` // empty: nothing holds them
	Since  time.Time `json:"since"`
}

// UnmarshalJSON reads a record and keeps it as it is, too.
func (j *Job) UnmarshalJSON(raw []byte) error {
	type fields Job
	if err := json.Unmarshal(raw, (*fields)(j)); err != nil {
		return err
	}
	j.Record = bytes.Clone(raw)
	return nil
}

// Final reports whether every item of the job is final. The zero Job is not.
func (j Job) Final() bool { return j.State != "" && j.State != "pending" && j.State != "running" }

// Item is one instance within a job.
type Item struct {
	ItemID     string    `json:"item_id"`
	InstanceID string    `json:"instance_id"`
	State      string    `json:"state"`
	Attempts   int       `json:"attempts"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	// NotBefore is when the next attempt is due; zero if the item waits for none, or if that
	// is not known.
	NotBefore time.Time `json:"not_before"`
	Code      string    `json:"error_code"`
	Message   string    `json:"error_msg"`
	// Evidence is what was seen of the instance after its last attempt, if the driver can look.
	Evidence string `json:"evidence"`
	// History are the attempts that did not succeed, the last 20 of them.
	History []PastAttempt `json:"history"`
}

// PastAttempt is an attempt that did not succeed.
type PastAttempt struct {
	Number     int       `json:"attempt"` // from 1
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	Outcome    string    `json:"outcome"` // a state of an item, or "lost": its worker died
	Code       string    `json:"error_code"`
	Message    string    `json:"error_msg"`
}

// Counts says how many items of a job are in each state.
type Counts struct {
	Pending   int `json:"pending"`
	Running   int `json:"running"`
	Retrying  int `json:"retrying"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Unknown   int `json:"unknown"`
	Cancelled int `json:"cancelled"`
}

// Job reads the record of a job.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	a, err := c.get(ctx, jobPath(id), nil)
	if err != nil {
		return Job{}, err
	}
	return recordOf[Job](a)
}

func jobPath(id string) string { return "/v1/jobs/" + url.PathEscape(id) }

// Cancel takes back the items of a job that have not begun, and returns the record.
func (c *Client) Cancel(ctx context.Context, id string) (Job, error) {
	return c.change(ctx, id, "cancel", nil)
}

// Retry opens those items of a final job that are in one of the states for another try,
// and returns the record. Without a state it opens those that failed; unknown and
// cancelled ones must be asked for by name. An unknown one may have been reset.
func (c *Client) Retry(ctx context.Context, id string, states ...string) (Job, error) {
	var body []byte
	if len(states) > 0 {
		var err error
		if body, err = json.Marshal(map[string][]string{"states": states}); err != nil {
			return Job{}, err
		}
	}
	return c.change(ctx, id, "retry", body)
}

func (c *Client) change(ctx context.Context, id, what string, body []byte) (Job, error) {
	a, err := c.try(ctx, http.MethodPost, jobPath(id)+"/"+what, nil, body)
	if err != nil {
		return Job{}, err
	}
	return recordOf[Job](a)
}

// record is that of a job or a run.
type record interface {
	Job | Run
	Final() bool
	// isOf reports whether it is the record with an ID, or if that is empty, any. A record that lacks
	// its ID or state is none.
	isOf(id string) bool
	// source says where such a record is, and how its stream calls it.
	source(id string) (path, event string)
}

func (j Job) isOf(id string) bool { return j.ID != "" && j.State != "" && (id == "" || j.ID == id) }

func (Job) source(id string) (path, event string) { return jobPath(id), "job" }

// recordOf decodes a record.
func recordOf[T record](a answer) (T, error) {
	var none, r T
	if err := a.decode(&r); err != nil {
		return none, err
	}
	if !r.isOf("") {
		_, event := none.source("")
		return none, a.unusable("a record without %s_id or state", event)
	}
	return r, nil
}
