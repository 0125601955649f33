package call

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/tasks"
	"batchreset/tasks/proof"
)

// proven is a service with a job, the job's proof and the service's keys in files.
func proven(t *testing.T) (s *fakeService, job, keys string) {
	t.Helper()
	s = newFakeService(t)
	s.Add("phone-1", "failed-1")
	response, err := http.Get(s.URL + "/v1/proof-keys") //nolint:noctx // a test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var set proof.Keys
	if err := json.NewDecoder(response.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	return s, terminaltest.File(t, s.call(t, "proof", job1).OK(t).Out), keysFile(t, set)
}

func keysFile(t *testing.T, keys proof.Keys) string {
	t.Helper()
	text, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	return terminaltest.File(t, string(text))
}

func verify(t *testing.T, args ...string) terminaltest.Result {
	t.Helper()
	return callCommand(t.Context(), strings.NewReader(""), append([]string{"proof", "verify"}, args...)...)
}

func TestProof(t *testing.T) {
	t.Run("prints the proof of a job", func(t *testing.T) {
		s := newFakeService(t)
		s.Add("phone-1")
		out := s.call(t, "proof", job1).OK(t).Out
		if strings.Count(out, ".") != 2 || strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, "\n") {
			t.Errorf("it prints %q", out)
		}
	})
	t.Run("says that a job has not ended", func(t *testing.T) {
		s := newFakeService(t)
		s.Looks = 5
		s.Add("phone-1")
		s.call(t, "proof", job1).Wants(t, terminal.ExitRefused, "", "RESET.0003: the job has not ended")
	})
	t.Run("says that there is no such job", func(t *testing.T) {
		newFakeService(t).call(t, "proof", job1).Wants(t, terminal.ExitRefused, "", "RESET.0001")
	})
	t.Run("wants one job ID", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "proof").Wants(t, terminal.ExitUsage, "", "the job ID is missing")
		s.call(t, "proof", "verfy").Wants(t, terminal.ExitUsage, "", `"verfy" is not a job ID`)
	})
}

