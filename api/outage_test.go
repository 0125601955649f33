package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

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
	_, run := s.postRun(t, `{"instance_ids":["a"]}`)
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
		if strings.Contains(string(got.Data), `"accepting":false`) {
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
	for _, path := range []string{"/v1/resume", "/v1/jobs/" + ended + "/ticket", "/v1/runs/" + run.ID + "/ticket"} { // the first ticket: its key is missing
		if got := s.do(t, http.MethodPost, path, "acme", nil); got.status != http.StatusInsufficientStorage || got.Code != tasks.StorageFull {
			t.Errorf("%s answers %+v", path, got)
		}
	}
}

// A Redis whose disk is slow answers nobody for two seconds.
func TestTheBrakeOutwaitsARedisThatStandsStill(t *testing.T) {
	t.Parallel()
	s := newServiceOn(t, api.Config{AllowUnregistered: true}, redisdb.Options{URL: redistest.Start(t).URL()})
	id := s.submit(t, "a")
	for path, body := range map[string]string{"/v1/jobs/" + id + "/cancel": "", "/v1/halt": "{}"} {
		if err := s.rdb.Do(t.Context(), "CLIENT", "PAUSE", 2000, "ALL").Err(); err != nil {
			t.Fatal(err)
		}
		if got := s.do(t, http.MethodPost, path, "acme", strings.NewReader(body)); got.status != http.StatusOK {
			t.Errorf("%s answers %+v", path, got)
		}
	}
}

// A process that cannot open secrets is ready all the same, and says so.
func TestReadyzSaysWhetherSecretsCanBeOpened(t *testing.T) {
	s := newService(t, api.Config{Secrets: func() string { return "unreadable" }, Sealed: true})
	got := s.do(t, http.MethodGet, "/readyz", "", nil)
	if got.status != http.StatusOK || !strings.Contains(string(got.Data), `"secrets":"unreadable"`) {
		t.Errorf("readyz answers %+v", got)
	}
}
