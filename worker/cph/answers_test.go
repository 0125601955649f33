package cph

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"batchreset/worker"
)

// entry is an answer to the order that says this about the phone.
func entry(text string) string {
	return fmt.Sprintf(`{"request_id":"r","jobs":[{"phone_id":"other","job_id":"j"},{"phone_id":%q,%s}]}`, phoneA, text)
}

func refused(code string) string { return entry(fmt.Sprintf(`"error_code":%q,"error_msg":"m"`, code)) }

func wrong(code string) string {
	return fmt.Sprintf(`{"request_id":"r","error_code":%q,"error_msg":"m"}`, code)
}

func TestWhatTheAnswerToAResetMeans(t *testing.T) {
	const doubt, retry, permanent, busy, shut = worker.Unknown, worker.Retryable, worker.Permanent, worker.Busy, worker.Unreachable
	const done = worker.Verdict("")
	for _, row := range []struct {
		status int
		body   string
		want   worker.Verdict
		code   string
	}{
		// Accepted.
		{200, entry(`"job_id":"job-1"`), done, ""},
		{201, entry(`"job_id":"job-1"`), done, ""},
		{200, entry(`"job_id":"job-1","error_code":null,"error_msg":null`), done, ""},
		{200, entry(`"job_id":"job-1","error_code":"CPS.0005"`), done, ""}, // the job says it

		// This phone is refused.
		{200, refused("CPS.0004"), permanent, "CPS.0004"},
		{200, refused("CPS.0005"), permanent, "CPS.0005"},
		{200, refused("CPS0005"), permanent, "CPS0005"},
		{200, refused("CPS.0053"), permanent, "CPS.0053"},
		{200, refused("CPS.0166"), permanent, "CPS.0166"},
		{200, refused("CPS.0001"), permanent, "CPS.0001"}, // we are let in, so it is this phone's
		{200, refused("CPS.0042"), retry, "CPS.0042"},
		{200, refused("CPS.7777"), retry, "CPS.7777"},
		{200, refused("CPS.0023"), busy, "CPS.0023"},
		{200, refused("CPS.0165"), busy, "CPS.0165"},
		{200, refused("CPS.0003"), doubt, "CPS.0003"},
		{200, refused("CPS.0011"), doubt, "CPS.0011"},

		// The request is refused.
		{400, wrong("CPS.0042"), retry, "CPS.0042"},
		{400, wrong("CPS.0099"), retry, "CPS.0099"},
		{400, wrong("CPS.0105"), busy, "CPS.0105"},
		{400, wrong("CPS.0190"), permanent, "CPS.0190"},
		{400, wrong("CPS.7777"), retry, "CPS.7777"},
		{404, "", permanent, ""},
		{403, "<html>", permanent, ""},
		{413, wrong("APIGW.0201"), permanent, "APIGW.0201"},
		{302, "", permanent, ""},
		{429, wrong("APIGW.0308"), retry, "APIGW.0308"},
		{429, "", retry, ""},
		{408, "", retry, ""},

		// We are not let in.
		{401, "", shut, ""},
		{401, wrong("APIGW.0301"), shut, "APIGW.0301"},
		{401, wrong("APIG.0307"), shut, "APIG.0307"},
		{403, wrong("APIGW.0302"), shut, "APIGW.0302"},
		{403, wrong("CPS.0001"), shut, "CPS.0001"},
		{400, wrong("CPS.0007"), shut, "CPS.0007"},
		{404, wrong("APIGW.0101"), shut, "APIGW.0101"},

		// Nobody knows.
		{400, "<html>", doubt, ""},
		{400, wrong("CPS.0042")[:40], doubt, ""},
		{400, wrong("CPS.0005") + "x", doubt, ""},
		{400, `{"error_code":"CPS.0005","error_code":"CPS.0003"}`, doubt, ""},
		{400, `{"error_code":"CPS.0005","error_msg":7}`, doubt, ""},
		{400, wrong("CPS.0003"), doubt, "CPS.0003"},
		{400, wrong("CPS.0011"), doubt, "CPS.0011"},
		{500, wrong("CPS.7777"), doubt, "CPS.7777"},
		{500, "", doubt, ""},
		{502, "<html>", doubt, ""},
		{503, "", doubt, ""},
		{504, wrong("APIGW.0201"), doubt, "APIGW.0201"},
		{700, "", doubt, ""},
		{200, "", doubt, worker.NotUnderstood},
		{200, "<html>", doubt, worker.NotUnderstood},
		{200, "[]", doubt, worker.NotUnderstood},
		{200, "null", doubt, worker.NotUnderstood},
		{200, `{"request_id":"r"}`, doubt, worker.NotUnderstood},
		{200, `{"request_id":"r","jobs":null}`, doubt, worker.NotUnderstood},
		{200, `{"jobs":[{"phone_id":"other","job_id":"job-1"}]}`, doubt, worker.NotUnderstood},
		{200, `{"Jobs":[{"phone_id":"` + phoneA + `","job_id":"job-1"}]}`, doubt, worker.NotUnderstood},
		{200, entry(`"error_code":"0"`), doubt, worker.NotUnderstood},
		{200, entry(`"job_id":null`), doubt, worker.NotUnderstood},
		{200, entry(`"job_id":7`), doubt, worker.NotUnderstood},
		{200, entry(`"job_id":"../phones"`), doubt, worker.NotUnderstood},
		{200, entry(`"job_id":"a","job_id":"b"`), doubt, worker.NotUnderstood},
		{200, strings.Replace(entry(`"job_id":"job-1"`), "other", phoneA, 1), doubt, worker.NotUnderstood},
		{200, entry(`"job_id":"job-1"`)[:60], doubt, worker.NotUnderstood},
		{200, entry(`"job_id":"job-1"`) + strings.Repeat(" ", maxBody), doubt, worker.NotUnderstood},
		{200, strings.Repeat("[", 20000), doubt, worker.NotUnderstood},
		{204, "", doubt, ""},
		{200, wrong("CPS.0042"), retry, "CPS.0042"},
		{200, wrong("CPS.7777"), doubt, "CPS.7777"},
	} {
		t.Run(fmt.Sprintf("%d %.50s", row.status, row.body), func(t *testing.T) {
			s := &script{
				post:   says(row.status, row.body),
				phones: []http.HandlerFunc{phoneSays(2, then)},
				jobs:   []http.HandlerFunc{jobSays(2, "")},
			}
			var n notes
			err := driverFor(t, s).Reset(t.Context(), n.attempt())
			if s.posts.Load() != 1 || n.asked != 1 {
				t.Errorf("%d calls after asking %d times", s.posts.Load(), n.asked)
			}
			if row.want == done {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if e := wantVerdict(t, err, row.want); e.Code != row.code {
				t.Errorf("got %+v", e)
			}
			if row.want != doubt && s.askedPhone.Load() != 1 {
				t.Errorf("asked for the phone %d times: nothing was in doubt", s.askedPhone.Load())
			}
		})
	}
}

func TestWhatAPollMeans(t *testing.T) {
	phone := func(status int) http.HandlerFunc { return phoneSays(status, then) }
	for _, row := range []struct {
		name   string
		jobs   []http.HandlerFunc
		phones []http.HandlerFunc // after the first look
		want   worker.Verdict     // nothing: done
		code   string
	}{
		{"done, and the phone runs", []http.HandlerFunc{jobSays(1, ""), jobSays(2, "")}, []http.HandlerFunc{phone(2)}, "", ""},
		{"done, and the phone is off", []http.HandlerFunc{jobSays(2, "")}, []http.HandlerFunc{phone(8)}, "", ""},
		{"done, and the phone is not ready yet", []http.HandlerFunc{jobSays(2, "")}, []http.HandlerFunc{phone(3), phone(4), phone(2)}, "", ""},
		{"done, but the phone says it failed", []http.HandlerFunc{jobSays(2, "")}, []http.HandlerFunc{phone(-5)}, worker.Retryable, ""},
		{"done, but the phone is abnormal", []http.HandlerFunc{jobSays(2, "")}, []http.HandlerFunc{phone(-7)}, worker.Unknown, ""},
		{"done, but the phone cannot be asked at first", []http.HandlerFunc{jobSays(2, "")}, []http.HandlerFunc{hangUp, says(500, ""), says(200, "<html>"), phone(2)}, "", ""},
		{"failed", []http.HandlerFunc{jobSays(1, ""), jobSays(-1, "CPS.0042")}, nil, worker.Retryable, "CPS.0042"},
		{"failed without a code", []http.HandlerFunc{jobSays(-1, "")}, nil, worker.Retryable, ""},
		{"failed for good", []http.HandlerFunc{jobSays(-1, "CPS.0166")}, nil, worker.Permanent, "CPS.0166"},
		{"failed because the phone was busy", []http.HandlerFunc{jobSays(-1, "CPS0141")}, nil, worker.Retryable, "CPS0141"},
		{"failed for a reason that is about us", []http.HandlerFunc{jobSays(-1, "CPS.0001")}, nil, worker.Retryable, "CPS.0001"},
		{"the job timed out, the reset went on", []http.HandlerFunc{jobSays(-1, "CPS.0054")}, []http.HandlerFunc{phone(3), phone(2)}, "", ""},
		{"the job timed out, and so did the reset", []http.HandlerFunc{jobSays(-1, "CPS0054")}, []http.HandlerFunc{phone(3), phone(-5)}, worker.Retryable, ""},
		{"the job timed out, and the phone does not say", []http.HandlerFunc{jobSays(-1, "CPS.0054")}, []http.HandlerFunc{phone(2)}, worker.Unknown, ""},
		{"the job timed out, and the record of the phone has changed", []http.HandlerFunc{jobSays(-1, "CPS.0054")}, []http.HandlerFunc{phoneSays(2, nowLate)}, worker.Unknown, ""},
		{"not found, and the phone was seen at it", []http.HandlerFunc{says(400, wrong("CPS.0011"))}, []http.HandlerFunc{phone(3), phone(2)}, "", ""},
		{"not found, and the record of the phone has changed", []http.HandlerFunc{says(400, wrong("CPS.0011"))}, []http.HandlerFunc{phoneSays(2, nowLate)}, "", ""},
		{"not found, and the phone was switched off", []http.HandlerFunc{says(400, wrong("CPS.0050"))}, []http.HandlerFunc{phoneSays(8, nowLate)}, worker.Unknown, ""},
		{"not found, and the phone says it failed", []http.HandlerFunc{says(404, "")}, []http.HandlerFunc{phone(-5)}, worker.Retryable, ""},
		{"not found, and the phone does not say", []http.HandlerFunc{says(400, wrong("CPS.0011"))}, []http.HandlerFunc{phone(2)}, worker.Unknown, ""},
		{"not found at first", []http.HandlerFunc{says(400, wrong("CPS.0011")), jobSays(2, "")}, []http.HandlerFunc{phone(2)}, "", ""},
		{"not let in for a while", []http.HandlerFunc{says(401, wrong("APIGW.0301")), says(403, ""), jobSays(2, "")}, []http.HandlerFunc{phone(2)}, "", ""},
		{"trouble on the way", []http.HandlerFunc{hangUp, says(502, "<html>"), says(200, ""), says(302, ""), says(404, wrong("APIGW.0101")), jobSays(2, "")}, []http.HandlerFunc{phone(2)}, "", ""},
		{"about another job", []http.HandlerFunc{says(200, `{"job_id":"job-2","status":2}`), jobSays(2, "")}, []http.HandlerFunc{phone(2)}, "", ""},
		{"about another phone", []http.HandlerFunc{says(200, `{"job_id":"job-1","phone_id":"other","status":2}`), jobSays(-1, "X")}, nil, worker.Retryable, "X"},
		{"without a status", []http.HandlerFunc{says(200, `{"job_id":"job-1","status":null}`), jobSays(2, "")}, []http.HandlerFunc{phone(2)}, "", ""},
		{"with one that does not exist", []http.HandlerFunc{jobSays(5, ""), jobSays(2, "")}, []http.HandlerFunc{phone(2)}, "", ""},
		{"with a status in words", []http.HandlerFunc{says(200, `{"job_id":"job-1","status":"2"}`), jobSays(-1, "X")}, nil, worker.Retryable, "X"},
		{"nothing but its status", []http.HandlerFunc{says(200, `{"status":2}`)}, []http.HandlerFunc{phone(2)}, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &script{post: taken, jobs: row.jobs, phones: append([]http.HandlerFunc{phone(2)}, row.phones...)}
			err := driverFor(t, s).Reset(t.Context(), attempt())
			if s.posts.Load() != 1 {
				t.Errorf("%d resets", s.posts.Load())
			}
			if row.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			e := wantVerdict(t, err, row.want)
			if e.Code != row.code || e.Repeatable || e.EndsDoubt != (row.want != worker.Unknown) {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestALostAnswerIsFoundOutAboutFromThePhone(t *testing.T) {
	for _, row := range []struct {
		name    string
		before  http.HandlerFunc
		after   []http.HandlerFunc
		want    worker.Verdict
		doubted bool
	}{
		{"it was seen at it", phoneSays(2, then), []http.HandlerFunc{phoneSays(2, then), phoneSays(3, nowLate), phoneSays(2, nowLate)}, "", false},
		{"its record has changed", phoneSays(2, then), []http.HandlerFunc{phoneSays(2, nowLate)}, "", false},
		{"its record has not changed", phoneSays(2, then), []http.HandlerFunc{phoneSays(2, then)}, worker.Unknown, true},
		{"its record is older than before", phoneSays(2, nowLate), []http.HandlerFunc{phoneSays(2, then)}, worker.Unknown, true},
		{"its record has no time", phoneSays(2, ""), []http.HandlerFunc{phoneSays(2, "")}, worker.Unknown, true},
		{"its record has a time in words", phoneSays(2, "long ago"), []http.HandlerFunc{phoneSays(2, "today")}, worker.Unknown, true},
		{"it was switched on", phoneSays(8, then), []http.HandlerFunc{phoneSays(2, nowLate)}, worker.Unknown, true},
		{"the reset has failed", phoneSays(2, then), []http.HandlerFunc{phoneSays(-5, nowLate)}, worker.Retryable, false},
		{"the reset before it had failed", phoneSays(-5, then), []http.HandlerFunc{phoneSays(-5, then)}, worker.Unknown, true},
		{"both have failed", phoneSays(-5, then), []http.HandlerFunc{phoneSays(-5, nowLate)}, worker.Retryable, false},
		{"it is frozen", phoneSays(2, then), []http.HandlerFunc{phoneSays(6, nowLate)}, worker.Unknown, true},
		{"it has a state that nobody knows", phoneSays(2, then), []http.HandlerFunc{phoneSays(99, nowLate)}, worker.Unknown, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &script{post: hangUp, phones: append([]http.HandlerFunc{row.before}, row.after...)}
			err := driverFor(t, s).Reset(t.Context(), attempt())
			if s.posts.Load() != 1 {
				t.Errorf("%d resets", s.posts.Load())
			}
			switch {
			case row.want == "" && err != nil:
				t.Error(err)
			case row.want != "":
				e := wantVerdict(t, err, row.want)
				if e.EndsDoubt == row.doubted || e.Repeatable || row.doubted && !strings.Contains(e.Message, "answer was lost") {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

func TestWhatCannotBeAskedForIsNotReset(t *testing.T) {
	for _, row := range []struct {
		name string
		says http.HandlerFunc
		want worker.Verdict
		code string
		wait time.Duration
	}{
		{"a phone that does not exist", says(400, wrong("CPS.0005")), worker.Permanent, "CPS.0005", 0},
		{"another phone", says(200, `{"phone_id":"other","status":2}`), worker.Retryable, worker.NotUnderstood, 0},
		{"no state", says(200, fmt.Sprintf(`{"phone_id":%q}`, phoneA)), worker.Retryable, worker.NotUnderstood, 0},
		{"HTML", says(200, "<html>"), worker.Retryable, worker.NotUnderstood, 0},
		{"an internal error", says(500, wrong("CPS.0003")), worker.Retryable, "CPS.0003", 0},
		{"a job code", says(400, wrong("CPS.0011")), worker.Retryable, "CPS.0011", 0},
		{"no connection", hangUp, worker.Unreachable, "", 0},
		{"refused credentials", says(401, wrong("APIGW.0301")), worker.Unreachable, "APIGW.0301", 0},
		{"too many questions", says(429, wrong("APIGW.0308")), worker.Retryable, "APIGW.0308", time.Minute},
		{"too many questions, for a time", says(429, "", "Retry-After", "7"), worker.Retryable, "", 7 * time.Second},
		{"a service that is away, for a time", says(503, "", "Retry-After", "9"), worker.Retryable, "", 9 * time.Second},
		{"a phone that restarts", phoneSays(4, then), worker.Busy, "", 0},
		{"a phone that is being reset", phoneSays(3, then), worker.Busy, "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &script{phones: []http.HandlerFunc{row.says}}
			var n notes
			e := wantVerdict(t, driverFor(t, s).Reset(t.Context(), n.attempt()), row.want)
			if e.Code != row.code || e.RetryAfter != row.wait || !strings.Contains(e.Message, "nothing was sent") {
				t.Errorf("got %+v", e)
			}
			if s.posts.Load() != 0 || n.asked != 0 || len(n.saved) != 0 {
				t.Errorf("%d resets, asked %d times, saved %q", s.posts.Load(), n.asked, n.saved)
			}
		})
	}
}

func TestALongHeaderIsNotTaken(t *testing.T) {
	s := &script{phones: []http.HandlerFunc{says(200, "{}", "X-Long", strings.Repeat("x", maxHeader+1))}}
	wantVerdict(t, driverFor(t, s).Reset(t.Context(), attempt()), worker.Unreachable)
}

func TestLook(t *testing.T) {
	before := fmt.Sprintf(`{"phone_id":%q,"status":2,"updated":%q`, phoneA, then)
	for _, row := range []struct {
		name       string
		checkpoint string
		phone, job http.HandlerFunc
		want       worker.SightState // nothing: it could not look
		evidence   string
	}{
		{"a phone that runs, and nothing else is known", "", phoneSays(2, nowLate), nil, worker.Unclear, "state 2 (running)"},
		{"a phone that is being reset", "", phoneSays(3, nowLate), nil, worker.Unclear, "state 3 (resetting)"},
		{"a phone whose reset has failed", "", phoneSays(-5, nowLate), nil, worker.NotInitial, "state -5 (reset failed)"},
		{"a phone that was off", before + "}", phoneSays(8, nowLate), nil, worker.Unclear, "state 8 (shut down)"},
		{"a state that is not documented", before + "}", phoneSays(42, nowLate), nil, worker.Unclear, "42, which is not documented"},
		{"a record that has changed since", before + "}", phoneSays(2, nowLate), nil, worker.Initial, "updated " + nowLate},
		{"a record that has not", before + "}", phoneSays(2, then), nil, worker.Unclear, "updated " + then},
		{"a job that has succeeded", before + `,"job_id":"job-1"}`, phoneSays(2, then), jobSays(2, ""), worker.Initial, "job job-1 succeeded (ShowJob); phone " + phoneA},
		{"a job that has succeeded, and a phone that starts", before + `,"job_id":"job-1"}`, phoneSays(4, then), jobSays(2, ""), worker.Unclear, "job job-1 succeeded"},
		{"a job that has succeeded, and a phone that says it failed", before + `,"job_id":"job-1"}`, phoneSays(-5, then), jobSays(2, ""), worker.NotInitial, "job job-1 succeeded"},
		{"a job that has failed", before + `,"job_id":"job-1"}`, phoneSays(2, nowLate), jobSays(-1, "CPS.0042"), worker.NotInitial, "job job-1 failed"},
		{"a job that has failed, and a phone that is still at it", before + `,"job_id":"job-1"}`, phoneSays(3, nowLate), jobSays(-1, "CPS.0042"), worker.Unclear, "job job-1 failed"},
		{"a job that has timed out", before + `,"job_id":"job-1"}`, phoneSays(2, nowLate), jobSays(-1, "CPS.0054"), worker.Unclear, "job job-1 timed out"},
		{"a job that has timed out, and a phone whose reset has failed", before + `,"job_id":"job-1"}`, phoneSays(-5, nowLate), jobSays(-1, "CPS.0054"), worker.NotInitial, "job job-1 timed out"},
		{"a job that runs", before + `,"job_id":"job-1"}`, phoneSays(2, nowLate), jobSays(1, ""), worker.Unclear, "job job-1 running"},
		{"a job that is not known any more", before + `,"job_id":"job-1"}`, phoneSays(2, nowLate), says(400, wrong("CPS.0011")), worker.Initial, "job job-1 not known any more"},
		{"a job that cannot be asked for", before + `,"job_id":"job-1"}`, phoneSays(2, nowLate), says(500, ""), "", ""},
		{"a phone that cannot be asked for", "", says(401, ""), nil, "", ""},
		{"a phone that is not understood", "", says(200, "{"), nil, "", ""},
		{"a checkpoint of another driver", "https://phones.example/7", phoneSays(2, nowLate), nil, worker.Unclear, "running"},
		{"a checkpoint of another phone", strings.Replace(before, phoneA, "other", 1) + "}", phoneSays(2, nowLate), nil, worker.Unclear, "running"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &script{phones: []http.HandlerFunc{row.phone}, jobs: []http.HandlerFunc{row.job}}
			a := attempt()
			a.Checkpoint, a.MaySend, a.Save = row.checkpoint, nil, nil // it changes nothing
			sight, err := driverFor(t, s).Look(t.Context(), a)
			if (err != nil) != (row.want == "") || sight.State != row.want || !strings.Contains(sight.Evidence, row.evidence) || len(sight.Evidence) > worker.MaxEvidence {
				t.Errorf("got %+v, %v", sight, err)
			}
		})
	}
	t.Run("of a reset that was done", func(t *testing.T) {
		var n notes
		d := driverFor(t, newFake())
		if err := d.Reset(t.Context(), n.attempt()); err != nil {
			t.Fatal(err)
		}
		a := n.attempt()
		a.Checkpoint = n.checkpoint()
		if sight, err := d.Look(t.Context(), a); err != nil || sight.State != worker.Initial {
			t.Errorf("%+v, %v", sight, err)
		}
	})
	t.Run("whose time is over", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := driverFor(t, newFake()).Look(ctx, attempt()); err == nil {
			t.Error("looked")
		}
	})
}
