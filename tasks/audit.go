package tasks

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
)

// Action is a kind of decision that the audit trail keeps.
type Action string

// The actions.
const (
	ActionSubmit           Action = "submit"
	ActionCancel           Action = "cancel"
	ActionRetry            Action = "retry"
	ActionHalt             Action = "halt"
	ActionResume           Action = "resume"
	ActionLimit            Action = "limit"
	ActionRegister         Action = "fleet-register"
	ActionMove             Action = "fleet-move" // to another tenant
	ActionReaddress        Action = "fleet-address"
	ActionReassign         Action = "fleet-reassign" // to another user of the tenant
	ActionUnregister       Action = "fleet-remove"
	ActionProtect          Action = "fleet-protect"
	ActionUnprotect        Action = "fleet-unprotect"
	ActionRun              Action = "run"
	ActionPauseRun         Action = "run-pause"
	ActionResumeRun        Action = "run-resume"
	ActionCancelRun        Action = "run-cancel"
	ActionRetryRun         Action = "run-retry"
	ActionApproveRun       Action = "run-approve"
	ActionRejectRun        Action = "run-reject"
	ActionExpireRun        Action = "run-expire"
	ActionAddToken         Action = "token-add"
	ActionAddWebhook       Action = "webhook-add"
	ActionRotateWebhook    Action = "webhook-rotate"
	ActionChangeWebhook    Action = "webhook-change"
	ActionEnableWebhook    Action = "webhook-enable"
	ActionDisableWebhook   Action = "webhook-disable"
	ActionRemoveWebhook    Action = "webhook-remove"
	ActionAddOperator      Action = "operator-add"
	ActionOperatorPassword Action = "operator-passwd"
	ActionOperatorRole     Action = "operator-role"
	ActionRemoveOperator   Action = "operator-remove"
	ActionInviteOperator   Action = "operator-invite" // a link, with which they choose a password
	ActionSecondFactor     Action = "operator-totp"
	ActionNoSecondFactor   Action = "operator-totp-reset"
	ActionEndSession       Action = "session-end"
	ActionRotateToken      Action = "token-rotate"
	ActionRevokeToken      Action = "token-revoke"
	ActionLogin            Action = "login"
	ActionFailedLogin      Action = "login-failed"
	ActionLogout           Action = "logout"
	ActionDashboard        Action = "dashboard"
	ActionQuietWorker      Action = "worker-quiet"
	ActionTakeWorker       Action = "worker-take"
	ActionStopWorker       Action = "worker-stop"
)

// Actions lists every action.
var Actions = []Action{
	ActionSubmit, ActionCancel, ActionRetry, ActionRun, ActionPauseRun, ActionResumeRun, ActionCancelRun, ActionRetryRun, ActionApproveRun, ActionRejectRun, ActionExpireRun,
	ActionHalt, ActionResume, ActionLimit, ActionRegister, ActionMove, ActionReaddress, ActionReassign, ActionUnregister,
	ActionProtect, ActionUnprotect, ActionAddToken, ActionRotateToken, ActionRevokeToken,
	ActionAddWebhook, ActionChangeWebhook, ActionRotateWebhook, ActionEnableWebhook, ActionDisableWebhook, ActionRemoveWebhook,
	ActionAddOperator, ActionOperatorPassword, ActionOperatorRole, ActionRemoveOperator,
	ActionInviteOperator, ActionSecondFactor, ActionNoSecondFactor,
	ActionLogin, ActionFailedLogin, ActionLogout, ActionEndSession, ActionDashboard,
	ActionQuietWorker, ActionTakeWorker, ActionStopWorker,
}

// Actor is who decides something, and why.
type Actor struct {
	// By is who: see AuditEntry. From is the address that the request came from, RequestID
	// its ID, Reason what the actor said; each of them may be empty.
	By, From, RequestID, Reason string
	// Principal is the person or program behind By.
	Principal string
}

// Entry is the beginning of an entry about something that the actor decides.
func (a Actor) Entry(action Action) AuditEntry {
	e := AuditEntry{Action: action, By: a.By, From: a.From, RequestID: a.RequestID, Reason: a.Reason}
	if a.Principal != a.By {
		e.Principal = a.Principal
	}
	return e
}

