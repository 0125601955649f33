package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
)

func TestWhatACallerSaysOfABatchIsInItsRecord(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	const body = `{"instance_ids":["a","b"],"reason":"factory <returns>","labels":{"site":"Köln","ticket":"T-7"},"not_before":%q}`
	later := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	send := func(body string, at time.Time) reply {
		t.Helper()
		return s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(fmt.Sprintf(body, at.Format(time.RFC3339Nano))), "Idempotency-Key", "k-1")
	}
	first := send(body, later)
	if first.Code != tasks.OK {
		t.Fatalf("answer %+v", first)
	}
	id := strings.TrimPrefix(first.header.Get("Location"), "/v1/jobs/")
	got := s.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil)
	for _, want := range []string{
		`"not_before":"` + later.Format("2006-01-02T15:04:05.000Z") + `"`, `"reason":"factory \u003creturns\u003e"`,
		`"labels":{"site":"Köln","ticket":"T-7"}`, `"pending":2`,
	} {
		if !strings.Contains(string(got.Data), want) {
			t.Errorf("record %s, want %s in it", got.Data, want)
		}
	}
	if again := send(body, later.In(time.FixedZone("", 3600))); again.header.Get("Location") != first.header.Get("Location") {
		t.Errorf("the same request again: %+v", again)
	}
	for _, other := range []string{
		strings.Replace(body, "returns", "return", 1), strings.Replace(body, "T-7", "T-8", 1), strings.Replace(body, `"site"`, `"town"`, 1),
	} {
		if got := send(other, later); got.Code != tasks.KeyReused {
			t.Errorf("%s: answer %+v", other, got)
		}
	}
	if got := send(body, later.Add(time.Millisecond)); got.Code != tasks.KeyReused {
		t.Errorf("another time: answer %+v", got)
	}
	// A replay does not fail because the time has come meanwhile.
	job, err := s.db.Records.Submit(t.Context(), tasks.Submission{
		Tenant: "acme", InstanceIDs: []string{"c"}, AllowUnregistered: true, IdempotencyKey: "k-2", NotBefore: tasks.FromMillis(time.Now().Add(-time.Hour).UnixMilli()),
	})
	if err != nil {
		t.Fatal(err)
	}
	replay := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(
		fmt.Sprintf(`{"instance_ids":["c"],"not_before":%q}`, job.NotBefore.Format(time.RFC3339Nano))), "Idempotency-Key", "k-2")
	if replay.Code != tasks.OK || replay.header.Get("Location") != "/v1/jobs/"+job.ID {
		t.Errorf("replay: %+v", replay)
	}
}

func TestADryRunSaysWhatWouldBeAndLeavesNothing(t *testing.T) {
	s := newService(t, api.Config{})
	if err := s.db.Fleet.Register(t.Context(), []tasks.Instance{
		{ID: "mine", Tenant: "acme"}, {ID: "theirs", Tenant: "other"}, {ID: "safe", Tenant: "acme", Protected: true}, {ID: "taken", Tenant: "acme"},
	}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	holder, err := s.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"taken"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Attempts.Begin(t.Context(), holder.Deliveries()[0], "t", "k", time.Minute); err != nil {
		t.Fatal(err)
	}
	before := s.rdb.Keys(t.Context(), "*").Val()
	got := s.do(t, http.MethodPost, batchReset, "acme",
		strings.NewReader(`{"instance_ids":["mine","nobodys","theirs","safe","taken","mine"],"dry_run":true}`), "Idempotency-Key", "k-1")
	const want = `{"dry_run":true,"instances":[{"instance_id":"mine","verdict":"would_reset"},` +
		`{"instance_id":"nobodys","verdict":"unknown"},{"instance_id":"theirs","verdict":"unknown"},` +
		`{"instance_id":"safe","verdict":"protected"},{"instance_id":"taken","verdict":"busy"}]}`
	if got.status != http.StatusOK || string(got.Data) != want {
		t.Errorf("answer %s", got.Data)
	}
	if after := s.rdb.Keys(t.Context(), "*").Val(); len(after) != len(before) {
		t.Errorf("keys before %v, after %v", before, after)
	}
}

func TestJobsByName(t *testing.T) {
	s := newService(t, testConfig)
	a, b, nobodys := s.submit(t, "phone-1"), s.submit(t, "phone-2"), tasks.NewJobID()
	foreign, err := s.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "other", InstanceIDs: []string{"phone-3"}, AllowUnregistered: true})
	if err != nil {
		t.Fatal(err)
	}
	got := s.do(t, http.MethodGet, "/v1/jobs?ids="+strings.Join([]string{b, nobodys, a, foreign.ID, b}, ","), "acme", nil)
	var page struct {
		Jobs    []tasks.Job `json:"jobs"`
		Missing []string    `json:"missing"`
	}
	if err := json.Unmarshal(got.Data, &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Jobs) != 2 || page.Jobs[0].ID != b || page.Jobs[1].ID != a || page.Jobs[0].Items != nil || page.Jobs[0].Total != 1 {
		t.Errorf("jobs %+v", page.Jobs)
	}
	if !slices.Equal(page.Missing, []string{nobodys, foreign.ID}) {
		t.Errorf("missing %v", page.Missing)
	}
	many := make([]string, 101)
	for i := range many {
		many[i] = tasks.NewJobID()
	}
	for query, message := range map[string]string{
		"ids=": `ids[0] "" is not a job ID`, "ids=" + a + ",x": `ids[1] "x" is not a job ID`,
		"ids=" + a + "&state=running":    "ids and state do not go together",
		"ids=" + strings.Join(many, ","): "ids lists 101 jobs, the limit is 100",
	} {
		if got := s.do(t, http.MethodGet, "/v1/jobs?"+query, "acme", nil); got.Code != tasks.BadRequest || got.Message != message {
			t.Errorf("%.60s: answer %+v, want %q", query, got, message)
		}
	}
	if got := s.do(t, http.MethodGet, "/v1/jobs?ids="+strings.Join(many[1:], "&ids="), "acme", nil); got.Code != tasks.OK {
		t.Errorf("100 jobs: answer %+v", got)
	}
}
