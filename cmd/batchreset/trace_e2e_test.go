package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	neturl "net/url"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/tasks/redisdb/redistest"
)

// span is what a receiver was told.
type span struct {
	service, name, trace, id, parent string
	attributes                       map[string]string
}

// traceCollector is an OTLP collector.
type traceCollector struct {
	authorization string // that it wants to see

	mu    sync.Mutex
	spans []span
	raw   strings.Builder
}

func (c *traceCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Authorization") != c.authorization {
		http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.Write(body)
	for _, resource := range request.GetResourceSpans() {
		service := ""
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				one := span{service, s.GetName(), fmt.Sprintf("%x", s.GetTraceId()), fmt.Sprintf("%x", s.GetSpanId()), fmt.Sprintf("%x", s.GetParentSpanId()), map[string]string{}}
				for _, a := range s.GetAttributes() {
					one.attributes[a.GetKey()] = cmp.Or(a.GetValue().GetStringValue(), fmt.Sprint(a.GetValue().GetIntValue()))
				}
				c.spans = append(c.spans, one)
			}
		}
	}
}

// named are the spans with a name, by ID.
func (c *traceCollector) named(name string) map[string]span {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]span{}
	for _, s := range c.spans {
		if s.name == name {
			found[s.id] = s
		}
	}
	return found
}

