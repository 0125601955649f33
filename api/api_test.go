package api_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"batchreset/api"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/tasks/redisdb/redistest"
)

var testConfig = api.Config{AllowUnregistered: true}

const batchReset = "/v1/instances/batch-reset"

// service is an API over a Redis of its own. The tenant acme has the token
// "acme"; other tenants likewise.
type service struct {
	http.Handler
	db  *redisdb.DB
	rdb *redis.Client
}

func newService(t testing.TB, cfg api.Config) service {
	t.Helper()
	return newServiceOn(t, cfg, redisdb.Options{URL: "redis://" + miniredis.RunT(t).Addr(), Embedded: true})
}

func newServiceOn(t testing.TB, cfg api.Config, opts redisdb.Options) service {
	t.Helper()
	db, rdb := dbtest.Open(t, opts)
	for _, tenant := range []string{"acme", "other"} {
		if _, err := db.Tokens.Add(t.Context(), tenant, tenant, tasks.Scopes, 0, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	rdb.Del(t.Context(), "reset:audit")
	// Tests send more than people do.
	if err := rdb.HSet(t.Context(), "reset:policies", "* requests_per_second", 0).Err(); err != nil {
		t.Fatal(err)
	}
	cfg.MaxInstances = tasks.DefaultMaxInstances
	cfg.MaxWaiters = cmp.Or(cfg.MaxWaiters, 10_000)
	return service{api.New(cfg, storeOf(db), slog.New(slog.DiscardHandler)), db, rdb}
}

// storeOf is what an API needs of a DB.
func storeOf(db *redisdb.DB) api.Store {
	return api.Store{
		Tokens: db.Tokens, Fleet: db.Fleet, Records: db.Records, Reader: db.Jobs, Quotas: db.Quotas,
		Policies: db.Policies, Server: db, Storage: db.Storage, Clock: db.Redis,
	}
}

// parts are all that an API asks.
type parts interface {
	api.Tokens
	api.Fleet
	api.Records
	api.Reader
	api.Quotas
	api.Policies
	api.Server
	api.Storage
	api.Clock
}

// oneStore is a store whose parts are all the same thing.
func oneStore(p parts) api.Store { return api.Store{p, p, p, p, p, p, p, p, p} }

// reply is an answer with its envelope.
type reply struct {
	status  int
	header  http.Header
	Code    tasks.Code      `json:"error_code"`
	Message string          `json:"error_msg"`
	Data    json.RawMessage `json:"data"`
}

func (s service) do(t testing.TB, method, path, token string, body io.Reader, header ...string) reply {
	t.Helper()
	w := s.raw(t, method, path, token, body, header...)
	got := reply{status: w.Code, header: w.Result().Header}
	if w.Code == http.StatusNotModified {
		return got
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%s %s: the answer is not an envelope: %v: %.200s", method, path, err, w.Body)
	}
	return got
}

// raw answers a request, and checks the answer against the contract.
func (s service) raw(t testing.TB, method, path, token string, body io.Reader, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, body)
	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	checkContract(t, method, path, w.Code, w.Header(), w.Body.Bytes())
	return w
}

func checkContract(t testing.TB, method, path string, status int, header http.Header, body []byte) {
	t.Helper()
	c, err := written()
	if err == nil {
		err = c.check(method, path, status, header, body)
	}
	if err != nil {
		t.Errorf("%s %s: the answer %d is not in the contract: %v\n%.500s", method, path, status, err, body)
	}
}

func (s service) submit(t testing.TB, instances ...string) string {
	t.Helper()
	body, err := json.Marshal(map[string]any{"instance_ids": instances})
	if err != nil {
		t.Fatal(err)
	}
	got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(string(body)))
	var data struct {
		TaskID string `json:"task_id"`
	}
	if err := json.Unmarshal(got.Data, &data); err != nil || got.Code != tasks.OK {
		t.Fatalf("submit: %+v, %v", got, err)
	}
	return data.TaskID
}

// wantNothingStored fails if Redis holds a job or a task.
func (s service) wantNothingStored(t testing.TB) {
	t.Helper()
	for _, pattern := range []string{"reset:{*", "reset:open", "reset:jobs:*", "asynq:*"} {
		if keys := s.rdb.Keys(context.WithoutCancel(t.Context()), pattern).Val(); len(keys) != 0 {
			t.Errorf("left behind: %v", keys)
		}
	}
}

