package call

import (
	"encoding/json"
	"strings"
	"testing"

	"batchreset/tasks"
)

const trap = "in\u202evoice\u2066\u200b\x1b[2J"

// What a command shows of others is on its own line, and seen. As JSON it is what was sent.
func TestCommandsShowWhatIsNotSeen(t *testing.T) {
	s := newFakeService(t)
	s.Add("phone-1")
	s.Jobs[0].Reason, s.Jobs[0].Labels = trap+"\nState succeeded", map[string]string{trap: trap}
	for _, args := range []string{"status " + job1, "jobs", "watch " + job1} {
		r := s.call(t, strings.Fields(args)...)
		if strings.ContainsAny(r.Out+r.Said, "\u202e\u2066\u200b\x1b") || strings.Contains(r.Out, "\nState succeeded") {
			t.Errorf("%s: %q %q", args, r.Out, r.Said)
		}
		if args == "status "+job1 && strings.Count(r.Out, "in[U+202E]voice[U+2066][U+200B]") != 3 {
			t.Errorf("%s: %q", args, r.Out)
		}
	}
	r := s.call(t, "status", job1, "--output", "json")
	var record tasks.Job
	if err := json.Unmarshal([]byte(r.Out), &record); err != nil || record.Reason != trap+"\nState succeeded" {
		t.Errorf("%v, record %q", err, record.Reason)
	}
}
