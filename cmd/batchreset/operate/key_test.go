package operate

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/redistest"
)

func TestKeyCommands(t *testing.T) {
	sealFile := filepath.Join(t.TempDir(), "secret.key")
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	var added struct {
		Access  string     `json:"access_key"`
		Secret  string     `json:"secret_key"`
		Kind    string     `json:"kind"`
		Expires tasks.Time `json:"expires_at"`
	}
	out := command(t, environment, "key", "add", "--tenant", "acme", "--owner", "fleet-manager", "--name", "resets/nightly", "--output", "json").OK(t).Out
	if err := json.Unmarshal([]byte(out), &added); err != nil {
		t.Fatal(err)
	}
	if len(added.Access) != 20 || len(added.Secret) != 40 || added.Kind != "access-key" {
		t.Errorf("added %s", out)
	}
	if left := time.Until(added.Expires.Time); left > 90*24*time.Hour || left < 89*24*time.Hour {
		t.Errorf("it lives for %s", left)
	}
	text := command(t, environment, "key", "add", "--tenant", "acme", "--ttl", "0", "--address", "10.0.0.7", "--instance-label", "rack=7").OK(t)
	if lines := strings.Split(strings.TrimSpace(text.Out), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[0], "access key  ") || !strings.HasPrefix(lines[1], "secret key  ") {
		t.Errorf("the output is %q", text.Out)
	}
	if want := "from 10.0.0.7/32, for instances with rack=7, never expires"; !strings.Contains(text.Said, want) {
		t.Errorf("it says %q, want %q", text.Said, want)
	}
	list := command(t, environment, "key", "list").OK(t).Out
	for _, want := range []string{added.Access, "fleet-manager", "resets/nightly", "10.0.0.7/32; rack=7", "not yet", "never expires"} {
		if !strings.Contains(list, want) {
			t.Errorf("the list does not say %q:\n%s", want, list)
		}
	}
	if strings.Contains(list, added.Secret) || strings.Contains(command(t, environment, "token", "list").OK(t).Out, added.Access) {
		t.Error("a list shows a secret, or the tokens are keys")
	}

	if err := os.WriteFile(sealFile, []byte(strings.Repeat("A", 43)+"=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, environment, "secret", "seal").WantError(t, "--secret-key-file is missing")
	if out := command(t, environment, "secret", "seal", "--secret-key-file", sealFile).OK(t).Said; !strings.Contains(out, "sealed 2 of 2 secrets") {
		t.Errorf("seal says %q", out)
	}
	environment["BATCHRESET_SECRET_KEY_FILE"] = sealFile
	rotated := command(t, environment, "key", "rotate", added.Access, "--overlap", "1h").OK(t)
	if !strings.Contains(rotated.Said, added.Access+" is good for 1h0m0s more") || !strings.Contains(rotated.Out, "secret key  ") {
		t.Errorf("rotate says %q %q", rotated.Said, rotated.Out)
	}
	if out := command(t, environment, "secret", "seal", "--output", "json").OK(t).Out; !strings.Contains(out, `"sealed": 0`) || !strings.Contains(out, `"secrets": 3`) {
		t.Errorf("seal says %q", out)
	}
	command(t, environment, "key", "revoke", added.Access).OK(t)
	command(t, environment, "key", "rotate", added.Access).WantError(t, "it was revoked")
	for args, want := range map[string]string{
		"key revoke NOBODY": "there is no access key with the ID \"NOBODY\" (see 'batchreset key list')",
		"key rotate NOBODY": "there is no access key with the ID", "token rotate " + added.Access: "'batchreset key rotate " + added.Access + "'",
		"token revoke " + added.Access:                        "'batchreset key revoke " + added.Access + "'",
		"key rotate " + added.Access + " --overlap -1s":       "--overlap must not be negative",
		"key add --tenant acme --name nightly!":               "--name: ",
		"key add --tenant acme --address 10.0.0.0/33":         "--address must be a network such as 10.2.0.0/16, or an address, not \"10.0.0.0/33\"",
		"key add --tenant acme --address 10.0.0.1/8":          "--address 10.0.0.1/8 has bits beyond its length; the network is 10.0.0.0/8",
		"key add --tenant acme --instance-label rack":         "instance-label",
		"key add --tenant acme --address ::ffff:10.0.0.0/104": "must be written as a network of IPv4",
		"key add --tenant acme --address fe80::1%eth0":        "--address must be a network",
		"key add --tenant acme --address=":                    "it is empty",
		"key add --tenant acme --scope=":                      "it is empty",
		"key add --tenant acme --ttl 2562047h":                "--ttl must be at most",
		"key add --tenant acme --scope read,submit,read":      "--scope has read twice",
		"key add":                                           "--tenant is missing",
		"key add --tenant acme --ttl -1h":                   "--ttl must not be negative",
		"key list --secret-key-file /nowhere":               "unknown flag",
		"key add --tenant acme --secret-key-file /nowhere":  "--secret-key-file: open /nowhere",
		"key add --tenant acme --secret-key-file ../go.mod": "--secret-key-file: ",
		"secret seal --secret-key-file " + os.DevNull:       "has no key: 'openssl rand -base64 32' makes one",
		"token add --tenant acme --scope approve":           "--owner: is missing",
	} {
		command(t, environment, strings.Fields(args)...).WantError(t, want)
	}
}

func TestTokensExpireUnlessSomebodySaysOtherwise(t *testing.T) {
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	if said := command(t, environment, "token", "add", "--tenant", "acme").OK(t).Said; !strings.Contains(said, "expires "+time.Now().Add(90*24*time.Hour).UTC().Format("2006-01-")) {
		t.Errorf("it says %q", said)
	}
	if said := command(t, environment, "token", "add", "--tenant", "acme", "--ttl", "0").OK(t).Said; !strings.Contains(said, "never expires") {
		t.Errorf("it says %q", said)
	}
	var listed struct{ Tokens []tasks.Token }
	if err := json.Unmarshal([]byte(command(t, environment, "token", "list", "--output", "json").OK(t).Out), &listed); err != nil || len(listed.Tokens) != 2 {
		t.Fatal(listed, err)
	}
	rotated := command(t, environment, "token", "rotate", listed.Tokens[0].ID).OK(t)
	if secret := strings.TrimSpace(rotated.Out); !strings.HasPrefix(secret, "brt_") || !strings.Contains(rotated.Said, listed.Tokens[0].ID+" is good for 24h0m0s more") {
		t.Errorf("rotate says %q %q", rotated.Said, rotated.Out)
	}
}

// One secret that cannot be opened does not keep the others from being sealed, and one of a key that has ended is no
// fault.
func TestSecretsThatCannotBeOpenedAreNamed(t *testing.T) {
	dir := t.TempDir()
	file := func(letter string) string {
		path := filepath.Join(dir, letter)
		if err := os.WriteFile(path, []byte("\ufeff"+base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32)))+"\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours, theirs := file("a"), file("b")
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	add := func(args ...string) string {
		lines := strings.Fields(command(t, environment, append([]string{"key", "add", "--tenant", "acme"}, args...)...).OK(t).Out)
		return lines[2]
	}
	sealedByOthers := add("--secret-key-file", theirs)
	command(t, environment, "key", "add", "--tenant", "acme", "--secret-key-file", ours).WantError(t, "--secret-key-file opens none of the secrets that are sealed in Redis")
	command(t, environment, "webhook", "add", "--tenant", "acme", "--url", "https://192.0.2.1/", "--webhook-allow-private", "--secret-key-file", ours).WantError(t, "--new-secret-key")
	add("--secret-key-file", ours, "--new-secret-key")
	add()
	add()
	got := command(t, environment, "secret", "seal", "--secret-key-file", ours)
	got.WantError(t, "1 secret could not be sealed")
	for _, want := range []string{"not sealed: access key " + sealedByOthers, "does not have the key", "sealed 2 of 4 secrets"} {
		if !strings.Contains(got.Said, want) {
			t.Errorf("it says %q, not %q", got.Said, want)
		}
	}
	command(t, environment, "key", "revoke", sealedByOthers).OK(t)
	if said := command(t, environment, "secret", "seal", "--secret-key-file", ours).OK(t).Said; !strings.Contains(said, "sealed 0 of 4 secrets") {
		t.Errorf("after it was revoked: %q", said)
	}
}