func TestProofVerify(t *testing.T) {
	s, job, keys := proven(t)
	text, err := os.ReadFile(job)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("says what, who, when and how many", func(t *testing.T) {
		r := verify(t, job, "--keys", keys).OK(t)
		for _, want := range []string{
			"The proof is genuine", "Job         " + job1 + "\n", "State       partial\n", "Instances   2: 1 succeeded, 1 failed\n", "List        sha256 ",
			"Asked for   2026-01-02T03:04:05Z\n", "Request ID  R1\n", "Finished    2026-01-02T03:04:08Z\n", "Issued      2026-01-02T04:00:00Z by batchreset v1.2.3\n", " of " + keys + "\n",
		} {
			if !strings.Contains(r.Out, want) {
				t.Errorf("it does not say %q: %s", want, r.Out)
			}
		}
	})
	t.Run("says it to programs, too", func(t *testing.T) {
		var got verified[proof.Statement]
		if err := json.Unmarshal([]byte(verify(t, job, "--keys", keys, "-o", "json").OK(t).Out), &got); err != nil || got.Statement.JobID != job1 || got.KeyID == "" || got.Keys != keys {
			t.Errorf("%+v, %v", got, err)
		}
		if csv := verify(t, job, "--keys", keys, "-o", "csv").OK(t).Out; !strings.HasPrefix(csv, "instance_id,item_id,state,attempts,") || strings.Count(csv, "\n") != 3 {
			t.Errorf("as CSV %q", csv)
		}
	})
	t.Run("reads standard input, with or without a line end", func(t *testing.T) {
		for _, in := range []string{string(text), strings.TrimSpace(string(text))} {
			callCommand(t.Context(), strings.NewReader(in), "proof", "verify", "-", "--keys", keys).OK(t)
		}
	})
	t.Run("takes the keys from a URL, or from the server, without a token", func(t *testing.T) {
		verify(t, job, "--keys", s.URL+"/v1/proof-keys").OK(t)
		verify(t, job, "--server", s.URL+"/").OK(t)
		environment := map[string]string{"BATCHRESET_CONFIG_DIR": filepath.Join(t.TempDir(), "config")}
		command(t, environment, "login", s.URL, "--token-file", terminaltest.File(t, calltest.Token)).OK(t)
		command(t, environment, "proof", "verify", job).OK(t)
	})
	t.Run("finds any changed byte", func(t *testing.T) {
		for i := 0; i < len(text); i += 17 {
			changed := append([]byte{}, text...)
			changed[i] ^= 1
			callCommand(t.Context(), strings.NewReader(string(changed)), "proof", "verify", "-", "--keys", keys).Wants(t, terminal.ExitSome, "", "the proof does not verify: ")
		}
		last := append([]byte{}, text...)
		last[len(last)-1] ^= 1 // the line end
		callCommand(t.Context(), strings.NewReader(string(last)), "proof", "verify", "-", "--keys", keys).Wants(t, terminal.ExitSome, "", "the proof does not verify: ")
		verify(t, terminaltest.File(t, string(text)+"\n"), "--keys", keys).Wants(t, terminal.ExitSome, "", "the proof does not verify: ")
		verify(t, terminaltest.File(t, ""), "--keys", keys).Wants(t, terminal.ExitSome, "", "the proof does not verify: it is no proof")
	})
	t.Run("does not know a key that is not in the set", func(t *testing.T) {
		verify(t, job, "--keys", keysFile(t, calltest.NewSigner(t).Keys())).Wants(t, terminal.ExitSome, "", "the proof does not verify: it names the key", "which is not in the key set")
	})
	t.Run("says what is wrong with the keys", func(t *testing.T) {
		verify(t, job, "--keys", job).Wants(t, terminal.ExitUsage, "", "--keys: "+job+": is no JSON")
		verify(t, job, "--keys", terminaltest.File(t, "[]")).Wants(t, terminal.ExitUsage, "", "is no JWK set: an object with a list called keys")
		verify(t, job, "--keys", s.URL+"/v1/jobs").Wants(t, terminal.ExitRefused, "", "answers 401")
		elsewhere := httptest.NewServer(http.RedirectHandler(s.URL+"/v1/proof-keys", http.StatusFound))
		defer elsewhere.Close()
		verify(t, job, "--keys", elsewhere.URL).Wants(t, terminal.ExitAway, "", "answers 302")
		verify(t, job, "--keys", "http://127.0.0.1:1/").Wants(t, terminal.ExitAway, "", "no answer")
	})
	t.Run("does not show a password", func(t *testing.T) {
		withPassword := strings.Replace(s.URL, "://", "://u:geheim@", 1)
		for _, r := range []terminaltest.Result{
			verify(t, job, "--keys", withPassword+"/v1/proof-keys"), verify(t, job, "--keys", withPassword+"/nowhere"),
			verify(t, job, "--keys", withPassword+"/v1/jobs/"+job1+"/proof"), verify(t, job, "--keys", "http://u:geheim@127.0.0.1:1/"), verify(t, job, "--keys", "http://u:geheim@[/"),
		} {
			if strings.Contains(r.Out+r.Said, "geheim") {
				t.Errorf("%+v", r)
			}
		}
	})
	t.Run("does not read on and on", func(t *testing.T) {
		callCommand(t.Context(), strings.NewReader(strings.Repeat("A", maxProof+1)), "proof", "verify", "-", "--keys", keys).Wants(t, terminal.ExitUsage, "", "the file is longer than ")
	})
	t.Run("needs no server", func(t *testing.T) {
		s.Close()
		verify(t, job, "--keys", keys).OK(t)
	})
}

