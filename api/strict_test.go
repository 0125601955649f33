package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"batchreset/api"
	"batchreset/tasks"
)

// batchFields are all that a batch-reset can have.
var batchFields = []string{"instance_ids", "dry_run", "max_failures", "not_before", "reason", "labels"}

// TestNothingInABodyIsSkipped: each of these was accepted once, and some wiped what nobody
// asked for.
func TestNothingInABodyIsSkipped(t *testing.T) {
	s := newService(t, testConfig)
	for body, want := range map[string]string{
		// Spelled another way.
		`{"instance_ids":["a"],"INSTANCE_IDS":["b"]}`:                    `unknown field "INSTANCE_IDS"; did you mean "instance_ids"?`,
		`{"Instance_Ids":["a"]}`:                                         `unknown field "Instance_Ids"; did you mean "instance_ids"?`,
		`{"instance_ids":["a"],"dryRun":true}`:                           `unknown field "dryRun"; did you mean "dry_run"?`,
		`{"instance_ids":["a"],"dry-run":true}`:                          `unknown field "dry-run"; did you mean "dry_run"?`,
		`{"instance_ids":["a"],"dry_run ":true}`:                         `unknown field "dry_run "; did you mean "dry_run"?`,
		`{"instance_ids":["a"],"DRY_RUN":true}`:                          `unknown field "DRY_RUN"; did you mean "dry_run"?`,
		`{"dry_run":true,"DRY_RUN":false,"instance_ids":["a"]}`:          `unknown field "DRY_RUN"; did you mean "dry_run"?`,
		`{"instance_ids":["a"],"notBefore":"2099-01-01T00:00:00Z"}`:      `unknown field "notBefore"; did you mean "not_before"?`,
		`{"instance_ids":["a"],"maxFailures":1}`:                         `unknown field "maxFailures"; did you mean "max_failures"?`,
		`{"instance_ids":["a"],"label":{"x":"y"}}`:                       `unknown field "label"; did you mean "labels"?`,
		`{"instance_ids":["a"],"rea\u017fon":"y"}`:                       `unknown field "rea`, // encoding/json folds ſ to s
		`{"in\u017ftance_ids":["a"]}`:                                    `unknown field "in`,
		`{"instance_ids":["a"],"force":true}`:                            `unknown field "force"`,
		`{"instance_ids":["a"],"":true}`:                                 `unknown field ""`,
		`{"instance_ids":["a"],"` + strings.Repeat("x", 500) + `":true}`: `unknown field "xxx`,
		// There twice, also in other spellings of JSON and deep inside.
		`{"dry_run":true,"dry_run":false,"instance_ids":["a"]}`:        `the field "dry_run" twice`,
		`{"instance_ids":["a"],"instance_ids":["a"]}`:                  `the field "instance_ids" twice`,
		`{"dry_run":true,"\u0064ry_run":false,"instance_ids":["a"]}`:   `the field "dry_run" twice`,
		`{"instance_ids":["a"],"labels":{"x":"1","x":"2"}}`:            `the field "x" twice in labels`,
		`{"instance_ids":["a"],"labels":{"x":"1"},"labels":{"y":"1"}}`: `the field "labels" twice`,
		`{"instance_ids":[{"a":1,"a":2}]}`:                             `the field "a" twice in instance_ids[0]`,
		`{"instance_ids":["a"],"reason":{"a":{"b":1,"b":2}}}`:          `the field "b" twice in reason.a`,
		// Not what it should be.
		`{"instance_ids":["a"],"max_failures":null}`: "max_failures must be",
		`{"instance_ids":["a"],"not_before":null}`:   "not_before must be",
		`{"instance_ids":["a"],"labels":null}`:       "labels must be",
		`{"instance_ids":["a"],"reason":null}`:       "reason must be",
		`null`:                                       "must be a JSON object",
		`[{"instance_ids":["a"]}]`:                   "must be a JSON object",
		`true`:                                       "must be a JSON object",
		`7`:                                          "must be a JSON object",
		`{"instance_ids":["a"]}{"instance_ids":["b"]}`:                  "not JSON: invalid character '{' after top-level value",
		`{"instance_ids":["a"]},`:                                       "not JSON: invalid character ','",
		`{"instance_ids":["a"],}`:                                       "not JSON",
		`{"instance_ids":["a"]`:                                         "not JSON: it ends too early",
		"\ufeff" + `{"instance_ids":["a"]}`:                             `not JSON: invalid character '\ufeff' at start`,
		"{\"instance_ids\":[\"a\"],\"reason\":\"\xff\"}":                "not JSON: invalid UTF-8 in reason",
		"{\"instance_ids\":[\"a\"],\"labels\":{\"\xc3\x28\":\"x\"}}":    "not JSON: invalid UTF-8 in labels",
		`{"instance_ids":["a"],"reason":"\ud800"}`:                      "in reason",
		`{"instance_ids":["a"],"labels":{"x":"\udc00\ud800"}}`:          "in labels.x",
		`{"instance_ids":["a"],/* no */"dry_run":true}`:                 "not JSON",
		`{'instance_ids':['a']}`:                                        "not JSON",
		`{instance_ids:["a"]}`:                                          "not JSON",
		`instance_ids=a`:                                                "not JSON",
		`{"instance_ids":["a"],"reason":` + strings.Repeat("[", 20_000): "not JSON",
	} {
		got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(body))
		if got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.Contains(got.Message, want) || len(got.Message) > 500 {
			t.Errorf("%.100s: %d %s %q, want %q", body, got.status, got.Code, got.Message, want)
		}
	}
	s.wantNothingStored(t)
	// Nothing of this is against spaces, escapes, or another order.
	for _, body := range []string{
		" {\n\"dry_run\" : true , \"instance_ids\" : [ \"a\" ] }\r\n", `{"\u0069nstance_ids":["a"],"dry_run":true,"labels":{"X":"1","x":"2"}}`,
		`{"labels":{},"reason":"\ud83d\ude00 ſ","dry_run":true,"instance_ids":["a","a"]}`,
	} {
		if got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(body)); got.Code != tasks.OK {
			t.Errorf("%s: %+v", body, got)
		}
	}
}

