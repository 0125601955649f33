package call

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/tasks"
)

const (
	run1 = "000000000000000000000000000000a0"
	run2 = "000000000000000000000000000000a1"
)

func TestRunSubmit(t *testing.T) {
	t.Run("prints the ID and sends what was said", func(t *testing.T) {
		s := newFakeService(t)
		file := terminaltest.File(t, "phone-2\nphone-3\nphone-1\n")
		s.call(t, "run", "submit", "phone-1", "--file", file, "--name", "recall 7", "--canary", "1", "--soak", "90s", "--growth", "1.5",
			"--max-parallel", "64", "--max-failures", "2%", "--not-before", "2099-01-02T15:04:05Z", "--reason", "r", "--label", "a=b",
			"--run-id", "k").Wants(t, 0, run1+"\n", "1 repeated ID folded")
		sameJSON(t, s.Bodies[0], `{"instance_ids":["phone-1","phone-2","phone-3"],"name":"recall 7","canary":1,"soak":"1m30s","growth":1.5,
			"max_parallel":64,"max_failures":"2%","not_before":"2099-01-02T15:04:05Z","reason":"r","labels":{"a":"b"}}`)
		if s.Keys[0] != `"k"` {
			t.Errorf("key %s", s.Keys[0])
		}
	})
	t.Run("says no more than it must", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "run", "submit", "phone-1", "--canary", "1", "--max-failures", "0").Wants(t, 0, run1+"\n", "")
		sameJSON(t, s.Bodies[0], `{"instance_ids":["phone-1"],"canary":1,"max_parallel":3200,"max_failures":0}`)
		if len(s.Keys[0]) < 10 {
			t.Errorf("key %s", s.Keys[0])
		}
	})
	t.Run("says what the generations must be", func(t *testing.T) {
		fleet := filepath.Join(t.TempDir(), "fleet.csv")
		if err := os.WriteFile(fleet, []byte("instance_id,generation\na,3\nb,\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s := newFakeService(t)
		s.call(t, "run", "submit", "--file", fleet).Wants(t, 0, run1+"\n", "")
		sameJSON(t, s.Bodies[0], `{"instance_ids":["a","b"],"max_parallel":3200,"generation":{"a":3}}`)
	})
	for _, row := range []struct {
		name, args, want string
	}{
		{"no instance", "", "there is no instance ID"},
		{"a bad ID", "a!b", `argument 1: instance ID "a!b" has characters other than`},
		{"a canary larger than the list", "a --canary 2", "--canary is 2, and the list has 1"},
		{"growth below 1", "a --canary 1 --growth 0.5", "--growth must be from 1 to 1000"},
		{"growth of 0", "a --canary 1 --growth 0", "--growth must be from 1 to 1000"},
		{"growth without a canary", "a --growth 2", "--growth needs a canary"},
		{"a soak without a canary", "a --soak 10s", "--soak needs a canary"},
		{"a percentage above 100", "a --max-failures 101%", `--max-failures must be a whole number or a percentage from "0%" to "100%"`},
		{"nothing in parallel", "a --max-parallel 0", "--max-parallel must be from 1"},
		{"a start in the past", "a --not-before -10m", "--not-before is in the past"},
		{"a start by the clock under a key", "a --not-before 10m --run-id k", "--not-before must be a time and not"},
		{"a label without a name", "a --label =x", "--label has a label without a name"},
		{"a long name", "a --name " + strings.Repeat("x", 129), "--name is 129 characters long"},
		{"a dry run that waits", "a --dry-run --wait", "--dry-run does not go together with --wait"},
		{"a result of another form", "a --result x.txt", "--result must be a file called"},
	} {
		t.Run("refuses "+row.name, func(t *testing.T) {
			s := newFakeService(t)
			s.call(t, append([]string{"run", "submit"}, strings.Fields(row.args)...)...).Wants(t, terminal.ExitUsage, "", row.want)
			if s.Requests() != 0 {
				t.Error("something was sent")
			}
		})
	}
	t.Run("says what the service refuses", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "run", "submit", "foreign-1").Wants(t, terminal.ExitRefused, "", "KOOPHONE.API.1001: no permission on instances: 1: foreign-1")
	})
	t.Run("says how to find out what became of a lost answer", func(t *testing.T) {
		s := newFakeService(t)
		s.Submitting = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			calltest.AnswerError(w, 500, "KOOPHONE.API.9999", "internal error")
			return true
		}
		r := s.call(t, "run", "submit", "a", "--run-id", "k", "--not-before", "2099-01-02T15:04:05Z")
		r.Wants(t, terminal.ExitAway, "", "give the same command with --run-id k --not-before 2099-01-02T15:04:05Z: it finds what was accepted")
	})
	t.Run("tries out", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "run", "submit", "--dry-run", "a", "b").Wants(t, 0, "a  would_reset\nb  would_reset\n", "")
		s.call(t, "run", "submit", "--dry-run", "a", "foreign-1", "-o", "csv").Wants(t, terminal.ExitSome, "instance_id,verdict\na,would_reset\nforeign-1,unknown\n", "a submit would be refused")
		if len(s.Runs) != 0 {
			t.Error("a run was made")
		}
	})
	t.Run("waits and writes the result", func(t *testing.T) {
		s := newFakeService(t)
		path := filepath.Join(t.TempDir(), "r.csv")
		r := s.call(t, "run", "submit", "failed-1", "phone-2", "--yes", "--result", path)
		r.Wants(t, terminal.ExitSome, r.Out, "run "+run1+": 2 instances")
		for _, want := range []string{"State       partial", "1 succeeded, 1 failed", "Failures    1 RESET.1007", "failed-1  failed  1         RESET.1007"} {
			if !strings.Contains(r.Out, want) {
				t.Errorf("no %q in\n%s", want, r.Out)
			}
		}
		got, err := os.ReadFile(path)
		if lines := strings.Split(string(got), "\n"); err != nil || len(lines) < 3 || !strings.HasPrefix(lines[0], "instance_id,job_id") || !strings.HasPrefix(lines[1], "failed-1,") {
			t.Errorf("result %s, %v", got, err)
		}
		s = newFakeService(t)
		s.call(t, "run", "submit", "phone-2", "--result", "-").Wants(t, 0, strings.Join(resultColumns, ",")+"\nphone-2,"+strings.Repeat("d", 32)+","+strings.Repeat("d", 32)+"-0,succeeded,1,,,,,\n", "run "+run1)
	})
}

