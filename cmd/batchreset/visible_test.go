package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"batchreset/tasks"
)

const trap = "in\u202evoice\u2066\u200b\x1b[2J"

func TestTheLogShowsWhatIsNotSeen(t *testing.T) {
	var out bytes.Buffer
	newLogger(&out).With("tenant", trap).Info("refused "+trap, "path", "/"+trap+"\n{}", "instance_ids", []string{trap}, "error", errors.New(trap))
	if lines := strings.Split(out.String(), "\n"); len(lines) != 2 || lines[1] != "" || strings.ContainsAny(lines[0], "\u202e\u2066\u200b\x1b") {
		t.Fatalf("log %q", out.String())
	}
	var line struct {
		Msg, Tenant, Path, Error string
		InstanceIDs              []string `json:"instance_ids"`
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || !strings.HasPrefix(line.Path, "/in[U+202E]voice[U+2066][U+200B]") || line.InstanceIDs == nil {
		t.Errorf("%v, line %+v", err, line)
	}
}

// What a command shows of others is on its own line, and seen. As JSON it is what was sent.
func TestCommandsShowWhatIsNotSeen(t *testing.T) {
	s := newFakeService(t)
	s.add("phone-1")
	s.jobs[0].Reason, s.jobs[0].Labels = trap+"\nState succeeded", map[string]string{trap: trap}
	for _, args := range []string{"status " + job1, "jobs", "watch " + job1} {
		r := s.call(t, strings.Fields(args)...)
		if strings.ContainsAny(r.out+r.err, "\u202e\u2066\u200b\x1b") || strings.Contains(r.out, "\nState succeeded") {
			t.Errorf("%s: %q %q", args, r.out, r.err)
		}
		if args == "status "+job1 && strings.Count(r.out, "in[U+202E]voice[U+2066][U+200B]") != 3 {
			t.Errorf("%s: %q", args, r.out)
		}
	}
	r := s.call(t, "status", job1, "--output", "json")
	var record tasks.Job
	if err := json.Unmarshal([]byte(r.out), &record); err != nil || record.Reason != trap+"\nState succeeded" {
		t.Errorf("%v, record %q", err, record.Reason)
	}
	line := auditLine(tasks.AuditEntry{By: "user " + trap, Reason: trap, Detail: "x\ny", TaskIDs: []string{trap}, Tasks: 7})
	if strings.ContainsAny(line, "\n\u202e\u2066\u200b\x1b") || !strings.Contains(line, "7 tasks: in[U+202E]voice") {
		t.Errorf("line %q", line)
	}
}
