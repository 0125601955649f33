package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
)

// newRunService is a service that keeps runs in memory.
func newRunService(t testing.TB, cfg api.Config) (service, *fakeRuns) {
	t.Helper()
	runs := newFakeRuns()
	cfg.Runs = runs
	return newService(t, cfg), runs
}

// instancesBody is a body with so many instances.
func instancesBody(n int) string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("phone-%d", i)
	}
	list, err := json.Marshal(ids)
	if err != nil {
		panic(err) // it is text
	}
	return `{"instance_ids":` + string(list) + `}`
}

func (s service) postRun(t testing.TB, body string, header ...string) (reply, tasks.Run) {
	t.Helper()
	got := s.do(t, http.MethodPost, "/v1/runs", "acme", strings.NewReader(body), header...)
	var run struct {
		ID string `json:"run_id"`
		tasks.Run
	}
	if got.Code == tasks.OK {
		_ = json.Unmarshal(got.Data, &struct {
			ID *string `json:"run_id"`
		}{&run.Run.ID})
	}
	return got, run.Run
}

func TestARunIsMade(t *testing.T) {
	s, _ := newRunService(t, api.Config{AllowUnregistered: true, BasePath: "/reset"})
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	got, run := s.postRun(t, `{"instance_ids":["b","a","b"],"name":"recall 7","reason":"r","labels":{"site":"lab"},"not_before":"`+soon+`",`+
		`"max_parallel":64,"canary":1,"soak":"90s","growth":1.5,"max_failures":"2.5%"}`)
	if got.status != http.StatusOK || got.header.Get("Location") != "/reset/v1/runs/"+run.ID {
		t.Fatalf("answer %+v", got)
	}
	for _, want := range []string{
		`"name":"recall 7"`, `"state":"waiting"`, `"stage":"scheduled"`, `"total":2`, `"repeats":1`, `"counts":{"pending":2,`, `"reason":"r"`,
		`"labels":{"site":"lab"}`, `"max_parallel":64`, `"canary":1`, `"soak":"1m30s"`, `"growth":1.5`, `"max_failures":"2.5%"`, `"not_before":"`,
	} {
		if !strings.Contains(string(got.Data), want) {
			t.Errorf("no %s in %s", want, got.Data)
		}
	}
	plain, _ := s.postRun(t, `{"instance_ids":["a"],"max_failures":0}`)
	if data := string(plain.Data); !strings.Contains(data, `"max_parallel":3200`) || !strings.Contains(data, `"max_failures":0`) || strings.Contains(data, "growth") {
		t.Errorf("without options: %s", plain.Data)
	}
	if canary, _ := s.postRun(t, `{"instance_ids":["a"],"canary":1}`); !strings.Contains(string(canary.Data), `"growth":2`) {
		t.Errorf("with a canary: %s", canary.Data)
	}
}

