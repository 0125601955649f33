package httpdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"batchreset/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newDriver makes a driver that does not dawdle between polls.
func newDriver(t *testing.T, cfg Config) *Driver {
	t.Helper()
	if !strings.Contains(cfg.URL, placeholder) {
		cfg.URL += "/phones/{instance_id}/reset"
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.pollFirst, d.pollLast = time.Millisecond, time.Millisecond
	t.Cleanup(d.Close)
	return d
}

// attempt is a first attempt with plenty of time.
func attempt() worker.Attempt {
	return worker.Attempt{
		InstanceID: "phone-1", ItemID: "job-0", Number: 1, Key: "key-1",
		Deadline: time.Now().Add(time.Minute),
		MaySend:  func() error { return nil },
		Save:     func(context.Context, string) error { return nil },
	}
}

// serve starts an upstream.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// wantVerdict checks the verdict of an error and returns its account.
func wantVerdict(t *testing.T, err error, want worker.Verdict) worker.DriverError {
	t.Helper()
	e, ok := errors.AsType[*worker.DriverError](err)
	if !ok || e.Verdict != want {
		t.Fatalf("got %v, want it %s", err, want)
	}
	return *e
}

func TestTheRequest(t *testing.T) {
	var got *http.Request
	var body map[string]any
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		got = r
		_ = json.NewDecoder(r.Body).Decode(&body)
	})
	d := newDriver(t, Config{URL: url, Token: "secret"})
	if err := d.Reset(t.Context(), attempt()); err != nil {
		t.Fatal(err)
	}
	if got.Method != http.MethodPost || got.URL.Path != "/phones/phone-1/reset" ||
		got.Header.Get("Authorization") != "Bearer secret" || got.Header.Get("Idempotency-Key") != "key-1" ||
		got.Header.Get("Content-Type") != "application/json" || got.Header.Get("User-Agent") != "batchreset" {
		t.Errorf("%s %s %v", got.Method, got.URL, got.Header)
	}
	if want := map[string]any{"instance_id": "phone-1", "item_id": "job-0", "attempt": 1.0}; fmt.Sprint(body) != fmt.Sprint(want) {
		t.Errorf("body %v, want %v", body, want)
	}
}

func TestAnInstanceIDCannotLeaveItsPlaceInTheURL(t *testing.T) {
	for _, id := range []string{"a:b", "a/b", "a?x=1", "a#b", "a%2fb", "a b", "a+b", "a&force=1", "a;b", "..a", "\n", "телефон"} {
		t.Run("stays one piece: "+id, func(t *testing.T) {
			var asked *http.Request
			url := serve(t, func(_ http.ResponseWriter, r *http.Request) { asked = r })
			a := attempt()
			a.InstanceID = id
			d := newDriver(t, Config{URL: url + "/phones/{instance_id}/reset?of={instance_id}"})
			if err := d.Reset(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if path := asked.URL.EscapedPath(); strings.Count(path, "/") != 3 || asked.URL.Path != "/phones/"+id+"/reset" {
				t.Errorf("asked for %s", path)
			}
			if got := asked.URL.Query(); fmt.Sprint(got) != fmt.Sprint(map[string][]string{"of": {id}}) {
				t.Errorf("the query is %v", got)
			}
		})
	}
	for _, id := range []string{"", ".", "..", "../admin", "a/.."} {
		t.Run(fmt.Sprintf("is refused where it means a folder: %q", id), func(t *testing.T) {
			url := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("called") })
			a := attempt()
			a.InstanceID = id
			wantVerdict(t, newDriver(t, Config{URL: url}).Reset(t.Context(), a), worker.Permanent)
		})
	}
}

