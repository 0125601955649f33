package ops_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/api/browsertest"
	"batchreset/api/ops"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// reports has a worker process show itself.
func (g guarded) reports(t *testing.T, id string, change func(*tasks.WorkerReport)) {
	t.Helper()
	now := tasks.FromMillis(time.Now().UnixMilli())
	offset := int64(0)
	r := tasks.WorkerReport{
		ID: id, Host: "rack-7", PID: 41, Version: "v2.0.0", State: tasks.WorkerWorks, Started: now, ClockOffset: &offset, ShutdownTimeout: 600_000,
		Drivers: []tasks.WorkerDriver{{Name: "lab", Lanes: 32, Slots: 1500, Busy: 2, Rate: 5, Timeout: 60_000}},
		Items:   []tasks.ItemUnderWay{{ItemID: g.job + "-0", InstanceID: "phone-1", Tenant: "acme", Driver: "lab", Attempt: 3, Since: tasks.FromMillis(now.Add(-90 * time.Second).UnixMilli())}},
		More:    1,
	}
	if change != nil {
		change(&r)
	}
	if err := g.db.Attempts.Beat(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := g.db.Workers.Report(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// shows asks for a page and wants texts in it.
func (g guarded) shows(t *testing.T, as *http.Cookie, path string, status int, wants ...string) string {
	t.Helper()
	var a answer
	body := ""
	harness.Eventually(t, 20*time.Second, fmt.Sprintf("%s shows %q", path, wants), func() bool { // what is known is good for some seconds
		a = g.ask(t, http.MethodGet, path, as, nil)
		body = html.UnescapeString(a.body)
		return a.status == status && !slices.ContainsFunc(wants, func(want string) bool { return !strings.Contains(body, want) })
	})
	return body
}

const aWorker = "AAAABBB2"

func TestTheWorkersPage(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer})
	vera := g.login(t, "vera")
	g.shows(t, vera, "/workers", http.StatusOK, "No worker is running")
	g.reports(t, aWorker, nil)
	g.reports(t, "CCCCDDD3", func(r *tasks.WorkerReport) {
		ahead := int64(4200)
		r.Host, r.Version, r.ClockOffset, r.State, r.Items, r.More = "rack-8", "v1.9.0", &ahead, tasks.WorkerQuiet, nil, 0
	})
	body := g.shows(t, vera, "/workers", http.StatusOK, "rack-7", "2 processes on 2 machines, 1 quiet; 4 of 3,000 slots used", "1m3", "4.2 s ahead",
		"of different versions run side by side", "1 of v1.9.0, 1 of v2.0.0", `<a href="workers/AAAABBB2"><code>AAAABBB2</code></a>`, "2 of 1,500")
	if n := strings.Count(body, "<tr>"); n != 3 {
		t.Errorf("%d rows for two processes", n-1)
	}
	page := g.shows(t, vera, "/workers/"+aWorker, http.StatusOK, "phone-1", "jobs/"+g.job, "1m3", "1 more began later and is not shown", "up to 5 calls per second", "rack-7", "60 s", "<td>3</td>")
	if strings.Contains(page, "/stop") {
		t.Error("a viewer is shown buttons")
	}
	g.shows(t, vera, "/", http.StatusOK, "2 processes on 2 machines", `href="workers"`, "Versions:")
	g.shows(t, vera, "/workers/ZZZZZZZ7", http.StatusNotFound, "There is no such worker")
	// One that shows nothing more.
	g.rdb.PExpire(t.Context(), "reset:worker:{"+aWorker+"}", 8*time.Second)
	key := "reset:worker:{" + aWorker + "}:report"
	_, report, _ := strings.Cut(g.rdb.Get(t.Context(), key).Val(), " ")
	g.rdb.Set(t.Context(), key, "1 "+report, time.Minute)
	g.shows(t, vera, "/workers", http.StatusOK, "not heard of for 1", "Every worker with the driver lab is quiet or stops", "1 not heard of")
	g.shows(t, vera, "/workers/"+aWorker, http.StatusOK, "was not heard of for 1")
	g.shows(t, vera, "/", http.StatusOK, "Every worker with the driver lab is quiet or stops")
}

func TestOrdersToAWorkerAreAskedForOnceMore(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator, "vera": tasks.RoleViewer})
	alice, vera := g.login(t, "alice"), g.login(t, "vera")
	g.reports(t, aWorker, nil)
	path := "/workers/" + aWorker
	g.shows(t, alice, path, http.StatusOK, path[1:]+"/quiet", path[1:]+"/stop")
	g.shows(t, alice, path+"/quiet", http.StatusOK, "2 instances that are being reset now go on to their end", "No other worker takes work for the driver lab", "process 41 on rack-7")
	g.shows(t, alice, path+"/stop", http.StatusOK, "2 instances that are being reset now", "has 10 min to end", "systemd, Docker or Kubernetes")
	g.shows(t, alice, path+"/take", http.StatusConflict, "the worker is working")
	for _, row := range []struct {
		name   string
		as     *http.Cookie
		path   string
		form   url.Values
		status int
	}{
		{"by a viewer", vera, path + "/quiet", url.Values{}, http.StatusForbidden},
		{"of a field that is not known", alice, path + "/quiet", url.Values{"why": {"x"}}, http.StatusBadRequest},
		{"with too long a reason", alice, path + "/quiet", url.Values{"reason": {strings.Repeat("x", 300)}}, http.StatusBadRequest},
		{"of a worker that is gone", alice, "/workers/ZZZZZZZ7/stop", url.Values{}, http.StatusConflict},
		{"that is none", alice, path + "/dance", url.Values{}, http.StatusNotFound},
	} {
		if a := g.ask(t, http.MethodPost, row.path, row.as, row.form); a.status != row.status {
			t.Errorf("an order %s: %d %s", row.name, a.status, a.body)
		}
	}
	if trail := g.trail(t); len(trail) != 0 {
		t.Errorf("trail %+v", trail)
	}
	if a := g.ask(t, http.MethodPost, path+"/quiet", alice, url.Values{"reason": {"patch day"}}); a.status != http.StatusSeeOther || !strings.HasSuffix(a.location, path) {
		t.Errorf("%d %s", a.status, a.location)
	}
	if got := g.rdb.Get(t.Context(), "reset:worker:{"+aWorker+"}:order").Val(); got != string(tasks.OrderQuiet) {
		t.Errorf("order %q", got)
	}
	trail := g.trail(t)
	if len(trail) != 1 || trail[0].Action != tasks.ActionQuietWorker || trail[0].Reason != "patch day" || trail[0].Detail != aWorker+": process 41 on rack-7" || trail[0].Principal+trail[0].By == "" {
		t.Errorf("trail %+v", trail)
	}
	g.reports(t, aWorker, func(r *tasks.WorkerReport) { r.State, r.Whole = tasks.WorkerQuiet, true })
	if body := g.shows(t, alice, path, http.StatusOK, path[1:]+"/take"); strings.Contains(body, path[1:]+"/stop") || strings.Contains(body, path[1:]+"/quiet") {
		t.Error("it shows what cannot be done")
	}
	g.shows(t, alice, path+"/take", http.StatusOK, "take work again?")
	g.shows(t, alice, path+"/stop", http.StatusConflict, "is the whole service, this site included")
}

