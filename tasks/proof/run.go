package proof

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"batchreset/tasks"
)

// runVersion is to the proof of a run what version is to that of a job.
const runVersion = 1

// RunStatement is the first line of a run's proof: what it says of the run as a whole. A time that is
// not known is absent.
type RunStatement struct {
	Version  int        `json:"version"`
	Issuer   Issuer     `json:"issuer"`
	IssuedAt tasks.Time `json:"issued_at"`

	RunID       string            `json:"run_id"`
	Name        string            `json:"name,omitempty"`
	Tenant      string            `json:"tenant"`
	RequestID   string            `json:"request_id"`
	RequestedBy Requester         `json:"requested_by"`
	Reason      string            `json:"reason,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// List is tasks.ListHash of the instances: what was approved.
	List      string     `json:"list_sha256"`
	Options   RunOptions `json:"options"`
	NotBefore tasks.Time `json:"not_before,omitzero"`
	// Approval is what the run needed before anything of it began. nil: nothing.
	Approval *Approval `json:"approval,omitempty"`
	// Retries are the rounds after the first.
	Retries []Retry `json:"retries,omitempty"`

	State      tasks.RunState `json:"state"`
	CreatedAt  tasks.Time     `json:"created_at,omitzero"`
	StartedAt  tasks.Time     `json:"started_at,omitzero"`
	FinishedAt tasks.Time     `json:"finished_at,omitzero"`
	Total      int            `json:"total"`
	Repeats    int            `json:"repeats"` // that were folded
	Counts     tasks.Counts   `json:"counts"`
}

// RunOptions say how the run went on.
type RunOptions struct {
	MaxParallel int     `json:"max_parallel"`
	Canary      int     `json:"canary,omitempty"`
	Soak        string  `json:"soak,omitempty"` // such as "30s"
	Growth      float64 `json:"growth,omitempty"`
	MaxFailures string  `json:"max_failures,omitempty"` // a number, or a percentage such as "2%"
}

// Approval is what a run needed, and what was decided, in the order of time.
type Approval struct {
	Approvers int        `json:"approvers"`
	ExpiresAt tasks.Time `json:"expires_at,omitzero"`
	Decisions []Decision `json:"decisions"`
}

// Decision is what somebody decided about the run.
type Decision struct {
	Principal string         `json:"principal"`
	Decision  tasks.Decision `json:"decision"`
	Comment   string         `json:"comment"`
	At        tasks.Time     `json:"at"`
}

// Retry is a round after the first: the instances that had ended in these states, with one of the codes if there are any, again.
type Retry struct {
	States []tasks.ItemState `json:"states"`
	Codes  []tasks.Code      `json:"error_codes,omitempty"`
}

// RunItem is a line about an instance of a run: what became of it in the last round that it was in.
type RunItem struct {
	Item

	Round int `json:"round"`
}

// seal is what the last line of a run's proof signs.
type seal struct {
	Version int    `json:"version"`
	RunID   string `json:"run_id"`
	Lines   int    `json:"lines"`  // before it
	Digest  string `json:"sha256"` // over them, with their line ends
}

// The last line is its signature between these two.
const (
	beforeSignature = `{"signature":"`
	afterSignature  = `"}` + "\n"
)

// OfRun is the statement about a run that has ended, by this version of the service at this time.
func OfRun(run tasks.Run, serviceVersion string, now tasks.Time) RunStatement {
	s := RunStatement{
		Version: runVersion, Issuer: Issuer{"batchreset", serviceVersion}, IssuedAt: now,
		RunID: run.ID, Name: run.Name, Tenant: run.Tenant, RequestID: run.RequestID,
		RequestedBy: Requester{By: run.By, Principal: run.Principal, From: run.From},
		Reason:      run.Reason, Labels: run.Labels, List: run.ListSHA256, NotBefore: run.NotBefore,
		Options: RunOptions{MaxParallel: run.MaxParallel, Canary: run.Canary, Growth: run.Growth, MaxFailures: run.MaxFailures.String()},
		State:   run.State, CreatedAt: run.CreatedAt, StartedAt: run.StartedAt, FinishedAt: run.FinishedAt,
		Total: run.Total, Repeats: run.Repeats, Counts: run.Counts,
	}
	if run.Soak > 0 {
		s.Options.Soak = time.Duration(run.Soak).String()
	}
	if run.Approval != nil {
		s.Approval = &Approval{Approvers: run.Approval.Approvers, ExpiresAt: run.Approval.ExpiresAt, Decisions: []Decision{}}
		for _, d := range run.Approval.Decisions {
			s.Approval.Decisions = append(s.Approval.Decisions, Decision(d))
		}
	}
	for _, r := range run.Retries {
		s.Retries = append(s.Retries, Retry{r.States, r.Codes})
	}
	return s
}

func runItemOf(in tasks.RunInstance) RunItem {
	it := RunItem{itemOf(in.Item), in.Round}
	if in.JobID == "" {
		it.Driver = ""
	}
	return it
}

// WriteRun writes the proof of a run: the statement, a line for each instance that instances visits, and a
// signature over these lines. It holds one line at a time. Instances that do not fit the statement are an
// error, as is an error of instances: then there is no signature.
func (s *Signer) WriteRun(w io.Writer, statement RunStatement, instances func(visit func(tasks.RunInstance) error) error) error {
	digest := sha256.New()
	lines := json.NewEncoder(io.MultiWriter(w, digest))
	if err := lines.Encode(statement); err != nil {
		return err
	}
	var sum runSum
	if err := instances(func(in tasks.RunInstance) error {
		it := runItemOf(in)
		if err := sum.add(it); err != nil {
			return fmt.Errorf("run %s: %w", statement.RunID, err)
		}
		return lines.Encode(it)
	}); err != nil {
		return err
	}
	if err := sum.check(statement); err != nil {
		return fmt.Errorf("run %s: %w", statement.RunID, err)
	}
	compact, err := s.sign(runType, seal{runVersion, statement.RunID, 1 + statement.Total, hex.EncodeToString(digest.Sum(nil))})
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, beforeSignature+compact+afterSignature)
	return err
}