func TestTheSeedRequest(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids": ["a44uhlf7", "efjy72gs"]}`))
	if got.status != http.StatusOK || got.Code != "0" || got.Message != "ok" {
		t.Fatalf("answer %+v", got)
	}
	var data struct {
		TaskID  string              `json:"task_id"`
		CmdJobs []map[string]string `json:"cmd_jobs"`
	}
	if err := json.Unmarshal(got.Data, &data); err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{
		{"instance_id": "a44uhlf7", "job_id": data.TaskID + "-0"},
		{"instance_id": "efjy72gs", "job_id": data.TaskID + "-1"},
	}
	if fmt.Sprint(data.CmdJobs) != fmt.Sprint(want) || !tasks.ValidJobID(data.TaskID) {
		t.Errorf("data %s", got.Data)
	}
	if location := got.header.Get("Location"); location != "/v1/jobs/"+data.TaskID {
		t.Errorf("Location: %s", location)
	}

	query := s.do(t, http.MethodGet, "/v1/instances/tasks/"+data.TaskID, "acme", nil)
	if want := fmt.Sprintf(`{"jobs":[{"job_id":"%[1]s-0","status":1,"error_code":"","error_msg":"","execute_msg":""},`+
		`{"job_id":"%[1]s-1","status":1,"error_code":"","error_msg":"","execute_msg":""}]}`, data.TaskID); string(query.Data) != want {
		t.Errorf("task query %s", query.Data)
	}
}

func TestBadRequestsAreRefusedByFieldAndLeaveNothing(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	ids := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(`"phone-%d"`, i)
		}
		return `{"instance_ids":[` + strings.Join(list, ",") + `]}`
	}
	for _, row := range []struct{ name, body, message string }{
		{"an empty body", ``, "not JSON"},
		{"text", `hello`, "not JSON"},
		{"cut-off JSON", `{"instance_ids":["a"`, "not JSON"},
		{"something after the JSON", `{"instance_ids":["a"]} x`, "not JSON"},
		{"an array", `["a"]`, "must be a JSON object"},
		{"a string", `"a"`, "must be a JSON object"},
		{"null", `null`, "must be a JSON object"},
		{"no list", `{}`, "instance_ids is missing"},
		{"a null list", `{"instance_ids":null}`, "instance_ids must be an array"},
		{"a string for a list", `{"instance_ids":"a"}`, "instance_ids must be an array"},
		{"an object for a list", `{"instance_ids":{"a":1}}`, "instance_ids must be an array"},
		{"an empty list", `{"instance_ids":[]}`, "instance_ids must list at least one"},
		{"33 instances", ids(33), "the limit is 32"},
		{"a number", `{"instance_ids":["a",7]}`, "instance_ids[1] must be a string"},
		{"a null", `{"instance_ids":[null]}`, "instance_ids[0] must be a string"},
		{"an empty ID", `{"instance_ids":[""]}`, "instance_ids[0] is empty"},
		{"a space", `{"instance_ids":["a b"]}`, "instance_ids[0]"},
		{"a slash", `{"instance_ids":["a/b"]}`, "instance_ids[0]"},
		{"a control character", `{"instance_ids":["a\u0007"]}`, "instance_ids[0]"},
		{"invalid UTF-8", "{\"instance_ids\":[\"a\xff\"]}", "instance_ids[0]"},
		{"a fraction of a failure", `{"instance_ids":["a"],"max_failures":0.5}`, "max_failures must be"},
		{"dry_run of text", `{"instance_ids":["a"],"dry_run":"yes"}`, "dry_run must be true or false"},
		{"dry_run null", `{"instance_ids":["a"],"dry_run":null}`, "dry_run must be true or false"},
		{"a number for a reason", `{"instance_ids":["a"],"reason":7}`, "reason must be a string"},
		{"a reason of 257 characters", `{"instance_ids":["a"],"reason":"` + strings.Repeat("ü", 257) + `"}`, "reason is 257 characters long, the limit is 256"},
		{"a reason of two lines", `{"instance_ids":["a"],"reason":"a\nb"}`, "reason has a character"},
		{"labels in an array", `{"instance_ids":["a"],"labels":["x"]}`, "labels must be an object of strings"},
		{"a label that is a number", `{"instance_ids":["a"],"labels":{"x":1}}`, "labels must be an object of strings"},
		{"a label that is null", `{"instance_ids":["a"],"labels":{"x":null}}`, "labels must be an object of strings"},
		{"nine labels", `{"instance_ids":["a"],"labels":{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":""}}`, "labels has 9 labels, the limit is 8"},
		{"a label without a name", `{"instance_ids":["a"],"labels":{"":"x"}}`, "labels has a label without a name"},
		{"a long label", `{"instance_ids":["a"],"labels":{"x":"` + strings.Repeat("y", 257) + `"}}`, `labels has the label "x", which is 257`},
		{"a time in words", `{"instance_ids":["a"],"not_before":"tomorrow"}`, `not_before must be a time such as "2026-01-02T15:04:05Z", not "tomorrow"`},
		{"a time in seconds", `{"instance_ids":["a"],"not_before":1790000000}`, "not_before must be a time"},
		{"a time in the past", `{"instance_ids":["a"],"not_before":"2020-01-01T00:00:00Z"}`, "not_before is in the past"},
		{"a time in a year", `{"instance_ids":["a"],"not_before":"` + time.Now().AddDate(1, 0, 0).Format(time.RFC3339) + `"}`, "not_before is more than 7 days ahead"},
		{"a dry run in the past", `{"instance_ids":["a"],"dry_run":true,"not_before":"2020-01-01T00:00:00Z"}`, "not_before is in the past"},
		{"65 characters", `{"instance_ids":["` + strings.Repeat("x", 65) + `"]}`, "instance_ids[0] is 65 bytes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(row.body))
			if got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.Contains(got.Message, row.message) {
				t.Errorf("answer %d %s %q, want it to say %q", got.status, got.Code, got.Message, row.message)
			}
			s.wantNothingStored(t)
		})
	}
}