// TestEveryRouteTakesWhatItTakes: a body or a parameter that a route does not have was meant
// for something.
func TestEveryRouteTakesWhatItTakes(t *testing.T) {
	s := newService(t, testConfig)
	id := s.submit(t, "phone-1")
	_, run := s.postRun(t, `{"instance_ids":["a"]}`)
	for _, r := range []struct{ method, path, takes string }{
		{http.MethodPost, batchReset, "instance_ids"},
		{http.MethodPost, "/v1/jobs/" + id + "/cancel", ""},
		{http.MethodPost, "/v1/jobs/" + id + "/retry", "states"},
		{http.MethodPost, "/v1/halt", "reason"},
		{http.MethodPost, "/v1/resume", "reason"},
		{http.MethodGet, "/v1/jobs", ""},
		{http.MethodGet, "/v1/whoami", ""},
		{http.MethodGet, "/v1/jobs/" + id, ""},
		{http.MethodGet, "/v1/jobs/" + id + "/events", ""},
		{http.MethodGet, "/v1/jobs/" + id + "/proof", ""},
		{http.MethodGet, "/v1/runs/" + run.ID, ""},
		{http.MethodGet, "/v1/runs/" + run.ID + "/events", ""},
		{http.MethodPost, "/v1/runs/" + run.ID + "/ticket", ""},
		{http.MethodGet, "/v1/instances/tasks/" + id, ""},
	} {
		refuses := func(query, body, want string) {
			t.Helper()
			got := s.do(t, r.method, r.path+query, "acme", strings.NewReader(body))
			if got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.Contains(got.Message, want) {
				t.Errorf("%s %s%s %s: %d %s %q, want %q", r.method, r.path, query, body, got.status, got.Code, got.Message, want)
			}
		}
		for _, field := range []string{"dry_run", "job_id", "States", "REASON", "instance_id"} {
			if field != "dry_run" || r.path != batchReset {
				refuses("", `{"`+field+`":true}`, `unknown field "`+field+`"`)
			}
		}
		refuses("", `[]`, "must be a JSON object")
		refuses("", `null`, "must be a JSON object")
		refuses("", `{} {}`, "not JSON")
		refuses("", "states=failed", "not JSON")
		refuses("", "\ufeff{}", "not JSON")
		if r.takes != "" {
			refuses("", fmt.Sprintf(`{%q:[],%[1]q:[]}`, r.takes), fmt.Sprintf("the field %q twice", r.takes))
			refuses("", fmt.Sprintf(`{%q:[]}`, strings.ToUpper(r.takes)), fmt.Sprintf("did you mean %q?", r.takes))
		}
		refuses("?dry_run=true", "", `unknown query parameter "dry_run"`)
		refuses("?x=1&x=2", "", `unknown query parameter "x"`)
		refuses("?=", "", `unknown query parameter ""`)
		refuses("?wait", "", `unknown query parameter "wait"`)
		refuses("?a;b", "", "the query cannot be read")
		refuses("?dry_run=%zz", "", "the query cannot be read")
	}
	for query, want := range map[string]string{
		"state=pending&state=running": "the query parameter state is given 2 times",
		"State=pending":               `unknown query parameter "State"; did you mean "state"?`,
		"limit=1&limit=1":             "the query parameter limit is given 2 times",
		"cursor=&cursor=":             "the query parameter cursor is given 2 times",
		"instance=a":                  `unknown query parameter "instance"`,
		"instanceId=a":                `unknown query parameter "instanceId"; did you mean "instance_id"?`,
		"labels=a=b":                  `unknown query parameter "labels"; did you mean "label"?`,
		"id=" + id:                    `unknown query parameter "id"; did you mean "ids"?`,
		"tenant=other":                `unknown query parameter "tenant"`,
	} {
		if got := s.do(t, http.MethodGet, "/v1/jobs?"+query, "acme", nil); got.Code != tasks.BadRequest || !strings.HasPrefix(got.Message, want) {
			t.Errorf("%s: %d %q, want %q", query, got.status, got.Message, want)
		}
	}
	if got := s.do(t, http.MethodGet, "/v1/jobs?label=a=b&label=c=d&", "acme", nil); got.Code != tasks.OK {
		t.Errorf("two labels: %+v", got)
	}
	for _, path := range []string{"/", "/openapi.yaml", "/docs", "/docs/page.js", "/docs/scalar.js"} {
		if got := s.do(t, http.MethodGet, path+"?v=1", "", nil); got.Code != tasks.BadRequest {
			t.Errorf("%s: %+v", path, got)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := s.do(t, http.MethodGet, path+"?probe=1&probe=2", "", nil); got.Code != tasks.OK {
			t.Errorf("%s: %+v", path, got)
		}
	}
	// Nothing of this has changed anything, and with {} for no body it does.
	if job, err := s.db.Jobs.Job(t.Context(), id); err != nil || job.State != tasks.JobPending {
		t.Errorf("job %+v, %v", job, err)
	}
	if policy, err := s.db.Policies.Policy(t.Context(), "acme"); err != nil || policy.OwnHalt != nil {
		t.Errorf("policy %+v, %v", policy, err)
	}
	for _, body := range []string{"{}", " { }\n"} {
		if got := s.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", strings.NewReader(body)); got.Code != tasks.OK {
			t.Errorf("%+v", got)
		}
	}
	if got := s.do(t, http.MethodPost, "/v1/jobs/"+id+"/cancel", "acme", strings.NewReader("{}")); got.Code != tasks.OK {
		t.Errorf("cancel: %+v", got)
	}
}

