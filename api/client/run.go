package client

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Run is the record of a run: of a list of any length that is reset as one thing.
type Run struct {
	ID         string    `json:"run_id"`
	Name       string    `json:"name"`
	State      string    `json:"state"` // waiting, running, paused, succeeded, failed, partial, cancelled, rejected or expired
	Stage      string    `json:"stage"` // approval, scheduled, canary, soak, wave n or draining; empty at the end
	RequestID  string    `json:"request_id"`
	Principal  string    `json:"principal"` // who asked for it
	CreatedAt  time.Time `json:"created_at"`
	StartedAt  time.Time `json:"started_at"` // zero until known, like FinishedAt
	FinishedAt time.Time `json:"finished_at"`
	Total      int       `json:"total"`
	Repeats    int       `json:"repeats"` // that were folded
	Counts     Counts    `json:"counts"`
	// Failures are the most frequent error codes of failed and unknown instances.
	Failures   []RunFailure      `json:"failures"`
	ListSHA256 string            `json:"list_sha256"` // of the sorted IDs, each with a line end
	Approval   Approval          `json:"approval"`    // zero: it needs none
	Round      int               `json:"round"`       // 1, and one more after each retry
	NotBefore  time.Time         `json:"not_before"`  // zero: at once
	Held       Held              `json:"held"`
	Reason     string            `json:"reason"`
	Labels     map[string]string `json:"labels"`

	MaxParallel int     `json:"max_parallel"`
	Canary      int     `json:"canary"` // 0: none
	Soak        string  `json:"soak"`   // such as "30s"
	Growth      float64 `json:"growth"`
	MaxFailures Budget  `json:"max_failures"` // empty: any number
	BudgetUsed  int     `json:"budget_used"`  // of it

	RatePerSecond     float64   `json:"rate_per_second"` // of instances that have ended
	EstimatedFinishAt time.Time `json:"estimated_finish_at"`

	Links RunLinks `json:"links"` // empty from an older server

	// Record is the whole record as the server sent it, newer fields included.
	Record json.RawMessage `json:"-"`
}

// Approval is what a run needs before anything of it begins.
type Approval struct {
	Approvers int           `json:"approvers"` // how many must approve, besides who asked
	ExpiresAt time.Time     `json:"expires_at"`
	Decisions []RunDecision `json:"decisions"`
}

// RunDecision is what somebody decided about a run.
type RunDecision struct {
	Principal string    `json:"principal"`
	Decision  string    `json:"decision"` // approved or rejected
	Comment   string    `json:"comment"`
	At        time.Time `json:"at"`
}

// RunLinks are paths on the server at which there is more about a run.
type RunLinks struct {
	Self    string `json:"self"`
	Results string `json:"results"`
	Events  string `json:"events"`
	Proof   string `json:"proof"` // once the run has ended
}

// RunFailure is how many instances ended with a code.
type RunFailure struct {
	Code  string `json:"error_code"`
	Count int    `json:"count"`
}

// Budget is how many instances may fail: a number such as "5", or a percentage such as "2%".
type Budget string

// MarshalJSON writes a number, or a string with a percentage.
func (b Budget) MarshalJSON() ([]byte, error) {
	if b != "" && strings.Trim(string(b), "0123456789") == "" {
		return []byte(b), nil
	}
	return json.Marshal(string(b))
}

// UnmarshalJSON reads either of them.
func (b *Budget) UnmarshalJSON(raw []byte) error {
	if !bytes.HasPrefix(raw, []byte{'"'}) {
		*b = Budget(raw)
		return nil
	}
	return json.Unmarshal(raw, (*string)(b))
}

// UnmarshalJSON reads a record and keeps it as it is, too.
func (r *Run) UnmarshalJSON(raw []byte) error {
	type fields Run
	if err := json.Unmarshal(raw, (*fields)(r)); err != nil {
		return err
	}
	r.Record = bytes.Clone(raw)
	return nil
}

// Final reports whether every instance of the run has ended. The zero Run is not final.
func (r Run) Final() bool {
	switch r.State {
	case "", "waiting", "running", "paused":
		return false
	}
	return true
}