func TestRepeatedInstancesAreOneItem(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	job, err := s.db.Jobs.Job(t.Context(), s.submit(t, "b", "a", "b"))
	if err != nil || job.Total != 2 || job.Items[0].InstanceID != "b" || job.Items[1].InstanceID != "a" {
		t.Errorf("job %+v, %v", job, err)
	}
}

func TestAFormContentTypeIsReadAsJSON(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`),
		"Content-Type", "application/x-www-form-urlencoded")
	if got.Code != tasks.OK {
		t.Errorf("answer %+v", got)
	}
}

func TestTokens(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	ctx := t.Context()
	revoked, err := s.db.Tokens.Add(ctx, "revoked", "acme", tasks.Scopes, 0, tasks.Actor{})
	if err == nil {
		_, err = s.db.Tokens.Revoke(ctx, revoked.ID, tasks.Actor{})
	}
	if err == nil {
		_, err = s.db.Tokens.Add(ctx, "reader", "acme", []tasks.Scope{tasks.ScopeRead}, 0, tasks.Actor{})
	}
	if err == nil {
		_, err = s.db.Tokens.Add(ctx, "submitter", "acme", []tasks.Scope{tasks.ScopeSubmit}, 0, tasks.Actor{})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, method, path, token string
		status                    int
		code                      tasks.Code
		message                   string
	}{
		{"refuses a submit without a token", "POST", batchReset, "", 401, tasks.BadToken, "X-Auth-Token is missing"},
		{"refuses a submit with a wrong token", "POST", batchReset, "wrong", 401, tasks.BadToken, "X-Auth-Token is not valid"},
		{"refuses a submit with a huge token", "POST", batchReset, strings.Repeat("x", 32<<10), 401, tasks.BadToken, "not valid"},
		{"refuses a submit with a revoked token", "POST", batchReset, "revoked", 401, tasks.TokenExpired, "revoked"},
		{"refuses a submit with a token that may only read", "POST", batchReset, "reader", 403, tasks.Forbidden, "submit"},
		{"refuses a read with a token that may only submit", "GET", "/v1/jobs", "submitter", 403, tasks.Forbidden, "read"},
		{"refuses a task query without a token", "GET", "/v1/instances/tasks/x", "", 401, tasks.BadToken, "missing"},
		{"refuses a job without a token", "GET", "/v1/jobs/x", "", 401, tasks.BadToken, "missing"},
		{"tells what is missing before it looks at the request", "POST", batchReset, "", 401, tasks.BadToken, "missing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := s.do(t, row.method, row.path, row.token, strings.NewReader("not even JSON"))
			if got.status != row.status || got.Code != row.code || !strings.Contains(got.Message, row.message) {
				t.Errorf("answer %d %s %q", got.status, got.Code, got.Message)
			}
			s.wantNothingStored(t)
		})
	}
}

func TestRoutesAndSizesAreCheckedBeforeTokens(t *testing.T) {
	s := newService(t, api.Config{})
	for _, row := range []struct {
		name, method, path string
		body               io.Reader
		status             int
		code               tasks.Code
	}{
		{"an unknown route", "GET", "/v1/nothing", nil, 404, tasks.NoRoute},
		{"another method on the root", "POST", "/", nil, 405, tasks.NoRoute},
		{"another method", "GET", batchReset, nil, 405, tasks.NoRoute},
		{"another method on a job", "DELETE", "/v1/jobs/x", nil, 405, tasks.NoRoute},
		{"a body of 1 MB", "POST", batchReset, strings.NewReader(strings.Repeat(" ", 1<<20)), 413, tasks.TooLarge},
		{"a body one byte too long", "POST", batchReset, strings.NewReader(strings.Repeat(" ", 64<<10+1)), 413, tasks.TooLarge},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := s.do(t, row.method, row.path, "", row.body); got.status != row.status || got.Code != row.code {
				t.Errorf("answer %d %s %q", got.status, got.Code, got.Message)
			}
		})
	}
}

func TestOwnership(t *testing.T) {
	fleet := []tasks.Instance{
		{ID: "mine", Tenant: "acme"},
		{ID: "safe", Tenant: "acme", Protected: true},
		{ID: "theirs", Tenant: "other"},
	}
	for _, row := range []struct {
		name    string
		open    bool
		list    string
		status  int
		code    tasks.Code
		message string
	}{
		{"accepts the tenant's own", false, `"mine"`, 200, tasks.OK, ""},
		{"refuses unknown instances and lists them", false, `"mine","u1","u2"`, 400, tasks.NotYourInstance, "u1, u2"},
		{"refuses another tenant's like an unknown one", false, `"theirs"`, 400, tasks.NotYourInstance, "theirs"},
		{"refuses a protected one", false, `"mine","safe"`, 403, tasks.Protected, "safe"},
		{"accepts unknown instances in an open fleet", true, `"mine","u1"`, 200, tasks.OK, ""},
		{"refuses another tenant's in an open fleet too", true, `"u1","theirs"`, 400, tasks.NotYourInstance, "theirs"},
		{"refuses a protected one in an open fleet too", true, `"safe"`, 403, tasks.Protected, "safe"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newService(t, api.Config{AllowUnregistered: row.open})
			if err := s.db.Fleet.Register(t.Context(), fleet, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
			got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":[`+row.list+`]}`))
			if got.status != row.status || got.Code != row.code || !strings.Contains(got.Message, row.message) {
				t.Errorf("answer %d %s %q", got.status, got.Code, got.Message)
			}
			if strings.Contains(got.Message, "mine") {
				t.Errorf("%q names an instance that is fine", got.Message)
			}
			if row.status != 200 {
				s.wantNothingStored(t)
			}
		})
	}
}