// Without its key a submit that is sent twice resets twice.
func TestHeadersThatWereMeantToBeTheKey(t *testing.T) {
	s := newService(t, testConfig)
	for _, name := range []string{"Idempotency_Key", "X-Idempotency-Key", "IdempotencyKey", "Idempotency-Keys", "Idempotancy-Key", "X-IdempotencyKey"} {
		got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`), name, "k")
		if got.Code != tasks.BadRequest || !strings.Contains(got.Message, `did you mean "Idempotency-Key"?`) {
			t.Errorf("%s: %d %q", name, got.status, got.Message)
		}
	}
	s.wantNothingStored(t)
	if got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`), "idempotency-key", "k", "X-Key", "1"); got.Code != tasks.OK {
		t.Errorf("%+v", got)
	}
	id := s.submit(t, "phone-1")
	if err := s.db.Records.Cancel(t.Context(), id, tasks.Actor{By: "test"}); err != nil {
		t.Fatal(err)
	}
	got := s.do(t, http.MethodPost, "/v1/jobs/"+id+"/retry", "acme", strings.NewReader(`{"states":["cancelled"]}`), "Idempotency-Key", "k")
	if got.Code != tasks.BadRequest || !strings.HasPrefix(got.Message, "Idempotency-Key is not for a retry") {
		t.Errorf("%+v", got)
	}
	if job, err := s.db.Jobs.Job(t.Context(), id); err != nil || !job.State.Final() {
		t.Errorf("job %+v, %v", job, err)
	}
}

