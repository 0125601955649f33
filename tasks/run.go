package tasks

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a run.
const (
	DefaultMaxRunInstances = 100_000
	DefaultMaxParallel     = 3200
	MaxRunName             = 128 // characters
	DefaultGrowth          = 2.0
	MaxGrowth              = 1000
	// MaxSoak is how long a run may wait after its canary.
	MaxSoak = 7 * 24 * time.Hour
	// partSize is how many instances a part of a run has at most: it becomes one job.
	partSize = DefaultMaxInstances
	// budgetFrom is how many instances must have ended before a budget in percent counts.
	budgetFrom = 20
)

// RunState says where a run stands.
type RunState string

// The states of a run. After running and paused it ends as a job does.
const (
	RunWaiting   RunState = "waiting" // for its time
	RunRunning   RunState = "running"
	RunPaused    RunState = "paused" // by somebody, or because too many failed
	RunSucceeded RunState = "succeeded"
	RunFailed    RunState = "failed"
	RunPartial   RunState = "partial"
	RunCancelled RunState = "cancelled"
)

// RunStates lists every state of a run, in the order of a life.
var RunStates = []RunState{RunWaiting, RunRunning, RunPaused, RunSucceeded, RunFailed, RunPartial, RunCancelled}

// Final reports whether every instance of a run in this state has ended.
func (s RunState) Final() bool {
	switch s {
	case RunSucceeded, RunFailed, RunPartial, RunCancelled:
		return true
	}
	return false
}

// Budget is how many instances may fail, or end as unknown, before a run pauses: a number, or
// a percentage of those that have ended. The zero Budget is none.
type Budget struct {
	text    string // "" = none
	number  int
	percent float64
}

// ParseBudget reads a whole number from 0 on, or a percentage from 0% to 100%; "" is none.
func ParseBudget(text string) (Budget, error) {
	b := Budget{text: text}
	var err error
	digits, percentage := strings.CutSuffix(text, "%")
	switch {
	case text == "":
		return b, nil
	case percentage:
		b.percent, err = strconv.ParseFloat(digits, 64)
		if err != nil || strings.Trim(digits, "0123456789.") != "" || b.percent > 100 {
			return Budget{}, fmt.Errorf(`must be a whole number or a percentage from "0%%" to "100%%", not %.80q`, text)
		}
	default:
		b.number, err = strconv.Atoi(text)
		if err != nil || b.number < 0 || b.number > MaxLimit {
			return Budget{}, fmt.Errorf(`must be a whole number from 0 to %d, or a percentage such as "2%%", not %.80q`, MaxLimit, text)
		}
	}
	return b, nil
}

// String is what ParseBudget reads.
func (b Budget) String() string { return b.text }

// IsZero reports whether there is no budget.
func (b Budget) IsZero() bool { return b.text == "" }

// Exceeded reports whether so many failed or unknown instances, of those that have ended, are too many.
func (b Budget) Exceeded(failures, ended int) bool {
	switch {
	case b.text == "":
		return false
	case strings.HasSuffix(b.text, "%"):
		return ended >= budgetFrom && float64(failures)*100 > b.percent*float64(ended)
	}
	return failures > b.number
}

// MarshalJSON writes a number, or a string with a percentage.
func (b Budget) MarshalJSON() ([]byte, error) {
	if strings.HasSuffix(b.text, "%") {
		return json.Marshal(b.text)
	}
	return json.Marshal(b.number)
}

// Duration is a time span on the wire, such as "30s".
type Duration time.Duration

// MarshalText writes it as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// RunOptions say how a run goes on.
type RunOptions struct {
	MaxParallel int `json:"max_parallel"` // instances that may be open at a time
	// Canary is how many instances go first; all of them must succeed. 0 = none.
	Canary int      `json:"canary,omitempty"`
	Soak   Duration `json:"soak,omitzero"` // after the canary
	// Growth is the factor by which each wave after the canary is larger; 0 without a canary.
	Growth      float64 `json:"growth,omitempty"`
	MaxFailures Budget  `json:"max_failures,omitzero"`
}

// Check returns a sentence that names the option that is wrong, or nil. total is how many
// instances there are.
func (o RunOptions) Check(total int) error {
	switch {
	case o.MaxParallel < 1 || o.MaxParallel > MaxLimit:
		return fmt.Errorf("max_parallel must be from 1 to %d", MaxLimit)
	case o.Canary < 0:
		return fmt.Errorf("canary must not be negative")
	case o.Canary > total:
		return fmt.Errorf("canary is %d, and there are only %d instances", o.Canary, total)
	case o.Soak < 0 || time.Duration(o.Soak) > MaxSoak:
		return fmt.Errorf("soak must be from 0s to %d days", MaxSoak/(24*time.Hour))
	case o.Canary == 0 && o.Soak > 0:
		return fmt.Errorf("soak needs a canary")
	case o.Canary == 0 && o.Growth != 0:
		return fmt.Errorf("growth needs a canary")
	case o.Canary > 0 && (math.IsNaN(o.Growth) || o.Growth < 1 || o.Growth > MaxGrowth):
		return fmt.Errorf("growth must be from 1 to %d", MaxGrowth)
	}
	return nil
}

// Part is some instances of a run, which become one job.
type Part struct {
	Wave        int // 0 = the canary, or the first wave of a run without one is 1
	InstanceIDs []string
}

