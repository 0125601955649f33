package api_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"batchreset/api"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/registry"
)

func (s service) trail(t testing.TB) (lines []string) {
	t.Helper()
	if err := s.db.Audit.Trail(t.Context(), tasks.AuditFilter{}, func(e tasks.AuditEntry) error {
		lines = append(lines, fmt.Sprintf("%s by %s from %s for %s: %s %v %s", e.Action, e.By, e.From, e.Tenant, e.RequestID, e.InstanceIDs, e.Reason))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestEveryDecisionIsInTheTrailAndTold(t *testing.T) {
	var told []tasks.AuditEntry
	s := newServiceOn(t, testConfig, redisdb.Options{
		URL: "redis://" + miniredis.RunT(t).Addr(), Embedded: true,
		Audited: func(e tasks.AuditEntry, missing error) {
			if e.Action != tasks.ActionAddToken {
				told = append(told, e)
			}
			if missing != nil {
				t.Errorf("%+v: %v", e, missing)
			}
		},
	})
	send := func(method, path, body string, header ...string) reply {
		t.Helper()
		return s.do(t, method, path, "acme", strings.NewReader(body), append(header, "X-Request-ID", "req-"+path[4:8])...)
	}
	const batch = `{"instance_ids":["a","b"],"reason":"recall"}`
	first := send(http.MethodPost, batchReset, batch, "Idempotency-Key", "k")
	send(http.MethodPost, batchReset, batch, "Idempotency-Key", "k") // a replay decides nothing
	path := first.header.Get("Location")
	id := strings.TrimPrefix(path, "/v1/jobs/")
	send(http.MethodPost, path+"/cancel", "")
	send(http.MethodPost, path+"/retry", `{"states":["cancelled"]}`)
	send(http.MethodPost, "/v1/halt", `{"reason":"oops"}`)
	send(http.MethodPost, "/v1/resume", "")
	// Neither what is refused nor what changes nothing is a decision.
	send(http.MethodPost, batchReset, `{"instance_ids":[]}`)
	send(http.MethodPost, batchReset, `{"instance_ids":["a"],"dry_run":true}`)
	send(http.MethodGet, path, "")

	token := "token " + registry.TokenID("acme")
	const from = " from 192.0.2.1 for acme: " // httptest's
	want := []string{
		"submit by " + token + from + "req-inst [a b] recall",
		"cancel by " + token + from + "req-jobs [a b] ",
		"retry by " + token + from + "req-jobs [a b] ",
		"halt by " + token + from + "req-halt [] oops",
		"resume by " + token + from + "req-resu [] ",
	}
	if got := s.trail(t); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("trail:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(told) != len(want) {
		t.Fatalf("%d entries are told, want %d: %+v", len(told), len(want), told)
	}
	if e := told[0]; e.Action != tasks.ActionSubmit || e.By != token || e.Job != id || e.Reason != "recall" || len(e.InstanceIDs) != 2 {
		t.Errorf("told %+v", e)
	}
}

func TestWhereARequestComesFrom(t *testing.T) {
	_, trusted, err := net.ParseCIDR("192.0.2.0/24") // httptest's requests come from there
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		proxies []*net.IPNet
		want    string
	}{
		{nil, "192.0.2.1"},
		{[]*net.IPNet{trusted}, "198.51.100.7"},
	} {
		s := newService(t, api.Config{AllowUnregistered: true, TrustedProxies: row.proxies})
		s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`), "X-Forwarded-For", "203.0.113.9, 198.51.100.7")
		if got := s.trail(t); len(got) != 1 || !strings.Contains(got[0], " from "+row.want+" ") {
			t.Errorf("with %v: %v", row.proxies, got)
		}
	}
}

func TestNothingIsDoneThatIsNotInTheTrail(t *testing.T) {
	s := newService(t, testConfig)
	done := s.submit(t, "a")
	s.do(t, http.MethodPost, "/v1/jobs/"+done+"/cancel", "acme", http.NoBody)
	s.do(t, http.MethodPost, "/v1/halt", "acme", http.NoBody)
	s.rdb.Del(t.Context(), "reset:audit")
	s.rdb.Set(t.Context(), "reset:audit", "not a stream", 0)
	for path, body := range map[string]string{
		"/v1/jobs/" + done + "/retry": `{"states":["cancelled"]}`, "/v1/resume": "", batchReset: `{"instance_ids":["b"]}`,
	} {
		if got := s.do(t, http.MethodPost, path, "acme", strings.NewReader(body)); got.status != http.StatusInternalServerError {
			t.Errorf("%s: answer %+v", path, got)
		}
	}
	if job, err := s.db.Jobs.Job(t.Context(), done); err != nil || job.State != tasks.JobCancelled {
		t.Errorf("the job is %s, %v", job.State, err)
	}
	if policy, err := s.db.Policies.Policy(t.Context(), "acme"); err != nil || policy.OwnHalt == nil {
		t.Errorf("policy %+v, %v", policy, err)
	}
}
