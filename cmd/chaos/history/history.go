package history

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

// Kind says what an event is.
type Kind string

// The kinds of events.
const (
	Submit Kind = "submit" // a batch was sent to the api
	Read   Kind = "read"   // a job's record was read from the api
	Cancel Kind = "cancel" // the api was asked to cancel a job
	Retry  Kind = "retry"  // the api was asked to retry a job
	Call   Kind = "call"   // the control plane was asked for a reset
	Look   Kind = "look"   // the control plane was asked what state an instance is in
	Told   Kind = "told"   // a webhook said that a job has ended
	Fault  Kind = "fault"  // the harness broke something, and repaired it

	Protect Kind = "protect" // an instance was protected, from End to a later Free
	Move    Kind = "move"    // an instance was given to another tenant, in the same way
	Free    Kind = "free"    // an instance was given back, or its protection ended
	Brake   Kind = "brake"   // something was stopped while Redis was full
	Odd     Kind = "odd"     // a batch was sent whose names are repeated or misspelled

	SubmitRun Kind = "submit-run" // a list was sent to the api
	ReadRun   Kind = "read-run"   // a run's record was read from the api
	PauseRun  Kind = "pause-run"  // the api was asked to pause a run
	ResumeRun Kind = "resume-run" // the api was asked to let a run go on
	CancelRun Kind = "cancel-run" // the api was asked to cancel a run
	RetryRun  Kind = "retry-run"  // the api was asked for another round of a run

	ApproveRun Kind = "approve-run" // somebody else than who asked for a run approved it
	RejectRun  Kind = "reject-run"  // somebody rejected it
	Results    Kind = "results"     // the results of a run were read to their end
)

// Answers of the control plane to a call.
const (
	Success    = "success"
	Failure    = "failure" // worth a retry
	Refusal    = "refusal" // not worth a retry
	TurnedAway = "turned"  // the gateway answered by itself: nothing was reset
	Lie        = "lie"     // it was called done, and nothing was reset
)

// Answers of the control plane to a look; none if it was not answered in these words.
const (
	SaidInitial    = "initial"
	SaidNotInitial = "not initial"
)

const (
	// Tenant is the one that the caller and all of its jobs belong to.
	Tenant = "chaos"
	// BadInstance is no instance's ID: a submit with it is refused.
	BadInstance = "no such/phone"
)

// Event is something that happened during a run. Begin and End are measured from
// the start of the run by one clock, the harness's.
type Event struct {
	Kind  Kind          `json:"kind"`
	Begin time.Duration `json:"begin_ns"`
	End   time.Duration `json:"end_ns"`

	// Job is of a submit, read, cancel or retry; empty for a submit whose answer was
	// lost or was not 200.
	Job string `json:"job,omitempty"`
	// Instances, MaxFailures and NotBefore are what a submit asked for; an odd one is
	// about these instances at the most. Status is the answer, 0 if there was none, of a
	// submit only what was not 200.
	Instances   []string      `json:"instances,omitempty"`
	MaxFailures int           `json:"max_failures,omitempty"`
	NotBefore   time.Duration `json:"not_before_ns,omitempty"`
	Status      int           `json:"status,omitempty"`
	// Body is of an odd submit.
	Body string `json:"body,omitempty"`
	// States are what a retry asked for.
	States []string `json:"states,omitempty"`
	// Record is what a read or a webhook showed; nil means that there is no such job.
	Record *client.Job `json:"record,omitempty"`

	// Run is of what is about a run: empty for a request whose answer was lost or was not 200.
	Run string `json:"run,omitempty"`
	// Request is what a run was asked to be, without its list, which is in Instances.
	Request *client.RunRequest `json:"request,omitempty"`
	// Budget is a resume's; empty: the run keeps its own.
	Budget client.Budget `json:"max_run_failures,omitempty"`
	// RunRecord is what a read showed; nil means that there is no such run. Rows are its results.
	RunRecord *client.Run        `json:"run_record,omitempty"`
	Rows      []client.RunResult `json:"rows,omitempty"`

	// A call's.
	Worker   string `json:"worker,omitempty"`
	Instance string `json:"instance,omitempty"`
	Item     string `json:"item,omitempty"`
	Attempt  int    `json:"attempt,omitempty"`
	// Key is the Idempotency-Key, of a submit too, or the ID of what a webhook told.
	Key string `json:"key,omitempty"`
	// Answer is what came of the reset at the control plane, by End; Status is what the
	// worker was told, which may be something else and come earlier. It did not wait for
	// it if Gone.
	Answer string `json:"answer,omitempty"`
	Gone   bool   `json:"gone,omitempty"`

	// Evidence is what a look was answered beside its Answer, a text of its own for each look, and
	// Initial what is true: whether the instance was in its initial state when it was looked at.
	Evidence string `json:"evidence,omitempty"`
	Initial  bool   `json:"initial,omitempty"`

	// A fault's.
	Fault  fault.Kind `json:"fault,omitempty"`
	Target string     `json:"target,omitempty"`

	// Error is why a request was not answered with 200.
	Error string `json:"error,omitempty"`
}

// during reports whether the event has a moment in common with [from, to].
func (e Event) during(from, to time.Duration) bool { return e.Begin <= to && e.End >= from }