func TestWhatAnAnswerMeans(t *testing.T) {
	for _, row := range []struct {
		name    string
		status  int
		header  string // Retry-After or Location
		body    string
		verdict worker.Verdict // empty: done
		code    string
		message string
		after   time.Duration
	}{
		{name: "200 is done", status: 200},
		{name: "200 with the code 0 is done", status: 200, body: `{"error_code":"0","error_msg":"ok"}`},
		{name: "201 is done", status: 201},
		{name: "204 is done", status: 204},
		{name: "200 with garbage is done", status: 200, body: "<html>\x00\xff"},
		{name: "200 with an error code is a failure", status: 200, body: `{"error_code":"KOOPHONE.API.2005","error_msg":"instance is restoring"}`, verdict: worker.Retryable, code: "KOOPHONE.API.2005", message: "instance is restoring"},
		{name: "202 without a location cannot be followed", status: 202, verdict: worker.Unknown, message: "no location"},
		{name: "302 is not followed", status: 302, header: "/elsewhere", verdict: worker.Permanent, message: "302 Found"},
		{name: "307 is not followed", status: 307, header: "/elsewhere", verdict: worker.Permanent, message: "307 Temporary Redirect"},
		{name: "302 to nonsense is not followed", status: 302, header: "http://[", verdict: worker.Permanent, message: "302 Found"},
		{name: "400 is permanent", status: 400, verdict: worker.Permanent, message: "400 Bad Request"},
		{name: "404 keeps the upstream's code", status: 404, body: `{"error_code":"CPS.0005","error_msg":"Phone not found."}`, verdict: worker.Permanent, code: "CPS.0005", message: "Phone not found."},
		{name: "a code that is a number is kept", status: 400, body: `{"error_code":17,"error_msg":"no"}`, verdict: worker.Permanent, code: "17", message: "no"},
		{name: "control characters are taken out", status: 400, body: `{"error_msg":"a\u001b[31mb\nc"}`, verdict: worker.Permanent, message: "a [31mb c"},
		{name: "characters that reorder text are taken out", status: 400, body: `{"error_msg":"a\u202eb"}`, verdict: worker.Permanent, message: "a b"},
		{name: "a code that is a novel is cut", status: 400, body: `{"error_code":"` + strings.Repeat("x", 999) + `"}`, verdict: worker.Permanent, code: strings.Repeat("x", maxCode)},
		{name: "a status that means nothing is unknown", status: 700, verdict: worker.Unknown, message: "status 700"},
		{name: "408 is retried", status: 408, verdict: worker.Retryable},
		{name: "409 is busy", status: 409, header: "7", verdict: worker.Busy, after: 7 * time.Second},
		{name: "425 is retried", status: 425, verdict: worker.Retryable},
		{name: "429 is retried when it says", status: 429, header: "120", verdict: worker.Retryable, after: 2 * time.Minute},
		{name: "500 is retried", status: 500, verdict: worker.Retryable, message: "500 Internal Server Error"},
		{name: "502 with a page of HTML is retried", status: 502, body: "<html>Bad Gateway</html>", verdict: worker.Retryable, message: "502 Bad Gateway"},
		{name: "503 with nonsense for Retry-After is retried", status: 503, header: "soon", verdict: worker.Retryable},
		{name: "503 with a negative Retry-After is retried", status: 503, header: "-5", verdict: worker.Retryable},
		{name: "503 with an absurd Retry-After waits a day at most", status: 503, header: "99999999999", verdict: worker.Retryable, after: 24 * time.Hour},
	} {
		t.Run(row.name, func(t *testing.T) {
			var calls atomic.Int32
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				if row.header != "" {
					w.Header().Set("Retry-After", row.header)
					if row.status/100 == 3 {
						w.Header().Set("Location", row.header)
					}
				}
				w.WriteHeader(row.status)
				_, _ = io.WriteString(w, row.body)
			})
			err := newDriver(t, Config{URL: url}).Reset(t.Context(), attempt())
			if calls.Load() != 1 {
				t.Errorf("%d calls", calls.Load())
			}
			if row.verdict == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			e := wantVerdict(t, err, row.verdict)
			if e.Code != row.code || !strings.Contains(e.Message, row.message) || e.Message == "" || e.RetryAfter != row.after {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestALongMessageIsCutBetweenCharacters(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error_msg":"x`+strings.Repeat("é", 2000)+`"}`)
	})
	e := wantVerdict(t, newDriver(t, Config{URL: url}).Reset(t.Context(), attempt()), worker.Permanent)
	if want := "x" + strings.Repeat("é", 511); e.Message != want {
		t.Errorf("%d bytes, %q", len(e.Message), e.Message)
	}
}

func TestAHugeAnswerIsNotReadToItsEnd(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		block := []byte(strings.Repeat("x", 1<<20))
		for range 1 << 10 { // a gigabyte, if anybody wanted it
			if _, err := w.Write(block); err != nil {
				return
			}
		}
		t.Error("read to the end")
	})
	if err := newDriver(t, Config{URL: url}).Reset(t.Context(), attempt()); err != nil {
		t.Error(err)
	}
}

func TestAmbiguity(t *testing.T) {
	for _, row := range []struct {
		name       string
		idempotent bool
		checkpoint bool
		want       string // what the upstream sees
		verdict    worker.Verdict
	}{
		{"is repeated under the same key where that is harmless", true, false, "POST key-1", ""},
		{"ends without a call where it is not", false, false, "", worker.Unknown},
		{"is resumed from a checkpoint", false, true, "GET ", ""},
		{"is resumed from a checkpoint rather than repeated", true, true, "GET ", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			saw := ""
			url := serve(t, func(_ http.ResponseWriter, r *http.Request) { saw += r.Method + " " + r.Header.Get("Idempotency-Key") })
			a := attempt()
			a.Ambiguous = true
			if row.checkpoint {
				a.Checkpoint = url + "/operations/7"
			}
			err := newDriver(t, Config{URL: url, Idempotent: row.idempotent}).Reset(t.Context(), a)
			if row.verdict != "" {
				wantVerdict(t, err, row.verdict)
			} else if err != nil {
				t.Error(err)
			}
			if saw != row.want {
				t.Errorf("the upstream saw %q, want %q", saw, row.want)
			}
		})
	}
}

func TestTemplates(t *testing.T) {
	for template, want := range map[string]string{
		"https://phones.example/{instance_id}/reset":      "",
		"http://127.0.0.1:8080/reset?phone={instance_id}": "",
		"":                                         "must contain {instance_id}",
		"https://phones.example/reset":             "must contain {instance_id}",
		"/phones/{instance_id}":                    "absolute URL",
		"phones.example/{instance_id}":             "absolute URL",
		"ftp://phones.example/{instance_id}":       "absolute URL",
		"https://{instance_id}.example/reset":      "path or query",
		"https://phones.example/#{instance_id}":    "path or query",
		"https://u:p@phones.example/{instance_id}": "user or password",
		"https://phones.example:x/{instance_id}":   "invalid port",
		"https://:443/{instance_id}":               "absolute URL",
		"https://phones.example/../{instance_id}":  "must not have . or ..",
	} {
		err := checkTemplate(template)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", template, err, want)
		}
	}
	if _, err := New(Config{URL: "https://phones.example/{instance_id}", Token: "two\nlines"}); err == nil {
		t.Error("a token that breaks the header is accepted")
	}
}