// AuditEntry is a decision that was allowed. It is written before it is carried out, so
// that nothing is done without one; what came of it is in the job's record.
type AuditEntry struct {
	At     Time   `json:"at,omitzero"` // by Redis's clock, when it was written
	Action Action `json:"action"`
	// By is who: "token <ID>", "user <name>@<host>" for a command,
	// "operator <name>" on the operators' site, "dashboard" where nobody is logged in, or
	// "worker <ID>" for one that has halted everything because Redis has gone back in time.
	By string `json:"by"`
	// Principal is the owner of the token, or the operator; empty if By says it all.
	Principal string `json:"principal,omitempty"`
	From      string `json:"from,omitempty"` // the address that the request came from
	// Tenant is the tenant that it is about; empty if it is about all of them.
	Tenant    string `json:"tenant,omitempty"`
	Job       string `json:"job_id,omitempty"`
	Run       string `json:"run_id,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	// InstanceIDs are what it is about; List tells one list from another, whatever its
	// order.
	InstanceIDs []string `json:"instance_ids,omitempty"`
	List        string   `json:"list_sha256,omitempty"`
	// TaskIDs are the asynq tasks that it is about, the first of them if there are more than
	// MaxAuditTasks; Tasks is how many there are.
	TaskIDs []string `json:"task_ids,omitempty"`
	Tasks   int      `json:"tasks,omitempty"`

	Reason string `json:"reason,omitempty"`
	Detail string `json:"detail,omitempty"` // more about the action
	// DecidedAt is when it was decided, if the entry could only be written later.
	DecidedAt Time `json:"decided_at,omitzero"`
}

// Who is by whom it was decided, for people: "token 95fc2204aaaea600 (alice)".
func (e AuditEntry) Who() string {
	if e.Principal == "" || strings.HasSuffix(e.By, " "+e.Principal) {
		return e.By
	}
	return e.By + " (" + e.Principal + ")"
}

// Stops reports whether the decision stops or removes something, or lets somebody in who may
// want to do that. Such a decision is carried out even if its entry cannot be written: stopping
// must always work.
func (e AuditEntry) Stops() bool {
	switch e.Action {
	case ActionLogin, ActionLogout, ActionEndSession, ActionCancel, ActionCancelRun, ActionPauseRun, ActionRejectRun, ActionExpireRun, ActionHalt, ActionUnregister, ActionProtect, ActionRevokeToken, ActionRemoveWebhook, ActionRemoveOperator, ActionQuietWorker, ActionStopWorker:
		return true
	case ActionDashboard: // "POST /path:what"; there, too, everything else pauses, archives or deletes
		_, what, _ := strings.Cut(e.Detail, ":")
		return what != "resume" && !strings.HasPrefix(what, "run") && !strings.HasPrefix(what, "batch_run")
	default:
		return false
	}
}

// About adds the instances to an entry.
func (e AuditEntry) About(instances []string) AuditEntry {
	e.InstanceIDs, e.List = instances, ListHash(instances)
	return e
}

// MaxAuditTasks is how many tasks an entry names: more than the dashboard shows on a page.
const MaxAuditTasks = 100

// maxTaskID is how much of a task's ID an entry has. Ours are shorter.
const maxTaskID = 100

// AboutTasks adds asynq tasks to an entry.
func (e AuditEntry) AboutTasks(ids []string) AuditEntry {
	e.Tasks, e.TaskIDs = len(ids), nil
	for _, id := range ids[:min(len(ids), MaxAuditTasks)] {
		e.TaskIDs = append(e.TaskIDs, strings.ToValidUTF8(id[:min(len(id), maxTaskID)], ""))
	}
	return e
}

// ListHash is a SHA-256 over the sorted instances, each with a line end: what
// "LC_ALL=C sort list.txt | sha256sum" says of a file with one ID per line.
func ListHash(instances []string) string {
	h := sha256.New()
	for _, id := range slices.Sorted(slices.Values(instances)) {
		_, _ = fmt.Fprintln(h, id) // never fails
	}
	return hex.EncodeToString(h.Sum(nil))
}

var listHash = regexp.MustCompile(`^[0-9a-f]{64}$`)

// ValidListHash reports whether text can be a ListHash.
func ValidListHash(text string) bool { return listHash.MatchString(text) }

// LogAttrs are the fields of an entry for a line of the log.
func (e AuditEntry) LogAttrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("action", string(e.Action)), slog.String("by", e.By)}
	for _, a := range []struct{ name, value string }{
		{"principal", e.Principal},
		{"from", e.From},
		{"tenant", e.Tenant},
		{"job", e.Job},
		{"run", e.Run},
		{"request_id", e.RequestID},
		{"list_sha256", e.List},
		{"reason", e.Reason},
		{"detail", e.Detail},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.name, a.value))
		}
	}
	if !e.DecidedAt.IsZero() {
		attrs = append(attrs, slog.Time("decided_at", e.DecidedAt.Time))
	}
	if len(e.InstanceIDs) > 0 {
		attrs = append(attrs, slog.Any("instance_ids", e.InstanceIDs))
	}
	if e.Tasks > 0 {
		attrs = append(attrs, slog.Int("tasks", e.Tasks), slog.Any("task_ids", e.TaskIDs))
	}
	return attrs
}

// AuditFilter selects entries of the trail. An empty field selects everything.
type AuditFilter struct {
	Since, Until Time // from the first to before the second
	Action       Action
	Tenant       string
	Job          string
	Run          string
	InstanceID   string
}

// Match reports whether the filter selects an entry. It does not look at the times.
func (f AuditFilter) Match(e AuditEntry) bool {
	return (f.Action == "" || f.Action == e.Action) && (f.Tenant == "" || f.Tenant == e.Tenant) && (f.Run == "" || f.Run == e.Run) &&
		(f.Job == "" || f.Job == e.Job || slices.ContainsFunc(e.TaskIDs, func(id string) bool { return strings.HasPrefix(id, f.Job+"-") })) && (f.InstanceID == "" || slices.Contains(e.InstanceIDs, f.InstanceID))
}
