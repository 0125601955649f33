package proof

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
)

const runID = "9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4"

// campaign is a run that was approved and retried: of its instances one succeeded, one did so in the second
// round, one failed twice, and one was never in a job.
func campaign() (tasks.Run, []tasks.RunInstance) {
	first, second := tasks.PartJobID(runID, 0), tasks.PartJobID(runID, 2)
	budget, err := tasks.ParseBudget("2%")
	if err != nil {
		panic(err)
	}
	instances := []tasks.RunInstance{
		{JobID: first, Round: 1, Item: tasks.Item{
			ID: first + "-0", InstanceID: "phone-9", State: tasks.ItemSucceeded, Attempts: 1, StartedAt: at(6), FinishedAt: at(46),
			Evidence: "2026-01-02T15:04:46Z data born 15:04:40",
		}},
		{Round: 1, Item: tasks.Item{InstanceID: "phone-11", State: tasks.ItemCancelled, Code: tasks.Cancelled, Message: "the run was cancelled"}},
		{JobID: second, Round: 2, Item: tasks.Item{
			ID: second + "-0", InstanceID: "phone-10", State: tasks.ItemFailed, Attempts: 2, StartedAt: at(6), FinishedAt: at(12),
			Code: "CPS.0005", Message: "not in a proof", Driver: "lab",
			History: []tasks.PastAttempt{{Number: 1, StartedAt: at(6), FinishedAt: at(9), Outcome: "retrying", Code: "CPS.0042"}},
		}},
		{JobID: second, Round: 2, Item: tasks.Item{ID: second + "-1", InstanceID: "phone-8", State: tasks.ItemSucceeded, Attempts: 1}},
	}
	run := tasks.Run{
		ID: runID, Name: "recall <7>", State: tasks.RunPartial, Tenant: "acme", RequestID: "R1", By: "token 3fa1c09b7e55d210", Principal: "alice", From: "192.0.2.7",
		Reason: "returned", Labels: map[string]string{"site": "lab-3"}, CreatedAt: at(5), StartedAt: at(6), FinishedAt: at(46), Total: 4, Repeats: 1,
		Counts: tasks.Counts{Succeeded: 2, Failed: 1, Cancelled: 1}, ListSHA256: tasks.ListHash([]string{"phone-8", "phone-9", "phone-10", "phone-11"}),
		RunOptions: tasks.RunOptions{MaxParallel: 64, Canary: 1, Soak: tasks.Duration(90 * time.Second), Growth: 1.5, MaxFailures: budget},
		Approval: &tasks.Approval{Approvers: 1, ExpiresAt: at(50), Decisions: []tasks.RunDecision{
			{Principal: "bob", Decision: tasks.Approved, Comment: "T-4711", At: at(6)},
		}},
		Round: 2, Retries: []tasks.RunRetry{{First: 2, Skipped: 1, Again: tasks.Again{States: []tasks.ItemState{tasks.ItemFailed, tasks.ItemUnknown}}}},
	}
	return run, instances
}

// visiting visits instances one after the other.
func visiting(instances []tasks.RunInstance) func(func(tasks.RunInstance) error) error {
	return func(visit func(tasks.RunInstance) error) error {
		for _, in := range instances {
			if err := visit(in); err != nil {
				return err
			}
		}
		return nil
	}
}

