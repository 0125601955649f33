package api_test

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"batchreset/api"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
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
		if _, err := db.Tokens.Add(t.Context(), tenant, tasks.Token{Tenant: tenant, Owner: tenant + "-bot", Scopes: tasks.Scopes}, 0, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	rdb.Del(t.Context(), "reset:audit")
	// Tests send more than people do.
	if err := rdb.HSet(t.Context(), "reset:policies", "* requests_per_second", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if cfg.Runs == nil {
		cfg.Runs = newFakeRuns()
	}
	cfg.MaxInstances = tasks.DefaultMaxInstances
	cfg.MaxWaiters = cmp.Or(cfg.MaxWaiters, 10_000)
	return service{api.New(cfg, storeOf(db), slog.New(slog.DiscardHandler)), db, rdb}
}

// storeOf is what an API needs of a DB.
func storeOf(db *redisdb.DB) api.Store {
	return api.Store{
		Tokens: db.Tokens, Fleet: db.Fleet, Records: db.Records, Reader: db.HeldJobs, Quotas: db.Quotas,
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
