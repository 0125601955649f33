package httpdriver

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"batchreset/worker"
)

// header makes a header of names and values.
func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func mustRules(t testing.TB, cfg Config) rules {
	t.Helper()
	r, err := newRules(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	location   = header("Location", "/operations/7")
	retryAfter = header("Retry-After", "7")
	tooLong    = strings.Repeat(" ", maxAnswer) + "{}"
)

// answered is an answer as the driver reads it.
func answered(status int, header http.Header, body string) answer {
	response := &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}
	return answer{worker.ReadAnswer(response, maxAnswer)}
}

// What an answer to a POST means, beside "done" and "poll" for those that are neither.
const (
	isDone = worker.Verdict("done")
	polls  = worker.Verdict("poll")
)

func TestWhatTheAnswerToAResetMeans(t *testing.T) {
	const doubt, retry, permanent = worker.Unknown, worker.Retryable, worker.Permanent
	for _, row := range []struct {
		status int
		header http.Header
		body   string
		want   worker.Verdict
		code   string
	}{
		// Done.
		{200, nil, "", isDone, ""},
		{201, nil, "", isDone, ""},
		{204, nil, "", isDone, ""},
		{201, location, "", isDone, ""},
		{200, nil, "\r\n", isDone, ""},
		{200, nil, "{}", isDone, ""},
		{200, nil, `{"error_code":"0","error_msg":"ok"}`, isDone, ""},
		{200, nil, `{"error_code":0}`, isDone, ""},
		{200, nil, `{"error_code":null,"error":null,"errors":[]}`, isDone, ""},
		{200, nil, `{"error_code":""}`, isDone, ""},
		{200, nil, "\ufeff" + `{"error_code":"0"}`, isDone, ""},
		{200, nil, `{"status":"succeeded"}`, isDone, ""},
		{200, nil, `{"Status":"SUCCEEDED"}`, isDone, ""},
		{200, nil, ` { "status" : "Success" } `, isDone, ""},
		{201, nil, `{"status":2,"error_code":null}`, isDone, ""},
		{200, nil, `{"status":"2"}`, isDone, ""},
		{200, nil, `{"done":true,"response":{"state":"ACTIVE"}}`, isDone, ""},
		{200, nil, `{"properties":{"provisioningState":"Succeeded"}}`, isDone, ""},
		{200, nil, `{"kind":"Reset","status":{"phase":"Succeeded"}}`, isDone, ""},
		{200, nil, `{"status":"ok","data":{"status":"done","status":"finished"}}`, isDone, ""},
		{200, nil, `{"error_code":"0","data":{"jobs":[{"job_id":"1","status":2,"error_code":null}]}}`, isDone, ""},
		{200, nil, `{"result":"phone-1 is as new","completed":"2026-11-22T10:00:00Z"}`, isDone, ""},
		{200, nil, `{"status":"geputzt"}`, isDone, ""},

		// Accepted.
		{202, location, "", polls, ""},
		{202, header("Operation-Location", "/operations/7"), "<html>", polls, ""},
		{202, location, `{"status":"failed"}`, polls, ""},
		{202, nil, "", doubt, ""},
		{202, nil, `{"status":"running"}`, doubt, worker.NotUnderstood},
		{202, nil, `{"status":"succeeded"}`, doubt, ""},
		{202, nil, `{"status":"failed"}`, retry, ""},

		// Failed.
		{200, nil, `{"status":"failed"}`, retry, ""},
		{200, nil, `{"status":"Failed","error_code":"0"}`, retry, ""},
		{200, nil, `{"job":{"state":"CANCELLED"}}`, retry, ""},
		{200, nil, `{"status":-1,"error_code":"CPS0005","error_msg":"Phone not found."}`, retry, "CPS0005"},
		{200, nil, `{"properties":{"provisioningState":"Failed"}}`, retry, ""},
		{200, nil, `{"done":true,"error":{"code":13,"status":"INTERNAL","message":"no"}}`, retry, ""},
		{200, nil, `{"done":true,"metadata":{"state":"FAILED"}}`, retry, ""},
		{200, nil, `{"status":"completed","conclusion":"failure"}`, retry, ""},
		{200, nil, `{"error_code":"KOOPHONE.API.2005","error_msg":"instance is restoring"}`, retry, "KOOPHONE.API.2005"},
		{200, nil, `{"error_code":17}`, retry, "17"},
		{200, nil, `{"status":"succeeded","error_code":"CPS.0054"}`, retry, "CPS.0054"},
		{200, nil, "\ufeff" + `{"error_code":"CPS.0054"}`, retry, "CPS.0054"},
		{200, nil, `{"pad":"` + strings.Repeat("x", 70<<10) + `","error_code":"CPS.0054"}`, retry, "CPS.0054"},
		{200, nil, `{"error_code":"0","error_msg":"ok","data":{"status":-1,"error_code":"CPS0023"}}`, retry, "CPS0023"},
		{200, nil, `{"request_id":"7","jobs":[{"phone_id":"phone-1","error_code":"CPS.0004"}]}`, retry, "CPS.0004"},
		{206, nil, `{"status":"failed"}`, retry, ""},
		{200, nil, `{"status":"kaputt"}`, retry, ""},

		// Not understood.
		{200, nil, "ok", doubt, worker.NotUnderstood},
		{200, nil, "<html>\x00\xff", doubt, worker.NotUnderstood},
		{200, header("Content-Type", "text/html"), "<!doctype html><title>Log in</title>", doubt, worker.NotUnderstood},
		{200, nil, "\ufeff", doubt, worker.NotUnderstood},
		{200, nil, "\ufeff\ufeff{}", doubt, worker.NotUnderstood},
		{200, nil, "\xff\xfe{\x00}\x00", doubt, worker.NotUnderstood},
		{200, nil, "null", doubt, worker.NotUnderstood},
		{200, nil, "true", doubt, worker.NotUnderstood},
		{200, nil, `"done"`, doubt, worker.NotUnderstood},
		{200, nil, "[]", doubt, worker.NotUnderstood},
		{200, nil, `[{"status":"done"}]`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"done"`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"done"}{"status":"failed"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"done",}`, doubt, worker.NotUnderstood},
		{200, nil, tooLong, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"wiping"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"Unknown"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":""}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":null}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":true}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":["done"]}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":{}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"state":{"running":{"since":"10:00"}}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":3}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":-2}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"_2"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":2.0}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":1}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"In Progress"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"done":false}`, doubt, worker.NotUnderstood},
		{200, nil, `{"done":"yes"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"finished":false}`, doubt, worker.NotUnderstood},
		{200, nil, `{"job":{"status":"Running"}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"success","data":{"state":"queued"}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"error_code":"0","data":{"job":{"status":"Running"}}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"data":{"type":"jobs","attributes":{"status":"Pending"}}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"error_code":"0","data":{"jobs":[{"job_id":"1","status":1}]}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"error_code":"0","data":{"task_id":"RM_1","cmd_jobs":[{"instance_id":"phone-1","job_id":"1"}]}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"jobs":[{"phone_id":"phone-1","job_id":"1"}]}`, doubt, worker.NotUnderstood},
		{200, nil, `{"jobs":[]}`, doubt, worker.NotUnderstood},
		{200, nil, `{"results":[{"status":"succeeded"},{"status":"running"}]}`, doubt, worker.NotUnderstood},
		{200, nil, `{"data":[{"state":"wiping"}]}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"done","status":"running"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"succeeded","STATUS":"failed"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"succeeded","phase":"Failed"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"done":true,"status":"running"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"done":true,"response":{"state":"RESETTING"}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"error_code":"0","error_code":"CPS.0054"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"error_code":"CPS.0054","ErrorCode":"0"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"error_code":{}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"error_code":false}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"running","error_code":"CPS.0099"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"wiping","error_code":"CPS.0099"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"error":{"message":"no"}}`, doubt, worker.NotUnderstood},
		{200, nil, `{"error":"no such phone"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"succeeded","error":"but"}`, doubt, worker.NotUnderstood},
		{200, nil, `{"success":false}`, doubt, worker.NotUnderstood},
		{200, nil, `{"status":"wischt"}`, doubt, worker.NotUnderstood},
		{203, nil, "", doubt, worker.NotUnderstood},
		{205, nil, "", doubt, worker.NotUnderstood},
		{206, nil, `{"status":"succeeded"}`, doubt, worker.NotUnderstood},
		{207, nil, "{}", doubt, worker.NotUnderstood},
		{299, nil, "", doubt, worker.NotUnderstood},

		// Refused.
		{301, nil, "", permanent, ""},
		{302, location, "", permanent, ""},
		{303, location, "", permanent, ""},
		{304, nil, "", permanent, ""},
		{307, location, "", permanent, ""},
		{308, header("Location", "http://["), "", permanent, ""},
		{400, nil, "", permanent, ""},
		{400, nil, `{"error_code":"CPS.0004"}`, permanent, "CPS.0004"},
		{401, nil, "", worker.Unreachable, ""},
		{401, nil, `{"error_code":"APIGW.0307","error_msg":"The token must be updated"}`, worker.Unreachable, "APIGW.0307"},
		{403, nil, "", permanent, ""},
		{404, nil, `{"status":"running"}`, permanent, ""},
		{407, nil, "", permanent, ""},
		{410, nil, "", permanent, ""},
		{422, nil, "", permanent, ""},
		{499, nil, "", permanent, ""},
		{409, nil, "", worker.Busy, ""},
		{409, retryAfter, "", worker.Busy, ""},
		{408, nil, "", retry, ""},
		{425, nil, "", retry, ""},
		{429, nil, "", retry, ""},
		{429, retryAfter, "", retry, ""},
		{503, retryAfter, "", retry, ""},
		{503, header("Retry-After", "0"), "", retry, ""},
		{503, header("Retry-After", "Sun, 22 Nov 2026 10:00:00 GMT"), "", retry, ""},
		{503, retryAfter, `{"error_code":"CPS.0042"}`, retry, "CPS.0042"},
		{599, nil, `{"status":"done"}`, retry, ""}, // listed

		// Nobody knows.
		{500, nil, "", doubt, ""},
		{500, nil, `{"error_code":"CPS.0003"}`, doubt, "CPS.0003"},
		{500, retryAfter, "", doubt, ""},
		{500, nil, `{"status":"succeeded"}`, doubt, ""},
		{501, nil, "", doubt, ""},
		{502, nil, "<html>Bad Gateway</html>", doubt, ""},
		{502, retryAfter, "", doubt, ""},
		{503, nil, "", doubt, ""},
		{503, header("Retry-After", "soon"), "", doubt, ""},
		{503, header("Retry-After", "-5"), "", doubt, ""},
		{503, header("Retry-After", "1.5"), "", doubt, ""},
		{503, header("Retry-After", ""), "", doubt, ""},
		{504, nil, "", doubt, ""},
		{504, retryAfter, "", doubt, ""},
		{505, nil, "", doubt, ""},
		{524, nil, "", doubt, ""},
		{600, nil, "", doubt, ""},
		{700, nil, "", doubt, ""},
		{101, nil, "", doubt, ""},
	} {
		name := http.StatusText(row.status) + " " + row.body[:min(len(row.body), 60)]
		for _, idempotent := range []bool{false, true} {
			r := mustRules(t, Config{Idempotent: idempotent, Definite: []int{599}, Words: []string{"done=geputzt", "running=wischt", "failed=kaputt"}})
			said := answered(row.status, row.header, row.body)
			accepted, err := r.posted(said)
			e, _ := errors.AsType[*worker.DriverError](err)
			got := isDone
			switch {
			case accepted:
				got = polls
			case e != nil:
				got = e.Verdict
			}
			if got != row.want {
				t.Errorf("%d %s: %s (%v), want %s", row.status, name, got, err, row.want)
				continue
			}
			if e == nil {
				continue
			}
			wait, _ := said.RetryAfter()
			if e.Code != row.code || e.Message == "" || len(e.Message) > maxMessage+100 || e.RetryAfter != 0 && e.RetryAfter != wait {
				t.Errorf("%d %s: %+v, want the code %q", row.status, name, e, row.code)
			}
			if e.Repeatable != (idempotent && got == doubt) {
				t.Errorf("%d %s: repeatable is %t", row.status, name, e.Repeatable)
			}
			if e.EndsDoubt != (row.status/100 == 2 && got == retry) {
				t.Errorf("%d %s: EndsDoubt is %t", row.status, name, e.EndsDoubt)
			}
		}
	}
}