// called has a driver called, so long ago.
func (g guarded) called(t *testing.T, ago time.Duration, n int, took time.Duration) {
	t.Helper()
	key := fmt.Sprintf("reset:activity:calls:{lab}:%d", time.Now().Add(-ago).Unix()/60)
	g.rdb.HIncrBy(t.Context(), key, "done", int64(n))
	g.rdb.HIncrBy(t.Context(), key, fmt.Sprint("r", tasks.LatencyBucket(took)), int64(n))
	g.rdb.ZAdd(t.Context(), "reset:activity:calls", redis.Z{Score: float64(time.Now().UnixMilli()), Member: "lab"})
}

func TestTheControlPlanesPage(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"vera": tasks.RoleViewer})
	vera := g.login(t, "vera")
	g.shows(t, vera, "/control-planes", http.StatusOK, "no driver was called")
	g.reports(t, aWorker, nil)
	lab := g.db.Calls.Of("lab")
	lab.Count(tasks.CallRetry, time.Second)
	lab.Fail(tasks.CallFailure{Kind: "retry", Code: "CPS.0042", Message: "system <busy>", ItemID: g.job + "-0", InstanceID: "phone-1"})
	g.db.Calls.Flush(t.Context())
	g.called(t, 30*time.Minute, 500, 2*time.Second)
	g.called(t, 0, 18, 30*time.Second)
	body := g.shows(t, vera, "/control-planes", http.StatusOK, "<h2>lab</h2>", "1 worker, 2 of 1,500 slots used", "5 calls per second in all", "500 done", "18 done", "1 failed, tried again",
		"CPS.0042", "system <busy>", "instances/phone-1", "jobs/"+g.job, "rack-7, process 41")
	if strings.Contains(body, "answers slowly") {
		t.Error("19 calls are enough to call it slow")
	}
	g.called(t, 0, 1, 30*time.Second)
	const slow = "The control plane of driver lab answers slowly: half of its calls take "
	g.shows(t, vera, "/control-planes", http.StatusOK, slow)
	g.shows(t, vera, "/", http.StatusOK, slow)

	g.reports(t, aWorker, func(r *tasks.WorkerReport) {
		r.Drivers[0].OpenSince, r.Drivers[0].LastError = tasks.FromMillis(time.Now().Add(-time.Hour).UnixMilli()), "no route to host"
	})
	g.shows(t, vera, "/control-planes", http.StatusOK, "No worker can reach it", "no route to host")
	g.shows(t, vera, "/", http.StatusOK, "The control plane of driver lab cannot be reached by any worker, since")
	unreachable, err := g.db.Workers.Unreachable(t.Context())
	if err != nil || len(unreachable) != 1 || unreachable["lab"].IsZero() {
		t.Errorf("%v, %v", unreachable, err)
	}
}