func TestAJobIsItsTenantsAlone(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	job := s.submit(t, "phone-1")
	for _, path := range []string{"/v1/jobs/", "/v1/instances/tasks/"} {
		foreign := s.do(t, http.MethodGet, path+job, "other", nil)
		if foreign.status != http.StatusNotFound || foreign.Code != tasks.NoJob || foreign.Data != nil {
			t.Errorf("%s: another tenant is answered %+v", path, foreign)
		}
		missing := tasks.NewJobID()
		unknown := s.do(t, http.MethodGet, path+missing, "other", nil)
		if strings.ReplaceAll(unknown.Message, missing, job) != foreign.Message {
			t.Errorf("%s: %q tells that the job exists; for one that does not it is %q", path, foreign.Message, unknown.Message)
		}
		for _, id := range []string{"x", strings.ToUpper(job), job + "0", "%00", "..%2f" + job} {
			if got := s.do(t, http.MethodGet, path+id, "acme", nil); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
				t.Errorf("%s%s: %d %s", path, id, got.status, got.Code)
			}
		}
	}
	if got := s.do(t, http.MethodGet, "/v1/jobs/"+job, "other", nil, "If-None-Match", "*"); got.status != http.StatusNotFound {
		t.Errorf("If-None-Match tells another tenant that the job exists: %d", got.status)
	}
}

func TestTheJobStatusRecord(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	id := s.submit(t, "phone-1", "phone-2")
	got := s.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil)
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After on an unfinished job")
	}
	etag := got.header.Get("ETag")
	for _, match := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		again := s.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil, "If-None-Match", match)
		if again.status != http.StatusNotModified || again.header.Get("ETag") != etag {
			t.Errorf("If-None-Match: %s answers %d", match, again.status)
		}
	}

	job, err := s.db.Jobs.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for n, outcome := range []tasks.Outcome{
		{Transition: tasks.Succeed},
		{Transition: tasks.Fail, Code: "CPS.0005", Message: "Phone not found."},
	} {
		d := job.Deliveries()[n]
		if _, err := s.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := s.db.Attempts.Finish(t.Context(), d, "t", outcome, false); err != nil {
			t.Fatal(err)
		}
	}
	got = s.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil, "If-None-Match", etag)
	if got.status != http.StatusOK || got.header.Get("Retry-After") != "" {
		t.Errorf("final job: %d, Retry-After %q", got.status, got.header.Get("Retry-After"))
	}
	var record map[string]any
	if err := json.Unmarshal(got.Data, &record); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"created_at", "started_at", "finished_at"} {
		at, _ := record[field].(string)
		if _, err := time.Parse("2006-01-02T15:04:05.000Z", at); err != nil {
			t.Errorf("%s: %v", field, err)
		}
	}
	if record["job_id"] != id || record["state"] != "partial" || record["total"] != 2.0 || record["request_id"] == "" {
		t.Errorf("record %s", got.Data)
	}
	items, _ := record["items"].([]any)
	failed, _ := items[1].(map[string]any)
	if failed["item_id"] != id+"-1" || failed["state"] != "failed" || failed["attempts"] != 1.0 ||
		failed["error_code"] != "CPS.0005" || failed["error_msg"] != "Phone not found." {
		t.Errorf("failed item %v", failed)
	}

	query := s.do(t, http.MethodGet, "/v1/instances/tasks/"+id, "acme", nil)
	for _, want := range []string{`"status":2`, `"status":-1,"error_code":"CPS.0005","error_msg":"Phone not found."`} {
		if !strings.Contains(string(query.Data), want) {
			t.Errorf("task query %s lacks %s", query.Data, want)
		}
	}
}

