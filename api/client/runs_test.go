package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const (
	runRunning = `{"run_id":"` + jobID + `","state":"running","stage":"canary","total":2,"counts":{"running":1,"pending":1},"max_failures":"2%"}`
	runPaused  = `{"run_id":"` + jobID + `","state":"paused","total":2,"max_failures":5}`
	runDone    = `{"run_id":"` + jobID + `","state":"succeeded","total":2,"counts":{"succeeded":2},"colour":"blue"}`
)

func TestSubmitRun(t *testing.T) {
	s := serve(t, step{cut: true}, step{body: okay(runRunning)})
	c, _ := connect(t, s.URL)
	run, err := c.Runs().Submit(t.Context(), RunRequest{InstanceIDs: []string{"a", "b"}, Canary: 1, Soak: "30s", MaxFailures: "0"})
	if err != nil || run.ID != jobID || run.Stage != "canary" || run.MaxFailures != "2%" || run.Final() {
		t.Fatalf("got %+v, %v", run, err)
	}
	if want := `{"instance_ids":["a","b"],"canary":1,"soak":"30s","max_failures":0}`; s.bodies[0] != want || s.bodies[1] != want {
		t.Errorf("sent %s", s.bodies)
	}
	if first, second := s.requests[0].Header.Get("Idempotency-Key"), s.requests[1].Header.Get("Idempotency-Key"); first == "" || first != second {
		t.Errorf("keys %q and %q", first, second)
	}
	broken := serve(t, step{status: 500, body: `{"error_code":"KOOPHONE.API.9999","error_msg":"internal error"}`})
	c, _ = connect(t, broken.URL)
	if _, err := c.Runs().Submit(t.Context(), RunRequest{InstanceIDs: []string{"a"}}); !errors.Is(err, ErrUncertain) {
		t.Errorf("after a 500: %v", err)
	}
}

func TestDryRunOfARun(t *testing.T) {
	s := serve(t, step{header: map[string]string{"Content-Type": typeLines}, body: `{"instance_id":"a","verdict":"busy"}` + "\n" + `{"instance_id":"b","verdict":"unknown"}` + "\n"})
	c, _ := connect(t, s.URL)
	var got []Verdict
	for v, err := range c.Runs().DryRun(t.Context(), RunRequest{InstanceIDs: []string{"a", "b"}, MaxFailures: "5%"}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, v)
	}
	if fmt.Sprint(got) != "[{a busy} {b unknown}]" || s.bodies[0] != `{"instance_ids":["a","b"],"max_failures":"5%","dry_run":true}` {
		t.Errorf("got %v for %s", got, s.bodies[0])
	}
}

func TestResumeRunMayHaveABudget(t *testing.T) {
	s := serve(t, step{body: okay(runRunning)})
	c, _ := connect(t, s.URL)
	for _, budget := range []Budget{"", "0", "2%"} {
		if _, err := c.Runs().Resume(t.Context(), jobID, budget); err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprintf("%q", s.bodies); got != `["" "{\"max_failures\":0}" "{\"max_failures\":\"2%\"}"]` {
		t.Errorf("sent %s", got)
	}
}

func TestRunsGoesThroughThePages(t *testing.T) {
	s := serve(t, step{body: okay(`{"runs":[` + runDone + `],"next_cursor":"n"}`)}, step{body: okay(`{"runs":[` + runPaused + `]}`)})
	c, _ := connect(t, s.URL)
	var states []string
	for run, err := range c.Runs().List(t.Context(), RunsFilter{State: "x", Labels: []string{"a=b"}, Limit: 7}) {
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, run.State)
	}
	if fmt.Sprint(states) != "[succeeded paused]" || s.requests[1].URL.RawQuery != "cursor=n&label=a%3Db&limit=7&state=x" {
		t.Errorf("got %v, asked %s", states, s.requests[1].URL.RawQuery)
	}
}

func TestWaitForARun(t *testing.T) {
	event := func(tag, data string) string { return "id: " + tag + "\nevent: run\ndata: " + data + "\n\n" }
	unchanged := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }
	for name, row := range map[string]struct {
		service *streaming
		lasts   string
	}{
		"by its stream, which was cut": {&streaming{look: unchanged, streams: []func(http.ResponseWriter, *http.Request){
			func(w http.ResponseWriter, _ *http.Request) {
				write(w, event("1", runRunning)+jobEvent("9", done)+event("8", `{"run_id":"another","state":"failed"}`))
			},
			func(w http.ResponseWriter, _ *http.Request) { write(w, event("2", runPaused)+event("3", runDone)) },
		}}, ",1"},
		"where there is no stream": {&streaming{look: func(w http.ResponseWriter, r *http.Request) {
			records := map[string][2]string{"": {`"1"`, runRunning}, `"1"`: {`"2"`, runPaused}, `"2"`: {`"3"`, runDone}}
			next := records[r.Header.Get("If-None-Match")]
			if strings.HasSuffix(r.URL.Path, "/events") {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("ETag", next[0])
			write(w, okay(next[1]))
		}}, ",1"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(row.service)
			defer server.Close()
			c, _ := connect(t, server.URL)
			var states []string
			run, err := c.Runs().Wait(t.Context(), jobID, func(r Run) { states = append(states, r.State) })
			if err != nil || !run.Final() || string(run.Record) != runDone || fmt.Sprint(states) != "[running paused succeeded]" {
				t.Errorf("got %+v, %v, saw %v", run, err, states)
			}
			if got := strings.Join(row.service.lasts, ","); got != row.lasts {
				t.Errorf("streams from %q", got)
			}
		})
	}
	missing := serve(t, step{status: 404, body: `{"error_code":"RESET.0001","error_msg":"there is no run"}`})
	c, _ := connect(t, missing.URL)
	if _, err := c.Runs().Wait(t.Context(), jobID, nil); err == nil {
		t.Error("no error for a run that is not there")
	}
}

func TestRunResults(t *testing.T) {
	row := `{"instance_id":"a","state":"failed","attempts":2,"error_code":"CPS.0005"}` + "\n"
	lines := map[string]string{"Content-Type": typeLines}
	read := func(s *script) (n int, err error) {
		c, _ := connect(t, s.URL)
		for r, err := range c.Runs().Results(t.Context(), jobID, "failed", "unknown") {
			if err != nil {
				return n, err
			}
			if n++; r.InstanceID != "a" || r.Code != "CPS.0005" {
				t.Errorf("row %+v", r)
			}
		}
		return n, nil
	}
	s := serve(t, step{header: lines, body: row + row})
	if n, err := read(s); n != 2 || err != nil || s.requests[0].URL.RawQuery != "state=failed&state=unknown" {
		t.Errorf("%d rows, %v, asked %s", n, err, s.requests[0].URL.RawQuery)
	}
	if n, err := read(serve(t, step{header: lines})); n != 0 || err != nil {
		t.Errorf("of a run that waits: %d rows, %v", n, err)
	}
	if n, err := read(serve(t, step{header: lines, body: row, short: true})); n != 1 || !errors.Is(err, ErrNoAnswer) {
		t.Errorf("an answer that breaks off: %d rows, %v", n, err)
	}
	if _, err := read(serve(t, step{status: 404, body: `{"error_code":"RESET.0001","error_msg":"there is no run"}`})); err == nil {
		t.Error("no error for a run that is not there")
	} else if e, ok := errors.AsType[*Error](err); !ok || e.Code != codeNoJob {
		t.Errorf("no such run: %v", err)
	}
}
