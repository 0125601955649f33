package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// service is an api and a worker before a control plane.
type service struct {
	*client.Client
	t           *testing.T
	api, worker *process
}

func startService(t *testing.T, controlPlane string, workerArgs ...string) service {
	t.Helper()
	redis := redistest.Start(t).URL()
	s := service{t: t, api: start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")}
	server, _ := s.api.logged("api started")["api"].(string)
	token := strings.TrimSpace(command(t, map[string]string{"BATCHRESET_REDIS": redis}, "token", "add", "--tenant", "acme").OK(t).Out)
	var err error
	if s.Client, err = client.New(server, token); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.worker = start(t, append([]string{"worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "http", "--driver-url", controlPlane + "/phones/{instance_id}"}, workerArgs...)...)
	s.worker.logged("worker started")
	return s
}

func (s service) submit(instances ...string) (job string) {
	s.t.Helper()
	accepted, err := s.Submit(s.t.Context(), client.Batch{InstanceIDs: instances})
	if err != nil {
		s.t.Fatal(err)
	}
	return accepted.JobID
}

// ended waits for a job's end and returns its items by instance.
func (s service) ended(job string) map[string]client.Item {
	s.t.Helper()
	items := map[string]client.Item{}
	harness.Eventually(s.t, patience, "the end of the job", func() bool {
		record, err := s.Job(s.t.Context(), job)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, it := range record.Items {
			items[it.InstanceID] = it
		}
		return !record.FinishedAt.IsZero()
	})
	return items
}

func (s service) stop() {
	s.t.Helper()
	s.worker.stop()
	s.api.stop()
}

// slowPhones take a while for a reset, whatever becomes of the call that asked for it. If
// they honour keys, a call under a key that they know waits for the reset of that key.
type slowPhones struct {
	honours bool
	takes   time.Duration
	under   sync.WaitGroup

	mu     sync.Mutex
	keys   []string // one for each call
	resets map[string]chan struct{}
	active int
	worst  int // resets at a time
	wipes  int
}

func (p *slowPhones) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	key := r.Header.Get("Idempotency-Key")
	p.mu.Lock()
	p.keys = append(p.keys, key)
	over, known := p.resets[key]
	if !known || !p.honours {
		over = make(chan struct{})
		p.resets[key] = over
		p.wipes++
		p.active++
		p.worst = max(p.worst, p.active)
		p.under.Add(1)
		time.AfterFunc(p.takes, func() {
			defer p.under.Done()
			p.mu.Lock()
			defer p.mu.Unlock()
			p.active--
			close(over)
		})
	}
	p.mu.Unlock()
	select {
	case <-over:
	case <-r.Context().Done():
	}
}

// TestAGatewayThatGivesUpBeforeTheControlPlane has a proxy that answers 504 while the phone
// is being reset. What it says is not that nothing happens.
func TestAGatewayThatGivesUpBeforeTheControlPlane(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		idempotent bool
		want       string
	}{
		{"whose calls must not be repeated", false, "unknown"},
		{"whose calls may be repeated under their key", true, "succeeded"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			phones := &slowPhones{honours: row.idempotent, takes: 4 * time.Second, resets: map[string]chan struct{}{}}
			plane := httptest.NewServer(phones)
			defer plane.Close()
			defer phones.under.Wait()
			behind, err := url.Parse(plane.URL)
			if err != nil {
				t.Fatal(err)
			}
			proxy := httputil.NewSingleHostReverseProxy(behind)
			proxy.Transport = &http.Transport{ResponseHeaderTimeout: 500 * time.Millisecond, DisableKeepAlives: true}
			proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) {
				w.Header().Set("Content-Type", "text/html")
				w.WriteHeader(http.StatusGatewayTimeout)
				_, _ = io.WriteString(w, "<html><h1>504 Gateway Time-out</h1></html>")
			}
			gateway := httptest.NewServer(proxy)
			defer gateway.Close()

			s := startService(t, gateway.URL, fmt.Sprintf("--driver-idempotent=%t", row.idempotent), "--max-attempts", "9")
			it := s.ended(s.submit("phone-1"))["phone-1"]
			if it.State != row.want || !row.idempotent && (it.Attempts != 1 || !strings.Contains(it.Message, "504")) {
				t.Errorf("item %+v, want it %s", it, row.want)
			}
			phones.mu.Lock()
			defer phones.mu.Unlock()
			slices.Sort(phones.keys)
			if keys := slices.Compact(slices.Clone(phones.keys)); phones.wipes != 1 || phones.worst != 1 || len(keys) != 1 || len(phones.keys) != it.Attempts {
				t.Errorf("%d wipes, %d at a time, %d calls under %d keys in %d attempts", phones.wipes, phones.worst, len(phones.keys), len(keys), it.Attempts)
			}
			s.stop()
		})
	}
}

