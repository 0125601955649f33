package main

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal/terminaltest"
)

// TestAProofFromResetToVerify is the way of the documentation. The proof is also given to
// JavaScript's own Ed25519, so that it is not for our eyes alone.
func TestAProofFromResetToVerify(t *testing.T) {
	key := filepath.Join(t.TempDir(), "proof-key.pem")
	command(t, nil, "proof", "new-key", key).OK(t)
	api := regexp.MustCompile(`API +(http://\S+)`)
	greeting := startDev(t, api, "--proof-key-file", key)
	environment := map[string]string{"BATCHRESET_SERVER": api.FindStringSubmatch(greeting)[1], "BATCHRESET_TOKEN": "demo-token"}
	submitted := oneObject(t, command(t, environment, "submit", "phone-1", "phone-2", "--wait", "-o", "json").OK(t).Out)
	job := submitted["jobs"].([]any)[0].(map[string]any)["job_id"].(string)

	compact := command(t, environment, "proof", job).OK(t).Out
	_, keys := get(t, environment["BATCHRESET_SERVER"]+"/v1/proof-keys")
	proof := terminaltest.File(t, compact)
	out := command(t, nil, "proof", "verify", proof, "--keys", terminaltest.File(t, keys), "-o", "json").OK(t).Out
	statement := oneObject(t, out)["statement"].(map[string]any)
	item := statement["items"].([]any)[0].(map[string]any)
	if evidence, _ := item["evidence"].(string); statement["job_id"] != job || statement["state"] != "succeeded" || !strings.Contains(evidence, "Z ") {
		t.Errorf("it says %v", statement)
	}
	by, _ := statement["requested_by"].(map[string]any)
	if name, _ := by["by"].(string); !strings.HasPrefix(name, "token ") || by["from"] != "127.0.0.1" {
		t.Errorf("asked by %v", by)
	}

	for name, row := range map[string]struct{ compact, want string }{
		"the proof":        {strings.TrimSpace(compact), "true"},
		"a changed letter": {strings.Replace(strings.TrimSpace(compact), ".", ".A", 1), "false"},
	} {
		input, err := json.Marshal(map[string]any{"proof": row.compact, "keys": json.RawMessage(keys)})
		if err != nil {
			t.Fatal(err)
		}
		node := exec.CommandContext(t.Context(), "node", "testdata/proof.js")
		node.Stdin = strings.NewReader(string(input))
		if said, err := node.CombinedOutput(); err != nil || strings.TrimSpace(string(said)) != row.want {
			t.Errorf("JavaScript says of %s: %s, %v", name, said, err)
		}
	}
	if status, _ := get(t, environment["BATCHRESET_SERVER"]+"/v1/jobs/"+job+"/proof"); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
}