func signedRun(t testing.TB, s *Signer) string {
	t.Helper()
	run, instances := campaign()
	var b strings.Builder
	if err := s.WriteRun(&b, OfRun(run, "v1.2.3", at(59)), visiting(instances)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// In words, so that nobody changes by accident what was signed before.
const runInWords = `{"version":1,"issuer":{"service":"batchreset","version":"v1.2.3"},"issued_at":"2026-01-02T15:04:59.140Z",` +
	`"run_id":"9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4","name":"recall \u003c7\u003e","tenant":"acme","request_id":"R1",` +
	`"requested_by":{"by":"token 3fa1c09b7e55d210","principal":"alice","from":"192.0.2.7"},"reason":"returned","labels":{"site":"lab-3"},` +
	`"list_sha256":"LIST","options":{"max_parallel":64,"canary":1,"soak":"1m30s","growth":1.5,"max_failures":"2%"},` +
	`"approval":{"approvers":1,"expires_at":"2026-01-02T15:04:50.140Z","decisions":[{"principal":"bob","decision":"approved","comment":"T-4711","at":"2026-01-02T15:04:06.140Z"}]},` +
	`"retries":[{"states":["failed","unknown"]}],"state":"partial","created_at":"2026-01-02T15:04:05.140Z","started_at":"2026-01-02T15:04:06.140Z",` +
	`"finished_at":"2026-01-02T15:04:46.140Z","total":4,"repeats":1,"counts":{"pending":0,"running":0,"retrying":0,"succeeded":2,"failed":1,"unknown":0,"cancelled":1}}
{"item_id":"FIRST-0","instance_id":"phone-9","state":"succeeded","attempts":1,"started_at":"2026-01-02T15:04:06.140Z","finished_at":"2026-01-02T15:04:46.140Z",` +
	`"evidence":"2026-01-02T15:04:46Z data born 15:04:40","driver":"default","round":1}
{"instance_id":"phone-11","state":"cancelled","attempts":0,"error_code":"RESET.1003","round":1}
{"item_id":"SECOND-0","instance_id":"phone-10","state":"failed","attempts":2,"started_at":"2026-01-02T15:04:06.140Z","finished_at":"2026-01-02T15:04:12.140Z",` +
	`"error_code":"CPS.0005","driver":"lab","history":[{"attempt":1,"started_at":"2026-01-02T15:04:06.140Z","finished_at":"2026-01-02T15:04:09.140Z","outcome":"retrying","error_code":"CPS.0042"}],"round":2}
{"item_id":"SECOND-1","instance_id":"phone-8","state":"succeeded","attempts":1,"driver":"default","round":2}
`

func TestWhatTheProofOfARunSays(t *testing.T) {
	s := rfcSigner(t)
	run, instances := campaign()
	text := signedRun(t, s)
	// The hash is what 'printf "phone-10\nphone-11\nphone-8\nphone-9\n" | sha256sum' says.
	want := strings.NewReplacer("LIST", run.ListSHA256, "FIRST", instances[0].JobID, "SECOND", instances[2].JobID).Replace(runInWords)
	lines, last, _ := strings.Cut(text, beforeSignature)
	if lines != want {
		t.Errorf("it says\n%s\nwant\n%s", lines, want)
	}
	payload, err := decode(strings.Split(last, ".")[1])
	digest := sha256.Sum256([]byte(want))
	if want := `{"version":1,"run_id":"` + runID + `","lines":5,"sha256":"` + hex.EncodeToString(digest[:]) + `"}`; err != nil || string(payload) != want {
		t.Errorf("signed is %s, want %s, %v", payload, want, err)
	}
	var items []RunItem
	got, id, err := s.Keys().VerifyRun(strings.NewReader(text), func(it RunItem) { items = append(items, it) })
	if err != nil || id != rfcKeyID || !reflect.DeepEqual(got, OfRun(run, "v1.2.3", at(59))) {
		t.Errorf("got %+v, key %s, %v", got, id, err)
	}
	if len(items) != len(instances) || !reflect.DeepEqual(items[2], runItemOf(instances[2])) {
		t.Errorf("instances %+v", items)
	}
}

// Nothing was done, and that is proven.
func TestARunThatNeverBeganHasAProof(t *testing.T) {
	s := newSigner(t)
	run, instances := campaign()
	for i := range instances {
		instances[i] = tasks.RunInstance{Round: 1, Item: tasks.Item{InstanceID: instances[i].Item.InstanceID, State: tasks.ItemCancelled, Code: tasks.Cancelled}}
	}
	run.Retries, run.Counts, run.Approval.Decisions = nil, tasks.Counts{Cancelled: 4}, nil
	for _, state := range []tasks.RunState{tasks.RunRejected, tasks.RunExpired, tasks.RunCancelled} {
		run.State = state
		var b strings.Builder
		if err := s.WriteRun(&b, OfRun(run, "v1.2.3", at(59)), visiting(instances)); err != nil {
			t.Fatal(err)
		}
		if got, _, err := s.Keys().VerifyRun(strings.NewReader(b.String()), func(RunItem) {}); err != nil || got.State != state {
			t.Errorf("it says %s, %v", got.State, err)
		}
	}
}

func refusedRun(t *testing.T, keys Keys, what, text string) error {
	t.Helper()
	statement, id, err := keys.VerifyRun(strings.NewReader(text), func(RunItem) {})
	if err == nil || statement.RunID != "" || id != "" {
		t.Errorf("%s: it verifies: %+v, %v", what, statement, err)
	}
	return err
}

// A bit, another letter, one byte more, one byte less, an end that is missing: at every place.
func TestEveryChangedByteOfARunIsFound(t *testing.T) {
	s := newSigner(t)
	_, instances := campaign()
	run := tasks.Run{ID: runID, State: tasks.RunSucceeded, Total: 1, Counts: tasks.Counts{Succeeded: 1}, ListSHA256: tasks.ListHash([]string{"phone-9"})}
	var b strings.Builder
	if err := s.WriteRun(&b, OfRun(run, "v1.2.3", at(59)), visiting(instances[:1])); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for i, letter := range []byte(text) {
		another := "AB"[letter&1:][:1] // never the same: A is odd, B is even
		for what, changed := range map[string]string{
			"another letter": text[:i] + another + text[i+1:],
			"another bit":    text[:i] + string([]byte{letter ^ 1<<(i%8)}) + text[i+1:],
			"an end":         text[:i],
			"one byte less":  text[:i] + text[i+1:],
			"one byte more":  text[:i] + string("\n\r =.A\x00"[i%7]) + text[i:],
		} {
			if changed != text { // a repeated letter
				_ = refusedRun(t, s.Keys(), fmt.Sprintf("%s at byte %d", what, i), changed)
			}
		}
	}
}

func TestEachKindOfTamperingWithARunIsSaid(t *testing.T) {
	s := newSigner(t)
	text := signedRun(t, s)
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	lines[5] += "\n"
	with := func(order ...int) (text string) {
		for _, n := range order {
			text += lines[n]
		}
		return text
	}
	if with(0, 1, 2, 3, 4, 5) != text {
		t.Fatal("the lines are not the text")
	}
	another := signedRun(t, newSigner(t))
	for _, row := range []struct{ name, text, want string }{
		{"nothing", "", "it ends after line 0"},
		{"the end cut off", with(0, 1, 2, 3, 4), "it ends after line 5, without a signature: its end is missing"},
		{"more of the end cut off", with(0, 1, 2), "it ends after line 3, without a signature"},
		{"half a line cut off", with(0, 1, 2) + lines[3][:20], "it ends within line 4: its end is missing"},
		{"the last line end cut off", strings.TrimSuffix(text, "\n"), "it ends within line 6: its end is missing"},
		{"an instance left out", with(0, 1, 2, 4, 5), "it has 3 instances, and its first line counts 4: some were left out"},
		{"the first line left out", with(1, 2, 3, 4, 5), "its first line is no statement about a run: it has no run_id"},
		{"an instance twice", with(0, 1, 1, 2, 3, 4, 5), "line 6: it is one more than the 4 instances that the first line counts"},
		{"an instance twice, in place of another", with(0, 1, 1, 3, 4, 5), "its lines are not those that were signed"},
		{"two instances exchanged", with(0, 2, 1, 3, 4, 5), "its lines are not those that were signed"},
		{"an instance left out, and of the count", strings.Replace(with(0, 1, 3, 4, 5), `"total":4`, `"total":3`, 1), "5 lines were signed, and it has 4: some were added or left out"},
		{"another outcome", strings.Replace(text, `"state":"failed"`, `"state":"succeeded"`, 1), "its lines are not those that were signed"},
		{"an outcome that is none", strings.Replace(text, `"state":"failed"`, `"state":"running"`, 1), `line 4: instance "phone-10" is "running", which is no end`},
		{"another decision", strings.Replace(text, `"principal":"bob"`, `"principal":"eve"`, 1), "its lines are not those that were signed"},
		{"another spelling", strings.Replace(text, `"attempts":2`, `"attempts": 2`, 1), "its lines are not those that were signed"},
		{"line ends of Windows", strings.ReplaceAll(text, "\n", "\r\n"), "line 6 is no signature: it was changed"},
		{"a line appended", text + lines[4], "there is more after line 6, which is its signature"},
		{"an empty line appended", text + "\n", "there is more after line 6"},
		{"another proof appended", text + text, "there is more after line 6"},
		{"a line that is none", with(0, 1) + "hello\n" + with(2, 3, 4, 5), "line 3: it says nothing about an instance"},
		{"an empty line", with(0, 1) + "\n" + with(2, 3, 4, 5), "line 3: it says nothing about an instance"},
		{"a long line", with(0) + `{"instance_id":"` + strings.Repeat("x", maxRunLine) + "\"}\n" + with(5), "line 2 is longer than 262144 bytes"},
		{"a bad instance", strings.Replace(text, `"phone-8"`, `"phone 8"`, 1), `line 5: its instance_id "phone 8" has characters other than`},
		{"too many instances", strings.Replace(text, `"total":4`, `"total":1000001`, 1), "its first line counts 1000001 instances, which no run has"},
		{"the signature of another key", with(0, 1, 2, 3, 4) + another[strings.Index(another, beforeSignature):], "its last line: it names the key"},
		{"a later version", strings.Replace(text, `"version":1,"issuer"`, `"version":2,"issuer"`, 1), "it has version 2, and this program reads version 1"},
		{"a job's proof", signed(t, s, Of(partial(), "v1.2.3", at(59))) + "\n", "its first line is no statement about a run"},
		{"a job's proof as signature", with(0, 1, 2, 3, 4) + beforeSignature + signed(t, s, Of(partial(), "v1.2.3", at(59))) + afterSignature, "its last line: its header is"},
	} {
		if err := refusedRun(t, s.Keys(), row.name, row.text); err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %q, want %q", row.name, err, row.want)
		}
	}
	_, compact, _ := strings.Cut(strings.TrimSuffix(lines[5], afterSignature), beforeSignature)
	if _, _, err := s.Keys().Verify(compact); err == nil {
		t.Error("the signature of a run is taken for the proof of a job")
	}
}

// forgeRun signs whatever lines there are.
func forgeRun(t *testing.T, s *Signer, change func(*seal), lines string) string {
	t.Helper()
	digest := sha256.Sum256([]byte(lines))
	signed := seal{1, runID, strings.Count(lines, "\n"), hex.EncodeToString(digest[:])}
	change(&signed)
	compact, err := s.sign(runType, signed)
	if err != nil {
		t.Fatal(err)
	}
	return lines + beforeSignature + compact + afterSignature
}

func TestASignedContradictionOfARunIsFound(t *testing.T) {
	s := newSigner(t)
	text := signedRun(t, s)
	lines, _, _ := strings.Cut(text, beforeSignature)
	same := func(*seal) {}
	if forgeRun(t, s, same, lines) != text {
		t.Fatal("forgeRun does not sign as WriteRun does")
	}
	for _, row := range []struct {
		name, old, with string
		change          func(*seal)
		want            string
	}{
		{"another list", `"list_sha256":"`, `"list_sha256":"0`, same, "list_sha256 is not that of its instances"},
		{"another instance", `"phone-8"`, `"phone-7"`, same, "list_sha256 is not that of its instances"},
		{"an instance twice", `"phone-8"`, `"phone-9"`, same, `it has the instance "phone-9" twice`},
		{"other counts", `"succeeded":2,"failed":1`, `"succeeded":3,"failed":0`, same, "by its instances it is partial with"},
		{"another state", `"state":"partial"`, `"state":"succeeded"`, same, `it says that the run is "succeeded"`},
		{"a rejected run with a reset", `"state":"partial"`, `"state":"rejected"`, same, "it is rejected, and instances of it were in jobs"},
		{"one's own approval", `"principal":"bob"`, `"principal":"alice"`, same, "it was not approved, and instances of it were in jobs"},
		{"an approval too few", `"approvers":1`, `"approvers":2`, same, "it was not approved, and instances of it were in jobs"},
		{"a rejection", `"decision":"approved"`, `"decision":"rejected"`, same, "it was not approved, and instances of it were in jobs"},
		{"a round too many", `"round":2`, `"round":3`, same, "an instance of it was in round 3, and it had 2"},
		{"a success without a job", `"instance_id":"phone-11","state":"cancelled"`, `"instance_id":"phone-11","state":"succeeded"`, same, `"phone-11" is succeeded, and its item is called ""`},
		{"another run", "", "", func(s *seal) { s.RunID = jobID }, "its last line is about the run"},
		{"a later version", "", "", func(s *seal) { s.Version = 2 }, "it has version 2"},
		{"another digest", "", "", func(s *seal) { s.Digest = strings.ToUpper(s.Digest) }, "its lines are not those that were signed"},
		{"other lines", "", "", func(s *seal) { s.Lines = 6 }, "6 lines were signed, and it has 5"},
	} {
		forged := forgeRun(t, s, row.change, strings.Replace(lines, row.old, row.with, 1))
		if err := refusedRun(t, s.Keys(), row.name, forged); err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %q, want %q", row.name, err, row.want)
		}
	}
	// A newer service may say more.
	more := forgeRun(t, s, same, strings.ReplaceAll(lines, `{"`, `{"colour":"blue","`))
	if _, _, err := s.Keys().VerifyRun(strings.NewReader(more), func(RunItem) {}); err != nil {
		t.Errorf("fields more: %v", err)
	}
}

