package httpdriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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
	if !strings.Contains(cfg.URL, "{") {
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

func TestAnAnswerOverTheWire(t *testing.T) {
	for _, row := range []struct {
		name    string
		status  int
		header  http.Header
		body    string
		verdict worker.Verdict // empty: done
		code    string
		message string
		after   time.Duration
	}{
		{name: "200 is done", status: 200},
		{name: "a page of HTML is not", status: 200, body: "<html>", verdict: worker.Unknown, code: worker.NotUnderstood, message: "not a JSON object"},
		{name: "an error code far behind is seen", status: 200, body: strings.Repeat(" ", 100<<10) + `{"error_code":"X"}`, verdict: worker.Retryable, code: "X"},
		{name: "a body that does not end is not understood", status: 200, body: "{}" + strings.Repeat(" ", maxAnswer), verdict: worker.Unknown, code: worker.NotUnderstood, message: "longer than"},
		{name: "302 is not followed", status: 302, header: header("Location", "/elsewhere"), verdict: worker.Permanent, message: "302 Found"},
		{name: "404 keeps the upstream's code", status: 404, body: `{"error_code":"CPS.0005","error_msg":"Phone not found."}`, verdict: worker.Permanent, code: "CPS.0005", message: "Phone not found."},
		{name: "a status that nobody knows", status: 700, verdict: worker.Unknown, message: "700 (a status that nobody knows)"},
		{name: "409 is busy for as long as it says", status: 409, header: header("Retry-After", "7"), verdict: worker.Busy, after: 7 * time.Second},
		{name: "429 is retried when it says", status: 429, header: header("Retry-After", "120"), verdict: worker.Retryable, after: 2 * time.Minute},
		{name: "429 waits an hour at most", status: 429, header: header("Retry-After", "999999999"), verdict: worker.Retryable, after: time.Hour},
		{name: "a time is judged by the answer's own clock", status: 503, header: header("Date", "Sun, 22 Nov 2020 10:00:00 GMT", "Retry-After", "Sun, 22 Nov 2020 10:00:30 GMT"), verdict: worker.Retryable, after: 30 * time.Second},
		{name: "504 may be a gateway's", status: 504, body: "<html>", verdict: worker.Unknown, message: "504 Gateway Timeout"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var calls atomic.Int32
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				maps.Copy(w.Header(), row.header)
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
	e := wantVerdict(t, newDriver(t, Config{URL: url}).Reset(t.Context(), attempt()), worker.Unknown)
	if e.Code != worker.NotUnderstood {
		t.Errorf("got %+v", e)
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
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				saw += r.Method + " " + r.Header.Get("Idempotency-Key")
				_, _ = io.WriteString(w, `{"status":"done"}`)
			})
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
		"":                                                "must contain {instance_id}",
		"https://phones.example/reset":                    "must contain {instance_id}",
		"/phones/{instance_id}":                           "absolute URL",
		"phones.example/{instance_id}":                    "absolute URL",
		"ftp://phones.example/{instance_id}":              "absolute URL",
		"https://{instance_id}.example/reset":             "path or query",
		"https://phones.example/#{instance_id}":           "path or query",
		"https://u:p@phones.example/{instance_id}":        "user or password",
		"https://phones.example:x/{instance_id}":          "invalid port",
		"https://:443/{instance_id}":                      "absolute URL",
		"https://phones.example/{instance_id}?x={adress}": "has braces that are neither",
		"https://phones.example/../{instance_id}":         "must not have . or ..",
	} {
		err := checkTemplate(template)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", template, err, want)
		}
	}
	for flag, cfg := range map[string]Config{
		"url must contain {instance_id}": {URL: "https://phones.example/"},
		"token_file has a token with":    {URL: "https://phones.example/{instance_id}", Token: "two\nlines"},
	} {
		if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("%v, want %q", err, flag)
		}
	}
}