// flaky is a control plane that fails the first call for each instance.
type flaky struct {
	mu           sync.Mutex
	seen         map[string]bool
	traceparents []string
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.traceparents = append(f.traceparents, r.Header.Get("traceparent"))
	if !f.seen[r.URL.Path] {
		f.seen[r.URL.Path] = true
		w.Header().Set("Retry-After", "0") // it is the control plane itself that says so
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// One trace leads from the request to each call of the control plane; and nothing that
// anybody writes on the way has a secret in it.
func TestOneTraceAndNoSecret(t *testing.T) {
	t.Parallel()
	plane := &flaky{seen: map[string]bool{}}
	phones := httptest.NewServer(plane)
	defer phones.Close()
	told := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	defer told.Close()
	secrets := map[string]string{
		"Redis's password": "rEdIs-0123456789", "the control plane's token": "PlAnE-0123456789", "an operator's password": "correct horse 0123456789",
		"the collector's token": "CoLlEcToR-0123456789",
	}
	c := &traceCollector{authorization: "Bearer " + secrets["the collector's token"]}
	otlp := httptest.NewServer(c)
	defer otlp.Close()
	header := "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20" + secrets["the collector's token"]

	server := redistest.Start(t)
	if err := server.Client(t).ConfigSet(t.Context(), "requirepass", secrets["Redis's password"]).Err(); err != nil {
		t.Fatal(err)
	}
	redis := terminaltest.File(t, strings.Replace(server.URL(), "redis://", "redis://:"+secrets["Redis's password"]+"@", 1))
	api := startIn(t, []string{header}, "api", "--redis-file", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open", "--otlp-endpoint", otlp.URL)
	started := api.logged("api started")
	worker := startIn(t, []string{header}, "worker", "--redis-file", redis, "--ops-listen", "127.0.0.1:0", "--driver", "http", "--driver-url", phones.URL+"/{instance_id}",
		"--driver-token-file", terminaltest.File(t, secrets["the control plane's token"]), "--otlp-endpoint", otlp.URL+"/", "--webhook-allow-private")
	worker.logged("worker started")
	url, _ := started["api"].(string)
	site, _ := started["ops"].(string)

	environment := map[string]string{"BATCHRESET_REDIS_FILE": redis, "BATCHRESET_SERVER": url}
	said := &strings.Builder{}
	say := func(args ...string) string {
		result := command(t, environment, args...)
		said.WriteString(result.Errs)
		if args[1] != "add" { // which shows the secret that it has made, once
			said.WriteString(result.Out)
		}
		return result.OK(t).Out
	}
	secrets["a token"] = strings.TrimSpace(say("token", "add", "--tenant", "acme"))
	environment["BATCHRESET_TOKEN"] = secrets["a token"]
	for line := range strings.FieldsSeq(say("webhook", "add", "--tenant", "acme", "--webhook-allow-private", "--url", told.URL)) {
		if strings.HasPrefix(line, "whsec_") {
			secrets["a webhook's secret"] = line
		}
	}
	say("operator", "add", "alice", "--role", "operator", "--password-file", terminaltest.File(t, secrets["an operator's password"]))
	secrets["a session"] = logInto(t, site, "alice", secrets["an operator's password"])
	say("submit", "--wait", "phone-1", "phone-2")
	say("jobs", "--output", "json")
	say("audit", "--output", "json")
	say("webhook", "list", "--tenant", "acme")
	metrics, err := fetch(t.Context(), site+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	caller, err := client.New(url, secrets["a token"]+"-not")
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	if _, err := caller.Submit(t.Context(), client.Batch{InstanceIDs: []string{"phone-1"}}); err == nil {
		t.Error("a wrong token is taken")
	}
	worker.logged("webhook sent")
	worker.stop()
	api.stop()

	c.mu.Lock()
	output := map[string]string{"the api": api.said(), "the worker": worker.said(), "the commands": said.String(), "the metrics": metrics, "the traces": c.raw.String()}
	c.mu.Unlock()
	for who, text := range output {
		if text == "" {
			t.Errorf("%s said nothing", who)
		}
		for what, secret := range secrets {
			if len(secret) < 10 || strings.Contains(text, secret) {
				t.Errorf("%s tells %s", who, what)
			}
		}
	}

	requests := c.named("POST /v1/instances/batch-reset")
	attempts, calls := c.named("reset attempt"), c.named("POST")
	if len(requests) != 2 || len(attempts) != 4 || len(calls) != 4 || len(plane.traceparents) != 4 {
		t.Fatalf("%d requests, %d attempts, %d calls, %v", len(requests), len(attempts), len(calls), plane.traceparents)
	}
	for _, a := range attempts {
		if request, ok := requests[a.parent]; !ok || request.trace != a.trace || a.service != "batchreset-worker" || request.service != "batchreset-api" {
			t.Errorf("attempt %+v of request %+v", a, request)
		}
		if !strings.Contains(worker.said(), `"trace_id":"`+a.trace+`"`) || !strings.Contains(api.said(), `"trace_id":"`+a.trace+`"`) {
			t.Errorf("no line has the trace %s", a.trace)
		}
	}
	if notices := c.named("webhook job.finished"); len(notices) == 0 {
		t.Error("the notice is no span")
	} else {
		for _, n := range notices {
			if requests[n.parent].trace != n.trace {
				t.Errorf("notice %+v", n)
			}
		}
	}
	for _, header := range plane.traceparents {
		parts := strings.Split(header, "-")
		if len(parts) != 4 {
			t.Errorf("the control plane was told %q", header)
			continue
		}
		if call := calls[parts[2]]; call.trace != parts[1] || attempts[call.parent].trace != parts[1] {
			t.Errorf("the control plane was told %q, the call is %+v", header, call)
		}
	}
}

// logInto logs in to the operators' site, looks at a page, and returns the cookie's value.
func logInto(t *testing.T, site, name, password string) string {
	t.Helper()
	ask := func(method, path, cookie, form string) (status string, cookies []*http.Cookie) {
		r, err := http.NewRequestWithContext(t.Context(), method, site+path, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Cookie", cookie)
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.Status, response.Cookies()
	}
	status, cookies := ask(http.MethodPost, "/login", "", neturl.Values{"name": {name}, "password": {password}}.Encode())
	if len(cookies) == 0 || cookies[0].Name != "__Host-batchreset" {
		t.Fatalf("login: %s", status)
	}
	if status, _ := ask(http.MethodGet, "/jobs", cookies[0].Name+"="+cookies[0].Value, ""); status != "200 OK" {
		t.Fatalf("jobs page: %s", status)
	}
	return cookies[0].Value
}

func TestACollectorThatDoesNotAnswerDoesNoHarm(t *testing.T) {
	away := httptest.NewServer(nil)
	away.Close()
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(func() {
		close(release)
		hanging.Close()
	})
	refusing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refusing.Close)
	for name, collector := range map[string]string{"is away": away.URL, "hangs": hanging.URL, "refuses": refusing.URL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t).URL()
			api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open", "--otlp-endpoint", collector)
			url, _ := api.logged("api started")["api"].(string)
			worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "simulator", "--simulator-latency", "1ms", "--otlp-endpoint", collector)
			worker.logged("worker started")
			environment := map[string]string{"BATCHRESET_REDIS": redis, "BATCHRESET_SERVER": url}
			environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
			command(t, environment, "submit", "--wait", "phone-1").OK(t)
			for _, p := range []*process{worker, api} {
				begin := time.Now()
				p.stop()
				if took := time.Since(begin); took > 20*time.Second {
					t.Errorf("it took %s to stop", took)
				}
				if n := strings.Count(p.said(), "traces not sent"); n < 1 || n > 2 {
					t.Errorf("%d lines about traces:\n%s", n, p.said())
				}
			}
		})
	}
}

// wantTakenOver checks that the only attempt that has ended, the second, made by another
// worker than the first, belongs to the request.
func (c *traceCollector) wantTakenOver(t *testing.T) {
	t.Helper()
	requests, attempts := c.named("POST /v1/instances/batch-reset"), c.named("reset attempt")
	if len(requests) != 1 || len(attempts) != 1 {
		t.Fatalf("requests %v, attempts %v", requests, attempts)
	}
	for _, a := range attempts {
		if r, ok := requests[a.parent]; !ok || r.trace != a.trace || a.attributes["batchreset.attempt"] != "2" {
			t.Errorf("attempt %+v, requests %+v", a, requests)
		}
	}
}
