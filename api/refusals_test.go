package api_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/alicebob/miniredis/v2"

	"batchreset/api"
	"batchreset/api/auth"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// request is one for an operation of the contract.
type request struct{ method, path string }

// guarded are requests for all operations that ask for a token, about a job, or a run with the same ID.
func (c *contract) guarded(job string) []request {
	var all []request
	for template, methods := range c.paths {
		for method, op := range methods {
			if op.guarded() {
				path := strings.NewReplacer("{job_id}", job, "{task_id}", job, "{run_id}", job).Replace(template)
				all = append(all, request{strings.ToUpper(method), path})
			}
		}
	}
	return all
}

// TestEveryOperationRefusesAlike: whatever a caller asks for, the answers to a bad token,
// a bad body, a job that is not there and a broken Redis are those of the contract.
func TestEveryOperationRefusesAlike(t *testing.T) {
	m := miniredis.RunT(t)
	runs := newFakeRuns()
	cfg := testConfig
	cfg.Runs = runs
	s := newServiceOn(t, cfg, redisdb.Options{URL: "redis://" + m.Addr(), Embedded: true})
	revoked, err := s.db.Tokens.Add(t.Context(), "revoked", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 0, tasks.Actor{})
	if err == nil {
		_, err = s.db.Tokens.Revoke(t.Context(), revoked.ID, tasks.Actor{})
	}
	if err == nil {
		_, err = s.db.Tokens.Add(t.Context(), "reader", tasks.Token{Tenant: "acme", Scopes: []tasks.Scope{tasks.ScopeRead}}, 0, tasks.Actor{})
	}
	if err == nil {
		_, err = s.db.Tokens.Add(t.Context(), "submitter", tasks.Token{Tenant: "acme", Scopes: []tasks.Scope{tasks.ScopeSubmit}}, 0, tasks.Actor{})
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := written()
	if err != nil {
		t.Fatal(err)
	}
	job := s.submit(t, "phone-1")
	runs.kept[job] = tasks.Run{ID: job, Tenant: "acme", State: tasks.RunRunning}
	for _, r := range c.guarded(job) {
		limit := 64 << 10
		if r == (request{http.MethodPost, "/v1/runs"}) {
			limit = 8 << 20
		}
		refuses := func(name, token string, body io.Reader, status int, code tasks.Code) {
			t.Helper()
			if got := s.do(t, r.method, r.path, token, body); got.status != status || got.Code != code {
				t.Errorf("%s %s: %s answers %d %s %q, want %d %s", r.method, r.path, name, got.status, got.Code, got.Message, status, code)
			}
		}
		narrow := "submitter"
		if r.method != http.MethodGet && !strings.HasSuffix(r.path, "/ticket") && !strings.HasSuffix(r.path, "/batch-query-status") {
			narrow = "reader"
		}
		refuses("no token", "", nil, http.StatusUnauthorized, tasks.BadToken)
		refuses("a revoked token", "revoked", nil, http.StatusUnauthorized, tasks.TokenExpired)
		if r.path != "/v1/whoami" { // which any token may ask
			refuses("a token without the scope", narrow, nil, http.StatusForbidden, tasks.Forbidden)
		}
		refuses("a large body", "acme", strings.NewReader(strings.Repeat(" ", limit+1)), http.StatusRequestEntityTooLarge, tasks.TooLarge)
		refuses("half a body", "acme", iotest.ErrReader(errors.New("gone")), http.StatusBadRequest, tasks.BadRequest)
		if missing := strings.Replace(r.path, job, tasks.NewJobID(), 1); missing != r.path {
			r.path = missing
			var body io.Reader
			if strings.HasSuffix(r.path, "/approve") || strings.HasSuffix(r.path, "/reject") {
				body = strings.NewReader(`{"list_sha256":"` + tasks.ListHash(nil) + `","comment":"checked"}`)
			}
			refuses("no such job", "acme", body, http.StatusNotFound, tasks.NoJob)
		}
	}
	m.SetError("ERR broken")
	defer m.SetError("")
	for _, r := range c.guarded(job) {
		if strings.HasSuffix(r.path, "/batch-query") {
			r.path += "?page_no=1&page_size=10"
		}
		if got := s.do(t, r.method, r.path, "acme", strings.NewReader(`{"instance_ids":["a"]}`)); got.Code != tasks.Internal || got.Message != "internal error" {
			t.Errorf("%s %s on a broken Redis: answer %+v", r.method, r.path, got)
		}
	}
}

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

// While nobody can say whose a token is, nobody with it is let in; our own tokens go on working.
func TestNobodyIsLetInWhileTheTokenServiceIsAway(t *testing.T) {
	clock := wallClock{}
	cfg := testConfig
	cfg.IAM = auth.NewIAM("http://127.0.0.1:1", auth.IAMCredentials{User: "reset", Password: "secret"}, auth.IAMRules{}, clock, slog.New(slog.DiscardHandler))
	s := newService(t, cfg)
	c, err := written()
	if err != nil {
		t.Fatal(err)
	}
	job := s.submit(t, "phone-1")
	for _, r := range c.guarded(job) {
		if got := s.do(t, r.method, r.path, "gAAAAABl-of-keystone", nil); got.status != http.StatusServiceUnavailable || got.Code != tasks.IAMAway || got.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: answer %+v", r.method, r.path, got)
		}
	}
	if got := s.do(t, http.MethodGet, "/v1/jobs/"+job, "acme", nil); got.status != http.StatusOK {
		t.Errorf("with a token of ours: %+v", got)
	}
	if got := s.do(t, http.MethodGet, "/v1/jobs/"+job, "brt_no-such-token-of-ours", nil); got.Code != tasks.BadToken {
		t.Errorf("with a token that would be ours: %+v", got)
	}
}

func TestEveryPathRefusesOtherMethods(t *testing.T) {
	c, err := written()
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig
	cfg.Runs = newFakeRuns()
	s := service{Handler: api.New(cfg, api.Store{}, slog.New(slog.DiscardHandler))}
	for template := range c.paths {
		path := strings.Replace(template, "{file}", "page.js", 1)
		if got := s.do(t, http.MethodPatch, path, "", nil); got.status != http.StatusMethodNotAllowed || got.Code != tasks.NoRoute {
			t.Errorf("PATCH %s: answer %+v", path, got)
		}
	}
}
