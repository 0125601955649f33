package call

import (
	"net/http"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestSubmitInPart(t *testing.T) {
	oneByOne := []string{"--chunk", "1", "--parallel", "1"}
	t.Run("goes on after a batch that was refused for its instances", func(t *testing.T) {
		s := newFakeService(t)
		r := s.call(t, append([]string{"submit", "phone-1", "foreign-1", "protected-1", "phone-2"}, oneByOne...)...)
		r.Wants(t, 2, job1+"\n"+job2+"\n",
			"not accepted: KOOPHONE.API.1001: no permission on instances: foreign-1", "\n  foreign-1\n",
			"not accepted: RESET.0004: protected instances: protected-1", "\n  protected-1\n",
			"batchreset: 2 of 4 instances refused")
	})
	t.Run("tells JSON readers which instances", func(t *testing.T) {
		s := newFakeService(t)
		ctx, interrupt := terminaltest.Interruptible(t)
		s.Submitting = func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n >= 2 { // and whenever it is sent again
				interrupt()
				calltest.AnswerError(w, 500, "KOOPHONE.API.9999", "internal error")
			}
			return n >= 2
		}
		r := s.callWith(ctx, nil, append([]string{"submit", "phone-1", "phone-2", "phone-3", "--output", "json"}, oneByOne...)...)
		for _, part := range []string{
			`"job_id": "` + job1, `"phone-2"`, `"may_be_accepted": true`, `"error_code": "KOOPHONE.API.9999"`,
			"\"not_sent\": [\n    \"phone-3\"\n  ]",
		} {
			if !strings.Contains(r.Out, part) {
				t.Errorf("output %s does not have %s", r.Out, part)
			}
		}
		r.Wants(t, terminaltest.ExitInterrupted, r.Out, `"error_msg":"interrupted; 2 of 3 instances not accepted`)
	})
	t.Run("waits for a server that goes away in the middle", func(t *testing.T) {
		s := newFakeService(t)
		s.Submitting = func(_ http.ResponseWriter, _ *http.Request, n int) bool {
			if n > 1 && n < 7 { // longer than the client by itself would bear
				panic(http.ErrAbortHandler)
			}
			return false
		}
		s.call(t, append([]string{"submit", "phone-1", "phone-2"}, oneByOne...)...).Wants(t, 0, job1+"\n"+job2+"\n",
			"waiting to try again: no answer from", "2 instances accepted in 2 jobs")
	})
	t.Run("waits as long as it is asked to, and says so", func(t *testing.T) {
		s := newFakeService(t)
		s.Submitting = func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 2 {
				w.Header().Set("Retry-After", "1")
				calltest.AnswerError(w, 429, "APIGW.0308", "quota")
			}
			return n == 2
		}
		s.call(t, append([]string{"submit", "phone-1", "phone-2"}, oneByOne...)...).Wants(t, 0, job1+"\n"+job2+"\n",
			"waiting to try again: APIGW.0308: quota", "2 instances accepted in 2 jobs")
	})
	for _, row := range []struct {
		name, says string
		code       int
		answer     func(w http.ResponseWriter)
	}{
		{
			"a token that is not valid", "not accepted: APIGW.0307: expired", terminal.ExitSome,
			func(w http.ResponseWriter) { calltest.AnswerError(w, 401, "APIGW.0307", "expired") },
		},
		{
			"a token that is not for this", "not accepted: APIGW.0302: scope", terminal.ExitSome,
			func(w http.ResponseWriter) { calltest.AnswerError(w, 403, "APIGW.0302", "scope") },
		},
		{
			"a lost connection", "may have been accepted: no answer from http://", terminaltest.ExitInterrupted,
			func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		},
	} {
		t.Run("stops after "+row.name, func(t *testing.T) {
			s := newFakeService(t)
			ctx, interrupt := terminaltest.Interruptible(t)
			defer interrupt()
			s.Submitting = func(w http.ResponseWriter, _ *http.Request, n int) bool {
				if n == 3 { // nothing else ends waiting for a server that has gone away
					interrupt()
				}
				if n >= 2 {
					row.answer(w)
				}
				return n >= 2
			}
			r := s.callWith(ctx, nil, append([]string{"submit", "phone-1", "phone-2", "phone-3", "phone-4"}, oneByOne...)...)
			r.Wants(t, row.code, job1+"\n", row.says, "\n  phone-2\n", "not sent:\n  phone-3 phone-4\n", "3 of 4 instances not accepted")
		})
	}
	t.Run("stops at Ctrl-C, but waits for the answer that is due", func(t *testing.T) {
		s := newFakeService(t)
		ctx, interrupt := terminaltest.Interruptible(t)
		s.Submitting = func(http.ResponseWriter, *http.Request, int) bool { interrupt(); return false }
		r := s.callWith(ctx, nil, append([]string{"submit", "phone-1", "phone-2", "phone-3"}, oneByOne...)...)
		r.Wants(t, terminaltest.ExitInterrupted, job1+"\n", "not sent:\n  phone-2 phone-3\n", "batchreset: interrupted; 2 of 3 instances not accepted")
	})
}

func TestSubmitAndWait(t *testing.T) {
	t.Run("exits 0 when every instance was reset", func(t *testing.T) {
		s := newFakeService(t)
		s.Looks = 2
		s.call(t, "submit", "--wait", "phone-1", "phone-2").Wants(t, 0, job1+"\n",
			"0 of 2 ended: 2 pending", "2 instances in 1 job: 2 succeeded")
	})
	t.Run("exits 2 and lists the instances that were not reset", func(t *testing.T) {
		s := newFakeService(t)
		r := s.call(t, "submit", "--wait", "phone-1", "failed-1", "unknown-1", "--chunk", "2", "--parallel", "1")
		r.Wants(t, 2, job1+"\n"+job2+"\n",
			"3 instances in 2 jobs: 1 succeeded, 1 failed, 1 unknown",
			"failed-1   failed   1         RESET.1007  no [U+001B][31mluck with failed-1\n",
			"unknown-1  unknown  1", "nobody can say")
		if strings.Contains(r.Said, "\x1b") || strings.Contains(r.Said, "phone-1 ") {
			t.Errorf("standard error %q", r.Said)
		}
	})
	t.Run("prints the records as JSON", func(t *testing.T) {
		s := newFakeService(t)
		r := s.call(t, "submit", "--wait", "cancelled-1", "--output", "json")
		for _, part := range []string{`"state": "cancelled"`, `"counts": {`, `"errors": []`} {
			if !strings.Contains(r.Out, part) {
				t.Errorf("output %s does not have %s", r.Out, part)
			}
		}
		r.Wants(t, 2, r.Out)
	})
	t.Run("exits 2 when a batch was refused, after the others have ended", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "submit", "--wait", "foreign-1", "phone-1", "--chunk", "1").Wants(t, 2, job1+"\n",
			"foreign-1", "1 instance in 1 job: 1 succeeded", "batchreset: 1 of 2 instances refused")
	})
	t.Run("exits 3 when everything was refused", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "submit", "--wait", "foreign-1").Wants(t, terminal.ExitRefused, "", "1 of 1 instance refused")
	})
}