func TestIdempotencyKeys(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	submit := func(tenant, body string, keys ...string) reply {
		t.Helper()
		header := []string{}
		for _, key := range keys {
			header = append(header, "Idempotency-Key", key)
		}
		return s.do(t, http.MethodPost, batchReset, tenant, strings.NewReader(body), header...)
	}
	const body = `{"instance_ids":["a","b"]}`
	first := submit("acme", body, `"key-1"`)
	if first.Code != tasks.OK {
		t.Fatalf("answer %+v", first)
	}
	for name, again := range map[string]reply{
		"the same request":        submit("acme", body, `"key-1"`),
		"the key as a bare token": submit("acme", body, `key-1`),
		"other white space":       submit("acme", `{ "instance_ids" : ["a", "b", "a"] }`, `"key-1"`),
	} {
		if string(again.Data) != string(first.Data) || again.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("%s: answer %+v, the first was %+v", name, again, first)
		}
	}
	for name, other := range map[string]reply{
		"another list":   submit("acme", `{"instance_ids":["a"]}`, `"key-1"`),
		"another order":  submit("acme", `{"instance_ids":["b","a"]}`, `"key-1"`),
		"another option": submit("acme", `{"instance_ids":["a","b"],"max_failures":1}`, `"key-1"`),
	} {
		if other.status != http.StatusUnprocessableEntity || other.Code != tasks.KeyReused {
			t.Errorf("%s: answer %+v", name, other)
		}
	}
	for name, fresh := range map[string]reply{
		"another tenant":    submit("other", body, `"key-1"`),
		"another key":       submit("acme", body, `"key-2"`),
		"a key with escape": submit("acme", body, `"key-\\\"1"`),
		"no key":            submit("acme", body),
	} {
		if fresh.Code != tasks.OK || string(fresh.Data) == string(first.Data) {
			t.Errorf("%s: answer %+v", name, fresh)
		}
	}
	// A replay neither asks for ownership again nor makes a second job.
	if err := s.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "a", Tenant: "other"}}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if again := submit("acme", body, `"key-1"`); string(again.Data) != string(first.Data) {
		t.Errorf("a replay after the instance changed hands: %+v", again)
	}
	if jobs := s.rdb.ZCard(t.Context(), "reset:jobs:{acme}").Val(); jobs != 4 {
		t.Errorf("%d jobs of acme, want 4", jobs)
	}
}

func TestBadIdempotencyKeys(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	for name, key := range map[string]string{
		"empty":                  ``,
		"an empty string":        `""`,
		"300 characters":         `"` + strings.Repeat("x", 300) + `"`,
		"an open quote":          `"key`,
		"a quote alone":          `"`,
		"a quote in the middle":  `"a"b"`,
		"a backslash at the end": `"a\"`,
		"two tokens":             `a, b`,
		"a parameter":            `"a";v=1`,
		"other characters":       "\"kl\u00fc\"",
	} {
		got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`), "Idempotency-Key", key)
		if got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.HasPrefix(got.Message, "Idempotency-Key") {
			t.Errorf("%s: answer %d %s %q", name, got.status, got.Code, got.Message)
		}
	}
	s.wantNothingStored(t)
}

func TestMaxFailuresIsChecked(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	for _, value := range []string{"-1", `"1"`, "1000000001", "1.5", "null", "[]", "1e99"} {
		got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a","b"],"max_failures":`+value+`}`))
		if got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.HasPrefix(got.Message, "max_failures") {
			t.Errorf("%s: answer %+v", value, got)
		}
	}
	s.wantNothingStored(t)
	// A pipeline may say 5 whatever the length of its lists.
	got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a","b"],"max_failures":5}`))
	if got.status != http.StatusOK {
		t.Errorf("more failures than instances: answer %+v", got)
	}
}

func TestCancelAndRetry(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	id := s.submit(t, "phone-1", "phone-2")
	post := func(what, job, tenant string) reply {
		t.Helper()
		return s.do(t, http.MethodPost, "/v1/jobs/"+job+"/"+what, tenant, nil)
	}
	for _, what := range []string{"cancel", "retry"} {
		if got := post(what, id, "other"); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
			t.Errorf("%s of another tenant's job: %+v", what, got)
		}
		if got := post(what, tasks.NewJobID(), "acme"); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
			t.Errorf("%s of no job: %+v", what, got)
		}
	}
	if got := post("retry", id, "acme"); got.status != http.StatusConflict || got.Code != tasks.JobFinal {
		t.Errorf("retry of a job that has not ended: %+v", got)
	}
	cancelled := post("cancel", id, "acme")
	if cancelled.status != http.StatusOK || !strings.Contains(string(cancelled.Data), `"state":"cancelled"`) ||
		!strings.Contains(string(cancelled.Data), `"error_code":"RESET.1003"`) {
		t.Errorf("cancel: %+v", cancelled)
	}
	if got := post("cancel", id, "acme"); got.status != http.StatusConflict || got.Code != tasks.JobFinal {
		t.Errorf("second cancel: %+v", got)
	}
	if got := post("retry", id, "acme"); got.status != http.StatusConflict || got.Code != tasks.JobFinal ||
		got.Message != "no item is failed; 2 are cancelled: name the state to retry them" {
		t.Errorf("retry of what failed, where nothing did: %+v", got)
	}
	retried := s.do(t, http.MethodPost, "/v1/jobs/"+id+"/retry", "acme", strings.NewReader(`{"states":["cancelled"]}`))
	if retried.status != http.StatusOK || !strings.Contains(string(retried.Data), `"state":"pending"`) ||
		strings.Contains(string(retried.Data), "RESET.1003") {
		t.Errorf("retry: %+v", retried)
	}
	if got := post("retry", id, "acme"); got.status != http.StatusConflict {
		t.Errorf("second retry: %+v", got)
	}
}

