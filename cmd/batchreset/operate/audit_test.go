package operate

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb/redistest"
)

func TestCommandsLeaveATrail(t *testing.T) {
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	path := filepath.Join(t.TempDir(), "fleet.csv")
	if err := os.WriteFile(path, []byte("instance_id,tenant,protected\nphone-1,acme,true\nphone-2,acme,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
	for _, args := range []string{
		"fleet import " + path, "fleet protect phone-2", "fleet unprotect phone-1 phone-2", "fleet remove phone-1",
		"halt --tenant acme --reason oops", "resume --tenant acme", "tenant limit --all --max-failures 3",
		"webhook add --tenant acme --url http://127.0.0.1/secret-path --webhook-allow-private",
	} {
		command(t, environment, strings.Fields(args)...).OK(t)
	}
	out := command(t, environment, "audit", "--output", "jsonl").OK(t).Out
	var got []string
	for line := range strings.Lines(out) {
		var e tasks.AuditEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.By != terminal.Actor("").By || e.At.IsZero() {
			t.Errorf("entry %s", line)
		}
		got = append(got, strings.Join([]string{string(e.Action), e.Tenant, strings.Join(e.InstanceIDs, ","), e.Detail, e.Reason}, "|"))
	}
	endpoint := strings.Fields(command(t, environment, "webhook", "list", "--tenant", "acme").OK(t).Out)[7]
	id := strings.Fields(strings.Split(command(t, environment, "token", "list").OK(t).Out, "\n")[1])[0]
	command(t, environment, "token", "revoke", id).OK(t)
	want := []string{
		"token-add|acme||token " + id + " for submit,read,cancel|",
		"fleet-register|acme|phone-1,phone-2|1 of them protected|",
		"fleet-protect||phone-2||",
		"fleet-unprotect||phone-1,phone-2||",
		"fleet-remove||phone-1||",
		"halt|acme|||oops",
		"resume|acme|||",
		`limit|||{"max_failures":3}|`,
		"webhook-add|acme||endpoint " + endpoint + "|",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("trail:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(out, token) || strings.Contains(out, "secret-path") {
		t.Errorf("a secret is in the trail:\n%s", out)
	}
	for args, lines := range map[string]int{
		"--action halt": 1, "--instance phone-2": 3, "--tenant acme": 6, "--since 2020-01-01T00:00:00Z": 10, "--until 2020-01-01T00:00:00Z --since=": 0,
		"--action token-revoke": 1, "--job 0123456789abcdef0123456789abcdef": 0, "--run 0123456789abcdef0123456789abcdef": 0,
	} {
		out := command(t, environment, append([]string{"audit"}, strings.Fields(args)...)...).OK(t).Out
		if n := strings.Count(out, "\n"); n != lines {
			t.Errorf("%s: %d lines, want %d:\n%s", args, n, lines, out)
		}
	}
	if r := command(t, environment, "audit", "--run", "recall"); r.Code != terminal.ExitUsage || !strings.Contains(r.Said, `--run: "recall" is not a run ID`) {
		t.Errorf("a run that is none: %+v", r)
	}
	if out := command(t, environment, "audit", "--action", "halt").OK(t).Out; !strings.Contains(out, `  halt  tenant acme  "oops"`) {
		t.Errorf("for people: %s", out)
	}
}
