package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"time"
)

// typeLines is the media type of answers without an envelope that have a JSON text a line.
const typeLines = "application/jsonl"

// RunsFilter selects among the tenant's runs. An empty field selects everything. The fields are those
// of a JobsFilter.
type RunsFilter struct {
	State        string
	Labels       []string
	Since, Until time.Time
	Limit        int
}

// runsPage is a part of a list of runs.
type runsPage struct {
	Runs       []Run  `json:"runs"`
	NextCursor string `json:"next_cursor"` // empty on the last page
}

// List lists the tenant's runs, newest first. It asks for the next page when the loop has come to it.
// An error is the last that there is.
func (r Runs) List(ctx context.Context, f RunsFilter) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		for cursor := ""; ; {
			query := JobsFilter{State: f.State, Labels: f.Labels, Since: f.Since, Until: f.Until, Limit: f.Limit}.query(cursor)
			page, err := r.page(ctx, query)
			if err != nil {
				yield(Run{}, err)
				return
			}
			for _, run := range page.Runs {
				if !yield(run, nil) {
					return
				}
			}
			if cursor = page.NextCursor; cursor == "" {
				return
			}
		}
	}
}

func (r Runs) page(ctx context.Context, query url.Values) (page runsPage, err error) {
	path := runsPath
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	a, err := r.client.get(ctx, path, nil)
	if err != nil {
		return page, err
	}
	if err := a.decode(&page); err != nil {
		return page, err
	}
	if page.Runs == nil {
		return page, a.unusable("no list of runs")
	}
	for _, run := range page.Runs {
		if !run.isOf("") {
			return page, a.unusable("a record without run_id or state")
		}
	}
	return page, nil
}

// Wait follows a run until it is final or ctx ends, as [Client.Wait] follows a job, and returns the last
// record that it saw. A run that pauses is followed further: somebody may resume it.
func (r Runs) Wait(ctx context.Context, id string, onChange func(Run)) (Run, error) {
	return follow(ctx, r.client, id, onChange)
}

// RunResult is an instance of a run and what has become of it.
type RunResult struct {
	InstanceID string    `json:"instance_id"`
	JobID      string    `json:"job_id,omitempty"` // empty until it is in a job, like ItemID
	ItemID     string    `json:"item_id,omitempty"`
	State      string    `json:"state"` // of the item
	Attempts   int       `json:"attempts"`
	Code       string    `json:"error_code,omitempty"`
	Message    string    `json:"error_msg,omitempty"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Evidence   string    `json:"evidence,omitempty"`
}

// Results reads a row for each instance of a run, in the order of its list, or for those in one of
// the states. The rows come while the server reads them, so that any number fits. An error is the last
// that there is: without one, the loop has seen every row. It asks once.
func (r Runs) Results(ctx context.Context, id string, states ...string) iter.Seq2[RunResult, error] {
	path := runPath(id) + "/results"
	if len(states) > 0 {
		path += "?" + url.Values{"state": states}.Encode()
	}
	return lines[RunResult](ctx, r.client, http.MethodGet, path, nil)
}

// lines reads the lines of an answer without an envelope.
func lines[T any](ctx context.Context, c *Client, method, path string, body []byte) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		a, resp, err := c.send(ctx, c.streams, method, path, nil, body)
		if err != nil {
			yield(none, err)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
		if a.status != http.StatusOK || kind != typeLines {
			if _, err = c.read(a, resp.Body); err == nil {
				err = a.unusable("no lines")
			}
			yield(none, err)
			return
		}
		c.reached.Store(true)
		for d := json.NewDecoder(resp.Body); ; {
			var line T
			err := d.Decode(&line)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(none, fmt.Errorf("%w from %s that is whole: %w", ErrNoAnswer, c.shown, err))
				return
			case !yield(line, nil):
				return
			}
		}
	}
}