func TestARunIsRefused(t *testing.T) {
	s, runs := newRunService(t, testConfig)
	past := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	oneBad := strings.Replace(instancesBody(100_000), `"phone-99999"`, `"phone 99999"`, 1)
	for body, want := range map[string]string{
		`{"instance_ids":[]}`:  "instance_ids must list at least one instance",
		instancesBody(100_001): "instance_ids lists more than 100000 instances, which is the limit",
		oneBad:                 `instance_ids[99999] "phone 99999" has characters other than`,
		`{"instance_ids":["` + strings.Repeat("x", 65) + `"]}`: `instance_ids[0] "xxx`,
		`{"instance_ids":["a",""]}`:                            "instance_ids[1] is empty",
		`{"instance_ids":["a",1]}`:                             "instance_ids[1] must be a string",
		`{"instance_ids":["a",["b"]]}`:                         "instance_ids[1] must be a string",
		`{"instance_ids":"a"}`:                                 "instance_ids must be an array of strings",
		`{"instance_ids":null}`:                                "instance_ids must be an array of strings",
		`{}`:                                                   "instance_ids is missing",
		``:                                                     "not JSON: it is empty",
		`[]`:                                                   "must be a JSON object",
		`null`:                                                 "must be a JSON object",
		`{"instance_ids":["a"]`:                                "not JSON: it ends too early",
		`{"instance_ids":["a"`:                                 "not JSON: it ends too early",
		`{"instance_ids":["a"]} {}`:                            "not JSON: there is more after its object",
		`{"instance_ids":["a"],}`:                              "not JSON",
		"{\"instance_ids\":[\"\xff\"]}":                        "not JSON: invalid UTF-8",
		`{"instance_ids":["a"],"instance_ids":["b"]}`:                       `the field "instance_ids" twice`,
		`{"instance_ids":["a"],"labels":{"x":"1","x":""}}`:                  `the field "x" twice in labels`,
		`{"instance_ids":["a"],"instanceIds":["b"]}`:                        `unknown field "instanceIds"; did you mean "instance_ids"?`,
		`{"instance_ids":["a"],"maxFailures":1}`:                            `unknown field "maxFailures"; did you mean "max_failures"?`,
		`{"instance_ids":["a"],"dry_run":1}`:                                "dry_run must be true or false",
		`{"instance_ids":["a"],"name":7}`:                                   "name must be a string",
		`{"instance_ids":["a"],"name":"` + strings.Repeat("x", 129) + `"}`:  "name is 129 characters long, the limit is 128",
		`{"instance_ids":["a"],"reason":"\u0007"}`:                          "reason has a character that cannot be printed",
		`{"instance_ids":["a"],"labels":[]}`:                                "labels must be an object of strings",
		`{"instance_ids":["a"],"canary":2}`:                                 "canary is 2, and the list has 1",
		`{"instance_ids":["a","a"],"canary":2}`:                             "canary is 2, and the list has 1",
		`{"instance_ids":["a"],"canary":-1}`:                                "canary must not be negative",
		`{"instance_ids":["a"],"canary":0.5}`:                               "canary must be a whole number",
		`{"instance_ids":["a"],"canary":1,"growth":0.5}`:                    "growth must be from 1 to 1000",
		`{"instance_ids":["a"],"canary":1,"growth":0}`:                      "growth must be from 1 to 1000",
		`{"instance_ids":["a"],"canary":1,"growth":1001}`:                   "growth must be from 1 to 1000",
		`{"instance_ids":["a"],"canary":1,"growth":"2"}`:                    "growth must be a number",
		`{"instance_ids":["a"],"growth":0}`:                                 "growth must be from 1 to 1000",
		`{"instance_ids":["a"],"growth":2}`:                                 "growth needs a canary",
		`{"instance_ids":["a"],"soak":"30s"}`:                               "soak needs a canary",
		`{"instance_ids":["a"],"canary":1,"soak":"-1s"}`:                    "soak must be from 0s to 7 days",
		`{"instance_ids":["a"],"canary":1,"soak":30}`:                       `soak must be a string such as "30s"`,
		`{"instance_ids":["a"],"canary":1,"soak":"soon"}`:                   `soak must be a time span such as "30s" or "1h30m", not "soon"`,
		`{"instance_ids":["a"],"max_failures":"101%"}`:                      `max_failures must be a whole number or a percentage from "0%" to "100%", not "101%"`,
		`{"instance_ids":["a"],"max_failures":"x%"}`:                        "max_failures must be",
		`{"instance_ids":["a"],"max_failures":"2"}`:                         "max_failures must be a whole number, or a percentage as a string",
		`{"instance_ids":["a"],"max_failures":-1}`:                          "max_failures must be a whole number from 0",
		`{"instance_ids":["a"],"max_failures":1.5}`:                         "max_failures must be a whole number from 0",
		`{"instance_ids":["a"],"max_failures":null}`:                        "max_failures must be a whole number, or",
		`{"instance_ids":["a"],"max_parallel":0}`:                           "max_parallel must be from 1",
		`{"instance_ids":["a"],"max_parallel":"8"}`:                         "max_parallel must be a whole number",
		`{"instance_ids":["a"],"not_before":"` + past + `"}`:                "not_before is in the past",
		`{"instance_ids":["a"],"dry_run":true,"not_before":"` + past + `"}`: "not_before is in the past",
		`{"instance_ids":["a"],"not_before":"tomorrow"}`:                    "not_before must be a time",
	} {
		got, _ := s.postRun(t, body)
		if got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.Contains(got.Message, want) || len(got.Message) > 500 {
			t.Errorf("%.100s: %d %s %q, want %q", body, got.status, got.Code, got.Message, want)
		}
	}
	for _, key := range []string{`"half`, ""} {
		if got, _ := s.postRun(t, `{"instance_ids":["a"]}`, "Idempotency-Key", key); got.Code != tasks.BadRequest {
			t.Errorf("key %q: %+v", key, got)
		}
	}
	if got, _ := s.postRun(t, `{"instance_ids":["a"]}`, "Idempotent-Key", "k"); got.Code != tasks.BadRequest {
		t.Errorf("another header: %+v", got)
	}
	if len(runs.kept) > 0 {
		t.Errorf("%d runs are kept", len(runs.kept))
	}
	if got, run := s.postRun(t, instancesBody(100_000)); got.Code != tasks.OK || run.ID == "" {
		t.Errorf("100,000 instances: %d %s", got.status, got.Message)
	}
}

