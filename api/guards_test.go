package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
)

func (s service) limit(t testing.TB, limits tasks.Limits) {
	t.Helper()
	if err := s.db.Policies.SetLimits(t.Context(), "acme", limits, false, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
}

func wantTooMany(t testing.TB, got reply, text string) {
	t.Helper()
	after, err := strconv.Atoi(got.header.Get("Retry-After"))
	if got.status != http.StatusTooManyRequests || got.Code != tasks.TooManyRequests || err != nil || after < 1 || !strings.Contains(got.Message, text) {
		t.Errorf("answer %+v, want 429 with %q", got, text)
	}
}

func TestTheQuotaRefusesWholeBatches(t *testing.T) {
	s := newService(t, testConfig)
	send := func(key string, instances ...string) reply {
		t.Helper()
		body, err := json.Marshal(map[string]any{"instance_ids": instances})
		if err != nil {
			t.Fatal(err)
		}
		return s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(string(body)), "Idempotency-Key", key)
	}
	first := send("k-1", "a", "b")
	s.limit(t, tasks.Limits{InstancesPerHour: new(2)})
	second := send("k-2", "c", "d")
	if first.Code != tasks.OK || second.Code != tasks.OK {
		t.Fatalf("answers %+v, %+v", first, second)
	}
	before := len(s.rdb.Keys(t.Context(), "*").Val())
	wantTooMany(t, send("k-3", "e"), "the quota of 2 instances per hour is used up: 2 are counted, 1 more were asked for")
	if after := len(s.rdb.Keys(t.Context(), "*").Val()); after != before {
		t.Errorf("%d keys before, %d after", before, after)
	}
	// What was accepted is answered again, whatever the quota says, and uses none of it.
	for key, earlier := range map[string]reply{"k-1": first, "k-2": second} {
		ids := map[string][]string{"k-1": {"a", "b"}, "k-2": {"c", "d"}}[key]
		if again := send(key, ids...); string(again.Data) != string(earlier.Data) {
			t.Errorf("%s again: %+v", key, again)
		}
	}
	if usage, err := s.db.Quotas.Usage(t.Context(), "acme"); err != nil || usage.AcceptedLastHour != 2 {
		t.Errorf("usage %+v, %v", usage, err)
	}
	// A list that is wrong is told so, not that the quota is used up.
	if got := send("k-4", "!"); got.Code != tasks.BadRequest {
		t.Errorf("answer %+v", got)
	}
	if got := s.do(t, http.MethodPost, batchReset, "other", strings.NewReader(`{"instance_ids":["x","y","z"]}`)); got.Code != tasks.OK {
		t.Errorf("another tenant: %+v", got)
	}
}

func TestADryRunSaysWhatIsOverQuota(t *testing.T) {
	s := newService(t, api.Config{})
	if err := s.db.Fleet.Register(t.Context(), []tasks.Instance{
		{ID: "a", Tenant: "acme"}, {ID: "b", Tenant: "acme"}, {ID: "c", Tenant: "acme"}, {ID: "safe", Tenant: "acme", Protected: true},
	}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	s.limit(t, tasks.Limits{OpenInstances: new(2)})
	verdicts := func() string {
		t.Helper()
		got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a","safe","b","c"],"dry_run":true}`))
		return string(got.Data)
	}
	const want = `{"dry_run":true,"instances":[{"instance_id":"a","verdict":"would_reset"},{"instance_id":"safe","verdict":"protected"},` +
		`{"instance_id":"b","verdict":"would_reset"},{"instance_id":"c","verdict":"over_quota"}]}`
	for range 2 { // which uses nothing
		if got := verdicts(); got != want {
			t.Errorf("answer %s", got)
		}
	}
}

func TestABatchForAGeneration(t *testing.T) {
	s := newService(t, api.Config{})
	fleet := []tasks.Instance{{ID: "a", Tenant: "acme"}, {ID: "b", Tenant: "acme"}}
	if err := s.db.Fleet.Register(t.Context(), fleet, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Fleet.Import(t.Context(), []tasks.FleetChange{{ID: "b", Reassigned: true}}, false, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]string{
		`{"instance_ids":["a","b"],"dry_run":true,"generation":1}`:             `"instance_id":"a","verdict":"would_reset"},{"instance_id":"b","verdict":"reassigned"`,
		`{"instance_ids":["a","b"],"dry_run":true,"generation":{"b":2}}`:       `"instance_id":"a","verdict":"would_reset"},{"instance_id":"b","verdict":"would_reset"`,
		`{"instance_ids":["b","a"],"dry_run":true,"generation":{"b":2,"a":7}}`: `"instance_id":"b","verdict":"would_reset"},{"instance_id":"a","verdict":"reassigned"`,
	} {
		if got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(body)); got.Code != tasks.OK || !strings.Contains(string(got.Data), want) {
			t.Errorf("%s: %+v %s", body, got, got.Data)
		}
	}
	for body, want := range map[string]string{
		`{"instance_ids":["a"],"generation":null}`:          "generation must be a whole number from 1, or an object",
		`{"instance_ids":["a"],"generation":"1"}`:           "generation must be a whole number from 1, or an object",
		`{"instance_ids":["a"],"generation":1.5}`:           "generation must be a whole number from 1, or an object",
		`{"instance_ids":["a"],"generation":0}`:             "generation must be from 1 to",
		`{"instance_ids":["a"],"generation":{"a":-1}}`:      "generation must be from 1 to",
		`{"instance_ids":["a"],"generation":{"b":1}}`:       `generation has the instance "b", which instance_ids does not have`,
		`{"instance_ids":["a"],"generation":{"a":null}}`:    "generation must be",
		`{"instance_ids":["a"],"Generation":1}`:             `did you mean "generation"?`,
		`{"instance_ids":["a"],"generation":{"a":1,"a":2}}`: `twice`,
	} {
		if got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(body)); got.Code != tasks.BadRequest || !strings.Contains(got.Message, want) {
			t.Errorf("%s: %+v", body, got)
		}
	}
	// Another generation is another request.
	with := func(body string) tasks.Code {
		return s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(body), "Idempotency-Key", "k").Code
	}
	if with(`{"instance_ids":["a"],"generation":1}`) != tasks.OK || with(`{"instance_ids":["a"],"generation":{"a":1}}`) != tasks.OK ||
		with(`{"instance_ids":["a"],"generation":2}`) != tasks.KeyReused || with(`{"instance_ids":["a"]}`) != tasks.KeyReused {
		t.Error("the generation is no part of the request")
	}
}

