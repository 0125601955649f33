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
	return c.submit("/v1/instances/batch-reset", "task_id", body)
}

// SubmitRun posts a run and returns its ID.
func (c *Caller) SubmitRun(body []byte) (run string, err error) {
	return c.submit("/v1/runs", "run_id", body)
}

// submit returns the ID that has the name in the answer.
func (c *Caller) submit(path, name string, body []byte) (id string, err error) {
	a, err := c.Do(http.MethodPost, path, "", body)
	if err != nil {
		return "", err
	}
	_, after, found := bytes.Cut(a.Body, []byte(`"`+name+`":"`))
	if a.Status != http.StatusOK || !found || len(after) < idLength {
		return "", fmt.Errorf("submit: the api answers %d %.200s", a.Status, a.Body)
	}
	return string(after[:idLength]), nil
}

const idLength = 32 // of a job, and of a run

// ErrSlow says that a job or run was not final within the time given.
var ErrSlow = errors.New("it is not final yet")

// Await polls a job until it is final, at most for limit, and expects that it succeeded.
// Polls that find nothing new cost the api little. Its error is ErrSlow when the limit is over.
func (c *Caller) Await(ctx context.Context, job string, limit time.Duration) error {
	return c.await(ctx, "/v1/jobs/"+job, limit)
}

// AwaitRun is Await for a run.
func (c *Caller) AwaitRun(ctx context.Context, run string, limit time.Duration) error {
	return c.await(ctx, "/v1/runs/"+run, limit)
}

func (c *Caller) await(ctx context.Context, path string, limit time.Duration) error {
	header := ""
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
				return fmt.Errorf("GET %s: the api answers %d %.200s", path, a.Status, a.Body)
			}
			switch state := record.Data.State; {
			case state == tasks.JobSucceeded:
				return nil
			case state.Final():
				return fmt.Errorf("%s ended as %s", path, state)
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