func TestALargeBodyOfARunIsRefusedWhileItComes(t *testing.T) {
	s, runs := newRunService(t, testConfig)
	padding := strings.Repeat(" ", 8<<20)
	for name, body := range map[string]io.Reader{
		"of a known length":   strings.NewReader(padding + `{"instance_ids":["a"]}`),
		"of no known length":  io.MultiReader(strings.NewReader(padding), strings.NewReader(`{"instance_ids":["a"]}`)),
		"in a string":         io.MultiReader(strings.NewReader(`{"reason":"`), strings.NewReader(padding), strings.NewReader(`"}`)),
		"after what is wrong": io.MultiReader(strings.NewReader(`{"instance_ids":["a"]`), strings.NewReader(padding), strings.NewReader(`}`)),
	} {
		if got := s.do(t, http.MethodPost, "/v1/runs", "acme", body); got.status != http.StatusRequestEntityTooLarge || got.Code != tasks.TooLarge {
			t.Errorf("%s: %+v", name, got)
		}
	}
	fits := strings.Repeat(" ", 8<<20-22) + `{"instance_ids":["a"]}`
	if got, _ := s.postRun(t, fits); got.Code != tasks.OK || len(runs.kept) != 1 {
		t.Errorf("8 MiB: %+v", got)
	}
	// Whoever has no token is not listened to.
	if got := s.do(t, http.MethodPost, "/v1/runs", "", failingReader{t}); got.Code != tasks.BadToken {
		t.Errorf("without a token: %+v", got)
	}
}

// failingReader fails a test that reads it.
type failingReader struct{ t *testing.T }

func (r failingReader) Read([]byte) (int, error) {
	r.t.Error("the body was read")
	return 0, io.EOF
}

func TestAKeyMakesOneRun(t *testing.T) {
	s, runs := newRunService(t, testConfig)
	soon := time.Now().Add(time.Minute)
	body := `{"instance_ids":["a","b"],"canary":1,"not_before":"` + soon.UTC().Format(time.RFC3339) + `"}`
	first, run := s.postRun(t, body, "Idempotency-Key", "k")
	if first.Code != tasks.OK {
		t.Fatalf("answer %+v", first)
	}
	runs.full = errors.New("a replay is not checked again")
	again, replayed := s.postRun(t, body, "Idempotency-Key", `"k"`)
	if again.Code != tasks.OK || replayed.ID != run.ID || again.header.Get("Location") != "/v1/runs/"+run.ID {
		t.Errorf("again: %+v", again)
	}
	for _, other := range []string{`{"instance_ids":["a","c"],"canary":1}`, `{"instance_ids":["b","a"],"canary":1}`, `{"instance_ids":["a","b"]}`} {
		if got, _ := s.postRun(t, other, "Idempotency-Key", "k"); got.status != http.StatusUnprocessableEntity || got.Code != tasks.KeyReused {
			t.Errorf("%s: %+v", other, got)
		}
	}
	runs.full = nil
	if _, other := s.postRun(t, body); other.ID == run.ID || other.ID == "" {
		t.Error("without a key it is the same run")
	}
	if got := s.do(t, http.MethodPost, "/v1/runs", "other", strings.NewReader(body), "Idempotency-Key", "k"); got.Code != tasks.OK || strings.Contains(string(got.Data), run.ID) {
		t.Errorf("another tenant: %+v", got)
	}
	runs.full = tasks.Errorf(tasks.StorageFull, "Redis is nearly full: no new work is accepted for now")
	if got, _ := s.postRun(t, body); got.status != http.StatusInsufficientStorage || got.header.Get("Retry-After") == "" {
		t.Errorf("on a full Redis: %+v", got)
	}
}

