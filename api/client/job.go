package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Job is the job status record.
type Job struct {
	ID         string            `json:"job_id"`
	State      string            `json:"state"`
	RequestID  string            `json:"request_id"`
	CreatedAt  time.Time         `json:"created_at"`
	StartedAt  time.Time         `json:"started_at"` // zero until known, like FinishedAt
	FinishedAt time.Time         `json:"finished_at"`
	NotBefore  time.Time         `json:"not_before"` // zero: at once
	Total      int               `json:"total"`
	Counts     Counts            `json:"counts"`
	Items      []Item            `json:"items"` // none in a list of jobs
	Reason     string            `json:"reason"`
	Labels     map[string]string `json:"labels"`

	// Record is the whole record as the server sent it, newer fields included.
	Record json.RawMessage `json:"-"`
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

// Final reports whether every item of the job is final.
func (j Job) Final() bool { return j.State != "pending" && j.State != "running" }

// Item is one instance within a job.
type Item struct {
	ItemID     string    `json:"item_id"`
	InstanceID string    `json:"instance_id"`
	State      string    `json:"state"`
	Attempts   int       `json:"attempts"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	Code       string    `json:"error_code"`
	Message    string    `json:"error_msg"`
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
	look, err := c.JobIfChanged(ctx, id, "")
	return look.Job, err
}

// Look is what one look at a job shows.
type Look struct {
	Changed bool // since the ETag that was given; without one always
	Job     Job  // zero unless Changed
	ETag    string
	// RetryAfter is when the server suggests to look again, or 0.
	RetryAfter time.Duration
}

// JobIfChanged reads the record of a job unless it is still the one that etag
// came with.
func (c *Client) JobIfChanged(ctx context.Context, id, etag string) (Look, error) {
	header := http.Header{}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	a, err := c.get(ctx, "/v1/jobs/"+url.PathEscape(id), header)
	if err != nil {
		return Look{}, err
	}
	look := Look{ETag: a.header.Get("ETag"), RetryAfter: parseRetryAfter(a.header)}
	if a.status == http.StatusNotModified && etag != "" {
		look.ETag = etag
		return look, nil
	}
	look.Changed = true
	if look.Job, err = a.job(); err != nil {
		return Look{}, err
	}
	return look, nil
}

// JobsFilter selects among the tenant's jobs. An empty field selects everything.
type JobsFilter struct {
	State      string
	InstanceID string
	Limit      int    // 1 to 100 jobs per page; 0 leaves it to the server
	Cursor     string // NextCursor of the page before
}

// JobsPage is a part of a list of jobs, newest first.
type JobsPage struct {
	Jobs       []Job    `json:"jobs"`
	NextCursor string   `json:"next_cursor"` // empty on the last page
	Missing    []string `json:"missing"`     // of jobs that were asked for by name
}

// Jobs lists the tenant's jobs, without their items.
func (c *Client) Jobs(ctx context.Context, filter JobsFilter) (JobsPage, error) {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	set("state", filter.State)
	set("instance_id", filter.InstanceID)
	set("cursor", filter.Cursor)
	if filter.Limit != 0 {
		query.Set("limit", strconv.Itoa(filter.Limit))
	}
	path := "/v1/jobs"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	a, err := c.get(ctx, path, nil)
	if err != nil {
		return JobsPage{}, err
	}
	var page JobsPage
	if err := a.decode(&page); err != nil {
		return JobsPage{}, err
	}
	return page, nil
}

// Cancel takes back the items of a job that have not begun, and returns the record.
func (c *Client) Cancel(ctx context.Context, id string) (Job, error) {
	return c.change(ctx, id, "cancel")
}

// Retry opens the items of a final job that did not succeed for another try, and
// returns the record.
func (c *Client) Retry(ctx context.Context, id string) (Job, error) {
	return c.change(ctx, id, "retry")
}

func (c *Client) change(ctx context.Context, id, what string) (Job, error) {
	a, err := c.try(ctx, http.MethodPost, "/v1/jobs/"+url.PathEscape(id)+"/"+what, nil, nil)
	if err != nil {
		return Job{}, err
	}
	return a.job()
}

// job decodes a record.
func (a answer) job() (Job, error) {
	var job Job
	if err := a.decode(&job); err != nil {
		return Job{}, err
	}
	if job.ID == "" || job.State == "" {
		return Job{}, a.unusable("a record without job_id or state")
	}
	return job, nil
}
