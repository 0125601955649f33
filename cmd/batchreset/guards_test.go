package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// recorder is a control plane that takes a moment for each reset. It remembers them by the
// first part of the instance's name, which is the tenant's. Those of "broken" fail.
type recorder struct {
	mu    sync.Mutex
	calls map[string][]driverCall
}

type driverCall struct {
	instance string
	at       time.Time
}

func (p *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	instance := r.PathValue("instance")
	tenant, _, _ := strings.Cut(instance, "-")
	p.mu.Lock()
	p.calls[tenant] = append(p.calls[tenant], driverCall{instance, time.Now()})
	p.mu.Unlock()
	harness.Pause(r.Context(), 20*time.Millisecond) // what a reset takes here
	if tenant == "broken" {
		w.WriteHeader(http.StatusBadRequest)
	}
}

func (p *recorder) of(tenant string) []driverCall {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]driverCall(nil), p.calls[tenant]...)
}

// sleep waits for nothing: what must not happen meanwhile, or from then on, is what is tested.
func sleep(d time.Duration) { time.Sleep(d) }

// tenantUnderTest has instances, and jobs that are all accepted while it is halted.
type tenantUnderTest struct {
	t           *testing.T
	name        string
	environment map[string]string
	*client.Client
	jobs []string
}

func newTenantUnderTest(t *testing.T, redis, server, name string, jobs int) *tenantUnderTest {
	t.Helper()
	u := &tenantUnderTest{t: t, name: name, environment: map[string]string{"BATCHRESET_REDIS": redis}}
	fleet := "instance_id,tenant\n"
	for n := range jobs * 32 {
		fleet += u.instance(n) + "," + name + "\n"
	}
	path := filepath.Join(t.TempDir(), "fleet.csv")
	if err := os.WriteFile(path, []byte(fleet), 0o600); err != nil {
		t.Fatal(err)
	}
	u.run("fleet", "import", path)
	var err error
	if u.Client, err = client.New(server, strings.TrimSpace(u.run("token", "add", "--tenant", name))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	u.run("halt", "--tenant", name, "--reason", "before the test")
	sleep(time.Second) // from then on it holds
	for n := range jobs {
		var batch client.Batch
		for i := range 32 {
			batch.InstanceIDs = append(batch.InstanceIDs, u.instance(32*n+i))
		}
		accepted, err := u.Submit(t.Context(), batch)
		if err != nil {
			t.Fatal(err)
		}
		u.jobs = append(u.jobs, accepted.JobID)
	}
	return u
}

func (u *tenantUnderTest) instance(n int) string { return fmt.Sprintf("%s-%03d", u.name, n) }

func (u *tenantUnderTest) run(args ...string) string {
	u.t.Helper()
	return command(u.t, u.environment, args...).OK(u.t).Out
}

// counts adds up the records.
func (u *tenantUnderTest) counts() (all client.Counts, items []client.Item) {
	u.t.Helper()
	for _, id := range u.jobs {
		job, err := u.Job(u.t.Context(), id)
		if err != nil {
			u.t.Fatal(err)
		}
		all.Succeeded += job.Counts.Succeeded
		all.Failed += job.Counts.Failed
		all.Cancelled += job.Counts.Cancelled
		items = append(items, job.Items...)
	}
	return all, items
}

// TestGuardsStopAWipeThatWasAccepted switches each guard on after the jobs were accepted.
func TestGuardsStopAWipeThatWasAccepted(t *testing.T) {
	t.Parallel()
	p := &recorder{calls: map[string][]driverCall{}}
	mux := http.NewServeMux()
	mux.Handle("POST /{instance}", p)
	upstream := httptest.NewServer(mux)
	defer upstream.Close()
	redis := redistest.Start(t).URL()
	api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	server, _ := api.logged("api started")["api"].(string)
	const concurrency = 4
	worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "http",
		"--driver-url", upstream.URL+"/{instance_id}", "--concurrency", fmt.Sprint(concurrency))
	worker.logged("worker started")

	t.Run("halt", func(t *testing.T) {
		u := newTenantUnderTest(t, redis, server, "halted", 8)
		if calls := p.of(u.name); len(calls) > 0 {
			t.Fatalf("%d calls for a tenant that is halted", len(calls))
		}
		u.run("resume", "--tenant", u.name)
		harness.Eventually(t, patience, "the first resets", func() bool { return len(p.of(u.name)) >= 10 })
		u.run("halt", "--tenant", u.name)
		halted := time.Now()
		sleep(3 * time.Second) // in which nothing must come, but for the first second
		calls := p.of(u.name)
		if last := calls[len(calls)-1].at; last.Sub(halted) > time.Second {
			t.Errorf("a reset was sent %s after the halt", last.Sub(halted))
		}
		if len(calls) == 8*32 {
			t.Error("the halt came too late to say anything")
		}
		u.run("resume", "--tenant", u.name)
		harness.Eventually(t, patience, "the rest", func() bool { counts, _ := u.counts(); return counts.Succeeded == 8*32 })
		if calls := p.of(u.name); len(calls) != 8*32 {
			t.Errorf("%d calls for %d instances", len(calls), 8*32)
		}
	})
	t.Run("protection", func(t *testing.T) {
		u := newTenantUnderTest(t, redis, server, "protected", 1)
		safe := map[string]bool{u.instance(3): true, u.instance(31): true}
		u.run("fleet", "protect", u.instance(3), u.instance(31))
		u.run("resume", "--tenant", u.name)
		harness.Eventually(t, patience, "all others", func() bool { counts, _ := u.counts(); return counts.Succeeded == 30 && counts.Failed == 2 })
		_, items := u.counts()
		for _, it := range items {
			if safe[it.InstanceID] && (it.State != "failed" || it.Code != "RESET.1006" || it.Attempts != 0) {
				t.Errorf("item %+v", it)
			}
		}
		for _, c := range p.of(u.name) {
			if safe[c.instance] {
				t.Errorf("%s was reset", c.instance)
			}
		}
	})
	t.Run("quota", func(t *testing.T) {
		u := newTenantUnderTest(t, redis, server, "bounded", 2)
		u.run("tenant", "limit", "--tenant", u.name, "--instances-per-hour", "20")
		u.run("resume", "--tenant", u.name)
		harness.Eventually(t, patience, "as many resets as the quota has", func() bool { counts, _ := u.counts(); return counts.Succeeded == 20 })
		sleep(2 * time.Second) // in which nothing must come
		if calls := p.of(u.name); len(calls) != 20 {
			t.Errorf("%d resets, the quota is 20", len(calls))
		}
		for _, id := range u.jobs {
			if _, err := u.Cancel(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
		if counts, _ := u.counts(); counts.Succeeded != 20 || counts.Cancelled != 44 {
			t.Errorf("counts %+v", counts)
		}
	})
	t.Run("max_failures", func(t *testing.T) {
		u := newTenantUnderTest(t, redis, server, "broken", 3)
		u.run("tenant", "limit", "--all", "--max-failures", "2")
		u.run("resume", "--tenant", u.name)
		harness.Eventually(t, patience, "all jobs to stop", func() bool { counts, _ := u.counts(); return counts.Failed+counts.Cancelled == 96 })
		if calls := p.of(u.name); len(calls) < 6 || len(calls) > 6+3*concurrency {
			t.Errorf("%d resets of 3 jobs that stop after 2 failures", len(calls))
		}
	})
	worker.stop()
	api.stop()
}
