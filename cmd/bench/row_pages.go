package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// sitePage is a page of the operators' site.
type sitePage struct{ what, path string }

// pageRow measures how long the pages of the operators' site take while many instances
// have finished and many are open, a few of them being reset. The oldest job of all has
// the only failures, and the only label.
func pageRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "pages")
	if err != nil {
		return nil, err
	}
	a, token, err := s.StartTenant(ctx, "--task-retention", "0")
	if err != nil {
		return nil, err
	}
	oldest, err := s.failedJob(ctx, a, token)
	if err != nil {
		return nil, err
	}
	run, err := s.history(ctx, a, token)
	if err != nil {
		return nil, err
	}
	session, err := s.Login(ctx, a.Ops)
	if err != nil {
		return nil, err
	}
	pages := []sitePage{
		{"overview", "/"},
		{"jobs", "/jobs"},
		{"jobs of a tenant", "/jobs?tenant=bench"},
		{"jobs that run", "/jobs?state=running"},
		{"jobs that succeeded", "/jobs?state=succeeded"},
		{"jobs that failed", "/jobs?state=failed"},
		{"jobs that were cancelled", "/jobs?state=cancelled"},
		{"jobs by label", "/jobs?label=only%3Done"},
		{"jobs by error code", "/jobs?code=CPS.0003"},
		{"jobs by instance", "/jobs?instance=" + failing(0)},
		{"jobs of a time", "/jobs?until=" + time.Now().UTC().Add(time.Minute).Format("2006-01-02T15:04")},
		{"a job", "/jobs/" + oldest},
		{"failures", "/failures?window=31d"},
		{"failures of a kind", "/failures/items?driver=default&code=CPS.0003"},
		{"an instance", "/instances/" + failing(0)},
		{"tenants", "/tenants"},
		{"runs", "/runs"},
		{"a run", "/runs/" + run},
		{"instances of a run", "/runs/" + run + "/instances"},
		{"approvals", "/approvals"},
		{"workers", "/workers"},
		{"control planes", "/control-planes"},
		{"a tenant", "/tenants/bench"},
		{"fleet", "/fleet"},
		{"callers", "/callers"},
		{"webhooks", "/webhooks"},
		{"operators", "/operators"},
		{"preview of a cancel", "/bulk?action=cancel&preview=1&tenant=bench"},
		{"preview of a retry", "/bulk?action=retry&preview=1&code=CPS.0003"},
		{"search for an instance", "/find?q=" + failing(0)},
		{"search for a request", "/find?q=nobody-has-this"},
		{"audit", "/audit"},
		{"audit of an instance", "/audit?instance=" + failing(0)},
	}
	var results []report.Result
	for _, page := range pages {
		took, err := pageTimes(ctx, "http://"+a.Ops+page.path, session, b.looks)
		if err != nil {
			return results, err
		}
		results = append(results, report.Result{
			What: page.what, Unit: "ms", Rounds: report.Groups(took, b.rounds), Target: report.AtMost(100),
			Note: fmt.Sprintf("%d looks, slowest %.0f ms; %d instances finished, %d open", b.looks, slices.Max(took), b.pagesEnded, b.pagesOpen),
		})
	}
	lasts := 6 * b.idleCPU // what is open is counted every twenty seconds or so
	share, err := watched(ctx, a, session, lasts)
	if err != nil {
		return results, err
	}
	return append(results, report.Result{
		What: "overview, while it is open in 50 browsers", Unit: "% of a core", Rounds: []float64{share}, Target: report.AtMost(5),
		Note: fmt.Sprintf("the api process, over %s; each browser asks every 2 s", lasts),
	}), nil
}

// browsers look at the overview, one after the other within browserEvery, as the site's own script does.
const (
	browsers     = 50
	browserEvery = 2 * time.Second
)

// watched is which share of a core (%) an api takes while the overview is open in so many browsers.
func watched(ctx context.Context, a *stack.API, session *http.Cookie, lasts time.Duration) (percent float64, err error) {
	before, err := stack.CPUTime(a.Process)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	for n := 0; time.Since(begin) < lasts; n++ {
		if _, err := pageTimes(ctx, "http://"+a.Ops+"/", session, 1); err != nil {
			return 0, err
		}
		if !harness.Pause(ctx, time.Until(begin.Add(time.Duration(n+1)*browserEvery/browsers))) {
			return 0, ctx.Err()
		}
	}
	took := time.Since(begin)
	after, err := stack.CPUTime(a.Process)
	return 100 * (after - before).Seconds() / took.Seconds(), err
}

// failing is an instance of the job that fails.
func failing(n int) string { return fmt.Sprintf("fails-%d", n) }

// failedJob makes a job whose every instance fails.
func (s *stage) failedJob(ctx context.Context, a *stack.API, token string) (id string, err error) {
	c, err := load.Dial(ctx, a.Addr, token)
	if err != nil {
		return "", err
	}
	defer c.Close()
	instances := make([]string, load.BatchSize)
	for n := range instances {
		instances[n] = failing(n)
	}
	body := fmt.Sprintf(`{"instance_ids":["%s"],"labels":{"only":"one"}}`, strings.Join(instances, `","`))
	if id, err = c.Submit([]byte(body)); err != nil {
		return "", err
	}
	w, err := s.StartWorker(ctx, 0, "--simulator-failure-rate", "1", "--max-attempts", "1")
	if err != nil {
		return "", err
	}
	defer w.Kill()
	return id, harness.Until(ctx, patience, func(context.Context) error {
		record, err := c.Do(http.MethodGet, "/v1/jobs/"+id, "", nil)
		if err == nil && !strings.Contains(string(record.Body), fmt.Sprintf(`"state":%q`, tasks.JobFailed)) {
			err = errors.New("the job has not failed yet")
		}
		return err
	})
}

// openRuns is in how many runs the open instances of pages are.
const openRuns = 50

// history lets many instances finish and leaves others open, in runs. It returns one of these.
func (s *stage) history(ctx context.Context, a *stack.API, token string) (run string, err error) {
	w, err := s.StartWorker(ctx, 0)
	if err != nil {
		return "", err
	}
	if _, err := load.Submit(ctx, a.Addr, token, s.pagesEnded); err != nil {
		return "", err
	}
	if _, err := s.Redis.Drained(ctx, s.pagesEnded, w.Process); err != nil {
		return "", err
	}
	w.Kill()
	c, err := load.Dial(ctx, a.Addr, token)
	if err != nil {
		return "", err
	}
	defer c.Close()
	for range openRuns {
		if run, err = c.SubmitRun(load.NextBatch(max(1, s.pagesOpen/openRuns))); err != nil {
			return "", err
		}
	}
	const running = 100
	if _, err := s.StartWorker(ctx, time.Hour, "--attempt-timeout", "3h"); err != nil {
		return "", err
	}
	return run, harness.Until(ctx, patience, func(ctx context.Context) error {
		n, err := s.Redis.Active(ctx)
		if err == nil && n < min(running, s.pagesOpen) {
			err = fmt.Errorf("%d instances are being reset", n)
		}
		return err
	})
}

// pageTimes gets a page so many times and returns the milliseconds that each took.
func pageTimes(ctx context.Context, url string, session *http.Cookie, n int) (took []float64, err error) {
	for range n {
		begin := time.Now()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		r.AddCookie(session)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			return nil, err
		}
		if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusNotFound { // a search may find nothing
			return nil, fmt.Errorf("%s: the site answers %s %.200s", url, response.Status, body)
		}
		took = append(took, time.Since(begin).Seconds()*1000)
	}
	return took, nil
}
