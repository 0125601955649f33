package proof

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
)

const (
	jobID = "5f9c1f0f3a5e4b0d8c7a6b5c4d3e2f10"
	// The key of RFC 8037, appendix A.
	rfcSeed  = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
	rfcKeyID = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
)

// rfcSigner signs with the key of the RFC.
func rfcSigner(t testing.TB) *Signer {
	t.Helper()
	raw, err := decode(rfcSeed)
	if err != nil {
		t.Fatal(err)
	}
	private := ed25519.NewKeyFromSeed(raw)
	return &Signer{private, Keys{private.Public().(ed25519.PublicKey)}}
}

func newSigner(t testing.TB) *Signer {
	t.Helper()
	text, _, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadSigner(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(seconds int) tasks.Time {
	return tasks.Time{Time: time.Date(2026, 1, 2, 15, 4, seconds, 140e6, time.UTC)}
}

// partial is a job of which one item succeeded, and one failed twice.
func partial() tasks.Job {
	job := tasks.Job{
		ID: jobID, Tenant: "acme", RequestID: "R1", By: "token 3fa1c09b7e55d210", From: "192.0.2.7",
		Reason: "returned <by> the customer", Labels: map[string]string{"ticket": "T-4711", "site": "lab-3"},
		CreatedAt: at(5), StartedAt: at(6), FinishedAt: at(46), Total: 2,
		Items: []tasks.Item{
			{
				ID: jobID + "-0", InstanceID: "phone-9", State: tasks.ItemSucceeded, Attempts: 1, StartedAt: at(6), FinishedAt: at(46),
				Evidence: "2026-01-02T15:04:46Z data born 15:04:40",
			},
			{
				ID: jobID + "-1", InstanceID: "phone-10", State: tasks.ItemFailed, Attempts: 2, StartedAt: at(6), FinishedAt: at(12),
				Code: "CPS.0005", Message: "not in a proof", Driver: "lab",
				History: []tasks.PastAttempt{
					{Number: 1, StartedAt: at(6), FinishedAt: at(9), Outcome: "retrying", Code: "CPS.0042", Message: "not in a proof"},
					{Number: 2, StartedAt: at(11), FinishedAt: at(12), Outcome: "failed", Code: "CPS.0005"},
				},
			},
		},
	}
	job.Counts = tasks.Count(job.Items)
	job.State = job.Counts.State()
	return job
}

func signed(t testing.TB, s *Signer, statement Statement) string {
	t.Helper()
	compact, err := s.Sign(statement)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// In words, so that nobody changes by accident what was signed before.
const partialInWords = `{"version":1,"issuer":{"service":"batchreset","version":"v1.2.3"},"issued_at":"2026-01-02T15:04:59.140Z",` +
	`"job_id":"5f9c1f0f3a5e4b0d8c7a6b5c4d3e2f10","tenant":"acme","request_id":"R1","requested_by":{"by":"token 3fa1c09b7e55d210","from":"192.0.2.7"},` +
	`"reason":"returned \u003cby\u003e the customer","labels":{"site":"lab-3","ticket":"T-4711"},` +
	`"list_sha256":"LIST",` +
	`"state":"partial","created_at":"2026-01-02T15:04:05.140Z","started_at":"2026-01-02T15:04:06.140Z","finished_at":"2026-01-02T15:04:46.140Z",` +
	`"total":2,"counts":{"pending":0,"running":0,"retrying":0,"succeeded":1,"failed":1,"unknown":0,"cancelled":0},"items":[` +
	`{"item_id":"5f9c1f0f3a5e4b0d8c7a6b5c4d3e2f10-0","instance_id":"phone-9","state":"succeeded","attempts":1,` +
	`"started_at":"2026-01-02T15:04:06.140Z","finished_at":"2026-01-02T15:04:46.140Z","evidence":"2026-01-02T15:04:46Z data born 15:04:40","driver":"default"},` +
	`{"item_id":"5f9c1f0f3a5e4b0d8c7a6b5c4d3e2f10-1","instance_id":"phone-10","state":"failed","attempts":2,` +
	`"started_at":"2026-01-02T15:04:06.140Z","finished_at":"2026-01-02T15:04:12.140Z","error_code":"CPS.0005","driver":"lab","history":[` +
	`{"attempt":1,"started_at":"2026-01-02T15:04:06.140Z","finished_at":"2026-01-02T15:04:09.140Z","outcome":"retrying","error_code":"CPS.0042"},` +
	`{"attempt":2,"started_at":"2026-01-02T15:04:11.140Z","finished_at":"2026-01-02T15:04:12.140Z","outcome":"failed","error_code":"CPS.0005"}]}]}`

func TestAProofSaysWhatTheRecordHeld(t *testing.T) {
	s := rfcSigner(t)
	statement := Of(partial(), "v1.2.3", at(59))
	// printf 'phone-10\nphone-9\n' | sha256sum
	const list = "e86fe595a03631f4c2f0879863105fdcc4904f2c86153ad19ec515f4708d65c0"
	if statement.List != list {
		t.Errorf("the list's hash is %s", statement.List)
	}
	compact := signed(t, s, statement)
	if again := signed(t, s, Of(partial(), "v1.2.3", at(59))); again != compact {
		t.Error("the same record has given another proof")
	}
	parts := strings.Split(compact, ".")
	head, err := decode(parts[0])
	if want := `{"alg":"EdDSA","kid":"` + rfcKeyID + `","typ":"batchreset-proof+jws"}`; err != nil || string(head) != want {
		t.Errorf("the header is %s, %v", head, err)
	}
	payload, err := decode(parts[1])
	if want := strings.Replace(partialInWords, "LIST", list, 1); err != nil || string(payload) != want {
		t.Errorf("it says\n%s\nwant\n%s", payload, want)
	}
	got, id, err := s.Keys().Verify(compact)
	if err != nil || id != rfcKeyID || !reflect.DeepEqual(got, statement) {
		t.Errorf("got %+v, key %s, %v", got, id, err)
	}
}

func TestAProofOfAnOldRecordDoesNotSayWhoAsked(t *testing.T) {
	job := partial()
	job.By, job.From = "", ""
	text, err := json.Marshal(Of(job, "v1.2.3", at(59)))
	if err != nil || strings.Contains(string(text), "requested_by") {
		t.Errorf("%s, %v", text, err)
	}
}

// A bit, another letter, one byte more, one byte less, an end that is missing: at every place.
func TestEveryChangedByteIsFound(t *testing.T) {
	s := newSigner(t)
	job := partial()
	job.Items, job.Total = job.Items[:1], 1
	job.Counts, job.State = tasks.Counts{Succeeded: 1}, tasks.JobSucceeded
	compact := signed(t, s, Of(job, "v1.2.3", at(59)))
	refuses := func(what string, i int, changed string) {
		if _, _, err := s.Keys().Verify(changed); err == nil {
			t.Errorf("%s at byte %d: it verifies", what, i)
		}
	}
	for i, letter := range []byte(compact) {
		another := "AB"[letter&1:][:1] // never the same: A is odd, B is even
		refuses("another letter", i, compact[:i]+another+compact[i+1:])
		refuses("another bit", i, compact[:i]+string([]byte{letter ^ 1<<(i%8)})+compact[i+1:])
		refuses("an end", i, compact[:i])
		refuses("one byte less", i, compact[:i]+compact[i+1:])
		refuses("one byte more", i, compact[:i]+string("\n\r =.A\x00"[i%7])+compact[i:])
	}
	for _, more := range []string{"\n", "\r\n", " ", "=", ".", "A", ".e30"} {
		refuses(fmt.Sprintf("%q more", more), len(compact), compact+more)
	}
}

// The last letter of a signature has bits that count for nothing: base64 has 16 spellings of it.
func TestASignatureHasOneSpelling(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	s := newSigner(t)
	compact := signed(t, s, Of(partial(), "v1.2.3", at(59)))
	for part := range strings.SplitSeq(compact, ".") {
		end := strings.Index(compact, part) + len(part)
		for _, letter := range alphabet {
			changed := compact[:end-1] + string(letter) + compact[end:]
			if _, _, err := s.Keys().Verify(changed); (err == nil) != (changed == compact) {
				t.Errorf("%q as the end of part %.10s…: %v", letter, part, err)
			}
		}
	}
}

// forge signs whatever header and payload there are.
func forge(s *Signer, head, payload string) string {
	text := encode([]byte(head)) + "." + encode([]byte(payload))
	return text + "." + encode(ed25519.Sign(s.private, []byte(text)))
}

func TestOnlyAProofIsOne(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	statement := Of(partial(), "v1.2.3", at(59))
	compact := signed(t, s, statement)
	id := KeyID(s.keys[0])
	head := `{"alg":"EdDSA","kid":"` + id + `","typ":"batchreset-proof+jws"}`
	raw, err := json.Marshal(statement)
	if err != nil {
		t.Fatal(err)
	}
	payload := string(raw)
	if forge(s, head, payload) != compact {
		t.Fatal("forge does not sign as Sign does")
	}
	first, second, third := cut(compact)
	for _, row := range []struct{ name, compact, want string }{
		{"nothing", "", "it is no proof: it is empty"},
		{"a page", "<!doctype html>", `byte 1 is "<", which no proof has`},
		{"a proof with a byte order mark", "\ufeff" + compact, `byte 1 is "\ufeff"`},
		{"a proof in UTF-16", "\xff\xfe" + compact, `byte 1 is "\xff"`},
		{"a proof with a line end of Windows", compact + "\r", `is "\r", which no proof has`},
		{"text", "hello", "it has 1 parts, not 3"},
		{"a JSON serialization", `{"payload":"` + second + `","protected":"` + first + `","signature":"` + third + `"}`, "it is no proof"},
		{"an encrypted JWE", compact + "..", "it has 5 parts, not 3"},
		{"no header", "." + second + "." + third, "its header is not JSON"},
		{"no signature", first + "." + second + ".", "the signature does not fit"},
		{"another key under the ID", forge(other, head, payload), "the signature does not fit"},
		{"another key under its own ID", signed(t, other, statement), "it names the key " + fmt.Sprintf("%q", KeyID(other.keys[0])) + ", which is not in the key set"},
		{"no key named", forge(s, `{"alg":"EdDSA","typ":"batchreset-proof+jws"}`, payload), "its header is"},
		{"no algorithm", encode([]byte(strings.Replace(head, "EdDSA", "none", 1))) + "." + second + ".", `names the algorithm "none"`},
		{"a secret made of the public key", forge(s, strings.Replace(head, "EdDSA", "HS256", 1), payload), `names the algorithm "HS256"`},
		{"an algorithm spelled another way", forge(s, strings.Replace(head, "EdDSA", "eddsa", 1), payload), `names the algorithm "eddsa"`},
		{"another type", forge(s, strings.Replace(head, "batchreset-proof+jws", "JWT", 1), payload), "which no proof has"},
		{"a key of its own", forge(s, strings.Replace(head, "}", `,"jwk":{"kty":"OKP"}}`, 1), payload), "which no proof has"},
		{"something critical", forge(s, strings.Replace(head, "}", `,"crit":["exp"]}`, 1), payload), "which no proof has"},
		{"a header in another order", forge(s, `{"kid":"`+id+`","alg":"EdDSA","typ":"batchreset-proof+jws"}`, payload), "which no proof has"},
		{"a name twice", forge(s, strings.Replace(head, "{", `{"alg":"none",`, 1), payload), "which no proof has"},
		{"the payload of another", first + "." + encode([]byte("{}")) + "." + third, "the signature does not fit"},
		{"signed text", forge(s, head, "hello"), "it is signed, but is no statement"},
		{"signed JSON", forge(s, head, "{}"), "version 0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got, _, err := s.Keys().Verify(row.compact); err == nil || !strings.Contains(err.Error(), row.want) || got.JobID != "" {
				t.Errorf("got %+v, %v, want an error with %q", got, err, row.want)
			}
		})
	}
	if _, _, err := (Keys{}).Verify(compact); err == nil {
		t.Error("it verifies without a key")
	}
	// A newer service may say more.
	if _, _, err := s.Keys().Verify(forge(s, head, strings.Replace(payload, "{", `{"approved_by":{"by":"x"},`, 1))); err != nil {
		t.Errorf("one field more: %v", err)
	}
}

func cut(compact string) (head, payload, signature string) {
	parts := strings.Split(compact, ".")
	return parts[0], parts[1], parts[2]
}

func TestASignedContradictionIsFound(t *testing.T) {
	s := newSigner(t)
	for name, row := range map[string]struct {
		change func(*Statement)
		want   string
	}{
		"a later version":        {func(s *Statement) { s.Version = 2 }, "version 2"},
		"another list":           {func(s *Statement) { s.List = tasks.ListHash([]string{"phone-9"}) }, "list_sha256"},
		"another instance":       {func(s *Statement) { s.Items[1].InstanceID = "phone-11" }, "list_sha256"},
		"one item less":          {func(s *Statement) { s.Items = s.Items[:1] }, "counts 2 items, and has 1"},
		"no items":               {func(s *Statement) { s.Items, s.Total, s.Counts = nil, 0, tasks.Counts{} }, "counts 0 items"},
		"another total":          {func(s *Statement) { s.Total = 3 }, "counts 3 items, and has 2"},
		"other counts":           {func(s *Statement) { s.Counts.Succeeded, s.Counts.Failed = 2, 0 }, "by its items it is partial"},
		"another state":          {func(s *Statement) { s.State = tasks.JobSucceeded }, "by its items it is partial"},
		"an item that succeeds":  {func(s *Statement) { s.Items[1].State = tasks.ItemSucceeded }, "by its items it is succeeded"},
		"an item that runs":      {func(s *Statement) { s.Items[1].State = tasks.ItemRunning }, "which is no end"},
		"no state":               {func(s *Statement) { s.Items[1].State = "" }, "which is no end"},
		"an unknown state":       {func(s *Statement) { s.Items[1].State = "wiped" }, "which is no end"},
		"an item of another":     {func(s *Statement) { s.Items[1].ID = tasks.NewJobID() + "-1" }, "item 1 is called"},
		"items in another order": {func(s *Statement) { s.Items[0], s.Items[1] = s.Items[1], s.Items[0] }, "item 0 is called"},
		"an instance twice":      {func(s *Statement) { s.Items[1].InstanceID = s.Items[0].InstanceID }, "twice"},
		"another job":            {func(s *Statement) { s.JobID = tasks.NewJobID() }, "item 0 is called"},
	} {
		t.Run(name, func(t *testing.T) {
			statement := Of(partial(), "v1.2.3", at(59))
			row.change(&statement)
			if _, _, err := s.Keys().Verify(signed(t, s, statement)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want an error with %q", err, row.want)
			}
		})
	}
}

func FuzzOnlyTheProofItselfVerifies(f *testing.F) {
	s := rfcSigner(f)
	compact := signed(f, s, Of(partial(), "v1.2.3", at(59)))
	f.Add(compact)
	f.Add("..")
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		if _, _, err := s.Keys().Verify(text); (err == nil) != (text == compact) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