// answering is a control plane that answers for each phone as it is told to: to the POST,
// and to polls the last answer for ever.
type answering struct {
	phones map[string][]canned

	mu    sync.Mutex
	posts map[string]int
	polls map[string]int
}

type canned struct {
	status int
	body   string
}

func (p *answering) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	phone := r.PathValue("phone")
	answers := p.phones[phone]
	p.mu.Lock()
	n := 0
	if r.Method == http.MethodPost {
		p.posts[phone]++
		w.Header().Set("Location", "/operations/"+phone)
	} else {
		p.polls[phone]++
		n = min(p.polls[phone], len(answers)-1)
	}
	p.mu.Unlock()
	w.WriteHeader(answers[n].status)
	_, _ = io.WriteString(w, answers[n].body)
}

// TestAnAnswerIsDoneOnlyIfItIsUnderstoodSo goes through what a control plane may say under
// 2xx, from the call to the record.
func TestAnAnswerIsDoneOnlyIfItIsUnderstoodSo(t *testing.T) {
	t.Parallel()
	accepted := canned{202, ""}
	type row struct {
		answers []canned
		want    string // state and code
	}
	rows := map[string]row{
		"empty":            {[]canned{{200, ""}}, "succeeded "},
		"word":             {[]canned{{200, `{"status":"Succeeded"}`}}, "succeeded "},
		"own-word":         {[]canned{{200, `{"phase":"Geputzt"}`}}, "succeeded "},
		"page":             {[]canned{{200, "<html>Log in</html>"}}, "unknown RESET.1009"},
		"cut":              {[]canned{{200, `{"status":"Succ`}}, "unknown RESET.1009"},
		"running":          {[]canned{{200, `{"job":{"state":"QUEUED"}}`}}, "unknown RESET.1009"},
		"odd-word":         {[]canned{{200, `{"status":"hm"}`}}, "unknown RESET.1009"},
		"contradiction":    {[]canned{{200, `{"status":"succeeded","status":"failed"}`}}, "unknown RESET.1009"},
		"failed":           {[]canned{{200, `{"status":"failed"}`}}, "failed RESET.1007"},
		"marked":           {[]canned{{200, "\ufeff" + `{"error_code":"CPS.0042"}`}}, "failed CPS.0042"},
		"long":             {[]canned{{200, `{"pad":"` + strings.Repeat("x", 90<<10) + `","error_code":"CPS.0042"}`}}, "failed CPS.0042"},
		"polled":           {[]canned{accepted, {200, `{"done":false}`}, {200, "<html>"}, {200, `{"done":true}`}}, "succeeded "},
		"polled-azure":     {[]canned{accepted, {200, `{"properties":{"provisioningState":"Updating"}}`}, {200, `{"properties":{"provisioningState":"Failed"}}`}}, "failed RESET.1007"},
		"polled-elsewhere": {[]canned{accepted, {303, ""}}, "succeeded "},
		"polled-page":      {[]canned{accepted, {200, "<html>Log in</html>"}}, "unknown RESET.1009"},
		"polled-odd":       {[]canned{accepted, {200, `{"status":"hm"}`}}, "unknown RESET.1009"},
		"polled-running":   {[]canned{accepted, {200, `{"state":"RUNNING"}`}}, "unknown RESET.1001"},
	}
	plane := &answering{phones: map[string][]canned{}, posts: map[string]int{}, polls: map[string]int{}}
	var phones []string
	for phone, row := range rows {
		plane.phones[phone] = row.answers
		phones = append(phones, phone)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /phones/{phone}", plane)
	mux.Handle("GET /operations/{phone}", plane)
	server := httptest.NewServer(mux)
	defer server.Close()

	s := startService(t, server.URL, "--attempt-timeout", "10s", "--max-attempts", "1", "--driver-words", "done=geputzt")
	items := s.ended(s.submit(phones...))
	for phone, row := range rows {
		it := items[phone]
		if got := it.State + " " + it.Code; got != row.want {
			t.Errorf("%s is %s (%s), want %s", phone, got, it.Message, row.want)
		}
		if plane.posts[phone] != 1 {
			t.Errorf("%s was reset %d times", phone, plane.posts[phone])
		}
	}
	s.stop()
}

// lying answers 200 to every reset, and wipes only the phones that are honest. The others are as
// they were before, whenever somebody looks.
type lying struct {
	mu    sync.Mutex
	wiped map[string]int
	calls map[string]int
}

func (p *lying) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	phone := r.PathValue("phone")
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method == http.MethodGet {
		_, _ = fmt.Fprintf(w, `{"initial":%t,"evidence":"wiped %d times"}`, p.wiped[phone] > 0, p.wiped[phone])
		return
	}
	p.calls[phone]++
	if strings.HasPrefix(phone, "honest") {
		p.wiped[phone]++
	}
}

