package call

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestSubmitThatIsNotAccepted(t *testing.T) {
	for _, row := range []struct {
		name, says string
		code       int
		answer     func(w http.ResponseWriter)
	}{
		{
			"a token that is not valid", "batchreset: APIGW.0307: expired", terminal.ExitRefused,
			func(w http.ResponseWriter) { calltest.AnswerError(w, 401, "APIGW.0307", "expired") },
		},
		{
			"an internal error", "KOOPHONE.API.9999: internal error", terminal.ExitAway,
			func(w http.ResponseWriter) { calltest.AnswerError(w, 500, "KOOPHONE.API.9999", "internal error") },
		},
		{
			"a lost connection", "it may have been accepted all the same; look with 'batchreset jobs --instance ID'", terminal.ExitAway,
			func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		},
	} {
		t.Run("says so after "+row.name, func(t *testing.T) {
			s := newFakeService(t)
			s.Submitting = func(w http.ResponseWriter, _ *http.Request, _ int) bool { row.answer(w); return true }
			s.call(t, "submit", "phone-1").Wants(t, row.code, "", row.says)
		})
	}
	t.Run("says whose instances are wrong", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "submit", "phone-1", "foreign-1", "--wait").Wants(t, terminal.ExitRefused, "", "KOOPHONE.API.1001: no permission on instances: foreign-1")
		s.call(t, "submit", "protected-1", "--output", "json").Wants(t, terminal.ExitRefused, "", `"error_code":"RESET.0004"`)
	})
	t.Run("waits as long as it is asked to, and says so", func(t *testing.T) {
		s := newFakeService(t)
		s.Submitting = func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 1 {
				w.Header().Set("Retry-After", "1")
				calltest.AnswerError(w, 429, "APIGW.0308", "quota")
			}
			return n == 1
		}
		s.call(t, "submit", "phone-1", "phone-2").Wants(t, 0, job1+"\n", "waiting to try again: APIGW.0308: quota", "2 instances accepted")
	})
	t.Run("waits at Ctrl-C for the answer that is due", func(t *testing.T) {
		s := newFakeService(t)
		ctx, interrupt := terminaltest.Interruptible(t)
		s.Submitting = func(http.ResponseWriter, *http.Request, int) bool { interrupt(); return false }
		s.callWith(ctx, nil, "submit", "phone-1").Wants(t, terminaltest.ExitInterrupted, job1+"\n", "1 instance accepted")
		s = newFakeService(t)
		ctx, interrupt = terminaltest.Interruptible(t)
		s.Submitting = func(http.ResponseWriter, *http.Request, int) bool { interrupt(); return false }
		s.callWith(ctx, strings.NewReader(strings.Join(phones(40), "\n")), "submit", "--file", "-").Wants(t, terminaltest.ExitInterrupted, "",
			"interrupted; the run goes on; 'batchreset run watch "+run1+"' follows it, 'run pause "+run1+"' stops it for now, 'run cancel "+run1+"' takes back")
	})
	t.Run("says at Ctrl-C that nobody knows", func(t *testing.T) {
		s := newFakeService(t)
		ctx, interrupt := terminaltest.Interruptible(t)
		s.Submitting = func(http.ResponseWriter, *http.Request, int) bool { interrupt(); panic(http.ErrAbortHandler) }
		s.callWith(ctx, nil, "submit", "phone-1", "--run-id", "k").Wants(t, terminaltest.ExitInterrupted, "",
			"batchreset: interrupted: no answer from", "or give the same command with --run-id k: it finds what was accepted, or submits it")
	})
	t.Run("sends nothing after Ctrl-C", func(t *testing.T) {
		s := newFakeService(t)
		ctx, interrupt := terminaltest.Interruptible(t)
		interrupt() // while it reads the list
		s.callWith(ctx, strings.NewReader("phone-1"), "submit", "--file", "-").Wants(t, terminaltest.ExitInterrupted, "", "interrupted; nothing was sent")
		if s.Requests() != 0 {
			t.Error("something was sent")
		}
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
		r := s.call(t, "submit", "--wait", "phone-1", "failed-1", "unknown-1")
		r.Wants(t, 2, job1+"\n",
			"3 instances in 1 job: 1 succeeded, 1 failed, 1 unknown",
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
}

func TestSubmitOfALongList(t *testing.T) {
	list := strings.Join(phones(33), "\n")
	submit := func(t *testing.T, s *fakeService, list string, args ...string) terminaltest.Result {
		t.Helper()
		return s.callWith(t.Context(), strings.NewReader(list), append([]string{"submit", "--file", "-"}, args...)...)
	}
	t.Run("makes one run, and follows it", func(t *testing.T) {
		s := newFakeService(t)
		r := submit(t, s, list, "--reason", "recall 7", "--label", "site=lab", "--not-before", "2099-01-02T15:04:05Z")
		if r.Says(t, "run "+run1+": 33 instances", "33 of 33 ended: 33 succeeded"); r.Code != 0 || !strings.Contains(r.Out, "33: 33 succeeded") {
			t.Errorf("exit code %d, %s", r.Code, r.Out)
		}
		want := `{"instance_ids":["` + strings.Join(phones(33), `","`) + `"],"not_before":"2099-01-02T15:04:05Z","reason":"recall 7","labels":{"site":"lab"}}`
		if sameJSON(t, s.Bodies[0], want); len(s.Bodies) != 1 || len(s.Jobs) != 0 {
			t.Errorf("sent %v", s.Bodies)
		}
	})
	t.Run("but 32 are a job", func(t *testing.T) {
		s := newFakeService(t)
		submit(t, s, strings.Join(phones(32), "\n")+"\nphone-0").Wants(t, 0, job1+"\n", "1 repeated ID folded", "32 instances accepted")
	})
	t.Run("prints the ID if nobody waits", func(t *testing.T) {
		s := newFakeService(t)
		submit(t, s, list, "--wait=false").Wants(t, 0, run1+"\n", "")
	})
	t.Run("exits 2 when some were not reset", func(t *testing.T) {
		s := newFakeService(t)
		r := submit(t, s, list+"\nfailed-1")
		if r.Code != terminal.ExitSome || !strings.Contains(r.Out, "failed-1  failed  1         RESET.1007") {
			t.Errorf("exit code %d, %s", r.Code, r.Out)
		}
	})
	t.Run("is taken as a whole, or not at all", func(t *testing.T) {
		s := newFakeService(t)
		submit(t, s, list+"\nforeign-1").Wants(t, terminal.ExitRefused, "", "KOOPHONE.API.1001: no permission on instances: 1: foreign-1")
	})
	t.Run("tries out as a run", func(t *testing.T) {
		s := newFakeService(t)
		r := submit(t, s, list+"\nforeign-1", "--dry-run", "--output", "csv")
		if r.Says(t, "a submit would be refused"); r.Code != terminal.ExitSome || !strings.HasSuffix(r.Out, "\nforeign-1,unknown\n") || len(s.Runs) > 0 {
			t.Errorf("exit code %d, %s", r.Code, r.Out)
		}
	})
	t.Run("needs a server that has runs", func(t *testing.T) {
		s := newFakeService(t)
		s.Submitting = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			calltest.AnswerError(w, 404, "APIGW.0101", "there is no such route")
			return true
		}
		for _, args := range [][]string{nil, {"--dry-run"}} {
			submit(t, s, list, args...).Wants(t, terminal.ExitRefused, "", "the server has no runs, which more than 32 instances, --run-id and --approval need: it is too old, or --server is wrong: APIGW.0101")
		}
	})
	t.Run("refuses what a run cannot have", func(t *testing.T) {
		s := newFakeService(t)
		submit(t, s, list, "--max-failures", "3").Wants(t, terminal.ExitUsage, "", "--max-failures stops a job, and more than 32 instances", "'batchreset run submit --max-failures'")
		submit(t, s, "phone-1", "--max-failures", "3", "--run-id", "k").Wants(t, terminal.ExitUsage, "", "--max-failures stops a job")
		if s.Requests() != 0 {
			t.Error("something was sent")
		}
		submit(t, s, list, "--max-failures", "0", "--wait=false").Wants(t, 0, run1+"\n", "")
	})
}

func TestASubmitCanBeRepeated(t *testing.T) {
	list := strings.Join(phones(200), "\n")
	submit := func(t *testing.T, s *fakeService, list string, args ...string) terminaltest.Result {
		t.Helper()
		return s.callWith(t.Context(), strings.NewReader(list), append([]string{"submit", "--file", "-", "--run-id", "recall-7"}, args...)...)
	}
	for name, list := range map[string]string{"a long list": list, "a short list": "phone-1"} {
		t.Run("with "+name+", and finds its run", func(t *testing.T) {
			s := newFakeService(t)
			s.Looks = 1000
			ctx, interrupt := terminaltest.Interruptible(t)
			s.Submitting = func(http.ResponseWriter, *http.Request, int) bool { interrupt(); return false }
			r := s.callWith(ctx, strings.NewReader(list), "submit", "--file", "-", "--run-id", "recall-7")
			r.Wants(t, terminaltest.ExitInterrupted, "", "the run goes on")
			s.Mu.Lock()
			s.Looks = 0
			s.Mu.Unlock()
			if r := submit(t, s, list); r.Code != 0 || len(s.Runs) != 1 || len(s.Jobs) != 0 || s.Keys[1] != `"recall-7"` {
				t.Errorf("exit code %d, %d runs under %v", r.Code, len(s.Runs), s.Keys)
			}
		})
	}
	for name, changed := range map[string]struct {
		list string
		args []string
	}{
		"a line put in at its end":       {list: list + "\nmore"},
		"a line taken out of its middle": {list: strings.Replace(list, "phone-100\n", "", 1)},
		"another order":                  {list: strings.Replace(list, "phone-0\nphone-1\n", "phone-1\nphone-0\n", 1)},
		"a short list":                   {list: "phone-0"},
		"another reason":                 {list: list, args: []string{"--reason", "other"}},
	} {
		t.Run("but not with "+name, func(t *testing.T) {
			s := newFakeService(t)
			submit(t, s, list)
			submit(t, s, changed.list, changed.args...).Wants(t, terminal.ExitRefused, "", "--run-id was used for another list or with other options: give those again, or another ID: RESET.0002")
			if len(s.Runs) != 1 || len(s.Jobs) != 0 {
				t.Errorf("%d runs", len(s.Runs))
			}
		})
	}
	t.Run("under the ID that it says, if it had none", func(t *testing.T) {
		s := newFakeService(t)
		var answers atomic.Bool
		s.Submitting = func(http.ResponseWriter, *http.Request, int) bool {
			if !answers.Load() {
				panic(http.ErrAbortHandler)
			}
			return false
		}
		r := s.callWith(t.Context(), strings.NewReader(list), "submit", "--file", "-", "--not-before", "1h")
		_, said, _ := strings.Cut(r.Said, "or give the same command with ")
		args := strings.Fields(said)
		if len(args) < 4 || args[0] != "--run-id" || args[2] != "--not-before" || r.Code != terminal.ExitAway {
			t.Fatalf("exit code %d, it says %s", r.Code, r.Said)
		}
		answers.Store(true)
		if r := s.callWith(t.Context(), strings.NewReader(list), "submit", "--file", "-", args[0], args[1], args[2], strings.TrimSuffix(args[3], ":")); r.Code != 0 {
			t.Errorf("exit code %d, it says %s", r.Code, r.Said)
		}
		s.Mu.Lock()
		defer s.Mu.Unlock()
		if last := len(s.Bodies) - 1; last < 1 || s.Bodies[last] != s.Bodies[0] || s.Keys[last] != s.Keys[0] {
			t.Errorf("sent %v under %v", s.Bodies, s.Keys)
		}
	})
	t.Run("not with a key that no service takes", func(t *testing.T) {
		s := newFakeService(t)
		for _, key := range []string{"ü", "a\nb", strings.Repeat("x", 256)} {
			s.call(t, "submit", "phone-1", "--run-id", key).Wants(t, terminal.ExitUsage, "", "--run-id must be 1 to 255 printable ASCII characters")
		}
	})
}