// Parts cuts a list, in its order, into parts: no part has instances of two waves, or more of them than
// may be open at a time.
func (o RunOptions) Parts(instanceIDs []string) (parts []Part) {
	size := min(partSize, o.MaxParallel)
	wave, length := 1, len(instanceIDs)
	if o.Canary > 0 {
		wave, length = 0, o.Canary
	}
	for len(instanceIDs) > 0 {
		length = min(length, len(instanceIDs))
		for part := range slices.Chunk(instanceIDs[:length], size) {
			parts = append(parts, Part{wave, part})
		}
		instanceIDs = instanceIDs[length:]
		wave++
		grown := math.Ceil(float64(o.Canary) * math.Pow(o.Growth, float64(wave)))
		if length = len(instanceIDs); grown < float64(min(length, o.MaxParallel)) {
			length = int(grown)
		}
	}
	return parts
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
	NotBefore         Time
	Reason            string
	Labels            map[string]string
	By, From          string
	Traceparent       string
	IdempotencyKey    string
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
	if !s.NotBefore.IsZero() {
		parts = append(parts, "not_before="+strconv.FormatInt(s.NotBefore.UnixMilli(), 10))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		parts = append(parts, "label="+name, "="+s.Labels[name])
	}
	return digest(append(parts, s.InstanceIDs...)...)
}

// PartJobID is the ID of the job that a part of a run becomes: it cannot become two.
func PartJobID(run string, part int) string { return digest("part", run, strconv.Itoa(part)) }

// Run is the record of a run, as callers read it.
type Run struct {
	ID         string   `json:"run_id"`
	Name       string   `json:"name,omitempty"`
	State      RunState `json:"state"`
	Stage      string   `json:"stage,omitempty"` // scheduled, canary, soak, wave n, or draining; empty at the end
	RequestID  string   `json:"request_id"`
	CreatedAt  Time     `json:"created_at,omitzero"`
	StartedAt  Time     `json:"started_at,omitzero"`
	FinishedAt Time     `json:"finished_at,omitzero"`
	Total      int      `json:"total"`
	Repeats    int      `json:"repeats"`
	Counts     Counts   `json:"counts"`
	// Failures are the most frequent error codes of failed and unknown instances.
	Failures   []RunFailure      `json:"failures,omitempty"`
	ListSHA256 string            `json:"list_sha256"`
	NotBefore  Time              `json:"not_before,omitzero"`
	Held       Held              `json:"held,omitzero"`
	Reason     string            `json:"reason,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	RunOptions `json:",inline"`
	// RatePerSecond is how many instances ended, and EstimatedFinishAt follows from it.
	RatePerSecond     float64 `json:"rate_per_second,omitempty"`
	EstimatedFinishAt Time    `json:"estimated_finish_at,omitzero"`

	Tenant            string `json:"-"`
	Fingerprint       string `json:"-"`
	AllowUnregistered bool   `json:"-"`
	By, From          string `json:"-"`
	Traceparent       string `json:"-"`
	Revision          int64  `json:"-"`
	// Retention is how long the record is kept after the end.
	Retention time.Duration `json:"-"`
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
	if r.Cancelled {
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
	if ended := r.Total - r.Counts.Open(); r.State == RunRunning && ended > 0 && !r.StartedAt.IsZero() && now.After(r.StartedAt.Time) {
		r.RatePerSecond = float64(ended) / now.Sub(r.StartedAt.Time).Seconds()
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
	case r.State == RunWaiting:
		return "scheduled"
	case r.Cancelled, r.Next == r.Parts:
		return "draining"
	case !r.SoakUntil.IsZero() && r.Wave == 0:
		return "soak"
	case r.Wave == 0 && r.Canary > 0:
		return "canary"
	}
	return "wave " + strconv.Itoa(max(1, r.Wave))
}

// TooManyFailed returns why a run, completed by Sum, has to pause, or "".
func (r Run) TooManyFailed() string {
	failures := r.Counts.Failed + r.Counts.Unknown
	switch {
	case r.CanaryFailed() && !r.CanaryPassed:
		return fmt.Sprintf("the canary failed: of its %d instances %d failed, %d are unknown and %d were cancelled",
			r.Canary, r.Counts.Failed, r.Counts.Unknown, r.Counts.Cancelled)
	case r.MaxFailures.Exceeded(failures, failures+r.Counts.Succeeded):
		return fmt.Sprintf("too many failed: %d failed and %d unknown are more than max_failures %s allows", r.Counts.Failed, r.Counts.Unknown, r.MaxFailures)
	}
	return ""
}

// CanaryFailed reports whether not all of the canary will have succeeded. One that was cancelled, with its job,
// shows nothing.
func (r Run) CanaryFailed() bool {
	return r.Canary > 0 && r.Wave == 0 && !r.Cancelled && r.Counts.Failed+r.Counts.Unknown+r.Counts.Cancelled > 0
}

// Braked reports whether no attempt at an instance may begin.
func (r Run) Braked() bool { return r.Cancelled || r.State == RunPaused }

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
}

// RunFilter selects among a tenant's runs. An empty field selects everything.
type RunFilter struct {
	State        RunState
	Labels       []string // name=value, all of them
	Since, Until time.Time
	Limit        int
	Cursor       string
}

// Match reports whether state and labels fit.
func (f RunFilter) Match(r Run) bool {
	return (f.State == "" || f.State == r.State) && hasLabels(r.Labels, f.Labels)
}
