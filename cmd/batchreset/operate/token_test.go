package operate

import (
	"encoding/json"
	"strings"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/redistest"
)

func TestTokenCommands(t *testing.T) {
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	added := command(t, environment, "token", "add", "--tenant", "acme", "--ttl", "1h", "--scope", "read").OK(t)
	secret := strings.TrimSpace(added.Out)
	if !strings.HasPrefix(secret, "brt_") || strings.ContainsAny(secret, " \n") {
		t.Fatalf("the output is %q, want the token alone", added.Out)
	}
	var listed struct{ Tokens []tasks.Token }
	if err := json.Unmarshal([]byte(command(t, environment, "token", "list", "--output", "json").OK(t).Out), &listed); err != nil {
		t.Fatal(err)
	}
	list := listed.Tokens
	if len(list) != 1 || list[0].Tenant != "acme" || list[0].ExpiresAt.IsZero() {
		t.Fatalf("list %+v", list)
	}
	command(t, environment, "token", "revoke", list[0].ID).OK(t)
	if out := command(t, environment, "token", "list").OK(t).Out; !strings.Contains(out, "revoked 20") || strings.Contains(out, secret) {
		t.Errorf("list:\n%s", out)
	}
	command(t, environment, "key", "revoke", list[0].ID).WantError(t, "'batchreset token revoke "+list[0].ID+"'")
	command(t, environment, "token", "revoke", "ffffffffffffffff").WantError(t, "no token with the ID")
	command(t, environment, "token", "add", "--tenant", "acme", "--scope", "approve,read").WantError(t, "--owner: is missing")
	command(t, environment, "token", "add", "--tenant", "acme", "--owner", "al ice").WantError(t, "--owner: \"al ice\" is not a name")
	command(t, environment, "token", "add", "--tenant", "acme", "--owner", "alice", "--scope", "approve,read").OK(t)
	if out := command(t, environment, "token", "list").OK(t).Out; !strings.Contains(out, "alice") {
		t.Errorf("list:\n%s", out)
	}
}
