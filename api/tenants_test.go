package api_test

import (
	"net/http"
	"strings"
	"testing"

	"batchreset/api"
	"batchreset/tasks"
)

func TestTokens(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	ctx := t.Context()
	revoked, err := s.db.Tokens.Add(ctx, "revoked", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 0, tasks.Actor{})
	if err == nil {
		_, err = s.db.Tokens.Revoke(ctx, revoked.ID, tasks.Actor{})
	}
	if err == nil {
		_, err = s.db.Tokens.Add(ctx, "reader", tasks.Token{Tenant: "acme", Scopes: []tasks.Scope{tasks.ScopeRead}}, 0, tasks.Actor{})
	}
	if err == nil {
		_, err = s.db.Tokens.Add(ctx, "submitter", tasks.Token{Tenant: "acme", Scopes: []tasks.Scope{tasks.ScopeSubmit}}, 0, tasks.Actor{})
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
		{"refuses a submit without a token", "POST", batchReset, "", 401, tasks.BadToken, "Incorrect IAM authentication information: x-auth-token not found"},
		{"refuses a submit with a wrong token", "POST", batchReset, "wrong", 401, tasks.BadToken, "Incorrect IAM authentication information: decrypt token fail"},
		{"refuses a submit with a huge token", "POST", batchReset, strings.Repeat("x", 32<<10), 401, tasks.BadToken, "decrypt token fail"},
		{"refuses a submit with a revoked token", "POST", batchReset, "revoked", 401, tasks.TokenExpired, "revoked"},
		{"refuses a submit with a token that may only read", "POST", batchReset, "reader", 403, tasks.Forbidden, "submit"},
		{"refuses a read with a token that may only submit", "GET", "/v1/jobs", "submitter", 403, tasks.Forbidden, "read"},
		{"refuses a task query without a token", "GET", "/v1/instances/tasks/x", "", 401, tasks.BadToken, "x-auth-token not found"},
		{"refuses a job without a token", "GET", "/v1/jobs/x", "", 401, tasks.BadToken, "x-auth-token not found"},
		{"tells what is missing before it looks at the request", "POST", batchReset, "", 401, tasks.BadToken, "x-auth-token not found"},
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