func TestARunOfOthersInstancesIsRefused(t *testing.T) {
	s, runs := newRunService(t, api.Config{})
	var fleet []tasks.Instance
	var mine, others, guarded []string
	for n := range 700 {
		mine = append(mine, fmt.Sprintf("mine-%d", n))
		fleet = append(fleet, tasks.Instance{ID: mine[n], Tenant: "acme"})
	}
	for n := range 25 {
		others, guarded = append(others, fmt.Sprintf("other-%d", n)), append(guarded, fmt.Sprintf("guarded-%d", n))
		fleet = append(fleet, tasks.Instance{ID: others[n], Tenant: "other"}, tasks.Instance{ID: guarded[n], Tenant: "acme", Protected: true})
	}
	if err := s.db.Fleet.Register(t.Context(), fleet, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	body := func(lists ...[]string) string {
		var all []string
		for _, list := range lists {
			all = append(all, list...)
		}
		raw, err := json.Marshal(map[string]any{"instance_ids": all})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for _, row := range []struct {
		body   string
		status int
		code   tasks.Code
		want   string
	}{
		{body(mine, others, guarded, []string{"nobodys"}), 400, tasks.NotYourInstance, "no permission on instances: 26: other-0, other-1, "},
		{body(mine, others, guarded), 400, tasks.NotYourInstance, "other-19 and 5 more"},
		{body(mine, []string{"nobodys"}), 400, tasks.NotYourInstance, "no permission on instances: 1: nobodys"},
		{body(guarded, mine), 403, tasks.Protected, "protected instances: 25: guarded-0, guarded-1, "},
	} {
		if got, _ := s.postRun(t, row.body); got.status != row.status || got.Code != row.code || !strings.Contains(got.Message, row.want) || strings.Contains(got.Message, "-20") {
			t.Errorf("answer %+v, want %q", got, row.want)
		}
	}
	if len(runs.kept) > 0 {
		t.Errorf("%d runs are kept", len(runs.kept))
	}
	w := s.raw(t, http.MethodPost, "/v1/runs", "acme", strings.NewReader(strings.Replace(body(mine, others, guarded), "{", `{"dry_run":true,`, 1)))
	lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/jsonl" || len(lines) != 750 || w.Header().Get("Location") != "" {
		t.Fatalf("dry run: %d %v, %d lines", w.Code, w.Header(), len(lines))
	}
	for n, want := range map[int]string{
		0: `{"instance_id":"mine-0","verdict":"would_reset"}`, 700: `{"instance_id":"other-0","verdict":"unknown"}`, 749: `{"instance_id":"guarded-24","verdict":"protected"}`,
	} {
		if lines[n] != want {
			t.Errorf("line %d: %s", n, lines[n])
		}
	}
	if len(runs.kept) > 0 {
		t.Error("a dry run is kept")
	}
	if got, _ := s.postRun(t, body(mine)); got.Code != tasks.OK {
		t.Errorf("my own: %+v", got)
	}
}

func TestTheRecordOfARun(t *testing.T) {
	s, runs := newRunService(t, testConfig)
	_, run := s.postRun(t, `{"instance_ids":["a","b"]}`)
	path := "/v1/runs/" + run.ID
	got := s.do(t, http.MethodGet, path, "acme", nil)
	etag := got.header.Get("ETag")
	if got.Code != tasks.OK || etag == "" || got.header.Get("Retry-After") == "" {
		t.Fatalf("answer %+v", got)
	}
	if again := s.do(t, http.MethodGet, path, "acme", nil, "If-None-Match", etag); again.status != http.StatusNotModified || again.header.Get("Retry-After") == "" {
		t.Errorf("again: %+v", again)
	}
	for _, id := range []string{run.ID, tasks.NewJobID(), "x"} {
		got := s.do(t, http.MethodGet, "/v1/runs/"+id, "other", nil)
		if want := fmt.Sprintf("there is no run %q", id); got.status != http.StatusNotFound || got.Code != tasks.NoJob || got.Message != want {
			t.Errorf("another tenant asks for %s: %+v", id, got)
		}
	}
	if err := runs.Cancel(t.Context(), run.ID, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	ended := s.do(t, http.MethodGet, path, "acme", nil, "If-None-Match", etag)
	if ended.Code != tasks.OK || ended.header.Get("Retry-After") != "" || !strings.Contains(string(ended.Data), `"cancelled":2`) {
		t.Errorf("cancelled: %+v", ended)
	}
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	_, run = s.postRun(t, `{"instance_ids":["a"],"not_before":"`+later+`"}`)
	if got := s.do(t, http.MethodGet, "/v1/runs/"+run.ID, "acme", nil); got.header.Get("Retry-After") != "60" {
		t.Errorf("of one that waits: %v", got.header)
	}
}

func TestRunsAreListed(t *testing.T) {
	s, runs := newRunService(t, testConfig)
	var ids []string
	for n := range 5 {
		_, run := s.postRun(t, fmt.Sprintf(`{"instance_ids":["a"],"labels":{"n":"%d"}}`, n%2))
		ids = append(ids, run.ID)
	}
	if err := runs.Cancel(t.Context(), ids[0], tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	list := func(token, query string) (found []string, cursor string) {
		t.Helper()
		got := s.do(t, http.MethodGet, "/v1/runs?"+query, token, nil)
		var page struct {
			Runs []struct {
				ID string `json:"run_id"`
			} `json:"runs"`
			Next string `json:"next_cursor"`
		}
		if err := json.Unmarshal(got.Data, &page); err != nil || page.Runs == nil {
			t.Fatalf("%s: %+v, %v", query, got, err)
		}
		for _, run := range page.Runs {
			found = append(found, run.ID)
		}
		return found, page.Next
	}
	first, cursor := list("acme", "limit=3")
	rest, last := list("acme", "limit=3&cursor="+cursor)
	if got := fmt.Sprint(first, rest, last); got != fmt.Sprint([]string{ids[4], ids[3], ids[2]}, []string{ids[1], ids[0]}, "") {
		t.Errorf("pages %s", got)
	}
	if found, _ := list("acme", "label=n%3D1&state=running"); fmt.Sprint(found) != fmt.Sprint([]string{ids[3], ids[1]}) {
		t.Errorf("filtered: %v", found)
	}
	if found, _ := list("acme", "state=cancelled"); fmt.Sprint(found) != fmt.Sprint(ids[:1]) {
		t.Errorf("cancelled: %v", found)
	}
	if found, _ := list("other", ""); found != nil {
		t.Errorf("another tenant's: %v", found)
	}
	for query, want := range map[string]string{
		"state=pending":             "state must be one of",
		"state=paused&state=paused": "the query parameter state is given 2 times",
		"label=x":                   "label must be name=value",
		"since=now":                 "since must be a time",
		"until=now":                 "until must be a time",
		"limit=0":                   "limit must be a number from 1 to 100",
		"limit=101":                 "limit must be a number from 1 to 100",
		"cursor=x":                  "cursor",
		"instance_id=a":             `unknown query parameter "instance_id"`,
		"since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z": "since is after until",
	} {
		if got := s.do(t, http.MethodGet, "/v1/runs?"+query, "acme", nil); got.Code != tasks.BadRequest || !strings.Contains(got.Message, want) {
			t.Errorf("%s: %+v", query, got)
		}
	}
}

func TestTheBrakesOfARun(t *testing.T) {
	s, runs := newRunService(t, testConfig)
	_, run := s.postRun(t, `{"instance_ids":["a"],"max_failures":1}`)
	post := func(action, body string) reply {
		t.Helper()
		return s.do(t, http.MethodPost, "/v1/runs/"+run.ID+"/"+action, "acme", strings.NewReader(body))
	}
	wants := func(action, body string, status int, want string) {
		t.Helper()
		got := post(action, body)
		if got.status != status || !strings.Contains(string(got.Data)+got.Message, want) {
			t.Errorf("%s %s: %+v %s, want %d %q", action, body, got, got.Data, status, want)
		}
	}
	wants("resume", "", 409, "the run is running: it cannot be resumed")
	wants("pause", "", 200, `"state":"paused"`)
	if got := s.do(t, http.MethodGet, "/v1/runs/"+run.ID, "acme", nil); got.header.Get("Retry-After") != "30" {
		t.Errorf("Retry-After of a paused run: %v", got.header)
	}
	wants("pause", "{}", 409, "the run is paused")
	wants("resume", `{"max_failures":"101%"}`, 400, "max_failures must be")
	wants("resume", `{"max_failures":null}`, 400, "max_failures must be")
	wants("resume", `{"budget":1}`, 400, `unknown field "budget"`)
	wants("pause", `{"reason":"x"}`, 400, `unknown field "reason"`)
	wants("resume", "", 200, `"max_failures":1,"`[:16])
	wants("pause", "", 200, `"state":"paused"`)
	wants("resume", `{"max_failures":"5%"}`, 200, `"max_failures":"5%"`)
	wants("cancel", "", 200, `"state":"cancelled"`)
	wants("cancel", "", 409, "the run is cancelled")
	wants("pause", "", 409, "the run is cancelled")
	if got := strings.Join(runs.audited, " "); got != "pause resume pause resume cancel" {
		t.Errorf("done: %s", got)
	}
	for _, action := range []string{"pause", "resume", "cancel"} {
		if got := s.do(t, http.MethodPost, "/v1/runs/"+run.ID+"/"+action, "other", nil); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
			t.Errorf("%s by another tenant: %+v", action, got)
		}
		if got := s.do(t, http.MethodPost, "/v1/runs/"+run.ID+"/"+action+"?x=1", "acme", nil); got.Code != tasks.BadRequest {
			t.Errorf("%s with a parameter: %+v", action, got)
		}
	}
}

// An instance that was assigned again is not reset, in a list of any length.
func TestTheGenerationsOfARun(t *testing.T) {
	s, _ := newRunService(t, testConfig)
	for body, says := range map[string]string{
		`{"instance_ids":["a"],"generation":0}`:        "generation must be from 1",
		`{"instance_ids":["a"],"generation":"1"}`:      "generation must be a whole number",
		`{"instance_ids":["a"],"generation":{"b":1}}`:  `generation has the instance "b"`,
		`{"instance_ids":["a"],"generation":{"a":-1}}`: "generation must be from 1",
	} {
		if got := s.do(t, http.MethodPost, "/v1/runs", "acme", strings.NewReader(body)); got.status != http.StatusBadRequest || !strings.Contains(got.Message, says) {
			t.Errorf("%s: %d %s, want %q", body, got.status, got.Message, says)
		}
	}
}

func TestWhatIsDecidedAboutARun(t *testing.T) {
	s, runs := newRunService(t, testConfig)
	if _, err := s.db.Tokens.Add(t.Context(), "nobody", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 0, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	_, run := s.postRun(t, `{"instance_ids":["a","b"],"approval":true}`)
	list := `"list_sha256":"` + tasks.ListHash([]string{"a", "b"}) + `"`
	for _, row := range []struct {
		token, action, body string
		status              int
		says                string
	}{
		{"acme", "approve", ``, 400, "list_sha256 is missing"},
		{"acme", "approve", `{"comment":"x"}`, 400, "list_sha256 is missing"},
		{"acme", "approve", `{"list_sha256":"abc","comment":"x"}`, 400, "list_sha256 must be a string of 64"},
		{"acme", "approve", `{"list_sha256":null,"comment":"x"}`, 400, "list_sha256 must be a string of 64"},
		{"acme", "approve", `{` + list + `}`, 400, "comment is missing"},
		{"acme", "approve", `{` + list + `,"comment":""}`, 400, "comment must say why"},
		{"acme", "approve", `{` + list + `,"comment":"  "}`, 400, "comment must say why"},
		{"acme", "approve", `{` + list + `,"comment":7}`, 400, "comment must be a string"},
		{"acme", "approve", `{` + list + `,"comment":"` + strings.Repeat("x", 257) + `"}`, 400, "comment"},
		{"acme", "approve", `{` + list + `,"comment":"x","force":true}`, 400, `unknown field "force"`},
		{"acme", "reject", `{}`, 400, "comment is missing"},
		{"acme", "reject", `{"reason":"x"}`, 400, `unknown field "reason"`},
		{"acme", "retry", `{"states":["succeeded"]}`, 400, "states"},
		{"acme", "retry", `{"state":["failed"]}`, 400, `unknown field "state"`},
		{"nobody", "approve", `{` + list + `,"comment":"x"}`, 403, "the token has no owner"},
		{"nobody", "reject", `{"comment":"x"}`, 403, "the token has no owner"},
		{"other", "approve", `{` + list + `,"comment":"x"}`, 404, "no run"},
	} {
		got := s.do(t, http.MethodPost, "/v1/runs/"+run.ID+"/"+row.action, row.token, strings.NewReader(row.body))
		if got.status != row.status || !strings.Contains(got.Message, row.says) {
			t.Errorf("%s %s by %s: %d %s, want %d with %q", row.action, row.body, row.token, got.status, got.Message, row.status, row.says)
		}
	}
	if len(runs.audited) > 0 {
		t.Errorf("done: %s", runs.audited)
	}

	if _, err := s.db.Tokens.Add(t.Context(), "bob", tasks.Token{Tenant: "acme", Owner: "bob", Scopes: tasks.Scopes}, 0, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	wants := func(id, token, action, body string, status int, code tasks.Code, says string) {
		t.Helper()
		got := s.do(t, http.MethodPost, "/v1/runs/"+id+"/"+action, token, strings.NewReader(body))
		if got.status != status || got.Code != code || !strings.Contains(got.Message+string(got.Data), says) {
			t.Errorf("%s by %s: %+v, want %d %s with %q", action, token, got, status, code, says)
		}
	}
	approval := `{` + list + `,"comment":"looked at it"}`
	wants(run.ID, "acme", "approve", approval, 403, tasks.OwnRun, "somebody else must approve it")
	wants(run.ID, "bob", "approve", `{"list_sha256":"`+tasks.ListHash(nil)+`","comment":"x"}`, 409, tasks.JobFinal, "is not the hash")
	wants(run.ID, "bob", "approve", approval, 200, "0", `"state":"running"`)
	wants(run.ID, "bob", "reject", `{"comment":"after all"}`, 409, tasks.JobFinal, "the run is running")
	_, unwanted := s.postRun(t, `{"instance_ids":["c"],"approval":true}`)
	wants(unwanted.ID, "bob", "reject", `{"comment":"in use"}`, 200, "0", `"state":"rejected"`)

	wants(run.ID, "acme", "retry", "", 409, tasks.JobFinal, "the run is running")
	failed := runs.kept[run.ID]
	failed.State = tasks.RunFailed
	runs.kept[run.ID] = failed
	runs.full = &tasks.Error{Code: tasks.StorageFull, Message: "Redis is nearly full", RetryAfter: time.Minute}
	wants(run.ID, "acme", "retry", "", 507, tasks.StorageFull, "nearly full")
	runs.full = nil
	wants(run.ID, "acme", "retry", `{"states":["failed","unknown"]}`, 200, "0", `"state":"running"`)
}

func TestTheResultsOfARun(t *testing.T) {
	s, runs := newRunService(t, testConfig)
	_, run := s.postRun(t, `{"instance_ids":["b","a","c"]}`)
	job := tasks.NewJobID()
	at := tasks.FromMillis(1_767_366_245_120)
	runs.instances["b"] = tasks.RunInstance{JobID: job, Item: tasks.Item{
		ID: tasks.ItemID(job, 0), InstanceID: "b", State: tasks.ItemFailed, Attempts: 5, Code: "CPS.0005", Message: `=cmd("x")`, StartedAt: at, FinishedAt: at, Evidence: "seen <it>",
	}}
	runs.instances["a"] = tasks.RunInstance{JobID: job, Item: tasks.Item{ID: tasks.ItemID(job, 1), InstanceID: "a", State: tasks.ItemRunning, Attempts: 1, StartedAt: at}}
	const header = "instance_id,job_id,item_id,state,attempts,error_code,error_msg,started_at,finished_at,evidence\n"
	b := `{"instance_id":"b","job_id":"JOB","item_id":"JOB-0","state":"failed","attempts":5,"error_code":"CPS.0005","error_msg":"=cmd(\"x\")",` +
		`"started_at":"2026-01-02T15:04:05.120Z","finished_at":"2026-01-02T15:04:05.120Z","evidence":"seen <it>"}` + "\n"
	a := `{"instance_id":"a","job_id":"JOB","item_id":"JOB-1","state":"running","attempts":1,"started_at":"2026-01-02T15:04:05.120Z"}` + "\n"
	c := `{"instance_id":"c","state":"pending","attempts":0}` + "\n"
	for query, want := range map[string]string{
		"": b + a + c, "?format=jsonl": b + a + c, "?state=failed": b, "?state=pending&state=running": a + c, "?state=unknown": "",
		"?format=csv&state=unknown": header,
		"?format=csv": header + `b,JOB,JOB-0,failed,5,CPS.0005,"'=cmd(""x"")",2026-01-02T15:04:05.120Z,2026-01-02T15:04:05.120Z,seen <it>` + "\n" +
			"a,JOB,JOB-1,running,1,,,2026-01-02T15:04:05.120Z,,\nc,,,pending,0,,,,,\n",
	} {
		w := s.raw(t, http.MethodGet, "/v1/runs/"+run.ID+"/results"+query, "acme", nil)
		if got := strings.ReplaceAll(w.Body.String(), job, "JOB"); w.Code != http.StatusOK || got != want {
			t.Errorf("%s: %d\n%s\nwant\n%s", query, w.Code, got, want)
		}
	}
	for query, want := range map[string]string{
		"?format=xml":                `format must be jsonl or csv, not "xml"`,
		"?format=":                   "format must be jsonl or csv",
		"?format=csv&format=jsonl":   "the query parameter format is given 2 times",
		"?state=failed&state=paused": `state must be one of`,
		"?states=failed":             `unknown query parameter "states"; did you mean "state"?`,
	} {
		if got := s.do(t, http.MethodGet, "/v1/runs/"+run.ID+"/results"+query, "acme", nil); got.Code != tasks.BadRequest || !strings.Contains(got.Message, want) {
			t.Errorf("%s: %+v", query, got)
		}
	}
	if got := s.do(t, http.MethodGet, "/v1/runs/"+run.ID+"/results", "other", nil); got.Code != tasks.NoJob {
		t.Errorf("another tenant: %+v", got)
	}
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	_, waiting := s.postRun(t, `{"instance_ids":["a"],"not_before":"`+later+`"}`)
	for query, want := range map[string]string{"": "", "?format=csv": header} {
		if w := s.raw(t, http.MethodGet, "/v1/runs/"+waiting.ID+"/results"+query, "acme", nil); w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("of one that waits, %q: %d %q", query, w.Code, w.Body)
		}
	}
}

// A reader must not take a part of the results for the whole.
func TestResultsThatBreakOff(t *testing.T) {
	var log bytes.Buffer
	s, runs := newRunService(t, testConfig)
	_, run := s.postRun(t, instancesBody(10_000))
	runs.away = errors.New("Redis is away")
	if got := s.do(t, http.MethodGet, "/v1/runs/"+run.ID+"/results", "acme", nil); got.status != http.StatusInternalServerError || got.Code != tasks.Internal {
		t.Errorf("before anything was sent: %+v", got)
	}
	runs.broken = 9000
	cfg := testConfig
	cfg.Runs = runs
	server := httptest.NewServer(api.New(cfg, storeOf(s.db), slog.New(slog.NewJSONHandler(&log, nil))))
	defer server.Close()
	r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, server.URL+"/v1/runs/"+run.ID+"/results", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Auth-Token", "acme")
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || err == nil || len(body) == 0 {
		t.Errorf("%d, %d bytes, %v", resp.StatusCode, len(body), err)
	}
	server.Close()
	if text := log.String(); !strings.Contains(text, "an answer broke off") || !strings.Contains(text, `"run":"`+run.ID) || !strings.Contains(text, `"msg":"request"`) {
		t.Errorf("log: %s", text)
	}
}

func TestAJobOfARunIsNotRetriedByItself(t *testing.T) {
	b := newBoard(1)
	b.job.RunID = "5f9c1f0f3a5e4b0d8c7a6b5c4d3e2f10"
	b.change(tasks.JobFailed)
	s := service{Handler: api.New(testConfig, oneStore(b), slog.New(slog.DiscardHandler))}
	got := s.do(t, http.MethodPost, b.path()+"/retry", "acme", nil)
	if got.status != http.StatusConflict || got.Code != tasks.JobFinal || !strings.Contains(got.Message, "the job belongs to run "+b.job.RunID) {
		t.Errorf("answer %+v", got)
	}
	if got := s.do(t, http.MethodGet, b.path(), "acme", nil); !strings.Contains(string(got.Data), `"run_id":"`+b.job.RunID+`"`) {
		t.Errorf("record %s", got.Data)
	}
}

func TestAServiceWithoutRuns(t *testing.T) {
	s := service{Handler: api.New(testConfig, api.Store{}, slog.New(slog.DiscardHandler))}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/runs", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("answer %d", w.Code)
	}
}