// RunRequest is what to reset as a run. The zero value of an option leaves it to the server.
type RunRequest struct {
	InstanceIDs []string `json:"instance_ids"` // 1 to 100,000, unless the server allows another number
	Name        string   `json:"name,omitempty"`
	// Canary is how many instances go first: all of them must succeed. Soak is how long to wait
	// then, such as "30s". Growth is the factor by which each wave after it is larger.
	Canary int     `json:"canary,omitempty"`
	Soak   string  `json:"soak,omitempty"`
	Growth float64 `json:"growth,omitempty"`
	// MaxParallel is how many instances may be open at a time.
	MaxParallel int `json:"max_parallel,omitempty"`
	// MaxFailures pauses the run once more than so many have failed or are unknown. Unlike in a
	// Batch, "0" allows none; empty allows any number.
	MaxFailures Budget `json:"max_failures,omitempty"`
	// Generation is what the fleet's counter of assignments must be, of those instances that it names: see Batch.
	Generation map[string]int `json:"generation,omitempty"`
	// Approval has the run wait until somebody else has approved it.
	Approval  bool              `json:"approval,omitempty"`
	NotBefore time.Time         `json:"not_before,omitzero"`
	Reason    string            `json:"reason,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	// IdempotencyKey makes the same request the same run, as in a Batch.
	IdempotencyKey string `json:"-"`
}

// Runs are the runs of a client's tenant.
type Runs struct{ client *Client }

// Runs is what can be done with runs.
func (c *Client) Runs() Runs { return Runs{c} }

// Submit makes a run, and returns its record. It is repeated, and fails, as [Client.Submit] does.
func (r Runs) Submit(ctx context.Context, request RunRequest) (Run, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return Run{}, err
	}
	var run Run
	err = r.client.submit(ctx, runsPath, request.IdempotencyKey, body, func(a answer) (err error) {
		run, err = recordOf[Run](a)
		return err
	})
	return run, err
}

// DryRun asks what Submit would do with each instance now. Nothing is stored. An error is the last
// that there is.
func (r Runs) DryRun(ctx context.Context, request RunRequest) iter.Seq2[Verdict, error] {
	body, err := json.Marshal(struct {
		RunRequest
		DryRun bool `json:"dry_run"`
	}{request, true})
	if err != nil {
		return func(yield func(Verdict, error) bool) { yield(Verdict{}, err) }
	}
	return lines[Verdict](ctx, r.client, http.MethodPost, runsPath, body)
}

const runsPath = "/v1/runs"

func runPath(id string) string { return runsPath + "/" + url.PathEscape(id) }

// Get reads the record of a run.
func (r Runs) Get(ctx context.Context, id string) (Run, error) {
	a, err := r.client.get(ctx, runPath(id), nil)
	if err != nil {
		return Run{}, err
	}
	return recordOf[Run](a)
}

// Pause begins nothing more of a run, and returns its record. What runs goes on to its end.
func (r Runs) Pause(ctx context.Context, id string) (Run, error) {
	return r.change(ctx, id, "pause", nil)
}

// Resume goes on with a run that is paused, and returns its record. A budget that is not empty
// replaces the run's; it counts from the start of the run.
func (r Runs) Resume(ctx context.Context, id string, maxFailures Budget) (Run, error) {
	var body []byte
	if maxFailures != "" {
		var err error
		if body, err = json.Marshal(map[string]Budget{"max_failures": maxFailures}); err != nil {
			return Run{}, err
		}
	}
	return r.change(ctx, id, "resume", body)
}

// Cancel cancels what has not begun of a run, for good, and returns its record.
func (r Runs) Cancel(ctx context.Context, id string) (Run, error) {
	return r.change(ctx, id, "cancel", nil)
}

// Retry begins another round of a run that has ended, with its instances in one of the states, and
// returns its record. Without states, the failed ones are tried again.
func (r Runs) Retry(ctx context.Context, id string, states ...string) (Run, error) {
	var body []byte
	if len(states) > 0 {
		var err error
		if body, err = json.Marshal(map[string][]string{"states": states}); err != nil {
			return Run{}, err
		}
	}
	return r.change(ctx, id, "retry", body)
}

// Approve approves a run that somebody else has asked for, and returns its record. listSHA256 is that of
// the list which the caller has seen.
func (r Runs) Approve(ctx context.Context, id, listSHA256, comment string) (Run, error) {
	body, err := json.Marshal(map[string]string{"list_sha256": listSHA256, "comment": comment})
	if err != nil {
		return Run{}, err
	}
	return r.change(ctx, id, "approve", body)
}

// Reject ends a run that waits for approval, and returns its record.
func (r Runs) Reject(ctx context.Context, id, comment string) (Run, error) {
	body, err := json.Marshal(map[string]string{"comment": comment})
	if err != nil {
		return Run{}, err
	}
	return r.change(ctx, id, "reject", body)
}

func (r Runs) change(ctx context.Context, id, what string, body []byte) (Run, error) {
	a, err := r.client.try(ctx, http.MethodPost, runPath(id)+"/"+what, nil, body)
	if err != nil {
		return Run{}, err
	}
	return recordOf[Run](a)
}

func (r Run) isOf(id string) bool { return r.ID != "" && r.State != "" && (id == "" || r.ID == id) }

func (Run) source(id string) (path, event string) { return runPath(id), "run" }