func TestRunProof(t *testing.T) {
	s, _, keys := proven(t)
	run := s.AddRun("phone-1", "failed-1")
	run.Principal, run.By, run.Name = "alice", "token 3fa1c09b7e55d210", "recall \x1b[31m"
	run.Approval = &tasks.Approval{Approvers: 1, Decisions: []tasks.RunDecision{{Principal: "bob", Decision: tasks.Approved, Comment: "seen", At: run.CreatedAt}}}
	s.call(t, "run", "proof", run1).Wants(t, terminal.ExitRefused, "", "RESET.0003: the run has not ended")
	s.call(t, "run", "watch", run1)
	text := s.call(t, "run", "proof", run1).OK(t).Out
	if strings.Count(text, "\n") != 4 || s.call(t, "run", "proof", run1, "-o", "jsonl").OK(t).Out != text {
		t.Errorf("it prints %q", text)
	}
	file := terminaltest.File(t, text)
	t.Run("says what, who, when and how many", func(t *testing.T) {
		r := verify(t, file, "--keys", keys).OK(t)
		for _, want := range []string{
			"The proof is genuine", "Run         " + run1 + "\n", "Name        recall [U+001B][31m\n", "State       partial\n", "Instances   2: 1 succeeded, 1 failed\n",
			"Asked for   2026-01-02T03:04:05Z by token 3fa1c09b7e55d210 (alice)\n", "Approval    1 of 1\nDecision    approved by bob, 2026-01-02T03:04:05Z: seen\n",
			"Options     max-parallel 3200\n", "Issued      2026-01-02T04:00:00Z by batchreset v1.2.3\n", " of " + keys + "\n",
		} {
			if !strings.Contains(r.Out, want) {
				t.Errorf("it does not say %q: %s", want, r.Out)
			}
		}
	})
	t.Run("says it to programs, too", func(t *testing.T) {
		var got verified[runWithItems]
		if err := json.Unmarshal([]byte(verify(t, file, "--keys", keys, "-o", "json").OK(t).Out), &got); err != nil || got.Statement.RunID != run1 || len(got.Statement.Items) != 2 || got.KeyID == "" {
			t.Errorf("%+v, %v", got, err)
		}
		if csv := verify(t, file, "--keys", keys, "-o", "csv").OK(t).Out; !strings.HasPrefix(csv, "instance_id,item_id,state,attempts,") || strings.Count(csv, "\n") != 3 {
			t.Errorf("as CSV %q", csv)
		}
	})
	t.Run("reads standard input", func(t *testing.T) {
		callCommand(t.Context(), strings.NewReader(text), "proof", "verify", "-", "--keys", keys).OK(t)
	})
	t.Run("finds what was changed, and shows nothing then", func(t *testing.T) {
		for want, changed := range map[string]string{
			"its end is missing":                         text[:len(text)-1],
			"its lines are not those that were signed":   strings.Replace(text, `"failed"`, `"unknown"`, 1),
			"some were left out":                         strings.Replace(text, strings.SplitAfter(text, "\n")[1], "", 1),
			"there is more after line 4":                 text + "\n",
			"its first line is no statement about a run": "{}" + text,
		} {
			for _, form := range []string{"text", "json", "csv"} {
				verify(t, terminaltest.File(t, changed), "--keys", keys, "-o", form).Wants(t, terminal.ExitSome, "", "the proof does not verify: ", want)
			}
		}
		verify(t, file, "--keys", keysFile(t, calltest.NewSigner(t).Keys())).Wants(t, terminal.ExitSome, "", "which is not in the key set")
	})
	t.Run("has one form", func(t *testing.T) {
		s.call(t, "run", "proof", run1, "-o", "csv").Wants(t, terminal.ExitUsage, "", "--output must be jsonl, not csv")
	})
	t.Run("wants one run ID", func(t *testing.T) {
		s.call(t, "run", "proof").Wants(t, terminal.ExitUsage, "", "the run ID is missing")
		s.call(t, "run", "proof", run2).Wants(t, terminal.ExitRefused, "", "RESET.0001: there is no such run")
	})
}

func TestProofNewKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	said := command(t, nil, "proof", "new-key", path).OK(t).Errs
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := proof.ReadSigner(text)
	if err != nil || !strings.Contains(said, proof.KeyID(signer.Keys()[0])) {
		t.Errorf("%v, it says %q", err, said)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %s, %v", info.Mode(), err)
	}
	command(t, nil, "proof", "new-key", path).Wants(t, terminal.ExitUsage, "", "is there already")
	if again, err := os.ReadFile(path); err != nil || string(again) != string(text) {
		t.Errorf("it was overwritten, %v", err)
	}
	command(t, nil, "proof", "new-key", filepath.Join(path, "below")).Wants(t, terminal.ExitUsage, "")
}
