package tasks

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a run.
const (
	DefaultMaxRunInstances = 100_000
	// MaxMaxRunInstances is more than a request of 8 MiB can list of IDs in use anywhere.
	MaxMaxRunInstances = 1_000_000
	MaxRunName         = 128 // characters
)

// RunState says where a run stands.
type RunState string

// The states of a run. After running and paused it ends as a job does.
const (
	RunWaiting   RunState = "waiting" // for approval, or for its time
	RunRunning   RunState = "running"
	RunPaused    RunState = "paused" // by somebody, or because too many failed
	RunSucceeded RunState = "succeeded"
	RunFailed    RunState = "failed"
	RunPartial   RunState = "partial"
	RunCancelled RunState = "cancelled"
	RunRejected  RunState = "rejected" // nothing of it began
	RunExpired   RunState = "expired"  // nor of this one: nobody decided in time
)

// RunStates lists every state of a run, in the order of a life.
var RunStates = []RunState{RunWaiting, RunRunning, RunPaused, RunSucceeded, RunFailed, RunPartial, RunCancelled, RunRejected, RunExpired}

// Final reports whether nothing of a run in this state goes on.
func (s RunState) Final() bool {
	switch s {
	case RunSucceeded, RunFailed, RunPartial, RunCancelled, RunRejected, RunExpired:
		return true
	}
	return false
}

// RunSubmission is a request that passed every check and is to become a run.
type RunSubmission struct {
	Tenant            string
	RequestID         string
	Name              string
	InstanceIDs       []string // checked, without repeats
	Repeats           int      // that were folded
	AllowUnregistered bool
	Options           RunOptions
	// Generations are those of the fleet's counters that the instances must have; without one any will do.
	Generations    map[string]int
	AskApproval    bool // the caller wants it, whatever the policy says
	Approval       ApprovalRule
	NotBefore      Time
	Reason         string
	Labels         map[string]string
	By, From       string
	Principal      string
	Traceparent    string
	IdempotencyKey string
}

// RunID is the ID of the run: random, or made from the tenant and the idempotency key.
func (s RunSubmission) RunID() string {
	if s.IdempotencyKey == "" {
		return NewJobID()
	}
	return digest("run", s.Tenant, s.IdempotencyKey)
}

// Fingerprint tells one request of a tenant from another.
func (s RunSubmission) Fingerprint() string {
	o := s.Options
	parts := []string{
		s.Tenant, s.Name, strconv.Itoa(o.MaxParallel), strconv.Itoa(o.Canary), time.Duration(o.Soak).String(),
		strconv.FormatFloat(o.Growth, 'g', -1, 64), o.MaxFailures.String(), s.Reason,
	}
	if s.AskApproval {
		parts = append(parts, "approval")
	}
	if !s.NotBefore.IsZero() {
		parts = append(parts, "not_before="+strconv.FormatInt(s.NotBefore.UnixMilli(), 10))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		parts = append(parts, "label="+name, "="+s.Labels[name])
	}
	for _, instance := range s.InstanceIDs {
		if n := s.Generations[instance]; n != 0 {
			parts = append(parts, "generation="+strconv.Itoa(n), instance)
		}
	}
	return digest(append(parts, s.InstanceIDs...)...)
}

// PartJobID is the ID of the job that a part of a run becomes: it cannot become two.
func PartJobID(run string, part int) string { return digest("part", run, strconv.Itoa(part)) }