func TestAControlPlaneThatLies(t *testing.T) {
	t.Parallel()
	plane := &lying{wiped: map[string]int{}, calls: map[string]int{}}
	mux := http.NewServeMux()
	mux.Handle("POST /phones/{phone}", plane)
	mux.Handle("GET /phones/{phone}/look", plane)
	server := httptest.NewServer(mux)
	defer server.Close()
	s := startService(t, server.URL, "--driver-look-url", server.URL+"/phones/{instance_id}/look", "--look-patience", "100ms", "--max-attempts", "2")
	phones := []string{"honest-1", "honest-2", "liar-1", "liar-2", "liar-3"}
	items := s.ended(s.submit(phones...))
	for _, phone := range phones {
		want, attempts, evidence := "succeeded ", 1, "wiped 1 times"
		if strings.HasPrefix(phone, "liar") {
			want, attempts, evidence = "failed RESET.1010", 2, "wiped 0 times"
		}
		it := items[phone]
		if got := it.State + " " + it.Code; got != want || it.Attempts != attempts || !strings.HasSuffix(it.Evidence, "/look: "+evidence) {
			t.Errorf("%s is %+v, want %s with %q", phone, it, want, evidence)
		}
		if plane.calls[phone] != it.Attempts {
			t.Errorf("%s has %d attempts and was reset %d times", phone, it.Attempts, plane.calls[phone])
		}
	}
	s.stop()
}

// TestAControlPlaneThatRefusesUs has a token that is not taken any more, and is again.
func TestAControlPlaneThatRefusesUs(t *testing.T) {
	t.Parallel()
	var open atomic.Bool
	var wipes atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if !open.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		wipes.Add(1)
	}))
	defer server.Close()
	s := startService(t, server.URL, "--max-attempts", "1")
	var phones []string
	for n := range 8 {
		phones = append(phones, fmt.Sprintf("phone-%d", n))
	}
	job := s.submit(phones...)
	if entry := s.worker.logged("breaker of the upstream"); entry["to"] != "open" {
		t.Errorf("the log says %v", entry)
	}
	if record, err := s.Job(t.Context(), job); err != nil || !record.FinishedAt.IsZero() || record.Counts.Failed+record.Counts.Unknown > 0 {
		t.Errorf("%v; the job is %+v", err, record)
	}
	harness.Eventually(t, 30*time.Second, "the log says whose fault it is", func() bool {
		return strings.Contains(s.worker.said(), "--driver-token-file")
	})
	open.Store(true)
	for phone, it := range s.ended(job) {
		if it.State != "succeeded" {
			t.Errorf("%s is %+v", phone, it)
		}
	}
	if wipes.Load() != 8 {
		t.Errorf("%d wipes of 8 phones", wipes.Load())
	}
	s.stop()
}
