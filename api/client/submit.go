package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"
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

// Batch is what to reset.
type Batch struct {
	InstanceIDs []string `json:"instance_ids"` // 1 to 32, unless the server allows more
	// MaxFailures stops the rest of the job once so many items failed; 0 = never.
	MaxFailures int `json:"max_failures,omitempty"`
	// NotBefore puts the job off, by up to 7 days; until then a cancel is certain to
	// take it back. Zero: at once.
	NotBefore time.Time         `json:"not_before,omitzero"`
	Reason    string            `json:"reason,omitempty"` // up to 256 characters
	Labels    map[string]string `json:"labels,omitempty"` // up to 8
	// Generation is what the fleet's counter of assignments must be for an instance: one that
	// was assigned again since is not reset. Instances that it does not name may have any.
	Generation map[string]int `json:"generation,omitempty"`
	// IdempotencyKey makes the same batch the same job, however often it is
	// submitted. Empty: Submit makes one up, for its own tries.
	IdempotencyKey string `json:"-"`
}

// Submit posts one batch. After a 429, for as long as ctx lasts, and after an answer
// that was lost, a few times, it sends the batch again, under the same Idempotency-Key,
// so that it becomes one job. An error says that nothing was accepted, unless it has
// ErrUncertain in its chain.
//
// When ctx ends while the request is under way, its outcome is uncertain too.
func (c *Client) Submit(ctx context.Context, b Batch) (Accepted, error) {
	body, err := json.Marshal(b)
	if err != nil {
		return Accepted{}, err
	}
	var accepted Accepted
	err = c.submit(ctx, "/v1/instances/batch-reset", b.IdempotencyKey, body, func(a answer) (err error) {
		accepted, err = a.accepted()
		return err
	})
	return accepted, err
}

// submit posts a body under a key, which it makes up if there is none, until take has an answer.
func (c *Client) submit(ctx context.Context, path, key string, body []byte, take func(answer) error) error {
	if key == "" {
		key = rand.Text()
	}
	quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
	header := http.Header{"Idempotency-Key": {quoted}}
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	uncertain := false // since a try before
	_, err := c.retry(ctx,
		func() (answer, error) {
			sent.Store(false)
			a, err := c.try(ctx, http.MethodPost, path, header, body)
			if err == nil {
				err = take(a)
			}
			uncertain = uncertain || err != nil && sent.Load() && !refused(err)
			if err != nil && uncertain {
				err = fmt.Errorf("%w: %w", err, ErrUncertain)
			}
			return a, err
		},
		func(tries int, _ time.Duration, err error) bool {
			return tooMany(err) || errors.Is(err, ErrUncertain) && !refused(err) && tries < maxTries
		})
	return err
}

// Verdict is what a dry run says of an instance: "would_reset", "unknown" (not
// registered, or another tenant's), "protected", "reassigned" (another generation), "busy" (it would wait), or "over_quota".
type Verdict struct {
	InstanceID string `json:"instance_id"`
	Verdict    string `json:"verdict"`
}

// DryRun asks what Submit would do with each instance now. Nothing is stored.
func (c *Client) DryRun(ctx context.Context, b Batch) ([]Verdict, error) {
	body, err := json.Marshal(struct {
		Batch
		DryRun bool `json:"dry_run"`
	}{b, true})
	if err != nil {
		return nil, err
	}
	var data struct {
		DryRun    bool      `json:"dry_run"`
		Instances []Verdict `json:"instances"`
	}
	a, err := c.retry(ctx,
		func() (answer, error) {
			a, err := c.try(ctx, http.MethodPost, "/v1/instances/batch-reset", http.Header{}, body)
			if err == nil {
				err = a.decode(&data)
			}
			return a, err
		},
		func(_ int, _ time.Duration, err error) bool { return tooMany(err) })
	if err == nil && !data.DryRun {
		// An older service ignores the field and has begun.
		return nil, a.unusable("it does not know dry_run: the instances are being reset")
	}
	if err == nil && len(data.Instances) == 0 {
		return nil, a.unusable("no instances")
	}
	return data.Instances, err
}

// accepted decodes the answer to a batch. KooPhone calls a job a task, and an item
// a job.
func (a answer) accepted() (Accepted, error) {
	var data struct {
		TaskID  string `json:"task_id"`
		CmdJobs []struct {
			InstanceID string `json:"instance_id"`
			JobID      string `json:"job_id"`
		} `json:"cmd_jobs"`
	}
	if err := a.decode(&data); err != nil {
		return Accepted{}, err
	}
	if data.TaskID == "" {
		return Accepted{}, a.unusable("no task_id")
	}
	accepted := Accepted{JobID: data.TaskID}
	for _, job := range data.CmdJobs {
		accepted.Items = append(accepted.Items, AcceptedItem{ItemID: job.JobID, InstanceID: job.InstanceID})
	}
	return accepted, nil
}
