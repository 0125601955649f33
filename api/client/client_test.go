package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	token   = "demo-token"
	jobID   = "0123456789abcdef0123456789abcdef"
	running = `{"job_id":"` + jobID + `","state":"running","total":2,"counts":{"running":1,"succeeded":1}}`
	done    = `{"job_id":"` + jobID + `","state":"succeeded","total":2,"counts":{"succeeded":2},"colour":"blue"}`
)

func okay(data string) string { return `{"error_code":"0","error_msg":"ok","data":` + data + `}` }

// step is one answer of a scripted server.
type step struct {
	status int // 200 if 0
	header map[string]string
	body   string
	cut    bool // closes the connection instead of answering
	short  bool // promises one byte more than it sends
}

// script is a server that gives its steps in turn and repeats the last.
type script struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
}

func serve(t *testing.T, steps ...step) *script {
	t.Helper()
	s := &script{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		n := min(len(s.requests), len(steps)-1)
		s.requests = append(s.requests, r)
		s.bodies = append(s.bodies, string(body))
		s.mu.Unlock()
		answer := steps[n]
		if answer.cut {
			panic(http.ErrAbortHandler)
		}
		for name, value := range answer.header {
			w.Header().Set(name, value)
		}
		if answer.short {
			w.Header().Set("Content-Length", "9999")
		}
		if answer.status != 0 {
			w.WriteHeader(answer.status)
		}
		_, _ = io.WriteString(w, answer.body)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *script) seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// naps records the waits of a client that does not really wait.
type naps struct {
	mu    sync.Mutex
	waits []time.Duration
}

func (n *naps) sleep(ctx context.Context, d time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waits = append(n.waits, d)
	return ctx.Err()
}

func connect(t *testing.T, server string) (*Client, *naps) {
	t.Helper()
	c, err := New(server, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	n := &naps{}
	c.sleep = n.sleep
	return c, n
}

// expect checks the waits, each of which may be up to a quarter longer.
func (n *naps) expect(t *testing.T, want ...time.Duration) {
	t.Helper()
	if len(n.waits) != len(want) {
		t.Fatalf("waited %v, want %v", n.waits, want)
	}
	for i, got := range n.waits {
		if got < want[i] || got > want[i]*5/4 {
			t.Errorf("wait %d is %v, want %v to %v", i, got, want[i], want[i]*5/4)
		}
	}
}

// closedPort is the URL of a server that is not there.
func closedPort(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(nil)
	s.Close()
	return s.URL
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestNew(t *testing.T) {
	for _, row := range []struct{ name, server, token, want string }{
		{"refuses a server without a scheme", "127.0.0.1:8080", token, `server "127.0.0.1:8080" is not a URL such as`},
		{"refuses a scheme that is not http", "redis://127.0.0.1", token, "is not a URL such as"},
		{"refuses a server without a host", "http:///v1", token, "is not a URL such as"},
		{"refuses a query", "http://a/?b=c", token, "has a query"},
		{"refuses an empty token", "http://a", "", "token is empty"},
		{"refuses a token with a line break", "http://a", "x\r\nHost: b", "token has spaces"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := New(row.server, row.token)
			wantError(t, err, row.want)
		})
	}
	t.Run("keeps a path of the server and adds no second slash", func(t *testing.T) {
		s := serve(t, step{body: okay(done)})
		c, _ := connect(t, s.URL+"/prefix/")
		if _, err := c.Job(t.Context(), jobID); err != nil {
			t.Fatal(err)
		}
		if got, want := s.requests[0].URL.Path, "/prefix/v1/jobs/"+jobID; got != want {
			t.Errorf("asked for %s, want %s", got, want)
		}
	})
}

func TestRequests(t *testing.T) {
	s := serve(t, step{body: okay(done)})
	c, _ := connect(t, s.URL)
	for range 2 {
		if _, err := c.Job(t.Context(), "../a b"); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("carry the token", func(t *testing.T) {
		if got := s.requests[0].Header.Get("X-Auth-Token"); got != token {
			t.Errorf("X-Auth-Token is %q", got)
		}
	})
	t.Run("have a request ID of their own each", func(t *testing.T) {
		first, second := s.requests[0].Header.Get("X-Request-Id"), s.requests[1].Header.Get("X-Request-Id")
		if len(first) < 16 || first == second {
			t.Errorf("request IDs %q and %q", first, second)
		}
	})
	t.Run("escape what is put into a path", func(t *testing.T) {
		if got, want := s.requests[0].URL.EscapedPath(), "/v1/jobs/..%2Fa%20b"; got != want {
			t.Errorf("asked for %s, want %s", got, want)
		}
	})
}

func TestErrors(t *testing.T) {
	html := "<html>\x1b[31m bad gateway</html>"
	for _, row := range []struct {
		name   string
		answer step
		want   Error
		says   []string
	}{
		{
			"an envelope error has the server's code, sentence and request ID",
			step{status: 401, header: map[string]string{"X-Request-Id": "R1"}, body: `{"error_code":"APIGW.0301","error_msg":"X-Auth-Token is missing"}`},
			Error{HTTPStatus: 401, Code: "APIGW.0301", RequestID: "R1"},
			[]string{"APIGW.0301: X-Auth-Token is missing", "HTTP 401", "request R1"},
		},
		{
			"a route that is not there is named: it is the server's URL that is wrong",
			step{status: 404, body: `{"error_code":"APIGW.0101","error_msg":"there is no such API"}`},
			Error{HTTPStatus: 404, Code: "APIGW.0101"},
			[]string{"APIGW.0101: there is no such API at http://127.0.0.1:", "/v1/jobs/" + jobID + " (HTTP 404"},
		},
		{
			"an error code in a 200 is an error",
			step{body: `{"error_code":"RESET.0001","error_msg":"no such job"}`},
			Error{HTTPStatus: 200, Code: "RESET.0001"},
			[]string{"no such job"},
		},
		{
			"an error status with a success code is an error",
			step{status: 500, body: okay(done)},
			Error{HTTPStatus: 500, Code: "0"},
			[]string{"HTTP 500"},
		},
		{
			"control characters of the server do not reach the terminal",
			step{status: 400, body: `{"error_code":"KOOPHONE.API.1000","error_msg":"a\u001b[2Jb\nc\u202ed"}`},
			Error{HTTPStatus: 400, Code: "KOOPHONE.API.1000"},
			[]string{"a?[2Jb c?d"},
		},
		{
			"a proxy's error page names the URL and the status",
			step{status: 502, body: html},
			Error{HTTPStatus: 502},
			[]string{"http://127.0.0.1:", "/v1/jobs/" + jobID + " answered 502 Bad Gateway", `\x1b[31m bad gateway`},
		},
		{
			"another site's page is not taken for an answer",
			step{body: "<html>hello</html>"},
			Error{HTTPStatus: 200},
			[]string{"answered 200 OK with something that the service does not say", "hello"},
		},
		{
			"another service's JSON is not taken for an answer",
			step{body: `{"status":"fine"}`},
			Error{HTTPStatus: 200},
			[]string{"something that the service does not say"},
		},
		{
			"an empty answer is an error",
			step{},
			Error{HTTPStatus: 200},
			[]string{"answered 200 OK with nothing"},
		},
		{
			"truncated JSON is an error",
			step{body: okay(done)[:60]},
			Error{HTTPStatus: 200},
			[]string{"something that the service does not say"},
		},
		{
			"a huge answer is not read to its end",
			step{body: strings.Repeat("x", maxAnswer+1)},
			Error{HTTPStatus: 200},
			[]string{"more than 8388608 bytes"},
		},
		{
			"missing data is an error",
			step{body: `{"error_code":"0","error_msg":"ok"}`},
			Error{HTTPStatus: 200},
			[]string{"data that cannot be read"},
		},
		{
			"data of another type is an error",
			step{body: okay(`[1,2]`)},
			Error{HTTPStatus: 200},
			[]string{"data that cannot be read"},
		},
		{
			"a record without a state is an error",
			step{body: okay(`{"job_id":"` + jobID + `"}`)},
			Error{HTTPStatus: 200},
			[]string{"without job_id or state"},
		},
		{
			"a 304 that nobody asked for is an error",
			step{status: 304},
			Error{HTTPStatus: 304},
			[]string{"data that cannot be read"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := serve(t, row.answer)
			c, n := connect(t, s.URL)
			_, err := c.Job(t.Context(), jobID)
			wantError(t, err, row.says...)
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("%T is not an *Error", err)
			}
			if e.HTTPStatus != row.want.HTTPStatus || e.Code != row.want.Code {
				t.Errorf("status %d and code %q, want %d and %q", e.HTTPStatus, e.Code, row.want.HTTPStatus, row.want.Code)
			}
			if e.RequestID == "" || (row.want.RequestID != "" && e.RequestID != row.want.RequestID) {
				t.Errorf("request ID %q, want %q", e.RequestID, row.want.RequestID)
			}
			if row.want.HTTPStatus >= http.StatusInternalServerError {
				n.expect(t, 200*time.Millisecond, 400*time.Millisecond, 800*time.Millisecond)
				return
			}
			if s.seen() != 1 {
				t.Errorf("asked %d times, want once", s.seen())
			}
			n.expect(t)
		})
	}

	t.Run("a redirect is named and not followed", func(t *testing.T) {
		elsewhere := serve(t, step{body: okay(done)})
		for _, status := range []int{301, 302, 303, 307, 308} {
			s := serve(t, step{status: status, header: map[string]string{"Location": elsewhere.URL + "/x"}})
			c, _ := connect(t, s.URL)
			_, err := c.Job(t.Context(), jobID)
			wantError(t, err, "a redirect to", elsewhere.URL+"/x")
			_, err = c.Submit(t.Context(), Batch{InstanceIDs: []string{"i-1"}})
			wantError(t, err, "a redirect to")
		}
		if elsewhere.seen() != 0 {
			t.Errorf("the token went to another server %d times", elsewhere.seen())
		}
	})
	t.Run("a password in the server's URL is not shown", func(t *testing.T) {
		s := serve(t, step{status: 502, body: "oops"})
		c, _ := connect(t, strings.Replace(s.URL, "http://", "http://user:geheim@", 1))
		_, err := c.Job(t.Context(), jobID)
		wantError(t, err, "user:xxxxx@")
		if strings.Contains(err.Error(), "geheim") {
			t.Error(err)
		}
	})
}

func TestReadingIsRepeated(t *testing.T) {
	busy := step{status: 429, header: map[string]string{"Retry-After": "3"}, body: `{"error_code":"APIGW.0308","error_msg":"too many"}`}
	t.Run("after 429, as late as the server asks", func(t *testing.T) {
		s := serve(t, busy, busy, step{body: okay(done)})
		c, n := connect(t, s.URL)
		if _, err := c.Job(t.Context(), jobID); err != nil {
			t.Fatal(err)
		}
		n.expect(t, 3*time.Second, 3*time.Second)
	})
	t.Run("after 503, at a date too", func(t *testing.T) {
		at := time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat)
		s := serve(t, step{status: 503, header: map[string]string{"Retry-After": at}, body: "starting"}, step{body: okay(done)})
		c, n := connect(t, s.URL)
		if _, err := c.Job(t.Context(), jobID); err != nil {
			t.Fatal(err)
		}
		if len(n.waits) != 1 || n.waits[0] < 25*time.Second || n.waits[0] > 40*time.Second {
			t.Errorf("waited %v", n.waits)
		}
	})
	t.Run("after 5xx: a Redis that stood still for a moment, a proxy that lost the server", func(t *testing.T) {
		s := serve(t, step{status: 500, body: `{"error_code":"KOOPHONE.API.9999","error_msg":"internal error"}`},
			step{status: 502, body: "<html>"}, step{body: okay(done)})
		c, n := connect(t, s.URL)
		if _, err := c.Job(t.Context(), jobID); err != nil {
			t.Fatal(err)
		}
		n.expect(t, 200*time.Millisecond, 400*time.Millisecond)
	})
	t.Run("after a lost connection or half an answer", func(t *testing.T) {
		s := serve(t, step{cut: true}, step{short: true, body: `{"error_code":`}, step{body: okay(done)})
		c, n := connect(t, s.URL)
		if _, err := c.Job(t.Context(), jobID); err != nil {
			t.Fatal(err)
		}
		n.expect(t, 200*time.Millisecond, 400*time.Millisecond)
	})
	t.Run("four times at most when nobody answers, and the error names the server", func(t *testing.T) {
		server := closedPort(t)
		c, n := connect(t, server)
		_, err := c.Job(t.Context(), jobID)
		wantError(t, err, "no answer from "+server, "refused")
		n.expect(t, 200*time.Millisecond, 400*time.Millisecond, 800*time.Millisecond)
	})
	t.Run("for a minute at most when the server is busy", func(t *testing.T) {
		s := serve(t, step{status: 429, header: map[string]string{"Retry-After": "25"}, body: busy.body})
		c, n := connect(t, s.URL)
		_, _, err := c.JobsByID(t.Context(), jobID)
		wantError(t, err, "APIGW.0308", "asks to wait 25s")
		n.expect(t, 25*time.Second, 25*time.Second)
	})
	t.Run("until the caller's context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := serve(t, busy)
		c, _ := connect(t, s.URL)
		c.sleep = sleep
		c.onRetry = func(error, time.Duration) { cancel() }
		_, err := c.Job(ctx, jobID)
		wantError(t, err, "APIGW.0308")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v does not say that it was cancelled", err)
		}
	})
}

func TestParseRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "1e9": 0,
		"999999999999": 24 * time.Hour, "Mon, 02 Jan 2006 15:04:05 GMT": 0,
	} {
		if got := parseRetryAfter(http.Header{"Retry-After": {value}}); got != want {
			t.Errorf("Retry-After %q is %v, want %v", value, got, want)
		}
	}
	for value, want := range map[string]time.Duration{"Mon, 02 Jan 2006 15:04:15 GMT": 10 * time.Second, "Tue, 02 Jan 2126 15:04:15 GMT": 24 * time.Hour} {
		h := http.Header{"Retry-After": {value}, "Date": {"Mon, 02 Jan 2006 15:04:05 GMT"}} // a clock that is behind
		if got := parseRetryAfter(h); got != want {
			t.Errorf("Retry-After %q is %v, want %v", value, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"größer 手机": "größer 手机", "a\tb\nc\r": "a b c ", "\x1b[2J\x07\x7f": "?[2J??", "\u202eabc\u200b": "?abc?", "bad\xffutf8": "bad\ufffdutf8",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
