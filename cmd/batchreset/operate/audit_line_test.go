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