// Tried is the job that a submit was to make: it follows from the key.
func (e Event) Tried() string { return tasks.Submission{Tenant: Tenant, IdempotencyKey: e.Key}.JobID() }

// TriedRun is the run that a request was to make: it follows from the key.
func (e Event) TriedRun() string {
	return tasks.RunSubmission{Tenant: Tenant, IdempotencyKey: e.Key}.RunID()
}

// refused reports whether the answer to a request was that it is not carried out.
func (e Event) refused() bool { return e.Status >= 400 && e.Status < 500 }

// settled is when a request cannot come to anything any more: it may be under way long after its
// caller gave up.
func (e Event) settled() time.Duration {
	if e.Status == http.StatusOK {
		return e.End
	}
	return e.End + echo
}

// String is a line of a story.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%9.3fs to %9.3fs  %-6s ", e.Begin.Seconds(), e.End.Seconds(), e.Kind)
	switch e.Kind {
	case Call:
		fmt.Fprintf(&b, "%s by %s, item %s, attempt %d, key %s: %s, told %d", e.Instance, e.Worker, e.Item, e.Attempt, e.Key, e.Answer, e.Status)
		if e.Gone {
			b.WriteString(", the worker had gone")
		}
	case Look:
		fmt.Fprintf(&b, "%s by %s, %s: said %q, initial is %t, told %d", e.Instance, e.Worker, e.Evidence, e.Answer, e.Initial, e.Status)
		if e.Gone {
			b.WriteString(", the worker had gone")
		}
	case Fault:
		fmt.Fprintf(&b, "%s %s", e.Fault, e.Target)
	case Read:
		if e.Record == nil {
			fmt.Fprintf(&b, "%s: no such job", e.Job)
			break
		}
		fmt.Fprintf(&b, "%s: %s, %d items, %+v", e.Job, e.Record.State, e.Record.Total, e.Record.Counts)
		for _, it := range e.Record.Items {
			fmt.Fprintf(&b, "\n%33s%s %s: %s, %d attempts %s %s", "", it.ItemID, it.InstanceID, it.State, it.Attempts, it.Code, it.Evidence)
		}
	case Told:
		fmt.Fprintf(&b, "%s: %s since %s", e.Key, e.Record.State, e.Record.FinishedAt.Format(time.RFC3339Nano))
	case Submit:
		fmt.Fprintf(&b, "%s, key %s, max_failures %d, %v %s", cmp.Or(e.Job, "not acknowledged"), e.Key, e.MaxFailures, e.Instances, e.Error)
	case Odd:
		fmt.Fprintf(&b, "%s: %d, %s", e.Body, e.Status, cmp.Or(e.Job, "no job"))
	case Protect, Move, Free:
		fmt.Fprintf(&b, "%s %s", e.Instance, e.Error)
	case Brake:
		fmt.Fprintf(&b, "%s %s", e.Target, e.Error)
	case SubmitRun:
		fmt.Fprintf(&b, "%s, key %s, %+v, %d instances %s", cmp.Or(e.Run, "not acknowledged"), e.Key, *e.Request, len(e.Instances), e.Error)
	case ReadRun:
		if e.RunRecord == nil {
			fmt.Fprintf(&b, "%s: no such run", e.Run)
			break
		}
		fmt.Fprintf(&b, "%s: %s %s %s, %d instances, %+v", e.Run, e.RunRecord.State, e.RunRecord.Stage, e.RunRecord.Held.Reason, e.RunRecord.Total, e.RunRecord.Counts)
	case PauseRun, ResumeRun, CancelRun, RetryRun, ApproveRun, RejectRun:
		fmt.Fprintf(&b, "%s: %d %s %v %s", e.Run, e.Status, e.Budget, e.States, e.Error)
	case Results:
		fmt.Fprintf(&b, "%s: %d rows", e.Run, len(e.Rows))
	default:
		fmt.Fprintf(&b, "%s %v %s", e.Job, e.States, e.Error)
	}
	return b.String()
}

// Run is the history of a run: everything that is known of it.
type Run struct {
	Start          time.Time     // when the events' clock was 0
	Forgets        fault.Kind    // at which Redis may lose what it has answered; empty: at none
	MaxAttempts    int           // the workers' --max-attempts
	AttemptTimeout time.Duration // of the workers; 0 = not known
	// Repeatable says that the control plane does calls with one key only once.
	Repeatable bool
	// Looks says that the driver looks, and LookPatience for how long. A phone is used again when a
	// job is submitted that names it.
	Looks        bool
	LookPatience time.Duration

	GiveUpAfter time.Duration // the api's --give-up-after; 0 = longer than the run
	// Skew is how far Redis's clocks may be from the harness's.
	Skew   time.Duration
	Events []Event
}

// Recorder collects the events of a run. It is safe for concurrent use.
type Recorder struct {
	Start time.Time // when the events' clock is 0

	mu     sync.Mutex
	events []Event
}

// Now is the time on the events' clock.
func (r *Recorder) Now() time.Duration { return time.Since(r.Start) }

// Add adds an event.
func (r *Recorder) Add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// Events are those that were collected so far, in the order in which they came.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// WriteFile writes the events to a file, one JSON object a line.
func (h Run) WriteFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // the second Close, unless encoding failed
	enc := json.NewEncoder(f)
	for _, e := range h.Events {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	return f.Close()
}