func TestWhatDoesNotFitIsNotSigned(t *testing.T) {
	s := newSigner(t)
	away := errors.New("Redis is away")
	for name, row := range map[string]struct {
		change func(*tasks.Run, []tasks.RunInstance)
		then   error
		want   string
	}{
		"an error":             {func(*tasks.Run, []tasks.RunInstance) {}, away, "Redis is away"},
		"other counts":         {func(r *tasks.Run, _ []tasks.RunInstance) { r.Counts.Succeeded, r.Counts.Failed = 3, 0 }, nil, "by its instances it is partial"},
		"another total":        {func(r *tasks.Run, _ []tasks.RunInstance) { r.Total = 5 }, nil, "it counts 5 instances, and has 4"},
		"an instance that may": {func(_ *tasks.Run, in []tasks.RunInstance) { in[1].Item.State = tasks.ItemPending }, nil, `"pending", which is no end`},
		"a state that is none": {func(_ *tasks.Run, in []tasks.RunInstance) { in[1].Item.State = "wiped" }, nil, `"wiped", which is no end`},
		"no approval":          {func(r *tasks.Run, _ []tasks.RunInstance) { r.Approval.Decisions = nil }, nil, "it was not approved"},
	} {
		run, instances := campaign()
		row.change(&run, instances)
		var b strings.Builder
		err := s.WriteRun(&b, OfRun(run, "v1.2.3", at(59)), func(visit func(tasks.RunInstance) error) error {
			return errors.Join(visiting(instances)(visit), row.then)
		})
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(b.String(), "signature") {
			t.Errorf("%s: %v, written %s", name, err, b.String())
		}
	}
	run, instances := campaign()
	full, write := io.Pipe()
	_ = full.CloseWithError(away)
	if err := s.WriteRun(write, OfRun(run, "v1.2.3", at(59)), visiting(instances)); !errors.Is(err, away) {
		t.Errorf("what nobody takes: %v", err)
	}
}

