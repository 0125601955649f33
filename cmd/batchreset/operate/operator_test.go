package operate

import (
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/tasks/redisdb/redistest"
)

func TestOperatorCommands(t *testing.T) {
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	good := terminaltest.File(t, "correct horse battery\n")
	for _, row := range []struct{ name, args, want string }{
		{"a short password", "operator add alice --password-file " + terminaltest.File(t, "eleven char\n"), "--password-file: the password must have at least 12 characters"},
		{"a password that bcrypt would cut", "operator add alice --password-file " + terminaltest.File(t, strings.Repeat("x", 73)+"\n"), "at most 72 bytes"},
		{"a file that is not there", "operator add alice --password-file /nowhere", "--password-file"},
		{"no terminal", "operator add alice", "--password-file is missing, and there is no terminal"},
		{"a password for nobody", "operator passwd alice --password-file " + good, `there is no operator "alice"`},
		{"a role for nobody", "operator role alice viewer", `there is no operator "alice"`},
		{"a role that is none", "operator role alice boss", `ROLE must be of viewer,approver,operator,admin, not "boss"`},
		{"a second factor of nobody", "operator totp-reset alice", `there is no operator "alice"`},
		{"force without a reason", "operator remove alice --force", "--force needs a --reason"},
		{"a removal of nobody", "operator remove alice", `there is no operator "alice"`},
	} {
		t.Run("refuses "+row.name, func(t *testing.T) {
			command(t, environment, strings.Fields(row.args)...).WantError(t, row.want)
		})
	}
	if out := command(t, environment, "operator", "list", "--output", "jsonl").OK(t).Out; out != "" {
		t.Errorf("there is somebody all the same: %s", out)
	}
	command(t, environment, "operator", "add", "alice", "--role", "operator", "--password-file", good).OK(t)
	command(t, environment, "operator", "add", "alice", "--password-file", good).WantError(t, "alice is there already")
	command(t, environment, "operator", "add", "wall", "--password-file", good).OK(t)
	command(t, environment, "operator", "passwd", "alice", "--password-file", terminaltest.File(t, "another horse battery\n")).OK(t)
	out := command(t, environment, "operator", "list").OK(t).Out
	if fields := strings.Fields(out); len(fields) != 9 || fields[3] != "alice" || fields[4] != "operator" || fields[6] != "wall" || fields[7] != "viewer" {
		t.Errorf("list:\n%s", out)
	}
	command(t, environment, "operator", "role", "wall", "operator").OK(t)
	command(t, environment, "operator", "role", "wall", "operator").OK(t) // which it has: nothing is decided
	command(t, environment, "operator", "remove", "wall").OK(t)
	trail := command(t, environment, "audit").OK(t).Out
	for _, want := range []string{"operator-add  alice as operator", "operator-passwd  alice as operator", "operator-role  wall as operator", "operator-remove  wall"} {
		if strings.Count(trail, want) != 1 {
			t.Errorf("%q is not once in the trail:\n%s", want, trail)
		}
	}
	if strings.Contains(trail, "battery") {
		t.Error("a password is in the trail")
	}
}

func TestTheLastAdminStays(t *testing.T) {
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	good := terminaltest.File(t, "correct horse battery\n")
	add := func(name, role string) {
		t.Helper()
		command(t, environment, "operator", "add", name, "--role", role, "--password-file", good).OK(t)
	}
	add("alice", "admin")
	add("bob", "operator")
	for _, args := range []string{"operator remove alice", "operator role alice operator"} {
		r := command(t, environment, strings.Fields(args)...)
		r.WantError(t, "this is the only admin with a password: first make somebody else an admin, or use --force with a --reason")
		r.Exits(t, terminal.ExitRefused)
	}
	command(t, environment, "operator", "role", "bob", "admin").OK(t)
	command(t, environment, "operator", "remove", "alice").OK(t)
	command(t, environment, "operator", "remove", "bob").WantError(t, "the only admin")
	command(t, environment, "operator", "remove", "bob", "--force", "--reason", "the issuer knows them all").OK(t)
	if trail := command(t, environment, "audit").OK(t).Out; !strings.Contains(trail, "the issuer knows them all") || strings.Count(trail, "operator-remove") != 2 || strings.Count(trail, "operator-role") != 1 {
		t.Errorf("trail:\n%s", trail)
	}
}
