package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// live is a service on a real Redis that serves over HTTP and tells those who wait.
type live struct {
	service
	*httptest.Server
	api  *api.API
	stop func() // ends the telling, and waits until it has
}

func newLive(t *testing.T) *live { return newLiveWith(t, api.Config{AllowUnregistered: true}) }

func newLiveWith(t *testing.T, cfg api.Config) *live {
	t.Helper()
	return liveOf(t, newServiceOn(t, cfg, redisdb.Options{URL: redistest.Start(t).URL()}))
}

func liveOf(t *testing.T, s service) *live {
	t.Helper()
	a, ok := s.Handler.(*api.API)
	if !ok {
		t.Fatalf("the handler is a %T", s.Handler)
	}
	l := &live{service: s, Server: httptest.NewServer(a), api: a}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		l.stop()
		l.Close()
	})
	return l
}

func (l *live) get(t *testing.T, path string, header ...string) *http.Response {
	t.Helper()
	return l.getAs(t, "acme", path, header...)
}

func (l *live) getAs(t *testing.T, token, path string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Auth-Token", token)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	response, err := l.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	checkContract(t, r.Method, path, response.StatusCode, response.Header, nil) // the body comes later
	return response
}

func TestPreferWaitAnswersOnFinish(t *testing.T) {
	l := newLive(t)
	id := l.submit(t, "phone-1", "phone-2")
	type answer struct {
		*http.Response
		body string
		at   time.Time
	}
	answers := make(chan answer, 1)
	go func() {
		r := l.get(t, "/v1/jobs/"+id, "Prefer", "respond-async", "Prefer", `wait="50"; x=y, wait=1`)
		body, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		answers <- answer{r, string(body), time.Now()}
	}()
	l.end(t, id, tasks.Outcome{Transition: tasks.Succeed}) // a change, but not the end
	select {
	case a := <-answers:
		t.Fatalf("answered before the end: %s", a.body)
	case <-time.After(300 * time.Millisecond):
	}
	l.end(t, id, tasks.Outcome{Transition: tasks.Succeed})
	ended := time.Now()
	a := <-answers
	if a.StatusCode != http.StatusOK || !strings.Contains(a.body, `"state":"succeeded"`) || a.Header.Get("Preference-Applied") != "wait=50" {
		t.Errorf("answer %d %v %s", a.StatusCode, a.Header, a.body)
	}
	if late := a.at.Sub(ended); late > time.Second {
		t.Errorf("told %s after the end", late)
	}

	// Who comes after the end does not wait, and has 304 for a record that is known.
	r := l.get(t, "/v1/jobs/"+id, "Prefer", "wait=60", "If-None-Match", a.Header.Get("ETag"))
	_ = r.Body.Close()
	if r.StatusCode != http.StatusNotModified || r.Header.Get("Preference-Applied") != "wait=50" {
		t.Errorf("after the end: %d %v", r.StatusCode, r.Header)
	}
}

func TestPreferWaitEnds(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	id := l.submit(t, "phone-1")
	for header, applied := range map[string]string{
		"wait=1": "wait=1", "Wait=0": "wait=0", "handling=lenient, wait=1": "wait=1",
		"wait=abc": "", "wait": "", "wait=-1": "", "wait=1.5": "", "": "",
	} {
		start := time.Now()
		r := l.get(t, "/v1/jobs/"+id, "Prefer", header)
		_ = r.Body.Close()
		if r.StatusCode != http.StatusOK || r.Header.Get("Preference-Applied") != applied || r.Header.Get("Retry-After") == "" {
			t.Errorf("Prefer: %s: answer %d %v", header, r.StatusCode, r.Header)
		}
		if took := time.Since(start); took < time.Second && applied == "wait=1" || took > 5*time.Second {
			t.Errorf("Prefer: %s took %s", header, took)
		}
	}
	// The process stops: nobody is kept waiting.
	answered := make(chan int, 1)
	go func() {
		r := l.get(t, "/v1/jobs/"+id, "Prefer", "wait=99999999999")
		_ = r.Body.Close()
		if r.Header.Get("Preference-Applied") != "wait=50" { // most proxies give up after 60 s
			t.Errorf("answer %v", r.Header)
		}
		answered <- r.StatusCode
	}()
	l.stop()
	if status := <-answered; status != http.StatusOK {
		t.Errorf("answer %d", status)
	}
}

// event is one of a stream.
type event struct{ id, name, data string }

// readEvents reads a stream to its end.
func readEvents(t *testing.T, body io.Reader, each func(event)) {
	t.Helper()
	var e event
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case lines.Text() == "" && e != (event{}):
			each(e)
			e = event{}
		case name == "id":
			e.id = value
		case name == "event":
			e.name = value
		case name == "data":
			e.data = value
		}
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
}

func TestEventsTellEveryChangeUntilTheLast(t *testing.T) {
	l := newLive(t)
	id := l.submit(t, "phone-1", "phone-2")
	r := l.get(t, "/v1/jobs/"+id+"/events")
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/event-stream" || r.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("answer %d %v", r.StatusCode, r.Header)
	}
	var states, ids []string
	readEvents(t, r.Body, func(e event) {
		for _, state := range []string{"pending", "running", "succeeded"} {
			if strings.Contains(e.data, `{"job_id":"`+id+`","state":"`+state+`"`) && e.name == "job" {
				states = append(states, state)
			}
		}
		if len(ids) < 2 { // ends one item after each of the first two
			l.end(t, id, tasks.Outcome{Transition: tasks.Succeed})
		}
		ids = append(ids, e.id)
	})
	_ = r.Body.Close()
	if got := fmt.Sprint(states); got != "[pending running succeeded]" {
		t.Errorf("told %s", got)
	}

	// A reader who comes back has what is new, or is told to stay away.
	r = l.get(t, "/v1/jobs/"+id+"/events", "Last-Event-ID", ids[0])
	var again []string
	readEvents(t, r.Body, func(e event) { again = append(again, e.id) })
	_ = r.Body.Close()
	if len(again) != 1 || again[0] != ids[2] {
		t.Errorf("told %v again, of %v", again, ids)
	}
	r = l.get(t, "/v1/jobs/"+id+"/events", "Last-Event-ID", ids[2])
	_ = r.Body.Close()
	if r.StatusCode != http.StatusNoContent {
		t.Errorf("after the last event: %d", r.StatusCode)
	}
}

func TestEventsAreForTheTenantAlone(t *testing.T) {
	l := newLive(t)
	id := l.submit(t, "phone-1")
	if got := l.do(t, http.MethodGet, "/v1/jobs/"+id+"/events", "other", nil); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
		t.Errorf("answer %+v", got)
	}
	if got := l.do(t, http.MethodGet, "/v1/jobs/"+strings.Repeat("0", 32)+"/events", "acme", nil); got.status != http.StatusNotFound {
		t.Errorf("answer %+v", got)
	}
}