func TestDefiniteStatuses(t *testing.T) {
	r := mustRules(t, Config{Definite: []int{500, 503}})
	for status := 500; status < 600; status++ {
		want := worker.Unknown
		if status == 500 || status == 503 {
			want = worker.Retryable
		}
		_, err := r.posted(answered(status, nil, ""))
		wantVerdict(t, err, want)
	}
	for _, status := range []int{0, -500, 50, 200, 202, 404, 429, 499, 600, 5000} {
		_, err := New(Config{URL: "http://x/{instance_id}", Definite: []int{500, status}})
		if err == nil || !strings.HasPrefix(err.Error(), "definite must list statuses from 500 to 599, not ") {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestARefusalOfUsNamesTheToken(t *testing.T) {
	r := mustRules(t, Config{})
	_, err := r.posted(answered(401, nil, `{"error_code":"APIGW.0301","error_msg":"decrypt token fail"}`))
	if e := wantVerdict(t, err, worker.Unreachable); !strings.Contains(e.Message, "--driver-token-file") || !strings.Contains(e.Message, "decrypt token fail") {
		t.Errorf("got %+v", e)
	}
	if _, e := r.polled(answered(401, nil, "")); !strings.Contains(e.Message, "--driver-token-file") {
		t.Errorf("a poll: %+v", e)
	}
}

func TestWhatTheAnswerToAPollMeans(t *testing.T) {
	const again, failed = worker.Unknown, worker.Retryable
	const odd = worker.NotUnderstood
	for _, row := range []struct {
		status int
		body   string
		want   worker.Verdict // again: asked again
		code   string
	}{
		{200, `{"status":"succeeded"}`, isDone, ""},
		{201, `{"status":"done"}`, isDone, ""},
		{200, `{"done":true,"response":{"@type":"x","state":"READY"}}`, isDone, ""},
		{200, `{"properties":{"provisioningState":"Succeeded"}}`, isDone, ""},
		{200, `{"error_code":"0","data":{"jobs":[{"status":2}]}}`, isDone, ""},
		{200, "\ufeff" + `{"job":{"status":"COMPLETED"}}`, isDone, ""},
		{303, "", isDone, ""},

		{200, `{"status":"failed"}`, failed, ""},
		{202, `{"status":"failed"}`, failed, ""},
		{200, `{"provisioningState":"Failed"}`, failed, ""},
		{200, `{"properties":{"provisioningState":"Canceled"}}`, failed, ""},
		{200, `{"done":true,"error":{"code":5,"message":"gone"}}`, failed, ""},
		{200, `{"status":"DONE","error":{"errors":[{"code":"X"}]}}`, failed, ""},
		{200, `{"error_code":"0","data":{"jobs":[{"status":-1,"error_code":"CPS0005"}]}}`, failed, "CPS0005"},
		{200, `{"error_code":"CPS.0054"}`, failed, "CPS.0054"},

		{200, `{"done":false}`, again, ""},
		{200, `{"done":false,"metadata":{"state":"RUNNING"}}`, again, ""},
		{200, `{"state":"RUNNING"}`, again, ""},
		{200, `{"job":{"status":"Running"}}`, again, ""},
		{200, `{"error_code":"0","data":{"jobs":[{"status":1}]}}`, again, ""},
		{202, "", again, ""},
		{202, `{"status":"NotStarted"}`, again, ""},
		{202, `{"status":"succeeded"}`, again, ""},
		{202, "<html>", again, odd},
		{408, "", again, ""},
		{429, "", again, ""},
		{500, `{"status":"failed"}`, again, ""},
		{502, "<html>", again, ""},
		{503, "", again, ""},
		{504, "", again, ""},

		{200, "", again, odd},
		{204, "", again, odd},
		{200, "{}", again, odd},
		{200, `{"error_code":"0","error_msg":"ok"}`, again, odd},
		{200, `{"instance_id":"phone-1"}`, again, odd},
		{200, "<html>Log in</html>", again, odd},
		{200, `{"status":"succ`, again, odd},
		{200, tooLong, again, odd},
		{200, `{"status":"wiping"}`, again, odd},
		{200, `{"status":"wiping","error_code":"X"}`, again, odd},
		{200, `{"done":null}`, again, odd},
		{200, `{"status":"succeeded","state":"running"}`, again, odd},
		{200, `{"error":{"message":"try later"}}`, again, odd},
		{206, `{"status":"succeeded"}`, again, odd},
		{301, "", again, odd},
		{304, "", again, odd},
		{400, `{"status":"failed"}`, again, odd},
		{401, "", again, odd},
		{403, "", again, odd},
		{404, "", again, odd},
		{409, "", again, odd},
		{410, "", again, odd},
		{700, "", again, odd},
	} {
		said := answered(row.status, nil, row.body)
		// What says that a call was not done does not say so of what a poll asks about.
		over, e := mustRules(t, Config{Definite: []int{500}}).polled(said)
		got := isDone
		if e != nil {
			got = e.Verdict
		}
		if got != row.want || over != (got != again) || e != nil && (e.Code != row.code || e.EndsDoubt != (got == failed)) {
			t.Errorf("%d %.60s: over is %t, %+v; want %s %s", row.status, row.body, over, e, row.want, row.code)
		}
	}
}

func TestTheUpstreamsOwnWords(t *testing.T) {
	for body, want := range map[string]string{
		`{"error_msg":"a\u001b[31mb\nc"}`:                                                "a[U+001B][31mb c",
		`{"error_msg":"a\u202eb"}`:                                                       "a[U+202E]b",
		`{"error_code":"X","error_msg":"no","message":"yes"}`:                            "no",
		`{"error":{"code":13,"message":"out of disk"}}`:                                  "out of disk",
		`{"error":"out of disk"}`:                                                        "out of disk",
		`{"error_code":"0","error_msg":"ok","data":{"error_code":"X","error_msg":"no"}}`: "no",
		`{"error_code":"0","error_msg":"ok"}`:                                            "refused with 400 Bad Request",
		`<html>`:                                                                         "refused with 400 Bad Request",
		`{"error_msg":"x` + strings.Repeat("é", 2000) + `"}`:                             "x" + strings.Repeat("é", 511),
	} {
		_, err := mustRules(t, Config{}).posted(answered(400, nil, body))
		if e := wantVerdict(t, err, worker.Permanent); !strings.HasSuffix(e.Message, want) {
			t.Errorf("%.60s: %q", body, e.Message)
		}
	}
	_, err := mustRules(t, Config{}).posted(answered(400, nil, `{"error_code":"`+strings.Repeat("x", 999)+`"}`))
	if e := wantVerdict(t, err, worker.Permanent); e.Code != strings.Repeat("x", maxCode) {
		t.Errorf("a code of %d bytes", len(e.Code))
	}
}

func TestWords(t *testing.T) {
	for _, row := range []struct {
		words string
		want  string // in the error
	}{
		{"done=wiped", ""},
		{"done=wiped,done=cleaned,running=wiping,failed=broken", ""},
		{" done = Wiped ,failed=-7", ""},
		{"done=succeeded,done=done,running=IN_PROGRESS", ""}, // known already
		{"done=wiped,done=WIPED", ""},
		{"wiped", `must be like done=wiped,failed=broken, not "wiped"`},
		{"done=", `must be like done=wiped,failed=broken, not "done="`},
		{"done=--", "must be like"},
		{"", "must be like"},
		{"finished=wiped", `"finished" is none of done, running and failed`},
		{"ended=wiped", `"ended" is none of done, running and failed`},
		{"Done=wiped", `"Done" is none of done, running and failed`},
		{"done=wiped,failed=wiped", `"wiped" cannot be a word for failed, because it is one for done`},
		{"done=is-wiped,failed=Is Wiped", `"iswiped" cannot be a word for failed, because it is one for done`},
		{"done=running", `"running" cannot be a word for done, because it is one for running`},
		{"failed=2", `"2" cannot be a word for failed, because it is one for done`},
		{"failed=finished", `"finished" cannot be a word for failed, because it is one for done`},
	} {
		_, err := New(Config{URL: "http://x/{instance_id}", Words: strings.Split(row.words, ",")})
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || !strings.HasPrefix(err.Error(), "words ")) {
			t.Errorf("%s: %v, want %q", row.words, err, row.want)
		}
	}
	if word := spelling(" In-Progress_now\t"); word != "inprogressnow" {
		t.Error(word)
	}
	// Words of one driver are not those of another.
	if _, known := mustRules(t, Config{}).words["wiped"]; known {
		t.Error("the known words have changed")
	}
}

func TestTheWordsAreInTheDocumentation(t *testing.T) {
	for _, path := range []string{"doc.go", "README.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		known := strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune(" \t\n`|,", r) })
		for word := range knownWords() {
			if !slices.Contains(known, word) {
				t.Errorf("%s does not have %q", path, word)
			}
		}
	}
}

// seeds are bodies for the fuzzers to start from.
var seeds = []string{
	"", "{}", "<html>", `{"status":"done"}`, `{"status":2}`, `{"status":-1}`, `{"done":true,"error":{"message":"x"}}`, `{"done":false}`,
	`{"error_code":"0","data":{"jobs":[{"status":1,"error_code":null}]}}`, `{"properties":{"provisioningState":"Succeeded"}}`,
	"\ufeff" + `{"error_code":"X"}`, `{"status":"done","Status":"failed"}`, `[{"status":"done"}]`, `{"status":{"phase":"Succeeded"}}`,
	`{"success":false}`, `{"error":{}}`, `{"status":"done"}{}`, `{"job":{"status":"Running"}}`, `{"status":"In Progress","error_code":0}`,
}

func FuzzDoneIsUnderstood(f *testing.F) {
	for _, body := range seeds {
		f.Add(200, body)
	}
	f.Add(202, `{"status":"done"}`)
	f.Add(503, `{"status":"done"}`)
	r := mustRules(f, Config{})
	f.Fuzz(func(t *testing.T, status int, body string) {
		said := answered(status, nil, body)
		accepted, err := r.posted(said)
		if accepted || err == nil && !mayBeDone(status, body, false) {
			t.Errorf("a POST is done by %d %q", status, body)
		}
		over, e := r.polled(said)
		if over && e == nil && status != http.StatusSeeOther && !mayBeDone(status, body, true) {
			t.Errorf("a poll is done by %d %q", status, body)
		}
		if !over && (e == nil || e.Verdict != worker.Unknown) {
			t.Errorf("a poll goes on after %d %q with %v", status, body, e)
		}
		if over && e != nil && !strings.ContainsAny(body, `"`) {
			t.Errorf("a poll has failed by %d %q", status, body)
		}
	})
}