// many are instances that succeeded, in jobs of 32.
func many(n int) iter.Seq[tasks.RunInstance] {
	return func(yield func(tasks.RunInstance) bool) {
		for i := range n {
			job := tasks.PartJobID(runID, i/32)
			if !yield(tasks.RunInstance{JobID: job, Round: 1, Item: tasks.Item{
				ID: tasks.ItemID(job, i%32), InstanceID: fmt.Sprintf("phone-%06d", i), State: tasks.ItemSucceeded, Attempts: 1,
				StartedAt: at(6), FinishedAt: at(46), Evidence: "2026-01-02T15:04:46Z GET /phones/a44uhlf7: data born 2026-01-02T15:04:39Z",
			}}) {
				return
			}
		}
	}
}

func listOf(instances iter.Seq[tasks.RunInstance]) string {
	var ids []string
	for in := range instances {
		ids = append(ids, in.Item.InstanceID)
	}
	return tasks.ListHash(ids)
}

// inUse is how many bytes of the heap are.
func inUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// counter counts bytes.
type counter struct {
	io.Writer
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	c.n += len(b)
	return c.Writer.Write(b)
}

// A long run is written and checked in little memory: what is kept is the IDs.
func TestALongRunIsNotKeptInMemory(t *testing.T) {
	const instances, mostInUse, leastWritten = 100_000, 10 << 20, 25 << 20
	s := newSigner(t)
	run, _ := campaign()
	run.State, run.Total, run.Counts, run.ListSHA256 = tasks.RunSucceeded, instances, tasks.Counts{Succeeded: instances}, listOf(many(instances))
	before, most, seen := inUse(), 0, 0
	began := time.Now()
	read, write := io.Pipe()
	written := &counter{Writer: write}
	done := make(chan error, 1)
	go func() {
		err := s.WriteRun(written, OfRun(run, "v1.2.3", at(59)), func(visit func(tasks.RunInstance) error) error {
			for in := range many(instances) {
				if err := visit(in); err != nil {
					return err
				}
			}
			return nil
		})
		done <- errors.Join(err, write.CloseWithError(err))
	}()
	got, _, err := s.Keys().VerifyRun(read, func(RunItem) {
		if seen++; seen%10_000 == 0 {
			most = max(most, inUse()-before)
		}
	})
	_ = read.Close()
	if wrote := <-done; err != nil || wrote != nil || got.Counts.Succeeded != instances || seen != instances {
		t.Errorf("%+v, %d seen, %v; written: %v", got, seen, err, wrote)
	}
	t.Logf("%d bytes were written and checked in %s, with %d in use at most", written.n, time.Since(began), most)
	if most > mostInUse || written.n < leastWritten {
		t.Errorf("of %d bytes %d were in use, which are more than %d", written.n, most, mostInUse)
	}
}

func FuzzOnlyTheRunsProofItselfVerifies(f *testing.F) {
	s := rfcSigner(f)
	text := signedRun(f, s)
	f.Add(text)
	f.Add("{}\n" + beforeSignature + "e30.e30." + afterSignature)
	f.Fuzz(func(t *testing.T, other string) {
		if _, _, err := s.Keys().VerifyRun(strings.NewReader(other), func(RunItem) {}); (err == nil) != (other == text) {
			t.Errorf("%q: %v", other, err)
		}
	})
}