// runSum adds up the lines about instances.
type runSum struct {
	counts tasks.Counts
	rounds int  // the last that an instance was in
	begun  bool // some of it was in a job
}

func (sum *runSum) add(it RunItem) error {
	_, _, inJob := tasks.ParseItemID(it.ID)
	switch {
	case !it.State.Final():
		return fmt.Errorf("instance %.80q is %.80q, which is no end", it.InstanceID, it.State)
	case !inJob && (it.ID != "" || it.State != tasks.ItemCancelled):
		return fmt.Errorf("instance %.80q is %s, and its item is called %.80q", it.InstanceID, it.State, it.ID)
	}
	*sum.counts.Of(it.State)++
	sum.rounds = max(sum.rounds, it.Round)
	sum.begun = sum.begun || inJob
	return nil
}

// check finds what in a statement contradicts its instances.
func (sum *runSum) check(s RunStatement) error {
	state := tasks.RunState(sum.counts.State())
	unbegun := s.State == tasks.RunRejected || s.State == tasks.RunExpired
	if unbegun {
		state = s.State
	}
	switch n := sum.counts.Total(); {
	case s.Total != n || n == 0:
		return fmt.Errorf("it counts %d instances, and has %d", s.Total, n)
	case s.Counts != sum.counts || s.State != state:
		return fmt.Errorf("it says that the run is %.80q with %+v, and by its instances it is %s with %+v", s.State, s.Counts, state, sum.counts)
	case sum.rounds > 1+len(s.Retries):
		return fmt.Errorf("an instance of it was in round %d, and it had %d", sum.rounds, 1+len(s.Retries))
	case sum.begun && unbegun:
		return fmt.Errorf("it is %s, and instances of it were in jobs", s.State)
	case sum.begun && !s.approved():
		return fmt.Errorf("it was not approved, and instances of it were in jobs")
	}
	return nil
}

// approved reports whether the run could begin.
func (s RunStatement) approved() bool {
	if s.Approval == nil {
		return true
	}
	n := 0
	for _, d := range s.Approval.Decisions {
		switch {
		case d.Decision != tasks.Approved:
			return false
		case d.Principal != s.RequestedBy.Principal:
			n++
		}
	}
	return n >= s.Approval.Approvers
}
