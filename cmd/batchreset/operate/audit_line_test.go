package operate

import (
	"strings"
	"testing"

	"batchreset/tasks"
)

func TestAnEntryShowsWhatIsNotSeen(t *testing.T) {
	const trap = "in\u202evoice\u2066\u200b\x1b[2J"
	line := auditLine(tasks.AuditEntry{By: "user " + trap, Reason: trap, Detail: "x\ny", TaskIDs: []string{trap}, Tasks: 7})
	if strings.ContainsAny(line, "\n\u202e\u2066\u200b\x1b") || !strings.Contains(line, "7 tasks: in[U+202E]voice") {
		t.Errorf("line %q", line)
	}
}

func TestAnEntryNamesItsRun(t *testing.T) {
	e := tasks.Actor{By: "operator alice", Principal: "alice", Reason: "looked at it"}.Entry(tasks.ActionApproveRun)
	e.Tenant, e.Run = "acme", "0123456789abcdef0123456789abcdef"
	if line := auditLine(e); !strings.HasSuffix(line, `operator alice  run-approve  tenant acme  run 0123456789abcdef0123456789abcdef  "looked at it"`) {
		t.Errorf("line %q", line)
	}
}