func TestARetryNamesItsStates(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	id := s.submit(t, "failed-1", "unknown-1", "cancelled-1", "good-1")
	job, err := s.db.Jobs.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for n, event := range map[int]tasks.Transition{0: tasks.Fail, 1: tasks.LoseTrack, 3: tasks.Succeed} {
		d := job.Deliveries()[n]
		if _, err := s.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := s.db.Attempts.Finish(t.Context(), d, "t", tasks.Outcome{Transition: event, Code: "CPS.0005"}, true); err != nil {
			t.Fatal(err)
		}
	}
	retry := func(body string) reply {
		t.Helper()
		return s.do(t, http.MethodPost, "/v1/jobs/"+id+"/retry", "acme", strings.NewReader(body))
	}
	if got := retry(`{"states":["unknown"]}`); got.Code != tasks.JobFinal || !strings.Contains(got.Message, "has not ended") {
		t.Errorf("retry of a job that has not ended: %+v", got)
	}
	if err := s.db.Records.Cancel(t.Context(), id, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	s.rdb.Del(t.Context(), "reset:audit")
	for body, want := range map[string]string{
		`{"states":[]}`:                      "states must name at least one of failed, unknown or cancelled",
		`{"states":null}`:                    "states must be an array of strings",
		`{"states":"failed"}`:                "states must be an array of strings",
		`{"states":[1]}`:                     "states must be an array of strings",
		`{"states":["failed",null]}`:         "states must be an array of strings",
		`{"states":["failed","failed"]}`:     `states has "failed" twice`,
		`{"states":["succeeded"]}`:           `states has "succeeded", which is none of failed, unknown or cancelled`,
		`{"states":["UNKNOWN"]}`:             `states has "UNKNOWN", which is none of failed, unknown or cancelled; did you mean "unknown"?`,
		`{"states":["failed","everything"]}`: `states has "everything", which is none of failed, unknown or cancelled`,
		`["failed"]`:                         "the body must be a JSON object",
		`failed`:                             "the body is not JSON",
	} {
		if got := retry(body); got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.HasPrefix(got.Message, want) {
			t.Errorf("%s: %d %s %q, want %q", body, got.status, got.Code, got.Message, want)
		}
	}
	if now, err := s.db.Jobs.Job(t.Context(), id); err != nil || !now.State.Final() {
		t.Fatalf("job %+v, %v", now, err)
	}
	if got := s.trail(t); got != nil {
		t.Errorf("what was refused is in the trail: %v", got)
	}
	// An empty body and an empty object mean what failed; each retry is about its own.
	for _, row := range []struct{ body, opened string }{
		{"", "failed-1"},
		{"{}", "failed-1"},
		{`{"states":["unknown"]}`, "unknown-1"},
		{`{"states":["cancelled"]}`, "cancelled-1"},
		{`{"states":["unknown","cancelled"]}`, "unknown-1 cancelled-1"},
	} {
		s.rdb.Del(t.Context(), "reset:audit")
		before, err := s.db.Jobs.Job(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got := retry(row.body); got.status != http.StatusOK {
			t.Fatalf("%s: %+v", row.body, got)
		}
		after, err := s.db.Jobs.Job(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var opened []string
		for n, it := range after.Items {
			if !it.State.Final() {
				opened = append(opened, it.InstanceID)
				// As it was, for the next retry.
				event := map[tasks.ItemState]tasks.Transition{tasks.ItemFailed: tasks.Fail, tasks.ItemUnknown: tasks.LoseTrack}[before.Items[n].State]
				if event == "" {
					continue
				}
				d := tasks.Delivery{ItemID: it.ID, Number: it.Delivery, InstanceID: it.InstanceID, Tenant: "acme", AllowUnregistered: true}
				s.rdb.Del(t.Context(), "reset:lock:{"+it.InstanceID+"}")
				if _, err := s.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
					t.Fatal(err)
				}
				if _, err := s.db.Attempts.Finish(t.Context(), d, "t", tasks.Outcome{Transition: event, Code: "CPS.0005"}, true); err != nil {
					t.Fatal(err)
				}
			} else if fmt.Sprint(it) != fmt.Sprint(before.Items[n]) {
				t.Errorf("%s: item %+v, before %+v", row.body, it, before.Items[n])
			}
		}
		if got := strings.Join(opened, " "); got != row.opened {
			t.Errorf("%s: opened %s, want %s", row.body, got, row.opened)
		}
		if trail := s.trail(t); len(trail) != 1 || !strings.Contains(trail[0], " ["+row.opened+"] ") {
			t.Errorf("%s: trail %v", row.body, trail)
		}
		if job, err = s.db.Jobs.Job(t.Context(), id); err == nil && !job.State.Final() {
			err = s.db.Records.Cancel(t.Context(), id, tasks.Actor{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestListingJobs(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	first, second := s.submit(t, "phone-1"), s.submit(t, "phone-2")
	type list struct {
		Jobs []struct {
			ID    string `json:"job_id"`
			Items []any  `json:"items"`
		} `json:"jobs"`
		Next string `json:"next_cursor"`
	}
	ask := func(query, tenant string) (l list) {
		t.Helper()
		got := s.do(t, http.MethodGet, "/v1/jobs"+query, tenant, nil)
		if err := json.Unmarshal(got.Data, &l); err != nil || got.status != http.StatusOK || l.Jobs == nil {
			t.Fatalf("%s: %+v, %v", query, got, err)
		}
		return l
	}
	page := ask("?limit=1", "acme")
	if len(page.Jobs) != 1 || page.Jobs[0].Items != nil || page.Next == "" {
		t.Fatalf("first page %+v", page)
	}
	rest := ask("?cursor="+page.Next, "acme")
	if len(rest.Jobs) != 1 || rest.Jobs[0].ID == page.Jobs[0].ID || rest.Next != "" {
		t.Errorf("second page %+v", rest)
	}
	if l := ask("?instance_id=phone-2", "acme"); len(l.Jobs) != 1 || l.Jobs[0].ID != second {
		t.Errorf("by instance %+v, want %s and not %s", l, second, first)
	}
	if l := ask("?state=succeeded", "acme"); len(l.Jobs) != 0 {
		t.Errorf("by state %+v", l)
	}
	if l := ask("", "other"); len(l.Jobs) != 0 {
		t.Errorf("another tenant sees %+v", l)
	}
	for query, field := range map[string]string{
		"?state=done": "state", "?limit=0": "limit", "?limit=101": "limit", "?limit=x": "limit",
		"?cursor=x": "cursor", "?instance_id=a%20b": "instance_id",
	} {
		if got := s.do(t, http.MethodGet, "/v1/jobs"+query, "acme", nil); got.Code != tasks.BadRequest || !strings.HasPrefix(got.Message, field) {
			t.Errorf("%s: %s %q", query, got.Code, got.Message)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	for _, row := range []struct {
		name, sent string
		echoed     bool
	}{
		{"echoes the caller's", "trace-42", true},
		{"makes one up when there is none", "", false},
		{"replaces one that would break the log", "a\tb", false},
		{"replaces one that is too long", strings.Repeat("x", 129), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`), "x-request-id", row.sent)
			id := got.header.Get("x-request-id")
			if id == "" || (id == row.sent) != row.echoed {
				t.Errorf("x-request-id is %q", id)
			}
			job, err := s.db.Jobs.Job(t.Context(), strings.TrimPrefix(got.header.Get("Location"), "/v1/jobs/"))
			if err != nil || job.RequestID != id {
				t.Errorf("the record has the request ID %q, %v", job.RequestID, err)
			}
		})
	}
}

func TestWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newServiceOn(t, api.Config{AllowUnregistered: true}, redisdb.Options{URL: server.URL()})
	if got := s.do(t, http.MethodGet, "/readyz", "", nil); got.status != http.StatusOK {
		t.Errorf("readyz before: %+v", got)
	}
	server.Kill()
	start := time.Now()
	got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`))
	if got.status != http.StatusInternalServerError || got.Code != tasks.Internal || got.Message != "internal error" {
		t.Errorf("submit answers %+v", got)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("after %s", d)
	}
	if got := s.do(t, http.MethodGet, "/readyz", "", nil); got.status != http.StatusInternalServerError || got.Message != "Redis does not answer" {
		t.Errorf("readyz answers %+v", got)
	}
	if got := s.do(t, http.MethodGet, "/healthz", "", nil); got.status != http.StatusOK {
		t.Errorf("healthz answers %+v", got)
	}
	server.Restart(t)
	s.submit(t, "a")
}

func TestReadyzSaysWhatIsWrongWithRedis(t *testing.T) {
	s := newServiceOn(t, api.Config{}, redisdb.Options{URL: redistest.Start(t).URL()})
	if err := s.rdb.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	if got := s.do(t, http.MethodGet, "/readyz", "", nil); got.status != http.StatusInternalServerError || !strings.Contains(got.Message, "maxmemory-policy allkeys-lru") {
		t.Errorf("readyz answers %+v", got)
	}
}

func TestAProcessThatIsToldToStopIsNotReadyAndAnswers(t *testing.T) {
	stopping := make(chan struct{})
	s := newService(t, api.Config{AllowUnregistered: true, Stopping: stopping})
	if got := s.do(t, http.MethodGet, "/readyz", "", nil); got.status != http.StatusOK {
		t.Errorf("readyz before: %+v", got)
	}
	close(stopping)
	if got := s.do(t, http.MethodGet, "/readyz", "", nil); got.status != http.StatusServiceUnavailable || got.Code != tasks.Internal {
		t.Errorf("readyz answers %+v", got)
	}
	s.submit(t, "a")
}

func TestARedisThatRefusesWritesGets500(t *testing.T) {
	for name, spoil := range map[string]func(service) error{
		"read-only":     func(s service) error { return s.rdb.ReplicaOf(t.Context(), "127.0.0.1", "1").Err() },
		"out of memory": func(s service) error { return s.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServiceOn(t, api.Config{AllowUnregistered: true}, redisdb.Options{URL: redistest.Start(t).URL()})
			if err := spoil(s); err != nil {
				t.Fatal(err)
			}
			got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`))
			if name == "out of memory" {
				if got.status != http.StatusInsufficientStorage || got.Code != tasks.StorageFull || got.header.Get("Retry-After") == "" {
					t.Errorf("submit answers %+v", got)
				}
			} else if got.status != http.StatusInternalServerError || got.Message != "internal error" {
				t.Errorf("submit answers %+v", got)
			}
			s.wantNothingStored(t)
		})
	}
}

// What begins something is refused by a full Redis, what stops something is not.
func TestTheBrakeIsReachedWhileRedisIsFull(t *testing.T) {
	s := newServiceOn(t, api.Config{AllowUnregistered: true}, redisdb.Options{URL: redistest.Start(t).URL()})
	ended, open := s.submit(t, "a"), s.submit(t, "b")
	if got := s.do(t, http.MethodPost, "/v1/jobs/"+ended+"/cancel", "acme", nil); got.status != http.StatusOK {
		t.Fatalf("cancel answers %+v", got)
	}
	if err := s.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; { // the look at its memory is good for a moment
		got := s.do(t, http.MethodGet, "/readyz", "", nil)
		if got.status != http.StatusOK {
			t.Fatalf("readyz answers %+v", got)
		}
		if string(got.Data) == `{"accepting":false}` {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("readyz goes on to answer %+v", got)
		}
	}
	got := s.do(t, http.MethodPost, "/v1/jobs/"+ended+"/retry", "acme", strings.NewReader(`{"states":["cancelled"]}`))
	if got.status != http.StatusInsufficientStorage || got.Code != tasks.StorageFull || got.header.Get("Retry-After") == "" {
		t.Errorf("retry answers %+v", got)
	}
	if got := s.do(t, http.MethodPost, "/v1/jobs/"+open+"/cancel", "acme", nil); got.status != http.StatusOK {
		t.Errorf("cancel answers %+v", got)
	}
	if got := s.do(t, http.MethodPost, "/v1/instances/batch-reset", "acme", strings.NewReader(`{"instance_ids":["c"],"dry_run":true}`)); got.status != http.StatusOK {
		t.Errorf("a dry run answers %+v", got)
	}
	if got := s.do(t, http.MethodPost, "/v1/halt", "acme", nil); got.status != http.StatusOK {
		t.Errorf("halt answers %+v", got)
	}
	for _, path := range []string{"/v1/resume", "/v1/jobs/" + ended + "/ticket"} { // the first ticket: its key is missing
		if got := s.do(t, http.MethodPost, path, "acme", nil); got.status != http.StatusInsufficientStorage || got.Code != tasks.StorageFull {
			t.Errorf("%s answers %+v", path, got)
		}
	}
}

// FuzzBatchReset: no body makes a 500, a panic, or a job with an instance ID
// that is not one.
func FuzzBatchReset(f *testing.F) {
	for _, seed := range []string{
		`{"instance_ids":["a44uhlf7","efjy72gs"]}`, `{"instance_ids":null}`, `{"instance_ids":[1]}`,
		`{"INSTANCE_IDS":["a"]}`, `[]`, `{`, "\xff", `{"instance_ids":["a"],"instance_ids":["b"]}`,
	} {
		f.Add([]byte(seed))
	}
	s := newService(f, api.Config{AllowUnregistered: true})
	f.Fuzz(func(t *testing.T, body []byte) {
		got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(string(body)))
		switch {
		case got.status == http.StatusOK && got.Code == tasks.OK:
			var data struct {
				CmdJobs []struct {
					InstanceID string `json:"instance_id"`
				} `json:"cmd_jobs"`
			}
			if err := json.Unmarshal(got.Data, &data); err != nil || len(data.CmdJobs) == 0 {
				t.Fatalf("accepted without instances: %s, %v", got.Data, err)
			}
			for _, j := range data.CmdJobs {
				if err := tasks.CheckInstanceID(j.InstanceID); err != nil {
					t.Fatalf("accepted an instance ID that %v", err)
				}
			}
		case got.status == http.StatusBadRequest && got.Code == tasks.BadRequest && got.Message != "":
		case got.status == http.StatusRequestEntityTooLarge:
		default:
			t.Fatalf("%q answers %d %s %q", body, got.status, got.Code, got.Message)
		}
	})
}