// mayBeDone is what has to be true at the least of an answer that means done, written
// without the code under test.
func mayBeDone(status int, body string, poll bool) bool {
	if !slices.Contains([]int{200, 201, 204}, status) {
		return false
	}
	if strings.Trim(body, " \t\r\n\v\f\u0085\u00a0") == "" {
		return !poll
	}
	fields, ok := decodeObject(body)
	if !ok {
		return false
	}
	states := 0
	for name, value := range fields {
		switch strings.ToLower(name) {
		case "status", "state":
			word, isText := value.(string)
			number, isNumber := value.(float64)
			switch {
			case isText && slices.Contains([]string{"succeeded", "success", "successful", "ok", "2", "done", "completed", "complete", "finished"},
				strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(strings.TrimSpace(word)))), isNumber && number == 2:
				states++
			default:
				if _, nested := value.(map[string]any); !nested {
					return false
				}
			}
		case "done":
			if value != true {
				return false
			}
			states++
		case "error_code":
			if value != nil && value != "" && value != "0" && value != 0.0 {
				return false
			}
		case "error":
			if _, object := value.(map[string]any); object {
				return false
			}
		}
	}
	// A poll is done only in words; where they are nested there is a brace more.
	return !poll || states > 0 || strings.Count(body, "{") > 1 || containsFlag(fields)
}

func containsFlag(fields map[string]any) bool {
	for _, value := range fields {
		if value == true {
			return true
		}
		if _, text := value.(string); text {
			return true // of another field for states
		}
		if value == 2.0 {
			return true
		}
	}
	return false
}

func decodeObject(body string) (fields map[string]any, ok bool) {
	err := json.Unmarshal([]byte(strings.TrimPrefix(body, "\ufeff")), &fields)
	return fields, err == nil && fields != nil
}
