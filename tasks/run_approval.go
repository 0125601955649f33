package tasks

import (
	"fmt"
	"strings"
	"time"
)

// Bounds of approvals.
const (
	DefaultApprovalExpiry = 24 * time.Hour
	MaxApprovers          = 20
)

// ApprovalRule says what a new run needs before anything of it begins. The zero rule asks for nothing.
type ApprovalRule struct {
	Approvers int           // how many principals must approve, besides who asks for the run
	Expiry    time.Duration // after which nobody can any more
}

// ApprovalFor is the rule for a run of so many instances under a policy that holds: see Under. asked says that the caller wants it
// in any case.
func (p Policy) ApprovalFor(instances int, asked bool, expiry time.Duration) ApprovalRule {
	above := *p.ApproveAbove > 0 && instances > *p.ApproveAbove
	if !above && !asked {
		return ApprovalRule{}
	}
	return ApprovalRule{max(1, *p.Approvers), expiry}
}

// Approval is what a run needs before anything of it begins, and what was decided.
type Approval struct {
	Approvers int           `json:"approvers"` // how many principals must approve
	ExpiresAt Time          `json:"expires_at"`
	Decisions []RunDecision `json:"decisions"` // in the order of time
}

// Decision is what somebody thinks of a run.
type Decision string

// The decisions.
const (
	Approved Decision = "approved"
	Rejected Decision = "rejected"
)

// RunDecision is what a principal decided about a run. One principal decides once.
type RunDecision struct {
	Principal string   `json:"principal"`
	Decision  Decision `json:"decision"`
	Comment   string   `json:"comment"`
	At        Time     `json:"at"`
}

// Approved reports whether a run needs no approval any more.
func (r Run) Approved() bool {
	if r.Approval == nil {
		return true
	}
	approvals := 0
	for _, d := range r.Approval.Decisions {
		if d.Decision == Approved {
			approvals++
		}
	}
	return approvals >= r.Approval.Approvers
}

// CheckComment returns a sentence that says what is wrong with a comment, or nil.
func CheckComment(comment string) error {
	if strings.TrimSpace(comment) == "" {
		return fmt.Errorf("must say why")
	}
	return CheckReason(comment)
}