func TestTwoTokensAreNone(t *testing.T) {
	s := newService(t, testConfig)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/jobs", nil)
	r.Header["X-Auth-Token"] = []string{"acme", "other"}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "x-auth-token is there more than once") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// FuzzReadJSON: a body that is taken has each name once, and no other.
func FuzzReadJSON(f *testing.F) {
	for _, body := range []string{
		`{}`, `{"instance_ids":["a"],"dry_run":true}`, `{"dry_run":true,"DRY_RUN":false}`, `{"dry_run":1,"dry_run":2}`, `{"labels":{"a":"1","A":"2","a":"3"}}`,
		`{"\u0064ry_run":1}`, `{"in\u017ftance_ids":[]}`, "{\"reason\":\"\xff\"}", `{"reason":"\ud800"}`, `{} x`, "\ufeff{}", `null`, `[[{"a":1,"a":2}]]`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var request struct {
			InstanceIDs any `json:"instance_ids"`
			MaxFailures any `json:"max_failures"`
			DryRun      any `json:"dry_run"`
			NotBefore   any `json:"not_before"`
			Reason      any `json:"reason"`
			Labels      any `json:"labels"`
		}
		if err := api.ReadJSON(body, &request); err != nil {
			if text := err.Error(); text == "" || strings.Contains(text, "jsontext:") {
				t.Errorf("%q: %q", body, text)
			}
			return
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if token, err := d.Token(); token != json.Delim('{') {
			t.Fatalf("%q is taken for an object: %v", body, err)
		}
		wantNamesOnce(t, d, batchFields)
		if _, err := d.Token(); err != io.EOF {
			t.Errorf("%q has something after it", body)
		}
	})
}

// wantNamesOnce reads the rest of an object; known are its names, nil for any.
func wantNamesOnce(t *testing.T, d *json.Decoder, known []string) {
	t.Helper()
	var seen []string
	for d.More() {
		token, err := d.Token()
		name, is := token.(string)
		if err != nil || !is || slices.Contains(seen, name) || known != nil && !slices.Contains(known, name) {
			t.Fatalf("the name %v is taken after %q, %v", token, seen, err)
		}
		seen = append(seen, name)
		wantValue(t, d)
	}
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
}

func wantValue(t *testing.T, d *json.Decoder) {
	t.Helper()
	token, err := d.Token()
	if err != nil {
		t.Fatal(err)
	}
	switch token {
	case json.Delim('{'):
		wantNamesOnce(t, d, nil)
	case json.Delim('['):
		for d.More() {
			wantValue(t, d)
		}
		if _, err := d.Token(); err != nil {
			t.Fatal(err)
		}
	}
}
