package main

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// TestARunThatIsApprovedAndRetried goes the way of a list that needs somebody else: it waits, its own submitter cannot let it
// begin, another one can, by the hash of the list; what failed of it is tried again.
func TestARunThatIsApprovedAndRetried(t *testing.T) {
	t.Parallel()
	plane, url := newWiper(t)
	var repaired atomic.Bool
	plane.fails = func(instance string) bool { return strings.HasSuffix(instance, "7") && !repaired.Load() }
	s := newCampaign(t, url, "--concurrency", "10")
	s.worker().logged("worker started")
	as := func(owner string) map[string]string {
		token := command(t, s.environment, "token", "add", "--tenant", "acme", "--owner", owner, "--scope", "submit,read,cancel,approve").OK(t).Out
		return map[string]string{"BATCHRESET_SERVER": s.environment["BATCHRESET_SERVER"], "BATCHRESET_TOKEN": strings.TrimSpace(token)}
	}
	alice, bob := as("alice"), as("bob")
	list := phonesList(40)
	args := append([]string{"submit", "--approval", "--wait=false", "--yes"}, list...)
	id := strings.TrimSpace(command(t, alice, args...).OK(t).Out)

	hash := tasks.ListHash(list)
	if r := command(t, alice, "run", "approve", id, "--comment", "mine", "--list-sha256", hash); terminal.ExitCode(r.Err) != terminal.ExitRefused || !strings.Contains(r.Err.Error(), "RESET.0005") {
		t.Errorf("her own run: %v", r.Err)
	}
	command(t, bob, "run", "approve", id, "--comment", "c", "--list-sha256", strings.Repeat("0", 64)).Exits(t, terminal.ExitRefused)
	if n := plane.count(); n > 0 {
		t.Errorf("%d were wiped before anybody approved", n)
	}
	command(t, bob, "run", "approve", id, "--comment", "seen", "--list-sha256", hash).OK(t)
	command(t, alice, "run", "watch", id).Exits(t, terminal.ExitSome)

	repaired.Store(true)
	command(t, alice, "run", "retry", id, "--wait", "--yes").OK(t)
	result := filepath.Join(t.TempDir(), "r.csv")
	command(t, alice, "run", "watch", id, "--result", result).OK(t)
	rows, err := readRows(result)
	if err != nil || len(rows) != len(list) {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	plane.mu.Lock()
	seen := map[string]bool{}
	for _, row := range rows {
		id := row["instance_id"]
		if seen[id] || row["state"] != "succeeded" || plane.wiped[id] != 1 {
			t.Errorf("%d wipes, row %v", plane.wiped[id], row)
		}
		seen[id] = true
	}
	plane.mu.Unlock()
	refused := command(t, bob, "run", "retry", id, "--yes")
	if terminal.ExitCode(refused.Err) != terminal.ExitRefused {
		t.Errorf("a run of which all succeeded: %v", refused.Err)
	}
	other := strings.TrimSpace(command(t, bob, "run", "submit", "phone-x", "--approval").OK(t).Out)
	command(t, alice, "run", "reject", other, "--comment", "not this one").OK(t)
	command(t, bob, "run", "watch", other).Exits(t, terminal.ExitSome)
}

func TestDecisionsAboutRunsAreAskedForOnATerminal(t *testing.T) {
	for name, row := range map[string]struct {
		args   []string
		state  tasks.RunState
		shows  []string
		asks   string
		answer string
		done   string // what the service is asked for
	}{
		"approve":         {[]string{"approve", "--comment", "c"}, tasks.RunWaiting, []string{"Name", "recall 7", "sha256 " + tasks.ListHash([]string{"phone-1", "phone-2"})}, "This destroys the data on 2 instances. Approve it? [y/N] ", "y\n", "approve {"},
		"approve, and no": {[]string{"approve", "--comment", "c"}, tasks.RunWaiting, nil, "Approve it? [y/N] ", "n\n", ""},
		"retry":           {[]string{"retry", "--state", "cancelled"}, tasks.RunCancelled, []string{"2 instances to reset again"}, "This destroys the data on them. Go on? [y/N] ", "y\n", `retry {"states":["cancelled"]}`},
		"retry, and no":   {[]string{"retry"}, tasks.RunCancelled, []string{"0 instances to reset again"}, "Go on? [y/N] ", "\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := calltest.NewService(t)
			run := s.AddRun("phone-1", "phone-2")
			s.Mu.Lock() // requests come from another process, which the race detector knows nothing of
			run.State, run.Name, run.Counts = row.state, "recall 7", tasks.Counts{Cancelled: 2}
			s.Mu.Unlock()
			term, tty := newTerminal(t)
			cmd := caller(t, s, append([]string{"run", row.args[0], run1}, row.args[1:]...)...)
			cmd.Stdin, cmd.Stderr = tty, tty
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			asked := term.shows(row.asks)
			for _, part := range row.shows {
				if !strings.Contains(asked, part) {
					t.Errorf("it shows %q before it asks", asked)
				}
			}
			term.types(row.answer)
			_ = cmd.Wait() // its state tells
			s.Mu.Lock()
			defer s.Mu.Unlock()
			code := cmd.ProcessState.ExitCode()
			if row.done == "" && (code != terminal.ExitOther || len(s.Bodies) > 0) || row.done != "" && (code != 0 || !strings.HasPrefix(strings.Join(s.Bodies, ""), row.done)) {
				t.Errorf("exit code %d, asked for %v; it shows %q", code, s.Bodies, term.seen)
			}
		})
	}
}
