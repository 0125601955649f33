package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// Accepted is a batch that the service has taken on.
type Accepted struct {
	JobID string         `json:"job_id"`
	Items []AcceptedItem `json:"items"`
}

// AcceptedItem is one instance of an accepted batch.
type AcceptedItem struct {
	ItemID     string `json:"item_id"`
	InstanceID string `json:"instance_id"`
}

// Submit posts one batch: 1 to 32 instance IDs, unless the server allows more.
// Only a 429 makes it send the batch again. An error says that nothing was
// accepted, unless it has ErrUncertain in its chain.
//
// When ctx ends while the request is under way, its outcome is uncertain too.
func (c *Client) Submit(ctx context.Context, instanceIDs []string) (Accepted, error) {
	body, err := json.Marshal(map[string][]string{"instance_ids": instanceIDs})
	if err != nil {
		return Accepted{}, err
	}
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	a, err := c.retry(ctx,
		func() (answer, error) {
			sent.Store(false)
			a, err := c.try(ctx, http.MethodPost, "/v1/instances/batch-reset", nil, body)
			if err != nil && sent.Load() && !refused(err) {
				err = fmt.Errorf("%w: %w", err, ErrUncertain)
			}
			return a, err
		},
		func(_ int, err error) bool {
			e, answered := errors.AsType[*Error](err)
			return answered && e.HTTPStatus == http.StatusTooManyRequests
		})
	if err != nil {
		return Accepted{}, err
	}

	// KooPhone calls a job a task, and an item a job.
	var data struct {
		TaskID  string `json:"task_id"`
		CmdJobs []struct {
			InstanceID string `json:"instance_id"`
			JobID      string `json:"job_id"`
		} `json:"cmd_jobs"`
	}
	err = a.decode(&data)
	if err == nil && data.TaskID == "" {
		err = a.unusable("no task_id")
	}
	if err != nil {
		return Accepted{}, fmt.Errorf("%w: %w", err, ErrUncertain)
	}
	accepted := Accepted{JobID: data.TaskID}
	for _, job := range data.CmdJobs {
		accepted.Items = append(accepted.Items, AcceptedItem{ItemID: job.JobID, InstanceID: job.InstanceID})
	}
	return accepted, nil
}