func TestReadyzSaysWhetherTheWorkerIsQuiet(t *testing.T) {
	quiet := false
	g := newGuardedAs(t, ops.Config{OpenHere: true, Quiet: func() bool { return quiet }}, nil)
	for _, quiet = range []bool{false, true} {
		if status, body := get(t, g.URL+"/readyz"); status != http.StatusOK || !strings.Contains(body, fmt.Sprintf(`"data":{"quiet":%t}`, quiet)) {
			t.Errorf("%d %s", status, body)
		}
	}
}

func TestWorkersAndControlPlanesInABrowser(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator, "vera": tasks.RoleViewer})
	var told sync.WaitGroup
	over := make(chan struct{})
	show := func() {
		g.reports(t, aWorker, nil)
		g.reports(t, "CCCCDDD3", func(r *tasks.WorkerReport) {
			ahead := int64(4200)
			r.Host, r.Version, r.ClockOffset, r.State = "rack-8", "v1.9.0", &ahead, tasks.WorkerQuiet
			r.Drivers = append(r.Drivers, tasks.WorkerDriver{Name: "default", Slots: 100, OpenSince: tasks.FromMillis(time.Now().Add(-time.Hour).UnixMilli()), LastError: "no route to host"})
		})
		g.reports(t, "EEEEFFF4", func(r *tasks.WorkerReport) {
			r.Host, r.State = "rack-9", tasks.WorkerDrains
			r.Drivers[0].OpenSince, r.Drivers[0].LastError = tasks.FromMillis(time.Now().Add(-time.Hour).UnixMilli()), "no route to host"
		})
	}
	show()
	told.Go(func() {
		ticker := time.NewTicker(tasks.ReportEvery)
		defer ticker.Stop()
		for {
			select {
			case <-over:
				return
			case <-ticker.C:
				show()
			}
		}
	})
	defer told.Wait()
	defer close(over)
	for n := range 60 {
		g.called(t, time.Duration(n+5)*time.Minute, 20+n%7, time.Duration(1500+n*20)*time.Millisecond)
		g.called(t, time.Duration(n+5)*time.Minute, 2, 5*time.Second)
	}
	for n := range 5 {
		g.called(t, time.Duration(n)*time.Minute, 22, 30*time.Second)
	}
	lab := g.db.Calls.Of("lab")
	for n := range 5 {
		lab.Count(tasks.CallUnknown, time.Minute)
		lab.Fail(tasks.CallFailure{Kind: "unknown", Code: "RESET.1001", Message: "no answer within the time of the attempt", ItemID: fmt.Sprintf("%s-%d", g.job, n%3), InstanceID: fmt.Sprint("phone-", n%3+1)})
		lab.Count(tasks.CallSeen, 80*time.Millisecond)
	}
	g.db.Calls.Flush(t.Context())
	browsertest.Script(t, "../..", "testdata/machinery.js", g.URL, password, aWorker)
	if trail := g.trail(t); len(trail) != 1 || trail[0].Action != tasks.ActionQuietWorker || trail[0].Reason != "patch day" {
		t.Errorf("trail %+v", trail)
	}
}
