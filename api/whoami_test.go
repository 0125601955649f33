package api_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"batchreset/tasks"
)

func TestWhoAmI(t *testing.T) {
	s := newService(t, testConfig)
	for name, scopes := range map[string][]tasks.Scope{"reader": {tasks.ScopeRead}, "brake": {tasks.ScopeCancel, tasks.ScopeOperate}} {
		token, err := s.db.Tokens.Add(t.Context(), name, tasks.Token{Tenant: "acme", Scopes: scopes}, time.Hour, tasks.Actor{})
		if err != nil {
			t.Fatal(err)
		}
		got := s.do(t, http.MethodGet, "/v1/whoami", name, nil)
		var who tasks.Token
		if err := json.Unmarshal(got.Data, &who); err != nil || got.status != http.StatusOK {
			t.Fatalf("%s: answer %+v, %v", name, got, err)
		}
		if who.ID != token.ID || who.Tenant != "acme" || !slices.Equal(who.Scopes, scopes) || !who.ExpiresAt.Equal(token.ExpiresAt.Time) {
			t.Errorf("%s is %+v, want %+v", name, who, token)
		}
	}
	if got := s.do(t, http.MethodGet, "/v1/whoami", "nobody", nil); got.status != http.StatusUnauthorized || got.Code != tasks.BadToken {
		t.Errorf("nobody: answer %+v", got)
	}
}