func TestRunWatch(t *testing.T) {
	s := newFakeService(t)
	s.Looks = 2
	s.AddRun("phone-1", "phone-2")
	r := s.call(t, "run", "watch", run1)
	r.Wants(t, 0, r.Out, "run "+run1+": running (wave 1)\n")
	if !strings.Contains(r.Out, "2: 2 succeeded") || !strings.Contains(r.Said, "2 of 2 ended: 2 succeeded") {
		t.Errorf("%s\n%s", r.Out, r.Said)
	}
	s.call(t, "run", "watch", run2).Wants(t, terminal.ExitRefused, "", "RESET.0001: there is no such run")
	s.AddRun("phone-1").State = tasks.RunPaused
	s.call(t, "run", "watch", run2, "--timeout", "300ms").Wants(t, terminal.ExitTimeout, "", "it waits for somebody: 'batchreset run show "+run2+"' tells why")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if r := s.callWith(ctx, nil, "run", "watch", run2); !strings.Contains(r.Said, "the run goes on; 'batchreset run watch "+run2+"' follows it, 'run pause "+run2+"' stops it for now") {
		t.Errorf("interrupted: %+v", r)
	}
}

func TestRunBrakes(t *testing.T) {
	s := newFakeService(t)
	s.Looks = 9
	s.AddRun("phone-1")
	state := func(want string, args ...string) {
		t.Helper()
		if r := s.call(t, append([]string{"run"}, args...)...); r.Code != 0 || !strings.Contains(r.Out, "State       "+want) {
			t.Errorf("%v: %+v", args, r)
		}
	}
	s.call(t, "run", "resume", run1).Wants(t, terminal.ExitRefused, "", "RESET.0003: the run is running")
	state("paused (wave 1)", "pause", run1)
	state("running (wave 1)", "resume", run1, "--max-failures", "5%")
	state("running (wave 1)", "show", run1)
	state("cancelled", "cancel", run1)
	s.call(t, "run", "cancel", run1).Wants(t, terminal.ExitRefused, "", "RESET.0003: the run is cancelled")
	s.call(t, "run", "resume", run1, "--max-failures", "x").Wants(t, terminal.ExitUsage, "", "--max-failures must be a whole number")
	if got := strings.Join(s.Bodies, "; "); got != `resume ; pause ; resume {"max_failures":"5%"}; cancel ; cancel ` {
		t.Errorf("asked %s", got)
	}
	for _, args := range [][]string{{"show"}, {"show", "x"}, {"pause", run1, run2}} {
		if r := s.call(t, append([]string{"run"}, args...)...); r.Code != terminal.ExitUsage {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestRunRetry(t *testing.T) {
	s := newFakeService(t)
	s.AddRun("failed-1", "phone-2")
	s.call(t, "run", "retry", run1).Wants(t, terminal.ExitRefused, "", "RESET.0003: the run is running")
	s.call(t, "run", "watch", run1)
	if r := s.call(t, "run", "retry", run1); r.Code != 0 || !strings.Contains(r.Out, "State       running") {
		t.Errorf("%+v", r)
	}
	s.call(t, "run", "watch", run1)
	r := s.call(t, "run", "retry", run1, "--state", "failed,unknown", "--wait")
	if r.Says(t, "run "+run1+": partial"); r.Code != terminal.ExitSome || !strings.Contains(r.Out, "failed-1  failed") {
		t.Errorf("%+v", r)
	}
	if got := strings.Join(s.Bodies, "; "); got != `retry ; retry ; retry {"states":["failed","unknown"]}` {
		t.Errorf("asked %s", got)
	}
	s.call(t, "run", "retry", run1, "--state", "succeeded").Wants(t, terminal.ExitUsage, "", `--state has "succeeded"`)
	s.call(t, "run", "retry", run2).Wants(t, terminal.ExitRefused, "", "there is no such run")
}

func TestRunApproval(t *testing.T) {
	service := func(t *testing.T) (s *fakeService, hash string) {
		t.Helper()
		s = newFakeService(t)
		run := s.AddRun("phone-1", "phone-2")
		run.State, run.Stage, run.Principal, run.Name = tasks.RunWaiting, "approval", "alice", "recall 7"
		run.Approval = &tasks.Approval{Approvers: 2, Decisions: []tasks.RunDecision{{Principal: "bob", Decision: tasks.Approved, Comment: "seen"}}}
		return s, run.ListSHA256
	}
	t.Run("shows what is approved, and sends the hash that it has shown", func(t *testing.T) {
		s, hash := service(t)
		r := s.call(t, "run", "approve", run1, "--comment", "CHG-42", "--yes")
		r.Says(t, "Name          recall 7\n", "Instances     2: 2 pending", "Asked for by  alice\n", "Approval      1 of 2, until", "approved by bob", ": seen\n", "List          sha256 "+hash)
		if r.Code != 0 || s.Bodies[0] != `approve {"comment":"CHG-42","list_sha256":"`+hash+`"}` || !strings.Contains(r.Out, "State         running") {
			t.Errorf("exit code %d, sent %v, %s", r.Code, s.Bodies, r.Out)
		}
	})
	t.Run("of an expected list asks nothing, and shows nothing first", func(t *testing.T) {
		s, hash := service(t)
		other := strings.Repeat("0", 64)
		s.call(t, "run", "approve", run1, "--comment", "c", "--list-sha256", other).Wants(t, terminal.ExitRefused, "", "RESET.0003: the list of the run is another one")
		if r := s.call(t, "run", "approve", run1, "--comment", "c", "--list-sha256", hash); r.Code != 0 || strings.Contains(r.Said, "recall") {
			t.Errorf("exit code %d, it says %s", r.Code, r.Said)
		}
	})
	t.Run("is refused without a look at it", func(t *testing.T) {
		s, _ := service(t)
		for want, args := range map[string][]string{
			"there is no terminal to ask on":      {"--comment", "c"},
			"--comment is missing":                {"--yes"},
			"--comment is 257 characters long":    {"--yes", "--comment", strings.Repeat("x", 257)},
			"--list-sha256 must be 64 characters": {"--comment", "c", "--list-sha256", "abc"},
			`unexpected argument "` + run2 + `"`:  {run2, "--comment", "c", "--yes"},
			"\"--list-sha256\" flag: it is empty": {"--comment", "c", "--list-sha256", ""},
		} {
			s.call(t, append([]string{"run", "approve", run1}, args...)...).Wants(t, terminal.ExitUsage, "", want)
		}
		if len(s.Bodies) > 0 {
			t.Errorf("sent %v", s.Bodies)
		}
	})
	t.Run("may be refused", func(t *testing.T) {
		s, _ := service(t)
		s.call(t, "run", "reject", run1).Wants(t, terminal.ExitUsage, "", "--comment is missing")
		r := s.call(t, "run", "reject", run1, "--comment", "last week's list")
		if r.Code != 0 || s.Bodies[0] != `reject {"comment":"last week's list"}` || !strings.Contains(r.Out, "State         rejected") {
			t.Errorf("exit code %d, sent %v, %s", r.Code, s.Bodies, r.Out)
		}
		s.call(t, "run", "watch", run1).Says(t, "run "+run1+": rejected")
	})
	t.Run("is asked for by a submit, whatever the number", func(t *testing.T) {
		s := newFakeService(t)
		for _, args := range [][]string{{"submit", "--wait=false"}, {"run", "submit", "--max-parallel", "9"}} {
			s.call(t, append(args, "phone-1", "--approval")...)
		}
		sameJSON(t, s.Bodies[0], `{"instance_ids":["phone-1"],"approval":true}`)
		sameJSON(t, s.Bodies[1], `{"instance_ids":["phone-1"],"max_parallel":9,"approval":true}`)
	})
	t.Run("is waited for", func(t *testing.T) {
		s, _ := service(t)
		s.call(t, "run", "watch", run1, "--timeout", "300ms").Wants(t, terminal.ExitTimeout, "", "run "+run1+": waiting (approval)\nit waits for somebody else: 'batchreset run approve "+run1+"' lets it begin")
	})
}

func TestRunListAndResults(t *testing.T) {
	s := newFakeService(t)
	s.call(t, "run", "list").Wants(t, 0, "", "no runs")
	s.AddRun("phone-1").Labels = map[string]string{"a": "b"}
	s.AddRun("failed-2", "phone-3").Name = "recall \x1b[31m"
	if r := s.call(t, "run", "list"); !strings.Contains(r.Out, run2+`  recall [U+001B][31m`) || strings.Index(r.Out, run2) > strings.Index(r.Out, run1) {
		t.Errorf("list %s", r.Out)
	}
	if r := s.call(t, "run", "list", "--label", "a=b", "--output", "csv"); strings.Contains(r.Out, run2) || !strings.Contains(r.Out, run1) {
		t.Errorf("filtered %s", r.Out)
	}
	for args, want := range map[string]string{
		"--state done": "--state must be one of", "--label x": "--label must be name=value", "--limit 0": "--limit must be at least 1", "--since x": "--since must be a time",
		"--since 1h --until 2h": "--since 1h is after --until 2h",
	} {
		s.call(t, append([]string{"run", "list"}, strings.Fields(args)...)...).Wants(t, terminal.ExitUsage, "", want)
	}
	s.call(t, "run", "watch", run2)
	r := s.call(t, "run", "results", run2, "--state", "failed,unknown", "--output", "csv")
	if lines := strings.Split(strings.TrimSpace(r.Out), "\n"); r.Code != 0 || len(lines) != 3 || !strings.HasPrefix(lines[1], "failed-2,") { // its message has two lines
		t.Errorf("results %+v", r)
	}
	s.call(t, "run", "results", run2, "--state", "done").Wants(t, terminal.ExitUsage, "", "--state must be some of")
	s.call(t, "run", "results", run1[:31]+"f").Wants(t, terminal.ExitRefused, "", "there is no such run")
}