// Run is the record of a run, as callers read it.
type Run struct {
	ID        string   `json:"run_id"`
	Name      string   `json:"name,omitempty"`
	State     RunState `json:"state"`
	Stage     string   `json:"stage,omitempty"` // approval, scheduled, canary, soak, wave n, or draining; empty at the end
	RequestID string   `json:"request_id"`
	// Principal is who asked for it.
	Principal  string `json:"principal,omitempty"`
	CreatedAt  Time   `json:"created_at,omitzero"`
	StartedAt  Time   `json:"started_at,omitzero"`
	FinishedAt Time   `json:"finished_at,omitzero"`
	Total      int    `json:"total"`
	Repeats    int    `json:"repeats"`
	Counts     Counts `json:"counts"`
	// Failures are the most frequent error codes of failed and unknown instances.
	Failures   []RunFailure      `json:"failures,omitempty"`
	ListSHA256 string            `json:"list_sha256"`
	Approval   *Approval         `json:"approval,omitempty"` // nil: it needs none
	NotBefore  Time              `json:"not_before,omitzero"`
	Held       Held              `json:"held,omitzero"`
	Reason     string            `json:"reason,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	RunOptions `json:",inline"`
	// BudgetUsed is how many instances of this round have failed or are unknown, if there is a budget.
	BudgetUsed int `json:"budget_used,omitempty"`
	// Round is 1, and one more after each retry.
	Round int `json:"round"`
	// RatePerSecond is how many instances of this round ended, and EstimatedFinishAt follows from it.
	RatePerSecond     float64 `json:"rate_per_second,omitempty"`
	EstimatedFinishAt Time    `json:"estimated_finish_at,omitzero"`
	// Links are paths of the API; zero where nobody asked it.
	Links RunLinks `json:"links,omitzero"`

	Tenant            string `json:"-"`
	Fingerprint       string `json:"-"`
	AllowUnregistered bool   `json:"-"`
	By, From          string `json:"-"`
	Traceparent       string `json:"-"`
	Revision          int64  `json:"-"`
	// Retention is how long the record is kept after the end, TaskRetention how long asynq keeps notices that were sent.
	Retention     time.Duration `json:"-"`
	TaskRetention time.Duration `json:"-"`
	// GiveUpAfter is its jobs': who makes them may have another setting.
	GiveUpAfter time.Duration `json:"-"`
	// Untold are the events that its tenant's endpoints are still to be told of, in order.
	Untold []RunEvent `json:"-"`
	// Cancelled says that nothing of it may begin any more.
	Cancelled bool `json:"-"`
	// Parts is how many parts the list has, Next the first one that was not made into a job, Wave
	// the wave of the part before that.
	Parts, Next, Wave int `json:"-"`
	// Open are the parts whose jobs have not been counted yet, and how many instances each has.
	Open map[int]int `json:"-"`
	// Closed counts the instances of the other parts that were made into jobs, Codes their failures.
	Closed Counts       `json:"-"`
	Codes  map[Code]int `json:"-"`
	// CanaryPassed says that the waves after the canary may begin: all succeeded, or somebody resumed the run.
	CanaryPassed bool `json:"-"`
	// SoakUntil is when they may begin, once the canary has ended.
	SoakUntil Time `json:"-"`
	// WaveAt is when the wave of the part before Next began.
	WaveAt Time `json:"-"`
	// Retries are the rounds after the first. Before counts the instances that ended in earlier rounds and
	// stay as they are; this round began to begin at RoundAt.
	Retries []RunRetry `json:"-"`
	Before  Counts     `json:"-"`
	RoundAt Time       `json:"-"`
}

// RunRest is how many instances of a run that goes on are in no job yet.
type RunRest struct {
	Run, Tenant string
	Instances   int
}

// RunLinks are the paths of the API at which there is more about a run.
type RunLinks struct {
	Self    string `json:"self"`
	Results string `json:"results"`
	Events  string `json:"events"`
	Proof   string `json:"proof"` // once the run has ended
}

// RunFailure is how many instances failed with a code.
type RunFailure struct {
	Code  Code `json:"error_code"`
	Count int  `json:"count"`
}

// mostFailures is how many codes a record has.
const mostFailures = 20

// Sum completes a record as it is stored by what the jobs of its open parts say; those that are
// not there yet wait.
func (r Run) Sum(jobs map[int]Job, now time.Time) Run {
	r.Counts = r.Closed
	codes := maps.Clone(r.Codes)
	if codes == nil {
		codes = map[Code]int{}
	}
	made := r.Closed.Total()
	for part, size := range r.Open {
		made += size
		job, found := jobs[part]
		if !found {
			r.Counts.Pending += size
			continue
		}
		for _, state := range ItemStates {
			*r.Counts.Of(state) += *job.Counts.Of(state)
		}
		for code, n := range job.FailureCodes() {
			codes[code] += n
		}
	}
	if r.State == RunRunning && !r.Cancelled && r.Held.Reason == "" {
		r.Held = longestHeld(jobs)
	}
	if r.Over() {
		r.Counts.Cancelled += r.Total - made
	} else {
		r.Counts.Pending += r.Total - made
	}
	r.Failures = nil
	for code, n := range codes {
		r.Failures = append(r.Failures, RunFailure{code, n})
	}
	slices.SortFunc(r.Failures, func(a, b RunFailure) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(string(a.Code), string(b.Code))
	})
	r.Failures = r.Failures[:min(len(r.Failures), mostFailures)]
	r.Stage = r.stage()
	round := r.round()
	if !r.MaxFailures.IsZero() {
		r.BudgetUsed = round.Failed + round.Unknown
	}
	if ended := round.Total() - round.Open(); r.State == RunRunning && ended > 0 && !r.RoundAt.IsZero() && now.After(r.RoundAt.Time) {
		r.RatePerSecond = float64(ended) / now.Sub(r.RoundAt.Time).Seconds()
		r.EstimatedFinishAt = Time{now.Add(time.Duration(float64(r.Counts.Open()) / r.RatePerSecond * float64(time.Second)))}
	}
	return r
}

// longestHeld is why the job that has been held for longest is.
func longestHeld(jobs map[int]Job) (held Held) {
	for _, part := range slices.Sorted(maps.Keys(jobs)) {
		if h := jobs[part].Held; !h.Since.IsZero() && (held.Since.IsZero() || h.Since.Before(held.Since.Time)) {
			held = h
		}
	}
	return held
}

// FailureCodes are the codes of the failed and unknown items.
func (j Job) FailureCodes() map[Code]int {
	codes := map[Code]int{}
	for _, it := range j.Items {
		if it.State == ItemFailed || it.State == ItemUnknown {
			codes[it.Code]++
		}
	}
	return codes
}

func (r Run) stage() string {
	switch {
	case r.State.Final():
		return ""
	case r.Cancelled:
		return "draining"
	case !r.Approved():
		return "approval"
	case r.State == RunWaiting:
		return "scheduled"
	case r.Next == r.Parts:
		return "draining"
	case !r.SoakUntil.IsZero() && r.Wave == 0:
		return "soak"
	case r.Wave == 0 && r.Canary > 0:
		return "canary"
	}
	return "wave " + strconv.Itoa(max(1, r.Wave))
}

// round are the counts of this round alone.
func (r Run) round() Counts {
	counts := r.Counts
	for _, state := range ItemStates {
		*counts.Of(state) -= *r.Before.Of(state)
	}
	return counts
}

// TooManyFailed returns why a run, completed by Sum, has to pause, or "". A budget is one for each round.
func (r Run) TooManyFailed() string {
	round := r.round()
	failures := round.Failed + round.Unknown
	switch {
	case r.CanaryFailed() && !r.CanaryPassed:
		return fmt.Sprintf("the canary failed: of its %d instances %d failed, %d are unknown and %d were cancelled",
			min(r.Canary, round.Total()), round.Failed, round.Unknown, round.Cancelled)
	case r.MaxFailures.Exceeded(failures, failures+round.Succeeded):
		return fmt.Sprintf("too many failed: %d failed and %d unknown are more than max_failures %s allows", round.Failed, round.Unknown, r.MaxFailures)
	}
	return ""
}

// CanaryFailed reports whether not all of the canary will have succeeded. One that was cancelled, with its job,
// shows nothing.
func (r Run) CanaryFailed() bool {
	round := r.round()
	return r.Canary > 0 && r.Wave == 0 && !r.Cancelled && round.Failed+round.Unknown+round.Cancelled > 0
}

// Braked reports whether no attempt at an instance may begin; jobs are those of its open parts. Once all jobs of a run
// that was cancelled know that they are, they need no brake, and what dead workers have left of them must come to its end.
func (r Run) Braked(jobs map[int]Job) bool {
	switch {
	case r.State == RunPaused:
		return true
	case !r.Cancelled || r.State.Final():
		return false
	}
	for part := range r.Open {
		if job, made := jobs[part]; !made || job.Stop == "" && !job.State.Final() {
			return true
		}
	}
	return false
}

// Over reports whether nothing of a run begins any more that has not begun.
func (r Run) Over() bool { return r.Cancelled || r.State == RunRejected || r.State == RunExpired }

// stageTexts are stages for people, after the state.
var stageTexts = map[string]string{
	"approval": "for approval", "scheduled": "for its time", "soak": "after the canary", "draining": "its last instances",
}

// StageText is the stage for people, to be read after the state: "running" "its last instances".
func (r Run) StageText() string { return cmp.Or(stageTexts[r.Stage], r.Stage) }

// Tag changes with every change of a record that Sum has completed.
func (r Run) Tag() string {
	return fmt.Sprintf("%d.%d.%s", r.CreatedAt.UnixMilli(), r.Revision, digest(fmt.Sprint(r.Counts, r.Stage, r.Failures, r.Held))[:8])
}

// RunClaim is a run that a runner has for itself for a while.
type RunClaim struct {
	Run   string
	Token string
	Until time.Time // as the index of open runs says
}

// RunGone is the error of a run that does not exist.
const RunGone Refusal = "there is no such run"

// RunInstance is an instance of a run and what has become of it.
type RunInstance struct {
	JobID string // empty until it is in a job
	Item  Item   // without an ID until then: pending, or cancelled
	Round int    // that says so: the last one that it was in
	// Generation is what the fleet's counter must be; 0: any.
	Generation int
}

// RunInstanceFilter selects among the instances of a run. An empty field selects everything.
type RunInstanceFilter struct {
	States []ItemState
	Code   Code
	Limit  int
	Cursor string
}

// Match reports whether an item fits.
func (f RunInstanceFilter) Match(it Item) bool {
	return (len(f.States) == 0 || slices.Contains(f.States, it.State)) && (f.Code == "" || f.Code == it.Code)
}

// Failures reports whether it selects nothing but failed and unknown instances.
func (f RunInstanceFilter) Failures() bool {
	return len(f.States) > 0 && !slices.ContainsFunc(f.States, func(s ItemState) bool { return s != ItemFailed && s != ItemUnknown })
}

// RunFilter selects among a tenant's runs. An empty field selects everything.
type RunFilter struct {
	State        RunState
	Labels       []string // name=value, all of them
	Since, Until time.Time
	Request      RequestFilter
	Name         string // for people; operators look for it
	Limit        int
	Cursor       string
}

// Match reports whether state, labels, request and name fit.
func (f RunFilter) Match(r Run) bool {
	return (f.State == "" || f.State == r.State) && hasLabels(r.Labels, f.Labels) && f.Request.Match(r.RequestID, r.Traceparent) &&
		(f.Name == "" || strings.EqualFold(f.Name, r.Name))
}

// RunSearch selects among the runs of all tenants, or of one.
type RunSearch struct {
	Tenant string
	Ended  bool // only those that have
	RunFilter
}

// SomeRuns are the first ones of some runs.
type SomeRuns struct {
	Runs []Run
	More int // how many more there are
}

// Match reports whether tenant, end, state and labels fit.
func (s RunSearch) Match(r Run) bool {
	return (s.Tenant == "" || s.Tenant == r.Tenant) && (!s.Ended || r.State.Final()) && s.RunFilter.Match(r)
}