func TestEveryRequestCountsAgainstItsRate(t *testing.T) {
	s := newService(t, testConfig)
	id := s.submit(t, "phone-1")
	requests := []struct{ method, path, body string }{
		{http.MethodPost, batchReset, `{"instance_ids":["a"]}`},
		{http.MethodGet, "/v1/instances/tasks/" + id, ""},
		{http.MethodGet, "/v1/jobs", ""},
		{http.MethodGet, "/v1/jobs/" + id, ""},
		{http.MethodGet, "/v1/jobs/" + id + "/events", ""},
		{http.MethodPost, "/v1/jobs/" + id + "/retry", ""},
		{http.MethodPost, "/v1/resume", ""},
		{http.MethodPost, "/v1/runs", `{"instance_ids":["a"]}`},
		{http.MethodGet, "/v1/runs", ""},
		{http.MethodGet, "/v1/runs/" + id, ""},
		{http.MethodGet, "/v1/runs/" + id + "/events", ""},
		{http.MethodPost, "/v1/runs/" + id + "/ticket", ""},
		{http.MethodGet, "/v1/runs/" + id + "/results", ""},
		{http.MethodGet, "/v1/runs/" + id + "/proof", ""},
		{http.MethodPost, "/v1/runs/" + id + "/resume", ""},
	}
	s.limit(t, tasks.Limits{RequestsPerSecond: new(1)})
	if got := s.do(t, http.MethodGet, "/v1/jobs", "acme", nil); got.Code != tasks.OK {
		t.Fatalf("the first: %+v", got)
	}
	for _, r := range requests {
		// The second is long: the key says when the next request would be due.
		s.rdb.Set(t.Context(), "reset:pace:{acme}", strconv.FormatInt(time.Now().Add(time.Minute).UnixMicro(), 10), time.Minute)
		wantTooMany(t, s.do(t, r.method, r.path, "acme", strings.NewReader(r.body)), "more than 1 requests per second")
	}
	if got := s.do(t, http.MethodGet, "/v1/jobs", "other", nil); got.Code != tasks.OK {
		t.Errorf("another tenant: %+v", got)
	}
	// Whoever floods the API can stop that.
	for range 3 {
		if got := s.do(t, http.MethodPost, "/v1/halt", "acme", nil); got.Code != tasks.OK {
			t.Errorf("halt: %+v", got)
		}
	}
	if got := s.do(t, http.MethodPost, "/v1/jobs/"+id+"/cancel", "acme", nil); got.Code != tasks.OK {
		t.Errorf("cancel: %+v", got)
	}
	for _, path := range []string{"/v1/runs/" + id + "/pause", "/v1/runs/" + id + "/cancel"} {
		if got := s.do(t, http.MethodPost, path, "acme", nil); got.Code != tasks.NoJob {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

// An operators' halt is not the tenant's to lift, and the tenant's own is not lifted with it.
func TestATenantLiftsHisOwnHaltOnly(t *testing.T) {
	s := newService(t, testConfig)
	type halt struct{ By, Reason string }
	post := func(path, body string) (halted bool, top halt, all []halt) {
		t.Helper()
		got := s.do(t, http.MethodPost, path, "acme", strings.NewReader(body))
		var state struct {
			Halted bool
			halt
			Halts []halt
		}
		if err := json.Unmarshal(got.Data, &state); err != nil || got.Code != tasks.OK {
			t.Fatalf("%s: %+v, %v", path, got, err)
		}
		_ = json.Unmarshal(got.Data, &top)
		return state.Halted, top, state.Halts
	}
	want := func(path, body, expected string) {
		t.Helper()
		halted, top, all := post(path, body)
		if got := fmt.Sprint(halted, top, all); got != expected {
			t.Errorf("%s: %s, want %s", path, got, expected)
		}
	}
	for _, whom := range []string{"acme", ""} {
		if err := s.db.Policies.Halt(t.Context(), whom, tasks.HaltedByOperator, tasks.Actor{Reason: "theirs"}); err != nil {
			t.Fatal(err)
		}
		want("/v1/resume", "", "true {operator theirs} [{operator theirs}]")
		want("/v1/halt", `{"reason":"mine"}`, "true {operator theirs} [{operator theirs} {tenant mine}]")
		want("/v1/resume", "", "true {operator theirs} [{operator theirs}]")
		want("/v1/halt", `{"reason":"again"}`, "true {operator theirs} [{operator theirs} {tenant again}]")
		want("/v1/halt", `{"reason":"once more"}`, "true {operator theirs} [{operator theirs} {tenant again}]")
		if err := s.db.Policies.Resume(t.Context(), whom, tasks.HaltedByOperator, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		want("/v1/halt", `{"reason":"x"}`, "true {tenant again} [{tenant again}]")
		want("/v1/resume", "", "false { } []")
	}
	// What changed nothing was not decided.
	got := []string{}
	for _, line := range s.trail(t) {
		got = append(got, strings.Fields(line)[0])
	}
	if fmt.Sprint(got) != "[halt halt resume halt resume resume halt halt resume halt resume resume]" {
		t.Errorf("trail %v", got)
	}
}

func TestATenantHaltsItsResets(t *testing.T) {
	s := newService(t, testConfig)
	post := func(path, body string) reply {
		t.Helper()
		return s.do(t, http.MethodPost, path, "acme", strings.NewReader(body))
	}
	got := post("/v1/halt", `{"reason":"wrong list"}`)
	var state struct {
		Halted bool
		Since  time.Time
		Reason string
	}
	if err := json.Unmarshal(got.Data, &state); err != nil || !state.Halted || state.Reason != "wrong list" || time.Since(state.Since) > time.Minute {
		t.Errorf("answer %+v, %v", got, err)
	}
	if policy, err := s.db.Policies.Policy(t.Context(), "acme"); err != nil || policy.Halt() == nil || policy.Halt().Reason != "wrong list" {
		t.Errorf("policy %+v, %v", policy, err)
	}
	if policy, err := s.db.Policies.Policy(t.Context(), "other"); err != nil || policy.Halt() != nil {
		t.Errorf("another tenant's policy %+v, %v", policy, err)
	}
	// What is accepted meanwhile waits.
	if got := post(batchReset, `{"instance_ids":["a"]}`); got.Code != tasks.OK {
		t.Errorf("submit: %+v", got)
	}
	if got := post("/v1/resume", ""); string(got.Data) != `{"halted":false,"halts":[]}` {
		t.Errorf("answer %s", got.Data)
	}
	for body, want := range map[string]string{
		"[]": "the body must be a JSON object", "{": "the body is not JSON: it ends too early",
		`{"reason":7}`: "reason must be a string", `{"reason":null}`: "reason must be a string",
		fmt.Sprintf(`{"reason":%q}`, strings.Repeat("x", 257)): "reason is 257 characters long, the limit is 256",
	} {
		if got := post("/v1/halt", body); got.Code != tasks.BadRequest || got.Message != want {
			t.Errorf("%.40s: answer %+v", body, got)
		}
	}
}

func TestOnlyATokenMadeForItHalts(t *testing.T) {
	s := newService(t, testConfig)
	if _, err := s.db.Tokens.Add(t.Context(), "plain", tasks.Token{Tenant: "acme", Scopes: tasks.DefaultScopes}, 0, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/halt", "/v1/resume"} {
		if got := s.do(t, http.MethodPost, path, "plain", io.LimitReader(nil, 0)); got.Code != tasks.Forbidden {
			t.Errorf("%s: answer %+v", path, got)
		}
	}
}
