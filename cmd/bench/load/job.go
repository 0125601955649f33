package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// Submit posts a batch and returns the job's ID.
func (c *Caller) Submit(body []byte) (job string, err error) {
	a, err := c.Do(http.MethodPost, "/v1/instances/batch-reset", "", body)
	if err != nil {
		return "", err
	}
	_, after, found := bytes.Cut(a.Body, []byte(`"task_id":"`))
	if a.Status != http.StatusOK || !found || len(after) < jobIDLength {
		return "", fmt.Errorf("submit: the api answers %d %.200s", a.Status, a.Body)
	}
	return string(after[:jobIDLength]), nil
}

const jobIDLength = 32

// ErrSlow says that a job was not final within the time given.
var ErrSlow = errors.New("the job is not final yet")

// Await polls a job until it is final, at most for limit, and expects that it succeeded.
// Polls that find nothing new cost the api little. Its error is ErrSlow when the limit is over.
func (c *Caller) Await(ctx context.Context, job string, limit time.Duration) error {
	path, header := "/v1/jobs/"+job, ""
	for begin := time.Now(); ; {
		a, err := c.Do(http.MethodGet, path, header, nil)
		if err != nil {
			return err
		}
		if a.Status != http.StatusNotModified {
			var record struct {
				Data struct {
					State tasks.JobState `json:"state"`
				} `json:"data"`
			}
			if err := json.Unmarshal(a.Body, &record); a.Status != http.StatusOK || err != nil {
				return fmt.Errorf("status of a job: the api answers %d %.200s", a.Status, a.Body)
			}
			switch state := record.Data.State; {
			case state == tasks.JobSucceeded:
				return nil
			case state.Final():
				return fmt.Errorf("job %s ended as %s", job, state)
			}
			header = "If-None-Match: " + string(a.ETag) + "\r\n"
		}
		if time.Since(begin) > limit {
			return ErrSlow
		}
		if !harness.Pause(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
}

// Time submits a full batch and returns how long it takes until it is final, see Await.
func (c *Caller) Time(ctx context.Context, limit time.Duration) (time.Duration, error) {
	body := NextBatch(BatchSize)
	begin := time.Now()
	job, err := c.Submit(body)
	if err == nil {
		err = c.Await(ctx, job, limit)
	}
	return time.Since(begin), err
}
