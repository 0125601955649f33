package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"batchreset/api/client"
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

	if said := javaScriptSays(t, strings.TrimSpace(compact), keys); said != "true" {
		t.Errorf("JavaScript says of the proof: %s", said)
	}
	if said := javaScriptSays(t, strings.Replace(strings.TrimSpace(compact), ".", ".A", 1), keys); said != "false" {
		t.Errorf("JavaScript says of a changed letter: %s", said)
	}
	if status, _ := get(t, environment["BATCHRESET_SERVER"]+"/v1/jobs/"+job+"/proof"); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
}

// javaScriptSays is whether a signature is one of the keys'.
func javaScriptSays(t *testing.T, compact, keys string) string {
	t.Helper()
	input, err := json.Marshal(map[string]any{"proof": compact, "keys": json.RawMessage(keys)})
	if err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(t.Context(), "node", "testdata/proof.js")
	node.Stdin = strings.NewReader(string(input))
	said, err := node.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, said)
	}
	return strings.TrimSpace(string(said))
}

// runProof is what 'proof verify --output json' says of a run.
type runProof struct {
	Statement struct {
		RunID       string          `json:"run_id"`
		State       string          `json:"state"`
		Counts      client.Counts   `json:"counts"`
		RequestedBy json.RawMessage `json:"requested_by"`
		Approval    client.Approval `json:"approval"`
		Retries     json.RawMessage `json:"retries"`
		Items       []struct {
			client.RunResult

			Round int `json:"round"`
		} `json:"items"`
	} `json:"statement"`
}

// proveRun gets the proof of a run, and checks it without the service.
func proveRun(t *testing.T, environment map[string]string, run, keys string) (text string, said runProof) {
	t.Helper()
	text = command(t, environment, "run", "proof", run).OK(t).Out
	out := command(t, nil, "proof", "verify", terminaltest.File(t, text), "--keys", keys, "-o", "json").OK(t).Out
	if err := json.Unmarshal([]byte(out), &said); err != nil || said.Statement.RunID != run {
		t.Fatalf("%v: it says %s", err, out)
	}
	return text, said
}

func TestTheProofOfARunThatWasApprovedAndRetried(t *testing.T) {
	t.Parallel()
	s, plane := approvals(t)
	key := filepath.Join(t.TempDir(), "proof-key.pem")
	command(t, nil, "proof", "new-key", key).OK(t)
	api := start(t, "api", "--redis", s.environment["BATCHRESET_REDIS"], "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open", "--proof-key-file", key)
	s.environment["BATCHRESET_SERVER"], _ = api.logged("api started")["api"].(string)
	_, published := get(t, s.environment["BATCHRESET_SERVER"]+"/v1/proof-keys")
	keys := terminaltest.File(t, published)
	alice, bob, carol := s.person(t, "alice", everyScope).Runs(), s.person(t, "bob", "approve,read").Runs(), s.person(t, "carol", "approve,read").Runs()

	plane.fails = func(instance string) bool { return instance == "phone-00010" || instance == "phone-00070" }
	run, err := alice.Submit(t.Context(), client.RunRequest{InstanceIDs: phonesList(100)})
	if err != nil {
		t.Fatal(err)
	}
	command(t, s.environment, "run", "proof", run.ID).WantError(t, "the run has not ended")
	for _, approver := range []client.Runs{bob, carol} {
		if _, err := approver.Approve(t.Context(), run.ID, run.ListSHA256, "T-4711"); err != nil {
			t.Fatal(err)
		}
	}
	s.worker()
	if last, err := alice.Wait(t.Context(), run.ID, nil); err != nil || last.State != "partial" {
		t.Fatalf("run %s, %v", last.Record, err)
	}
	first, said := proveRun(t, s.environment, run.ID, keys)
	if said.Statement.State != "partial" || said.Statement.Counts.Failed != 2 || said.Statement.Retries != nil {
		t.Errorf("before the retry it says %+v", said.Statement)
	}

	plane.mu.Lock()
	plane.fails = func(instance string) bool { return instance == "phone-00070" }
	plane.mu.Unlock()
	if _, err := alice.Retry(t.Context(), run.ID); err != nil {
		t.Fatal(err)
	}
	if last, err := alice.Wait(t.Context(), run.ID, nil); err != nil || last.State != "partial" {
		t.Fatalf("run %s, %v", last.Record, err)
	}
	text, said := proveRun(t, s.environment, run.ID, keys)
	statement := said.Statement
	if statement.Counts.Succeeded != 99 || statement.Counts.Failed != 1 || string(statement.Retries) == "" ||
		!strings.Contains(string(statement.RequestedBy), `"principal": "alice"`) || len(statement.Approval.Decisions) != 2 || statement.Approval.Decisions[1].Principal != "carol" {
		t.Errorf("it says %+v", statement)
	}
	n := 0
	for result, err := range alice.Results(t.Context(), run.ID) {
		if err != nil {
			t.Fatal(err)
		}
		result.JobID, result.Message = "", "" // which a proof does not have
		if item := statement.Items[n]; item.RunResult != result || (item.Round == 2) != (n >= 98) {
			t.Errorf("instance %d is %+v, and by the results %+v", n, item, result)
		}
		n++
	}
	if n != 100 || len(statement.Items) != 100 || statement.Items[98].State != "succeeded" || statement.Items[99].State != "failed" {
		t.Errorf("%d results, %d items", n, len(statement.Items))
	}
	lines, last, _ := strings.Cut(text, `{"signature":"`)
	compact := strings.TrimSuffix(last, "\"}\n")
	if said := javaScriptSays(t, compact, published); said != "true" {
		t.Errorf("JavaScript says of the signature: %s", said)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(compact, ".")[1])
	if digest := fmt.Sprintf("%x", sha256.Sum256([]byte(lines))); err != nil || !strings.Contains(string(payload), `"lines":101,"sha256":"`+digest+`"`) {
		t.Errorf("signed is %s, %v", payload, err)
	}
	command(t, nil, "proof", "verify", terminaltest.File(t, first), "--keys", keys).OK(t) // it stays true of its time
	mixed := lines + first[strings.Index(first, `{"signature":"`):]
	if err := command(t, nil, "proof", "verify", terminaltest.File(t, mixed), "--keys", keys).Err; err == nil {
		t.Error("the lines of a round verify with the signature of another")
	}

	rejected, err := alice.Submit(t.Context(), client.RunRequest{InstanceIDs: phonesList(41)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bob.Reject(t.Context(), rejected.ID, "not these"); err != nil {
		t.Fatal(err)
	}
	if _, said := proveRun(t, s.environment, rejected.ID, keys); said.Statement.State != "rejected" || said.Statement.Counts.Cancelled != 41 || said.Statement.Approval.Decisions[0].Comment != "not these" {
		t.Errorf("of a rejected run it says %+v", said.Statement)
	}
}
