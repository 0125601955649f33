package api_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"batchreset/api"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// skewed is a service whose Redis has another clock than the api.
func skewed(t *testing.T, by time.Duration) (service, time.Time) {
	t.Helper()
	server := miniredis.RunT(t)
	redis := time.Now().Add(by)
	server.SetTime(redis)
	return newServiceOn(t, api.Config{AllowUnregistered: true}, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true}), redis
}

func TestNotBeforeIsJudgedByRedissClock(t *testing.T) {
	for _, by := range []time.Duration{-100 * time.Second, -2 * time.Hour, 2 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			s, redis := skewed(t, by)
			for _, row := range []struct {
				ahead time.Duration
				want  string
			}{
				{30 * time.Second, ""},
				{tasks.MaxNotBefore - time.Minute, ""},
				{-30 * time.Second, "not_before is in the past"},
				{tasks.MaxNotBefore + time.Minute, "not_before is more than 7 days ahead"},
			} {
				for _, dryRun := range []string{"false", "true"} {
					body := `{"instance_ids":["p1"],"dry_run":` + dryRun + `,"not_before":"` + redis.Add(row.ahead).UTC().Format(time.RFC3339) + `"}`
					got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(body))
					if (row.want == "") != (got.Code == tasks.OK) || !strings.Contains(got.Message, row.want) {
						t.Errorf("%s ahead: %s %s, want %q", row.ahead, got.Code, got.Message, row.want)
					}
				}
			}
		})
	}
}

func TestRetryAfterIsByRedissClock(t *testing.T) {
	s, redis := skewed(t, -100*time.Second)
	body := `{"instance_ids":["p1"],"not_before":"` + redis.Add(40*time.Second).UTC().Format(time.RFC3339) + `"}`
	submitted := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(body))
	got := s.do(t, http.MethodGet, submitted.header.Get("Location"), "acme", nil)
	if wait, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || wait < 35 || wait > 41 {
		t.Errorf("Retry-After %s, want what is left of 40 s", got.header.Get("Retry-After"))
	}
	// What has just begun to wait has not waited for long.
	id := s.submit(t, "p2")
	got = s.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil)
	if wait, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || wait > 5 {
		t.Errorf("Retry-After %s for a job of this moment", got.header.Get("Retry-After"))
	}
}

func TestAHaltIsSinceATimeOfRedissClock(t *testing.T) {
	s, redis := skewed(t, 3*time.Hour)
	s.do(t, http.MethodPost, "/v1/halt", "acme", nil)
	policy, err := s.db.Policies.Policy(t.Context(), "acme")
	if err != nil || policy.Halt() == nil || policy.Halt().Since.Sub(redis).Abs() > 10*time.Second {
		t.Errorf("policy %+v, %v; want a halt since %s", policy.Halt(), err, redis)
	}
}
